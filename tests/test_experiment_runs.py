"""A grid of trainings, in Python and from the command line: finished ones are kept, and all are in table and report."""

import csv
import json
import math
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import command, process
from pages import Page
from small_experiments import of_rate, program_of, same, small, trial_of

from rnn_jax._cli.outcome import EXTRA
from rnn_jax._reporting.errors import InputError
from rnn_jax.experiments import Experiment, run_experiment
from rnn_jax.experiments import _experiment as experiment_module
from rnn_jax.experiments import _pictures as pictures
from rnn_jax.experiments import _report as report
from rnn_jax.experiments import _tables as tables
from rnn_jax.experiments import _trials as trials_module
from rnn_jax.experiments.catalogue.names import CATALOGUE


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def settings(quick):
    return [{"rate": rate, "name": "a"} for rate in ((0.1,) if quick else (0.1, 0.2))]


MINE = Experiment("mine", "Does it learn?", settings, lambda setting: of_rate(float(setting["rate"])), num_seeds=2)
train_one, results = experiment_module._train_one, {}


@pytest.fixture
def trained(monkeypatch):
    """The settings that were trained rather than read. Earlier trainings come from a cache."""
    seen = []

    def remembered(setting, training, program, seeds, show):
        seen.append(setting["rate"])
        key = setting["rate"], training.num_steps, len(seeds)
        if key not in results:
            results[key] = train_one(setting, training, program, seeds, show)
        return results[key]._replace(setting=setting)

    monkeypatch.setattr(experiment_module, "_train_one", remembered)
    monkeypatch.setattr(experiment_module, "make_program", lambda of, seeds: program_of(of, tuple(seeds)))
    return seen


def test_what_is_done_is_kept(tmp_path, trained):
    first = run_experiment(MINE, tmp_path / "out")
    assert trained == [0.1, 0.2]
    same(run_experiment(MINE, tmp_path / "out"), first)
    assert trained == [0.1, 0.2]
    files = sorted((tmp_path / "out" / "trials").iterdir())
    files[0].write_text(files[0].read_text()[:200])  # cut short by a crash
    results.clear()  # trained again, not remembered
    same(run_experiment(MINE, tmp_path / "out"), first)
    assert len(trained) == 3
    run_experiment(MINE, tmp_path / "out", num_seeds=1, quick=True)
    assert trained[3:] == [0.1]  # other seeds
    changed = MINE._replace(
        make=lambda setting: of_rate(float(setting["rate"]), num_steps=8 if setting["rate"] == 0.2 else 6)
    )
    run_experiment(changed, tmp_path / "out")
    assert trained[4:] == [0.2]


