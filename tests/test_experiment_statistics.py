"""Statistics over the seeds of a setting: solved, diverged, quartiles, curves, bands. The file keeps every seed."""

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from small_experiments import same, trial_of

from rnn_jax._reporting import html_page
from rnn_jax.experiments import _pictures as pictures
from rnn_jax.experiments import _report as report
from rnn_jax.experiments import _statistics as statistics
from rnn_jax.experiments._tables import best
from rnn_jax.experiments._trials import Trial, read_trial, save_trial


def test_solved_and_diverged():
    nan = math.nan
    losses = [[1, 1, 1, 1, 5], [0.1, 3, nan, 2.1, 4], [0.2, 1.9, 1, 2.1, 3]]
    trial = trial_of(losses, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(trial.solved_at, [10, nan, nan, nan, nan])
    np.testing.assert_array_equal(trial.solved, [True, False, False, False, False])
    np.testing.assert_array_equal(trial.diverged, [False, False, True, True, False])
    np.testing.assert_allclose(trial.seconds_to_solve(), [0.8, nan, nan, nan, nan])  # 8 s for 5 seeds and 20 steps


def test_statistics():
    assert statistics.quartiles(np.array([3.0, 1.0, 2.0])) == "2 [1.5, 2.5]"
    assert statistics.quartiles(np.array([3.0, math.nan, 1.0, math.inf])) == "2 [1.5, 2.5] (2 of 4)"
    assert statistics.quartiles(np.array([1500.0, 23456.0])) == "12478 [6989, 17967]"
    assert statistics.quartiles(np.array([math.nan])) == "-"
    assert (
        statistics.share(np.array([True] * 8 + [False] * 2)) == "8 of 10 [0.49, 0.94]"
    )  # Wilson, by hand: 0.490, 0.943
    trials = [trial_of([[1.0], [value]]) for value in (0.3, 0.2, math.nan)]
    assert best(trials, "loss", lowest=True) is trials[1] and best(trials, "loss") is trials[0]
    shares = [trial_of([[1.0] * 5], [[1] * k + [0] * (5 - k)]) for k in (3, 4, 1)]
    assert best(shares, "solved") is shares[1] and best(shares, "solved", lowest=True) is shares[2]


def test_means_have_students_interval():
    values = np.array([3.0, math.nan, 1.0, 2.5, math.inf])
    low, high = ttest_1samp([3.0, 1.0, 2.5], 0).confidence_interval(0.95)
    assert statistics.mean(values) == f"2.167 [{low:.4g}, {high:.4g}] (3 of 5)"
    assert statistics.mean(np.full(7, 0.1)) == "0.1 [0.1, 0.1]"
    assert statistics.mean(np.array([0.25])) == "0.25"
    assert statistics.mean(np.array([0.25, math.nan])) == "0.25 (1 of 2)"
    assert statistics.mean(np.array([math.nan])) == "-"


def test_the_table_of_all_settings():
    """A row for each setting; columns for what was measured, and only for what happened."""
    plain = [trial_of([[1.0, 1.0], [value, 2 * value]])._replace(setting={"rate": value}) for value in (0.1, 0.25)]
    plain[1].curves["accuracy"] = np.array([[0.0, 0.0], [0.5, 0.5]])
    section = report.summary(plain, ("accuracy", "nothing"))
    cells = [dict(zip(section.header, row, strict=True)) for row in section.rows]
    assert [row["rate"] for row in cells] == ["0.1", "0.25"] and cells[1]["steps"] == "10"
    assert cells[0]["loss, median [quartiles]"] == "0.15 [0.125, 0.175]"
    assert cells[1]["loss, mean [95 %]"] == statistics.mean(np.array([0.25, 0.5]))
    assert [row["accuracy, mean [95 %]"] for row in cells] == ["-", "0.5 [0.5, 0.5]"]
    assert not {"solved", "diverged", "nothing, mean [95 %]"} & set(section.header)
    section = report.summary([trial_of([[1.0, 1.0], [0.1, math.nan]], [[0, 0], [1, 0]])])
    (row,) = (dict(zip(section.header, row, strict=True)) for row in section.rows)
    assert row["solved"] == row["diverged"] == "1 of 2 [0.09, 0.91]" and row["k"] == "1"
    assert row["loss, median [quartiles]"] == "0.1 [0.1, 0.1] (1 of 2)" and "Wilson" in section.reading


def test_a_trial_comes_back_from_its_file(tmp_path):
    trial = trial_of([[1.0, 2.0], [math.nan, 0.25]])._replace(shown={"x": np.array([[1.0, math.nan], [3.0, 4.0]])})
    save_trial(tmp_path / "trial.json", trial)
    text = (tmp_path / "trial.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = read_trial(tmp_path / "trial.json")
    same([back], [trial])
    np.testing.assert_array_equal(back.shown["x"], trial.shown["x"])
    assert read_trial(tmp_path / "none.json") is None
    save_trial(tmp_path / "lost.json", trial_of([[1.0], [math.inf]]))
    text = (tmp_path / "lost.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["curves"]["loss"][1] == [
        None
    ]
    assert np.isnan(read_trial(tmp_path / "lost.json").final("loss")).all()


@pytest.mark.parametrize("highest", [2.0, 1e9])
def test_a_curve_that_is_cut_off_is_said_to_be(highest, monkeypatch):
    def trial(size, losses):
        curves = {"loss": np.array(losses)[:, None]}
        return Trial({"size": size}, [0], 1.0, np.array([0, 10, 20]), curves, 1.0, 0.0, {}, {})

    figures = []
    monkeypatch.setattr(pictures, "png", lambda figure: figures.append(figure) or b"")
    pictures.learning_curves([trial(1, [1.0, 0.5, 0.1]), trial(2, [1.0, highest, highest])])
    (figure,) = figures
    inside = figure.axes[0].get_ylim()[1] >= highest
    assert inside != any("losses above 1e+03 are cut off" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize("highest", [2.0, 2.6])
def test_a_curve_is_cut_off_where_it_is_asked_to(highest, monkeypatch):
    curves = {"loss": np.array([1.0, highest])[:, None]}
    figures = []
    monkeypatch.setattr(pictures, "png", lambda figure: figures.append(figure) or b"")
    trial = Trial({"size": 1}, [0], 1.0, np.array([0, 10]), curves, 1.0, 0.0, {}, {})
    pictures.learning_curves([trial], log=False, top=2.5)
    (figure,) = figures
    assert figure.axes[0].get_yscale() == "linear" and figure.axes[0].get_ylim()[1] <= 2.5
    assert (highest > 2.5) == any("losses above 2.5 are cut off" in text.get_text() for text in figure.texts)


NONE_ABOVE_ZERO = [[math.nan] * 3, [0.0] * 3, [-1.0] * 3, [math.inf] * 3, [1.0, math.nan, math.nan]]  # three seeds


@pytest.mark.parametrize("ended", NONE_ABOVE_ZERO, ids=str)
def test_an_axis_is_logarithmic_only_for_numbers_above_zero(ended, monkeypatch):
    scales = []
    monkeypatch.setattr(
        pictures, "png", lambda figure: scales.append(figure.axes[0].get_yscale()) or html_page.png(figure)
    )

    def trial(size, values):
        curves = {"loss": np.ones((2, 3)), "extra": np.array([values, values])}
        return Trial({"size": size}, [0, 1, 2], 1.0, np.array([0, 10]), curves, 1.0, 0.0, {}, {})

    none, some = trial(1, ended), trial(2, [1.0, 2.0, 3.0])
    labels = {"lines": "size", "title": "A", "ylabel": "y", "reading": "r"}
    for trials in ([none], [none, some]):
        pictures.learning_curves(trials, "extra")
        pictures.learning_curves(trials, "extra", by="size")
        pictures.against(trials, "size", lambda one: one.final("extra"), **labels, log=True)
    dots = "log" if 1.0 in ended else "linear"  # each seed has a dot
    assert scales == ["linear", "linear", dots, "log", "log", "log"]


def test_losses_of_zero_have_a_picture():
    report.default_sections([trial_of([[0.0, 0.0], [0.0, 0.0]], chance=0.0)])
    report.default_sections([trial_of([[0.0, 0.0], [1.0, 1.0]], chance=0.0)])


def test_bands_leave_out_what_is_not_there():
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    pictures._band(axes, np.arange(3), np.array([[1.0, 2.0, 3.0], [1.0, 2.0, math.nan], [1.0, math.inf, math.nan]]))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2.0, 2.0, math.nan])
    (vertices,) = (path.vertices for path in axes.collections[0].get_paths())
    assert vertices[:, 0].max() == 1 and vertices[:, 1].max() == 3  # no band without a median, none to infinity
    some = np.sort(np.random.default_rng(0).normal(size=(5, 4)))
    for q in (0.25, 0.5, 0.75):
        np.testing.assert_allclose(pictures._quantile(some, q), np.quantile(some, q, axis=-1))
    np.testing.assert_array_equal(pictures._quantile(np.array([[1.0, 2.0, math.inf, math.inf]]), 0.5), [math.inf])
    plt.close("all")


def test_pictures_leave_the_backend_and_the_figures_of_the_user_alone():
    """In a notebook, the user's own pictures are shown as before, and those of a report are not shown."""
    from importlib.util import module_from_spec, spec_from_file_location

    import matplotlib.pyplot as plt

    before = plt.get_backend()
    plt.switch_backend("svg")
    try:
        spec = spec_from_file_location("rnn_jax._reporting.again", html_page.__file__)
        spec.loader.exec_module(module_from_spec(spec))  # as it is imported the first time
        report.default_sections([trial_of([[1.0, 2.0], [0.5, 1.0]])])
        assert plt.get_backend() == "svg" and not plt.get_fignums()
    finally:
        plt.switch_backend(before)
