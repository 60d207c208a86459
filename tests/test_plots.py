"""Pictures show everything: all that is drawn lies within the axes, and a single point has a marker."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import rnn_jax
from rnn_jax._cli import plots
from rnn_jax._cli.anatomy import page as anatomy_page

BASELINES = {"unigram": 4.57, "bigram": 3.66, "trigram": 3.0}


@pytest.fixture
def drawn(monkeypatch):
    """`drawn(plot, *arguments)`: the axes of a picture that would be saved."""

    def axes_of(plot, *arguments):
        figures = []
        monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
        plot(Path("picture.png"), *arguments)
        for figure in figures:
            plt.close(figure)
        return [axes for figure in figures for axes in figure.axes]

    return axes_of


def assert_all_is_shown(axes, least=1):
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) and line.get_xdata()[0] != line.get_xdata()[-1]]
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert len(lines) + len(points) >= least
    assert all(line.get_marker() not in ("", "None", None) for line in points), "a line of one point shows nothing"
    for line in lines + points:
        y = np.asarray(line.get_ydata(), float)
        y = y[np.isfinite(y)]
        low, high = axes.get_ylim()
        assert (low <= y).all() and (y <= high).all(), (line.get_label(), low, high, y)
        if axes.get_yscale() == "log":
            assert (y > 0).all(), (line.get_label(), y)


def run_of(*bits):
    steps = [{"characters": 100 * (i + 1), "bits": value} for i, value in enumerate(bits)]
    return [*steps, {"characters": 100 * len(bits), "validation_bits": bits[-1]}] if bits else []


@pytest.mark.parametrize(
    "bits",
    [
        (5.0, 3.0, 2.1),
        (6.6, 7.3, 7.29),
        (6.6, 7.3, 1e4, 3e9),
        (1e30, 0.5),
        (3.3, 3.3),
        (5.2,),
        (1e5,),
        (4.0, 0.0),
        (40.0, 0.0, 0.0),
        (),
    ],
    ids=[
        "good",
        "above",
        "diverged",
        "recovered",
        "flat",
        "one",
        "one diverged",
        "to zero",
        "diverged to zero",
        "empty",
    ],
)
def test_learning_curve(drawn, bits):
    (axes,) = drawn(plots.learning_curve, run_of(*bits), BASELINES, "a run", "character")
    assert_all_is_shown(axes, least=2 * bool(bits))
    assert axes.get_legend() is None  # it stands outside, for within it covers the curve
    low, high = axes.get_ylim()
    assert all(low < level < high for level in BASELINES.values())
    if bits and max(bits) < 5:  # the scale is that of what is learned
        assert high - low < 6


def look(step, quantiles, norm=1.0, clip=1.0, growth=0.9, radius=1.0):
    return {
        "step": step,
        "watch": {
            **{"grad_norm": norm, "clip_ratio": clip, "growth": growth, "saturated": [0.1]},
            **{"d_h_quantiles": [quantiles], "spectral_radius": [radius], "largest_singular_value": [2 * radius]},
        },
    }


LOOKS = {
    "good": [look(step, [1e-3, 2e-3, 3e-3, 5e-3, 1e-2]) for step in (0, 200)],
    "one": [look(0, [1e-3, 2e-3, 3e-3, 5e-3, 1e-2])],
    "diverged": [look(s, [10.0 ** (s + k) for k in range(5)], 10.0**s, 10.0**-s, 2.0**s, 2.0**s) for s in range(9)],
    "vanished": [look(step, [0.0, 0.0, 0.0, 1e-9, 1e-5], 1e-6, growth=0.0) for step in (0, 200)],
    "zero": [look(step, [0.0] * 5, 0.0, 0.0, None, 0.0) for step in (0, 200)],
}


@pytest.mark.parametrize("looks", LOOKS.values(), ids=LOOKS)
def test_watched(drawn, looks):
    panels = drawn(plots.watched, looks, "a run")
    assert len(panels) == 5  # one of them twice
    for axes in panels:
        assert_all_is_shown(axes)


def test_watched_without_a_look(drawn):
    assert not drawn(plots.watched, run_of(5.0), "a run")


@pytest.mark.parametrize(
    "errors", [{(1, 1): 0.5, (4, 4): 0.1, (2, 4): 0.0, (1, 4): 1e-9}, {(1, 1): 0.1}, {(1, 1): 0.0}]
)
@pytest.mark.parametrize("lag_norms", [[1e-3, 1e-5, 0.0, 0.0], [0.0, 0.0], [1.0, 1e30]])
def test_truncation(drawn, errors, lag_norms):
    """The largest k may lose nothing at all, and far back nothing may be left."""
    distances = {pair: rnn_jax.analysis.Distance(error, 1.0) for pair, error in errors.items()}
    rows = tuple(rnn_jax.analysis.TruncationRow(*pair, d, {"w": d}, 1.0, None) for pair, d in distances.items())
    report = rnn_jax.analysis.TruncationReport(rows, rows[-1], np.array(lag_norms), 0.9, 0.1)
    left, right = drawn(plots.truncation, report, "a run")
    assert_all_is_shown(left)
    assert_all_is_shown(right, least=3)


@pytest.fixture
def panels(monkeypatch, annotations_unchecked):
    """`panels(section, **findings)`: the axes of a picture of the anatomy page."""
    del annotations_unchecked

    def axes_of(section, **findings):
        figures = []
        monkeypatch.setattr(anatomy_page, "png", lambda figure: figures.append(figure) or b"")
        section(SimpleNamespace(gains=(0.5, 1.0), detailed=1.0, **findings))
        for figure in figures:
            figure.canvas.draw()
            plt.close(figure)
        return [axes for figure in figures for axes in figure.axes]

    return axes_of


def said(axes):
    return [text.get_text() for text in axes.texts]


def triangles(axes):
    """The number of triangles, all of them within the picture or on its edge."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "v"]
    return sum(len(line.get_xdata()) for line in lines)


