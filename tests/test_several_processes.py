"""Several processes train one network: the same numbers as one, of one reduction a step."""

import itertools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import REAL_TEXT, SMALL, losses, metrics, process, train
from groups import ended, free_port, started, variables

import rnn_jax
from rnn_jax._cli.processes import reading
from rnn_jax._cli.processes.group import ALONE, Group
from rnn_jax._cli.processes.placement import Placement, place
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training.model import initial_state, make_character_trainer, make_gradient
from rnn_jax._cli.training.steps import make_dispatch, make_next_batch
from rnn_jax._reporting.errors import InputError
from rnn_jax.data import _corpus as corpus_module
from rnn_jax.data._held_out import make_validate, prepare

GATED = ["--cell", "gru", "--drop-between", "0.1", "--drop-recurrent", "0.1"]


def numbers(run, *, watched=False):
    """Every number of the training and the validations of a run, without times; or those of --watch."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in metrics(run)]
    return np.array(jax.tree.leaves([row for row in rows if ("watch" in row) == watched]), np.float64)


def compiled_dispatch(num_devices):
    """The optimised program of five steps on several devices."""
    config = TrainConfig(hidden_size=16, streams=4, window=20, drop_between=0.1)
    placement = place(ALONE, num_devices)
    trainer = make_character_trainer(config, 10, placement.devices)
    dispatch = make_dispatch(trainer, make_next_batch(config, 100), placement)
    state = jax.eval_shape(lambda: initial_state(config, trainer, 10))
    return dispatch.lower(state, jax.ShapeDtypeStruct((5, 21, 4), np.uint8)).compile().as_text()


@pytest.mark.usefixtures("annotations_unchecked")
def test_one_reduction_a_step():
    """Of the loss and all gradients together; the hidden states are gathered once, at the end of a call."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        lines = compiled_dispatch(2).splitlines()
    exchanges = [re.findall(r"\b(all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", line) for line in lines]
    reductions = [line for line, found in zip(lines, exchanges, strict=True) if "all-reduce" in found]
    assert sorted(itertools.chain(*exchanges)) == ["all-gather", "all-reduce"]
    assert "while/body" in reductions[0] and "f32[16,16]" in reductions[0]
    gathering = next(line for line, found in zip(lines, exchanges, strict=True) if "all-gather" in found)
    assert "while/body" not in gathering.partition("metadata")[2] and "f32[4,16]" in gathering


@pytest.mark.parametrize("num_devices", [2, 3, 4])
def test_devices_share_the_validation(num_devices):
    """Also where they do not have equally many streams, or one has none, and the last window is not full."""
    rng = np.random.default_rng(0)
    data = prepare(corpus_module.corpus_of_text("".join(rng.choice(list("abcde"), 2100))), 5, 20)
    assert data.held_out.shape == (21, 5) and data.held_out.shape[1] % num_devices
    params = rnn_jax.init_params(jax.random.key(0), input_size=5, hidden_size=4, output_size=5)
    alone, shared = (make_validate(data, "bptt", 8, None, devices) for devices in ((), jax.devices()[:num_devices]))
    np.testing.assert_allclose(shared(params), alone(params), rtol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_make_the_steps_of_one(tmp_path, size):
    """Losses, norms and validations in float64 to 1e-12; the rest of the run on one process goes on as well."""
    options = ["--dtype", "float64", *SMALL, *GATED, "--schedule", "constant", "--watch", "--watch-every", "50"]
    train(tmp_path, REAL_TEXT, "--run", "one", "--steps", 75, *options)
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 50, "--processes", size, *options, call=process)
    assert f"processes {size} with {size} devices in all, which share the streams" in out
    assert out.count("step 50:") == 1  # one process prints
    assert f"rnn-jax train --resume run --steps 100 --processes {size}\n" in out
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["processes"] == size
    before = "Before, the run had {}: it goes on with the same mathematics, but other rounding"
    assert before.format(size) in train(tmp_path, "--resume", "run", "--steps", 75)
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=1e-12)
    watched = [numbers(tmp_path / run, watched=True) for run in ("run", "one")]
    np.testing.assert_allclose(*watched, rtol=2e-5)  # they are rounded to six digits
    for run in ("run", "one"):
        assert sorted(path.name for path in (tmp_path / run / "checkpoint").iterdir()) == ["50", "75"]


