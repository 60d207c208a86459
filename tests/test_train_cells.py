"""`rnn-jax` with gated cells: train, resume, sample, read back, and what examines a run."""

import json

import jax
import numpy as np
import pytest
from commands import BRIEF, REAL_TEXT, as_users_have_it, command, losses, metrics, train

import rnn_jax
from rnn_jax import GRUParams, LSTMParams
from rnn_jax._cli.anatomy import examine
from rnn_jax._cli.anatomy.page import page
from rnn_jax._cli.config import AnatomyConfig
from rnn_jax._cli.training import loop

pytestmark = pytest.mark.usefixtures("undrawn")
KINDS = {"gru": GRUParams, "lstm": LSTMParams}


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, tmp_path_factory):
    """A watched run of two layers, in two parts, with dropout; its kind and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    options = [*BRIEF, "--num-layers", 2, "--drop-between", 0.1, "--watch", "--watch-every", 25]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learning_curve", lambda *_: None)
        out = train(folder, REAL_TEXT, "--run", "run", "--steps", 25, "--cell", request.param, *options)
        train(folder, "--resume", "run", "--steps", 50)
    return request.param, folder, out


def test_a_run(run):
    kind, folder, out = run
    assert f"2 layers of 16 {kind.upper()} units" in out and "differ by at most" in out and "MORE THAN" not in out
    assert losses(folder / "run")[50][0] < losses(folder / "run")[25][0]
    looks = [record["watch"] for record in metrics(folder / "run") if "watch" in record]
    assert len(looks) == 2 and (folder / "run" / "watch.png").exists()
    assert looks[1]["spectral_radius"] == [None, None] and all(0 <= share < 0.5 for share in looks[1]["saturated"])


def test_read_back_and_sampled(run):
    kind, folder, _ = run
    with as_users_have_it():
        found = rnn_jax.saving.read_run(folder / "run")
    assert [type(cell) for cell in found.params.cells] == 2 * [KINDS[kind]] and found.settings["cell"] == kind
    assert [s.shape for s in found.state.h_0] == 2 * [(4, 16 * KINDS[kind].parts)]  # the whole states are saved
    out = command("sample", "run", "--length", 9, "--temperature", 0, cwd=folder)
    tokens = jax.numpy.asarray(rnn_jax.data.encode(found.symbols, "\n"))
    with as_users_have_it():
        drawn, _ = rnn_jax.generate(jax.random.key(0), found.params, tokens, 9, draw=rnn_jax.greedy)
    assert out.stdout == "\n" + rnn_jax.data.decode(found.symbols, drawn) + "\n"


def test_resumed_it_is_the_same_as_in_one_go(run, tmp_path):
    kind, folder, _ = run
    options = [*BRIEF, "--num-layers", 2, "--drop-between", 0.1, "--watch", "--watch-every", 25]
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 50, "--cell", kind, *options)
    assert losses(tmp_path / "run") == losses(folder / "run")


def test_what_truncation_costs(run):
    _, folder, _ = run
    out = command("truncation", "run", "--ks", 1, 5, "--window", 20, "--streams", 2, cwd=folder)
    assert out.returncode == 0 and "changes by a factor of" in out.stdout and "w_hh" in out.stdout


def test_the_page_shows_each_gate(run):
    kind, folder, _ = run
    options = ["--window", 12, "--streams", 2, "--lags", 5, "--gains", 1]
    out = command("anatomy", "run", *options, cwd=folder)
    assert out.returncode == 0, out.stderr
    text = (folder / "run" / "anatomy.html").read_text()
    gates = "".join(row.split("</td><td>")[1] for row in text.split("<tr><td>") if "</td><td>" in row[:20])
    assert KINDS[kind].gate_names == tuple("rkn" if kind == "gru" else "ifgo")
    assert f"{''.join(KINDS[kind].gate_names)}" in gates
    assert "A layer with gates has no such step, because its gates multiply what W_hh passes on" in text


def test_a_random_network_of_a_kind(tmp_path):
    """The page of an LSTM that nobody trained, and that of a cell whose slopes are not known."""
    options = ["--hidden-size", 4, "--window", 12, "--streams", 2, "--lags", 5, "--gains", 1]
    out = command("anatomy", "--cell", "lstm", *options, cwd=tmp_path)
    assert out.returncode == 0 and out.stdout.startswith("1 layer of 4 LSTM units, W_hh drawn normal"), out.stderr
    config = AnatomyConfig(hidden_size=4, window=12, streams=2)
    own = rnn_jax.elementwise(lambda a, s: jax.nn.sigmoid(a[0]) * s[0] + jax.numpy.tanh(a[1]), num_gates=2)
    with as_users_have_it():
        subject = examine.random_subject(config)
        sizes = {"input_size": 8, "hidden_size": 4, "output_size": 8}
        subject = subject._replace(params=rnn_jax.init_params(jax.random.key(0), cell=own, **sizes))
        text = page(examine.examine(subject, (1.0,), 5, 0))
    assert "The slopes of these cells are not known, so their saturation cannot be shown." in text


def test_little_memory_and_truncation(tmp_path):
    """A plan for a GRU computes the same gradient; a truncated one trains too."""
    options = [*BRIEF, "--cell", "gru", "--steps", 5, "--eval-every", 5]
    train(tmp_path, REAL_TEXT, "--run", "plain", *options)
    out = train(tmp_path, REAL_TEXT, "--run", "little", *options, "--memory", "40KB")
    assert "memory    " in out
    few, all_of = losses(tmp_path / "little"), losses(tmp_path / "plain")
    np.testing.assert_allclose(few[5], all_of[5], rtol=1e-3)
    train(tmp_path, REAL_TEXT, "--run", "cut", *options, "--k1", 5, "--k2", 10)
    train(tmp_path, REAL_TEXT, "--run", "adaptive", *options, "--k1", 5, "--adaptive-bias", 0.1)


def test_a_run_from_before_there_were_kinds(run, tmp_path):
    """Its settings name no cell: it is a vanilla one, and goes on."""
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 5, *BRIEF)
    path = tmp_path / "run" / "settings.json"
    found = json.loads(path.read_text())
    assert found["settings"].pop("cell") == "vanilla"
    path.write_text(json.dumps(found))
    assert "16 tanh units" in train(tmp_path, "--resume", "run", "--steps", 6)


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("option, value", [("--activation", "relu"), ("--leak", "0.5")])
def test_options_of_a_vanilla_layer_are_refused(cell, option, value, tmp_path):
    for name in ("train", "anatomy"):
        out = command(name, "--cell", cell, option, value, cwd=tmp_path)
        said = f"rnn-jax: {option} must be left out with --cell {cell}, whose gates have fixed activations, got "
        assert out.returncode == 2 and out.stderr.startswith(said) and out.stderr.count(". ") == 0, out.stderr
