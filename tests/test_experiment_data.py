"""The data of experiments (digits, sunspots, text), and the baselines that they are compared with."""

import math

import jax
import numpy as np
import pytest
from test_tasks import digest

import rnn_jax


def test_digits():
    from sklearn.datasets import load_digits

    from rnn_jax.experiments._data import digit_parts, digits

    images, classes, parts = digit_parts()
    assert sorted(np.concatenate(parts)) == list(range(1797))
    assert [len(part) for part in parts] == [1078, 359, 360]
    for rows, time in ((True, 8), (False, 64)):
        split = digits(rows)
        for part, indices in zip(split, parts, strict=True):
            whole = part.everything()
            assert whole.inputs.shape == (time, len(indices), 64 // time)
            pixels = np.asarray(whole.inputs).swapaxes(0, 1).reshape(-1, 8, 8)
            np.testing.assert_allclose(16 * pixels, load_digits().images[indices], atol=1e-5)
            np.testing.assert_array_equal(whole.targets[0], load_digits().target[indices])
            assert part.task.chance() == pytest.approx(math.log(10), rel=0.01)
        batch = split.train.task.make(jax.random.key(1), num_sequences=50)
        learned = {row.tobytes() for row in np.asarray(split.train.everything().inputs).swapaxes(0, 1)}
        drawn = [row.tobytes() for row in np.asarray(batch.inputs).swapaxes(0, 1)]
        assert len(set(drawn)) == 50 and set(drawn) <= learned
    with pytest.raises(ValueError, match="must be from 1 to 359, the number of images, got 360"):
        digits().validation.task.make(jax.random.key(0), num_sequences=360)


def test_sunspots():
    from rnn_jax.experiments import _data as data

    months, numbers = data.sunspots()
    assert (months[0], months[-1], len(numbers), numbers[0]) == ("1749-01", "2008-12", 3120, 58.0)
    assert months == [f"{1749 + i // 12}-{i % 12 + 1:02}" for i in range(3120)]
    split = data.sunspot_split()
    for before, after in (("train", "validation"), ("validation", "test")):
        assert split[before][1] + max(data.HORIZONS) <= split[after][0]
    assert split["test"][1] + max(data.HORIZONS) == len(numbers)
    batch = data.forecasting(40).make(jax.random.key(0), num_sequences=30)
    assert batch.inputs.shape == (40, 30, 1) and batch.targets.shape == (30, 30, 6)
    scaled = data.scale(numbers).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, 40)
    ahead = np.arange(10, 40)[:, None] + np.array(data.HORIZONS)
    for xs, ys in zip(np.asarray(batch.inputs)[..., 0].T, np.asarray(batch.targets).swapaxes(0, 1), strict=True):
        (start,) = np.flatnonzero(np.abs(windows - xs).max(1) < 1e-6)
        assert start + 39 < split["train"][1]
        np.testing.assert_allclose(ys, scaled[start + ahead], atol=1e-6)
    starts = np.arange(split["train"][1] - 40 + 1)
    every = data.scale(numbers)[starts[:, None, None] + ahead]  # (window, step, horizon)
    best = np.sum((every - every.mean(0)) ** 2, -1).mean()  # the loss of the best table over steps
    assert data.forecasting(40).chance() == pytest.approx(best, rel=1e-12)
    assert data.forecasting(split["train"][1]).chance() == pytest.approx(0, abs=1e-12)  # one window: the step tells all


def test_one_sequence_is_no_chance():
    """What is trained on one sequence alone can answer without looking at it."""
    from rnn_jax.experiments.catalogue import notebooks

    chances = [notebooks.make(setting).chance for setting in notebooks.settings(False)]
    assert chances[:3] == [0, 0, 0] and 1.3 < chances[3] <= math.log(4)


def data_tasks():
    from rnn_jax.experiments import _data as data

    return {
        "digits": (data.digits().train.task, {}),
        "digits by rows": (data.digits(True).train.task, {}),
        "sunspots": (data.forecasting(40), {}),
        "text": (rnn_jax.tasks.text_task("the quick brown fox jumps over the lazy dog")[1], {"time": 9}),
    }


GOLDEN = {
    "digits": "063ed3f56f91",
    "digits by rows": "993f970e1abd",
    "sunspots": "9651b0f0b513",
    "text": "7fa6a537d43a",
}  # of JAX 0.10 to 0.12


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_key_is_the_same_batch_of_data(name):
    task, sizes = data_tasks()[name]
    batches = [task.make(jax.random.key(seed), num_sequences=5, **sizes) for seed in (7, 7, 8)]
    assert digest(batches[0]) == digest(batches[1]) != digest(batches[2])
    assert digest(batches[0]) == GOLDEN[name]


def test_forecasts_by_baselines(monkeypatch):
    """The autoregression beside the library's own dynamic forecasts; the others by their definitions."""
    from statsmodels.tsa.ar_model import AutoReg

    from rnn_jax.experiments import _data as data
    from rnn_jax.experiments.catalogue import forecast

    monkeypatch.setattr(forecast, "MOST_LAGS", 24)
    _, numbers = data.sunspots()
    forecast.baselines.cache_clear()
    said = forecast.baselines()
    forecast.baselines.cache_clear()
    last = data.sunspot_split()["train"][1] + 132
    series = data.scale(numbers)
    fits = [AutoReg(series[:last], lags, hold_back=24).fit() for lags in (6, 12, 18, 24)]
    fit = min(fits, key=lambda fit: fit.aic)
    at = 2700
    theirs = fit.apply(series[: at + 1]).forecast(132)
    np.testing.assert_allclose(
        said["autoregression"][at], 300 * np.maximum(theirs[np.array(data.HORIZONS) - 1], 0) ** 2, rtol=1e-6
    )
    assert list(said["persistence"][at]) == [numbers[at]] * 6
    assert list(said["the cycle before"][at]) == [numbers[at + h - 132] for h in data.HORIZONS]