def test_after_an_interruption_it_goes_on(tmp_path, trained, monkeypatch):
    inner = experiment_module._train_one
    calls = []

    def interrupted(setting, *rest):
        calls.append(setting)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inner(setting, *rest)

    monkeypatch.setattr(experiment_module, "_train_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(MINE, tmp_path)
    assert len(list((tmp_path / "trials").iterdir())) == 1 and not (tmp_path / "results.csv").exists()
    run_experiment(MINE, tmp_path)
    assert trained == [0.1, 0.2]


@pytest.mark.usefixtures("annotations_unchecked")
def test_grids_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`num_seeds` must be at least 1, got 0"):
        run_experiment(MINE, tmp_path, num_seeds=0)
    with pytest.raises(TypeError, match=r"`num_seeds` must be an integer of at least 1, got 2\.5"):
        run_experiment(MINE, tmp_path, num_seeds=2.5)
    with pytest.raises(TypeError, match="`experiment` must be an Experiment, got str"):
        run_experiment("clipping", tmp_path)
    for bad, message in (
        ([], "must hold at least one setting, all different"),
        ([{"rate": 0.1}, {"rate": 0.1}], "must hold at least one setting, all different"),
        ([{"rate": 0.1}, {"other": 0.1}], "must all have the same names"),
        ([{"rate": np.float64(0.1)}], "must hold str, int, float or bool, got float64 for 'rate'"),
        ([{"rate": 0.1, "steps": 3}], "must not use the names of columns of the tables, got steps"),
        ([{"rate": 0.1, "accuracy": 3}], "must not use the names of columns of the tables, got accuracy"),
    ):
        with pytest.raises(ValueError, match=message):
            run_experiment(MINE._replace(settings=lambda quick, bad=bad: bad), tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run_experiment(MINE._replace(needs=("no_such_module",)), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out must name a folder that can be written"):
        run_experiment(MINE, tmp_path / "file")


def test_a_task_that_is_solved_before_training_has_a_report(tmp_path):
    at_once = MINE._replace(make=lambda setting: small(solved=lambda metrics: metrics["loss"] > 0))
    (trial,) = run_experiment(at_once, tmp_path, quick=True)
    assert trial.solved.all() and not trial.diverged.any() and trial.steps.tolist() == [0]
    assert np.isnan(trial.curves["grad_norm"]).all() and pictures.learning_curves([trial], "grad_norm")


@pytest.mark.usefixtures("trained")
def test_tables_have_a_row_for_everything(tmp_path):
    trials = run_experiment(MINE, tmp_path)
    rows = rows_of(tmp_path / "results.csv")
    assert [(row["rate"], row["seed"]) for row in rows] == [(r, s) for r in ("0.1", "0.2") for s in "01"]
    assert float(rows[3]["loss"]) == pytest.approx(trials[1].final("loss")[1], rel=1e-6)
    curves = rows_of(tmp_path / "curves.csv")
    assert len(curves) == 2 * 2 * 4 and curves[0]["train_loss"] == "" and curves[1]["train_loss"] != ""
    stored = json.loads((tmp_path / "results.json").read_text())
    assert len(stored["results"]) == 4 and {"command", "versions", "machine", "run time"} <= stored.keys()


def test_tables_have_nine_digits_and_empty_cells(tmp_path):
    """To the letter: whole numbers, truth values, rates and what is missing."""
    one = trial_of([[1.0, 2.0], [1 / 3, math.inf]], [[0, 0], [1, 0]])._replace(setting={"name": "a, b", "rate": 0.1})
    two = trial_of([[1e-12]])._replace(setting={"name": "c", "rate": 0.25})
    two.curves["accuracy"] = np.array([[0.5]])
    tables.write_tables(tmp_path, "mine", "Does it?", {"date": "today"}, [one, two])
    assert (tmp_path / "results.csv").read_text().splitlines() == [
        "name,rate,seed,steps,solved,solved_at,seconds_to_solve,diverged,loss,ms,seconds_of_all_seeds,accuracy",
        '"a, b",0.1,0,10,True,10.0,4.0,False,0.333333333,2.0,8.0,',
        '"a, b",0.1,1,10,False,,,True,,2.0,8.0,',
        "c,0.25,0,0,False,,,False,1e-12,2.0,8.0,0.5",
    ]
    assert (tmp_path / "curves.csv").read_text().splitlines() == [
        "name,rate,seed,step,loss,accuracy",
        *('"a, b",0.1,0,0,1.0,', '"a, b",0.1,0,10,0.333333333,', '"a, b",0.1,1,0,2.0,', '"a, b",0.1,1,10,,'),
        "c,0.25,0,0,1e-12,0.5",
    ]
    text = (tmp_path / "results.json").read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(stored) == ["experiment", "question", "date", "results"]
    assert stored["results"][1] | {"seconds_of_all_seeds": 8.0} == stored["results"][1]
    assert stored["results"][1]["loss"] is None and stored["results"][0]["solved"] is True
    assert stored["results"][0]["steps"] == 10 and stored["results"][2]["accuracy"] == 0.5


def test_the_report_is_one_whole_file(tmp_path):
    """Trained for it, with nothing from memory."""

    def facts_too(setting):
        return small(float(setting["rate"]))._replace(facts=lambda params: {"units": params.cells[0].w_hh.shape[0]})

    asked = MINE._replace(
        question="Is <b> & all that safe?",
        make=facts_too,
        verdict=lambda trials: [f"{len(trials)} settings"],
        sections=lambda trials: [
            *report.default_sections(trials),
            pictures.against(
                trials, "rate", lambda c: c.final("loss"), lines="name", title="A", ylabel="y", reading="r"
            ),
            pictures.shares(trials, "rate", lambda c: c.diverged, lines="name", title="S", ylabel="y", reading="r"),
        ],
        fixed="five units",
    )
    trials = run_experiment(asked, tmp_path)
    assert trials[0].facts == {"units": 5}
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert len(page.images) == 3 and not page.outside and not page.open and "Is &lt;b&gt; &amp; all that safe?" in text
    for words in ("five units", "2 settings", "jax " + jax.__version__, "seeds", "run time"):
        assert words in text


def test_a_missing_package_names_its_extra():
    """Every package of the extras that the command needs."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    imported = {"scikit-learn": "sklearn", "orbax-checkpoint": "orbax"}
    for extra in ("app", "experiments"):
        names = [re.split(r"[\[>]", requirement)[0] for requirement in extras[extra]]
        assert {EXTRA[imported.get(name, name)] for name in names if name != "rnn-jax-bptt"} == {extra}


def test_the_list_answers_without_jax(tmp_path):
    result = process("experiment", "list", cwd=tmp_path)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 11
    for name in ("notebooks", "by-hand-vs-autodiff", "temporal-order", "flossing", "text"):
        assert name in result.stdout


def test_an_experiment_from_the_command_line(tmp_path):
    """Digits by rows: real data, trained, tested beside baselines, reported; the second time it is there."""
    result = command("experiment", "digits", "--quick", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "report: out/digits-quick/report.html" in result.stdout and "Warning" not in result.stderr
    rows = rows_of(tmp_path / "out/digits-quick/results.csv")
    assert len(rows) == 2 and all(float(row["test_accuracy"]) > 0.9 for row in rows)
    assert (tmp_path / "out/digits-quick/report.html").stat().st_size > 20_000
    again = command("experiment", "digits", "--quick", "--out", "out", cwd=tmp_path)
    assert "(kept)" in again.stdout and "(kept)" not in result.stdout


@pytest.mark.parametrize("name", CATALOGUE)
def test_grids_are_made_of_plain_values(name):
    from rnn_jax._cli.experiment import load

    found = load(name)
    assert found.name == name
    for quick in (True, False):
        grid = found.settings(quick)
        assert grid and all(isinstance(value, (str, int, float)) for s in grid for value in s.values())
    assert trials_module.differing(list(grid))
