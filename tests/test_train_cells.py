"""`rnn-jax` with gated cells: train, resume, sample, read back, and what examines a run."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from by_numpy import by_numpy
from commands import BRIEF, REAL_TEXT, as_users_have_it, command, losses, metrics, train, unchecked
from problems import Case

import rnn_jax
from rnn_jax import GRUParams, LSTMParams
from rnn_jax._cli.anatomy import examine, page
from rnn_jax._cli.settings.commands import AnatomyConfig
from rnn_jax._cli.training import outputs
from test_cells import problem_of

pytestmark = pytest.mark.usefixtures("undrawn")
OPTIONS = [*BRIEF, "--drop-recurrent", 0.1, "--watch", "--watch-every", 25]
KINDS = {"gru": GRUParams, "lstm": LSTMParams}


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, tmp_path_factory):
    """A watched run with dropout, in two parts: its kind, its folder, and what the first part said."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "learning_curve", lambda *_: None)
        out = train(folder, REAL_TEXT, "--run", "run", "--steps", 25, "--cell", request.param, *OPTIONS)
        train(folder, "--resume", "run", "--steps", 50)
    return request.param, folder, out


def test_a_run(run):
    kind, folder, out = run
    assert f"1 layer of 16 {kind.upper()} units" in out and "differ by at most" in out and "MORE THAN" not in out
    assert losses(folder / "run")[50][0] < losses(folder / "run")[25][0]
    looks = [record["watch"] for record in metrics(folder / "run") if "watch" in record]
    assert len(looks) == 2 and (folder / "run" / "watch.png").exists()
    assert looks[1]["spectral_radius"] == [None] and all(0 <= share < 0.5 for share in looks[1]["saturated"])


def test_read_back_and_sampled(run):
    kind, folder, _ = run
    with as_users_have_it():
        found = rnn_jax.saving.read_run(folder / "run")
    assert [type(cell) for cell in found.params.cells] == [KINDS[kind]] and found.settings["cell"] == kind
    assert [s.shape for s in found.state.h_0] == [(4, 16 * KINDS[kind].parts)]  # the whole states are saved
    out = command("sample", "run", "--length", 9, "--temperature", 0, cwd=folder)
    tokens = jax.numpy.asarray(rnn_jax.data.encode(found.symbols, "\n"))
    with as_users_have_it():
        drawn, _ = rnn_jax.generate(jax.random.key(0), found.params, tokens, 9, draw=rnn_jax.greedy)
    assert out.stdout == "\n" + rnn_jax.data.decode(found.symbols, drawn) + "\n"


def test_resumed_it_is_the_same_as_in_one_go(run, tmp_path):
    kind, folder, _ = run
    if kind == "lstm":  # whose state has two parts
        train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 50, "--cell", kind, *OPTIONS)
        assert losses(tmp_path / "run") == losses(folder / "run")


def test_what_examines_a_run(run):
    """What truncation costs a GRU; the page of an LSTM."""
    kind, folder, _ = run
    if kind == "gru":
        out = command("truncation", "run", "--ks", 5, "--window", 20, "--streams", 2, cwd=folder)
        assert out.returncode == 0 and "changes by a factor of" in out.stdout and "cells.0." in out.stdout
        return
    out = command("anatomy", "run", "--window", 12, "--streams", 2, "--lags", 5, "--gains", 1, cwd=folder)
    assert out.returncode == 0 and "run: 1 layer of 16 LSTM units, on text held out" in out.stdout, out.stderr
    text = (folder / "run" / "anatomy.html").read_text()
    assert "Where the gates let no gradient through" in text
    assert "A layer with gates has no such step, because its gates multiply what W_hh passes on" in text


@pytest.mark.parametrize("name", ["gru", "lstm", "peephole"])
def test_the_page_shows_each_gate(name):
    """In the order of the columns of the weights; one sentence for a cell whose slopes are not known."""
    problem = problem_of(name, Case())
    whole = by_numpy(rnn_jax.analysis.anatomy)(*problem)
    with unchecked():  # not all of the findings
        section = page.saturation(SimpleNamespace(whole=whole, subject=SimpleNamespace(params=problem[0])))
    if name == "peephole":
        assert section.reading == "The slopes of these cells are not known, so their saturation cannot be shown."
        return
    assert [row[1] for row in section.rows] == list(KINDS[name].gate_names)
    for _, gate, mean, low in section.rows:
        found = whole.layers[0].gates[gate]
        assert (mean, low) == (np.mean(found.slope), 100 * np.mean(found.saturated))


@pytest.mark.parametrize("cell", KINDS)
def test_a_random_network_of_a_kind(cell):
    subject = examine.random_subject(AnatomyConfig(hidden_size=4, cell=cell))
    assert isinstance(subject.params.cells[0], KINDS[cell])
    assert subject.name.startswith(f"1 layer of 4 {cell.upper()} units, W_hh drawn normal")


def test_little_memory_and_truncation(tmp_path):
    """A plan for a GRU computes the same gradient; one truncated as the bias asks trains too."""
    options = [*BRIEF, "--cell", "gru", "--steps", 5, "--eval-every", 5]
    train(tmp_path, REAL_TEXT, "--run", "plain", *options)
    out = train(tmp_path, REAL_TEXT, "--run", "little", *options, "--memory", "40KB")
    assert "memory    " in out
    few, all_of = losses(tmp_path / "little"), losses(tmp_path / "plain")
    np.testing.assert_allclose(few[5], all_of[5], rtol=1e-3)
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
