"""The text and the metrics of a run: the order of its windows, the held-out part, the metrics of a resumed run."""

import jax.numpy as jnp
import numpy as np
import pytest

import rnn_jax
from rnn_jax._cli import run_folder
from rnn_jax._cli.metrics import read_metrics, write_metrics
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training.steps import make_next_batch, num_windows, windows_at
from rnn_jax.data._corpus import corpus_of_text
from rnn_jax.data._held_out import HELD_OUT, prepare


def test_nothing_held_out_is_learned():
    """Symbols of the end alone are in no stream; together the two parts are the text."""
    text = "abc" * 400 + "z" * 63
    data = prepare(corpus_of_text(text), 4, 10)
    assert len(text) - len(data.train) == len(data.rest) == int(len(text) * HELD_OUT) == 63
    (z,) = rnn_jax.data.encode(data.symbols, "z")
    assert z not in np.asarray(data.streams) and set(np.ravel(data.held_out)) == {z}
    learned = np.concatenate(data.streams.T).astype(int)
    assert rnn_jax.data.decode(data.symbols, learned) == text[: len(learned)]


def test_metrics_end_where_a_run_goes_on(tmp_path, capsys):
    """What was written after the checkpoint is written anew; a line that is damaged loses no other, and is counted."""
    records = [{"step": step, "characters": step, "seconds": 0.0} for step in (10, 20, 30)]
    write_metrics(tmp_path, records)
    assert read_metrics(tmp_path, 20) == records[:2]
    assert not capsys.readouterr().err
    with open(tmp_path / run_folder.METRICS, "a") as file:
        file.write('{"step": 40, "char')
    assert read_metrics(tmp_path, 40) == records
    name = repr(str(tmp_path / run_folder.METRICS))
    assert capsys.readouterr().err == f"rnn-jax: 1 damaged line is skipped in {name}.\n"
    first, *others = (tmp_path / run_folder.METRICS).read_text().splitlines()
    (tmp_path / run_folder.METRICS).write_text("\n".join([first, "junk", f'{{"step": 10{400 * "0"}}}', "", *others]))
    assert read_metrics(tmp_path, 40) == records
    assert capsys.readouterr().err == f"rnn-jax: 3 damaged lines are skipped in {name}.\n"


LOOK = {"grad_norm": 1.0, "clip_ratio": 1.0, "saturated": [0.1, None], "growth": None, "spectral_radius": [1.0, 1.0]}
LOOK |= {"largest_singular_value": [1.0, 1.0], "d_h_quantiles": [[0.1, 0.2], [0.1, 0.2]]}


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 1e308},
        {"watch": {"a": [1]}},
        {"watch": LOOK | {"spectral_radius": [1.0, [2.0]]}},
        {"watch": LOOK | {"saturated": [0.1]}},
        {"watch": LOOK | {"d_h_quantiles": [[0.1], [0.1, 0.2]]}},
        {"watch": LOOK | {"growth": "fast"}},
    ],
)
def test_what_no_picture_could_be_made_of_is_a_damaged_line(tmp_path, capsys, change):
    record = {"step": 10, "characters": 10, "seconds": 0.0}
    whole = record | {"watch": LOOK}
    write_metrics(tmp_path, [whole, record | change])
    assert read_metrics(tmp_path, 10) == [whole]
    assert "1 damaged line is skipped" in capsys.readouterr().err


def test_the_windows_of_a_stream():
    """Step after step the next window, as many as there are with their targets; at the first the state is zero."""
    streams = np.arange(42).reshape(21, 2)
    next_batch = make_next_batch(TrainConfig(window=5, streams=2), num_windows(streams, 5))
    for step, tokens in enumerate(windows_at(streams, 0, 6, 5)):
        state = rnn_jax.typing.TrainState(None, None, (jnp.ones((2, 3)),), jnp.asarray(step))
        (h_0,), batch = next_batch(state, jnp.asarray(tokens))
        at = step % 4 * 5
        np.testing.assert_array_equal(batch.inputs, streams[at : at + 5])
        np.testing.assert_array_equal(batch.targets, streams[at + 1 : at + 6])
        assert np.all(h_0 == float(step % 4 != 0))
    np.testing.assert_array_equal(windows_at(streams, 5, 1, 5), windows_at(streams, 1, 1, 5))
    assert num_windows(streams[:10], 5) == 1  # of 10 symbols there is one window, for its targets
