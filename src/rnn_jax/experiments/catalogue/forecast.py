"""Forecasts of sunspots, months to years ahead, compared with simple forecasts and a fitted autoregression."""

from collections.abc import Sequence
from functools import cache

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from ... import Batch, Params, apply, make_grad_fn, zero_state
from ..._reporting.html_page import Section, png, subplots
from .._data import HORIZONS, LARGEST, forecasting, scale, sunspot_split, sunspots
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import adam, orthogonal_tanh, sizes_of
from .._pictures import learning_curves
from .._report import summary
from .._statistics import quartiles
from .._tables import best
from .._training import Metrics, Training
from .._trials import Setting, Trial, label

BATCH, CYCLE = 32, 132  # CYCLE in months: eleven years
MOST_LAGS = 300


def settings(quick: bool) -> Sequence[Setting]:
    """The search: all combinations of size, rate and length of training."""
    if quick:
        return [{"window": 128, "hidden_size": 32, "rate": 3e-3, "num_steps": 300}]
    return [
        {"window": 256, "hidden_size": size, "rate": rate, "num_steps": steps}
        for size in (32, 64)
        for rate in (1e-3, 3e-3)
        for steps in (450, 1500)
    ]


def make(setting: Setting) -> Training:
    """One network forecasts the changes at all horizons; errors are in sunspots, on months it was not trained on."""
    task = forecasting(int(setting["window"]))
    _, numbers = sunspots()
    series = jnp.asarray(scale(numbers), jnp.float32)
    num_steps = int(setting["num_steps"])

    def forecasts(params: Params) -> Array:
        """`(months, horizons)`, in sunspots, after each month of the whole series."""
        ys, _ = apply(params, zero_state(params), series[:, None])
        return LARGEST * jnp.maximum(series[:, None] + ys, 0) ** 2

    def batch(key: Key[Array, ""], step: Array) -> Batch:
        drawn = task.make(key, num_sequences=BATCH)
        return drawn._replace(targets=drawn.targets - drawn.inputs[-drawn.targets.shape[0] :])

    def evaluate(params: Params) -> Metrics:
        said, errors = forecasts(params), {}
        for part in ("validation", "test"):
            errors[part] = rmse(said, numbers, part)
        scaled = jnp.sqrt(said / LARGEST)
        at = origins("validation")
        losses = [jnp.mean((scaled[at, i] - series[at + h]) ** 2) for i, h in enumerate(HORIZONS)]
        metrics = {"loss": sum(losses[1:], losses[0]), "validation_rmse": jnp.mean(errors["validation"])}
        return metrics | {f"test_rmse_{h}": errors["test"][i] for i, h in enumerate(HORIZONS)}

    return Training(
        init=orthogonal_tanh(sizes_of(task, {}, int(setting["hidden_size"]))),
        batch=batch,
        grad_fn=make_grad_fn("blocked", loss="squared_error"),
        optimizer=adam(optax.cosine_decay_schedule(float(setting["rate"]), num_steps), max_norm=0.3),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 15,
        chance=sum(float(np.var(scale(numbers)[origins("validation") + h])) for h in HORIZONS),
        show=lambda params: {"forecasts": forecasts(params)[slice(*sunspot_split()["test"])]},
    )


def origins(part: str) -> np.ndarray:
    """The months after which the forecasts of a part are made."""
    return np.arange(*sunspot_split()[part])


def rmse(said: Array | np.ndarray, numbers: np.ndarray, part: str) -> Array:
    """The root of the mean squared error at each horizon, of forecasts `(months, horizons)`."""
    at = origins(part)
    ahead = jnp.asarray(np.stack([numbers[at + h] for h in HORIZONS], -1), jnp.float32)
    return jnp.sqrt(jnp.mean((jnp.asarray(said)[at] - ahead) ** 2, 0))