@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-4), ("bfloat16", 0.1)])
def test_lower_precision_on_two_processes(tmp_path, dtype, rtol):
    options = ["--dtype", dtype, *SMALL, "--steps", 50]
    train(tmp_path, REAL_TEXT, "--run", "one", *options)
    train(tmp_path, REAL_TEXT, "--run", "run", "--processes", 2, *options, call=process)
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=rtol)


def test_of_a_large_text_only_the_own_streams_are_read(cache, monkeypatch):
    """From the cache of the first process. Where it is not there, or damaged, all of the text is read."""
    config = TrainConfig(files=(str(REAL_TEXT),))
    first = corpus_module.read_corpus(config.files)
    told, tokens = reading._about(first), first.tokens.copy()
    assert Path(told["entry"]).parent == cache

    def whole(*_):
        raise AssertionError("all of the text is read")

    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_corpus", whole)
        again = reading._corpus(config, told)
    assert (again.symbols, again.sha256, again.source) == (first.symbols, first.sha256, first.source)
    np.testing.assert_array_equal(again.tokens, tokens)
    data = Path(told["entry"]).read_bytes()
    for damaged in (data[:-1], data[:1000] + data[1001:], b""):
        Path(told["entry"]).unlink(missing_ok=True)  # what is mapped stays as it is
        Path(told["entry"]).write_bytes(damaged)
        np.testing.assert_array_equal(reading._corpus(config, told).tokens, tokens)
    assert reading._corpus(config, told | {"entry": ""}).sha256 == first.sha256


def test_each_process_has_its_streams():
    """Together they have all, each of them once, in order."""
    streams = np.arange(12 * 5).reshape(5, 12)
    parts = [Placement(Group(3, index)).own_streams(streams) for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), streams)
    assert all(part.shape == (5, 4) and np.shares_memory(part, streams) for part in parts)


def test_only_the_first_process_needs_the_folder_of_the_run(tmp_path):
    """Nothing is written elsewhere, and a run that is not there on the other machines resumes all the same."""
    for steps in (25, 50):
        port, both = free_port(), []
        for index in (0, 1):
            (tmp_path / str(index)).mkdir(exist_ok=True)
            run = ["--resume", "run"] if steps == 50 else [REAL_TEXT, "--run", "run", *SMALL]
            environment = variables(2, index, port)
            both.append(started(tmp_path / str(index), *run, "--steps", steps, environment=environment))
        for status, _, err in ended(both, 120):
            assert status == 0, err
    assert not list((tmp_path / "1").iterdir())
    assert max(losses(tmp_path / "0" / "run")) == 50


def test_two_devices_of_each_process(tmp_path):
    """What a run and its continuation on four processes print is theirs alone."""
    options = ["--dtype", "float64", *SMALL, "--schedule", "constant"]
    train(tmp_path, REAL_TEXT, "--run", "one", "--steps", 50, *options)
    both = ["--processes", 2, "--devices", 2]
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *both, *options, call=process)
    assert "processes 2 with 4 devices in all" in out and "Gloo" not in out
    out = train(tmp_path, "--resume", "run", "--steps", 50, "--processes", 2, call=process)
    assert out.startswith("text") and "Gloo" not in out and "from step 25 " in out
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")
def test_memory_for_a_part_of_the_batch():
    """What one process examines alone is planned like the training, which all share: it is not refused."""
    config = TrainConfig(hidden_size=16, streams=4, window=60, memory="15KB")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with pytest.raises(InputError, match="--memory 15KB is too little"):
            make_gradient(config, 150)
        make_gradient(config, 150, (), 2)