LOGS = {
    "dead": (np.full((3, 4), -np.inf), "all {}: nothing passes"),
    "grown": (np.full((3, 4), np.nan), "nothing is finite: out of range"),
    "both": (np.where(np.arange(4) < 2, -np.inf, np.nan) + np.zeros((3, 1)), "nothing to draw: {} or out of range"),
    "some": (np.where(np.arange(4) < 2, -np.inf, -1.0) + np.zeros((3, 1)), None),
}


@pytest.mark.parametrize(("logs", "words"), LOGS.values(), ids=LOGS)
def test_the_anatomy_of_what_does_not_pass(panels, logs, words):
    """No axes are empty without a word; each minus infinity has its triangle."""
    spectra = [SimpleNamespace(exponents=row, errors=np.zeros(4), dimension=0.0) for row in logs[:2]]
    (spectrum,) = panels(anatomy_page.lyapunov, spectra=spectra, num_counted=10)
    assert triangles(spectrum) == np.sum(logs[:2] == -np.inf)
    assert said(spectrum) == ([] if words is None else [words.format("minus infinity")])
    (product,) = panels(anatomy_page.products, singular_values=[logs.T], product_lags=[1, 2, 3, 4])
    shown = logs[[0, 1]]  # the first and the middle one
    assert triangles(product) == np.sum(shown == -np.inf)
    assert said(product) == ([] if words is None else [words.format("minus infinity")])
    with np.errstate(over="ignore"):
        norms = 10.0 ** logs[0]
    layer = rnn_jax.CellParams(norms, norms, norms)
    whole = SimpleNamespace(layers=[SimpleNamespace(part_norms=layer, part_cosines=layer)])
    above, _ = panels(anatomy_page.contributions, whole=whole)
    assert triangles(above) == np.sum(norms == 0)
    assert said(above) == ([] if words is None else [words.format("zero")])


@pytest.mark.parametrize("first", [0.0, 1e-3, np.nan])
@pytest.mark.parametrize("last", [0.0, 1.0, np.inf])
def test_the_profile_shows_its_zeros(panels, first, last):
    profiles = [np.array([[first, first, last]]), np.array([[0.0, 1e-2, last]])]
    (axes,) = panels(anatomy_page.profile, profiles=profiles)
    assert triangles(axes) == sum(int(np.sum(norms == 0)) for norms in profiles)
    assert_all_is_shown(axes) if not np.isnan(first) else None
    assert "zeros at the bottom" in axes.get_ylabel() and not said(axes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("grid", [0.0, np.inf, 1.0])
def test_the_lag_map_shows_its_zeros(panels, grid):
    norms = np.full((3, 5, 2), grid)
    norms[2, 3:] = 0
    axes, *_ = panels(anatomy_page.lag_map, whole=SimpleNamespace(lag_norms=(norms,)))
    grey = np.ma.filled(axes.images[0].get_array(), np.nan)
    there = np.arange(3)[:, None] <= np.arange(5) + 1
    assert np.array_equal(np.isfinite(grey), there & (norms[..., 0] == 0))
    words = {0.0: ["all zero: nothing passes"], np.inf: ["nothing to draw: zero or out of range"], 1.0: []}
    assert said(axes) == words[grid] and len(axes.images) == 1 + (grid == 1)