@cache
def baselines() -> dict[str, np.ndarray]:
    """Forecasts `(months, horizons)`, fitted on the training part. Each also reads the months up to its origin."""
    _, numbers = sunspots()
    months = np.arange(len(numbers))
    mean = np.full((len(numbers), len(HORIZONS)), numbers[slice(*sunspot_split()["train"])].mean())
    persistence = np.repeat(numbers[:, None], len(HORIZONS), 1)
    cycles = np.stack([months + h - CYCLE * -(-h // CYCLE) for h in HORIZONS], -1)  # the same month of an earlier cycle
    return {
        "the mean": mean,
        "persistence": persistence,
        "the cycle before": numbers[np.maximum(cycles, 0)],
        "autoregression": autoregression(numbers),
    }


def autoregression(numbers: np.ndarray) -> np.ndarray:
    """Forecasts of an autoregression on the scaled numbers, its order chosen by the Akaike criterion."""
    from statsmodels.tsa.ar_model import AutoReg

    last = sunspot_split()["train"][1] + max(HORIZONS)  # the last target of the network
    series = scale(numbers)
    fits = [AutoReg(series[:last], lags, hold_back=MOST_LAGS).fit() for lags in range(6, MOST_LAGS + 1, 6)]
    fit = min(fits, key=lambda fit: fit.aic)
    constant, weights = fit.params[0], fit.params[1:]
    said = np.full((len(numbers), len(HORIZONS)), np.nan)
    order = len(weights)
    for t in range(order - 1, len(numbers)):
        past = list(series[t - order + 1 : t + 1])
        for _ in range(max(HORIZONS)):
            past.append(constant + np.dot(weights, past[: -order - 1 : -1]))
        said[t] = LARGEST * np.maximum(np.array([past[order + h - 1] for h in HORIZONS]), 0) ** 2
    return said


def verdict(trials: Sequence[Trial]) -> list[str]:
    """Errors of the chosen network and of the baselines at each horizon."""
    trial = best(trials, "validation_rmse", lowest=True)
    _, numbers = sunspots()
    others = {name: np.asarray(rmse(said, numbers, "test")) for name, said in baselines().items()}
    lines = []
    for i, h in enumerate(HORIZONS):
        mine = float(np.median(trial.final(f"test_rmse_{h}")))
        name = min(others, key=lambda name: others[name][i])
        lower = 100 * (1 - mine / others[name][i])
        lines.append(
            f"{h} month{'s' if h > 1 else ''} ahead: RMSE {mine:.1f}, {abs(lower):.0f} % "
            f"{'below' if lower > 0 else 'above'} that of the baseline that is best on these months, "
            f"{name} ({others[name][i]:.1f})."
        )
    names = ["hidden_size", "rate", "num_steps"]
    return [*lines, f"Validation, from 1920 on, chose {label(trial.setting, names)}; tested from 1960 on."]


def errors(trials: Sequence[Trial]) -> Section:
    """RMSE against the horizon."""
    trial = best(trials, "validation_rmse", lowest=True)
    _, numbers = sunspots()
    figure, axes = subplots(figsize=(9, 4))
    mine = np.stack([trial.final(f"test_rmse_{h}") for h in HORIZONS])
    low, middle, high = np.quantile(mine, (0, 0.5, 1), axis=1)
    x = np.arange(len(HORIZONS))
    axes.plot(x, middle, "o-", label="network")
    axes.fill_between(x, low, high, color="C0", alpha=0.2, lw=0)
    rows = [("network", *(quartiles(of_one) for of_one in mine))]
    for i, (name, said) in enumerate(baselines().items(), start=1):
        values = np.asarray(rmse(said, numbers, "test"))
        axes.plot(x, values, "s--", color=f"C{i}", ms=4, label=name)
        rows.append((name, *(f"{value:.2f}" for value in values)))
    axes.set(xlabel="months ahead", ylabel="RMSE (sunspots)", xticks=x, xticklabels=HORIZONS)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    reading = (
        "Errors on the test months. The line is the median over seeds, the band reaches from the best to the worst."
    )
    header = ("forecast by", *(f"{h} months" for h in HORIZONS))
    return Section("Errors", png(figure), reading, header, rows)


def course(trials: Sequence[Trial]) -> Section:
    """Forecasts one and five years ahead, and what was observed."""
    trial = best(trials, "validation_rmse", lowest=True)
    months, numbers = sunspots()
    at, shown = origins("test"), (12, 60)
    figure, panels = subplots(len(shown), 1, figsize=(9, 5.4), sharex=True)
    for axes, h in zip(panels, shown, strict=True):
        i = HORIZONS.index(h)
        year = np.array([int(m[:4]) + (int(m[5:]) - 1) / 12 for m in months])[at + h]
        axes.plot(year, numbers[at + h], color="0.6", lw=1, label="observed")
        axes.plot(year, baselines()["autoregression"][at, i], color="C4", lw=1.2, label="autoregression")
        axes.plot(year, np.median(trial.shown["forecasts"][..., i], 0), color="C0", lw=1.4, label="network, median")
        axes.set(ylabel="sunspots", title=f"{h} months ahead")
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False, fontsize=9, ncols=3)
    return Section("Forecasts and observations", png(figure), "Each forecast was made 12 or 60 months earlier.")


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Errors, forecasts, curves, the search, and how many seeds a difference needs."""
    names = ["validation_rmse", *(f"test_rmse_{h}" for h in HORIZONS)]
    curves = learning_curves(trials, "validation_rmse", log=False, title="Error in validation during training")
    seeds = seeds_needed(trials, "validation_rmse")
    return [errors(trials), course(trials), curves, summary(trials, names, title="The search"), seeds]


EXPERIMENT = Experiment(
    "forecast",
    "How far ahead does a network forecast sunspots, compared with persistence and an autoregression?",
    settings,
    make,
    sections,
    verdict,
    4,
    needs=("statsmodels",),
    fixed="one layer of tanh units, an orthogonal start, the changes at all horizons at once, on the square root of "
    f"the numbers; Adam, its rate falling to zero along a cosine, on batches of {BATCH} windows, clipped to norm 0.3",
)
