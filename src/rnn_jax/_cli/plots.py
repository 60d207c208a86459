"""The pictures that the commands write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from .._reporting.console import shown
from .._reporting.files import replacing
from ..analysis import TruncationReport
from ..verify import Report

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def learning_curve(
    path: Path, records: list[dict[str, Any]], baselines: dict[str, float], title: str, unit: str
) -> None:
    """Bits per `unit`, a character or a byte, against those read: training, validation, and n-gram models as lines."""
    train = [(r["characters"], r["bits"]) for r in records if r.get("bits") is not None]
    validation = [(r["characters"], r["validation_bits"]) for r in records if "validation_bits" in r]
    shown = np.array([bits for _, bits in train + validation] + list(baselines.values()))
    diverged = shown.max() > 3 * max(baselines.values())  # on a linear axis, learning would be a flat line
    heights = above_zero(shown) if diverged else shown
    train = [(at, height) for (at, _), height in zip(train, heights, strict=False)]
    held_out = [(at, height) for (at, _), height in zip(validation, heights[len(train) :], strict=False)]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    if train:
        axes.plot(*np.transpose(train), color="tab:blue", alpha=0.5, linewidth=0.8, label="training", **_dots(train))
    if validation:
        axes.plot(*np.transpose(held_out), color="tab:red", marker="o", markersize=4, label="held-out text")
        _, bits = validation[-1]
        words = f"{bits:.2f}" if bits < 100 else f"{bits:.2g}"
        axes.annotate(words, held_out[-1], xytext=(0, 8), textcoords="offset points", ha="center")
    for (name, bits), style in zip(baselines.items(), (":", "-.", "--"), strict=True):
        axes.axhline(bits, color="0.45", linestyle=style, linewidth=1.2, label=f"{name} {bits:.2f}")
    if diverged:
        axes.set(yscale="log", ylim=(0.8 * heights.min(), 1.5 * heights.max()))
    else:
        axes.set_ylim(np.floor(shown.min() * 4) / 4 - 0.05, shown.max() + 0.3)
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter())
    ylabel = with_zeros(f"bits per {unit}", shown) if diverged else f"bits per {unit}"
    axes.set(xlabel=f"{unit}s read", ylabel=ylabel, title=_literal(title))
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=5, edgecolor="none")  # inside, it would hide a part of the curve
    _save(figure, path)


def _dots(points: Sequence[Any]) -> dict[str, Any]:
    """A marker if there is only one point, which makes no line."""
    return {"marker": "."} if len(points) == 1 else {}


def above_zero(values: np.ndarray) -> np.ndarray:
    """Values for a logarithmic axis, which cannot show zeros: these become a tenth of the smallest positive value."""
    positive = values[values > 0]
    return np.where(values == 0, positive.min() / 10 if len(positive) else 1e-12, values)


def with_zeros(words: str, values: np.ndarray) -> str:
    """The label of an axis that shows `above_zero`."""
    return f"{words}\n(zeros at the bottom)" if np.any(values == 0) else words


def mark_dead(axes: Any, x: Any, logs: np.ndarray, color: Any) -> None:
    """A triangle on the lower edge for each log that is minus infinity."""
    dead = np.asarray(x)[logs == -np.inf]
    if len(dead):
        place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(dead, np.zeros(len(dead)), color=color, marker="v", linestyle="none", **place)


def say_if_empty(axes: Any, logs: np.ndarray, lowest: str = "minus infinity") -> None:
    """Words instead of a picture if no log can be drawn; `lowest` is what minus infinity stands for."""
    if np.isfinite(logs).any():
        return
    dead = logs == -np.inf
    words = f"all {lowest}: nothing passes" if dead.all() else "nothing is finite: out of range"
    words = f"nothing to draw: {lowest} or out of range" if dead.any() and not dead.all() else words
    box = {"facecolor": "white", "edgecolor": "0.5", "boxstyle": "round"}
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", bbox=box)


def watched(path: Path, records: list[dict[str, Any]], title: str) -> None:
    """What `--watch` measured, against the steps; no picture if it measured nothing."""
    seen = [(r["step"], r["watch"]) for r in records if "watch" in r]
    if not seen:
        return
    steps = [step for step, _ in seen]
    column = {name: np.array([w[name] for _, w in seen], float) for name in seen[0][1]}
    figure, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained", sharex=True)
    (profile, clipping), (spectrum, units) = panels
    quantiles, norms = column["d_h_quantiles"], column["grad_norm"]
    for layer, values in enumerate(np.moveaxis(above_zero(quantiles), 1, 0)):
        color = f"C{layer}"
        profile.fill_between(steps, values[:, 0], values[:, 4], color=color, alpha=0.12, linewidth=0)
        profile.fill_between(steps, values[:, 1], values[:, 3], color=color, alpha=0.25, linewidth=0)
        profile.plot(steps, values[:, 2], color=color, marker=".", label=f"layer {layer + 1}")
        radius, norm = (column[name][:, layer] for name in ("spectral_radius", "largest_singular_value"))
        if not np.isnan(radius).all():  # a layer with gates has none
            spectrum.plot(steps, radius, color=color, marker=".", label=f"layer {layer + 1}: radius")
        spectrum.plot(steps, norm, color=color, linestyle="--", **_dots(steps), label=f"layer {layer + 1}: norm")
        units.plot(steps, 100 * column["saturated"][:, layer], color=color, marker=".", label=f"layer {layer + 1}")
    words = with_zeros("‖δ$_t$‖: median over time, quartiles, range", quantiles)
    profile.set(yscale="log", ylabel=words, title="what arrives at the states")
    clipping.plot(steps, above_zero(norms), color="tab:blue", marker=".")
    clipping.set(
        yscale="log",
        ylabel=with_zeros("norm before clipping", norms),
        title="the gradient, and how much clipping leaves of it",
    )
    ratio = clipping.twinx()
    ratio.plot(steps, column["clip_ratio"], color="tab:red", linestyle="--", **_dots(steps))
    ratio.set(ylim=(-0.05, 1.05))
    ratio.set_ylabel("clip ratio (dashed)", color="tab:red")
    spectrum.plot(steps, column["growth"], color="black", marker="x", label="gradient, per step back")
    spectrum.axhline(1, color="0.5", linewidth=0.8)
    spectrum.set_ylim(0, 1.5 * spectrum.get_ylim()[1])
    spectrum.set(ylabel="factor", title="W$_{hh}$: spectral radius and norm; growth", xlabel="step")
    units.set(ylabel="%", title="saturated: φ' below 0.1 of its largest value", xlabel="step", ylim=(-0.05, None))
    for axes in panels.flat:
        axes.grid(alpha=0.25)
    for axes in (profile, spectrum, units):
        axes.legend(fontsize="small", ncols=2, loc="upper left" if axes is spectrum else "best")
    figure.suptitle(_literal(title))
    _save(figure, path)


def gradient_errors(path: Path, errors: dict[tuple[str, str], list[float]], tolerances: dict[str, float]) -> None:
    """Relative errors of every leaf of every problem, a row for each method and witness, the tolerances as lines."""
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.32 * len(errors)), layout="constrained")
    least = 1e-17
    for row, ((_, witness), found) in enumerate(errors.items()):
        x = np.clip(np.nan_to_num(np.array(found), nan=np.inf), least, 1e2)
        y = row + np.random.default_rng(row).uniform(-0.3, 0.3, len(x))
        wrong = x > tolerances[witness]
        axes.scatter(x[~wrong], y[~wrong], s=6, color="tab:blue", alpha=0.5, linewidths=0)
        axes.scatter(x[wrong], y[wrong], s=30, color="tab:red", marker="x")
        axes.vlines(tolerances[witness], row - 0.45, row + 0.45, color="tab:red", linewidth=1.5)
    axes.set_yticks(range(len(errors)), [f"{method}, {witness}" for method, witness in errors])
    axes.set(xscale="log", xlim=(least / 2, 2e2), ylim=(len(errors) - 0.4, -0.6))
    axes.set(xlabel="error of a leaf's worst entry, relative to its largest (red: tolerance; left edge: no error)")
    axes.grid(axis="x", alpha=0.25)
    _save(figure, path)


def truncation(path: Path, report: TruncationReport, title: str) -> None:
    """How the gradient decays with the lag, and how far a truncated one is from the full one, against k."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    lags = np.arange(len(report.lag_norms))
    left.semilogy(lags, above_zero(report.lag_norms), marker=".", color="tab:blue")
    seen = (lags > 0) & (report.lag_norms > 0)
    if np.isfinite(report.decay) and report.decay > 0 and seen.sum() > 1:
        middle = np.exp(np.mean(np.log(report.lag_norms[seen]))) * report.decay ** (lags - np.mean(lags[seen]))
        error = f" ± {report.decay_error:.3f}" if np.isfinite(report.decay_error) else ""
        words = f"{report.decay:.3f}{error} per step"
        left.semilogy(lags[1:], middle[1:], color="tab:red", linestyle="--", label=words)
        left.legend()
    left.set(xlabel="lag", ylabel=with_zeros("mean of ‖∂L$_t$/∂h$_{t-lag}$‖", report.lag_norms))
    ks = sorted({row.k2 for row in report.rows})
    whole_windows = [row for row in report.rows if row.k1 == row.k2]
    names = sorted({name for row in report.rows for name, leaf in row.leaves.items() if leaf.error > 0})
    errors = {(row.k1, row.k2): row.whole.error for row in report.rows}
    shown = dict(zip(errors, above_zero(np.array(list(errors.values()))), strict=True))
    for name in names:
        leaf = above_zero(np.array([row.leaves[name].error for row in whole_windows]))
        right.loglog(
            [row.k2 for row in whole_windows], leaf, linewidth=1, alpha=0.5, label=f"{name}, k1 = k2", **_dots(ks)
        )
    for words, style, of_k2 in (
        ("k2", "o-", lambda k: k),
        ("k2 / 2", "s--", lambda k: k // 2),
        ("1", "^:", lambda k: 1),
    ):
        right.loglog(
            ks, [shown[max(of_k2(k), 1), k] for k in ks], style, color="black", label=f"all weights, k1 = {words}"
        )
    right.set(
        xlabel="k2: windows of k1 steps that reach back k2",
        ylabel=with_zeros("‖truncated - full‖ / ‖full‖", np.array(list(errors.values()))),
    )
    right.set_xticks(ks, map(str, ks))
    right.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    right.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.suptitle(_literal(title))
    _save(figure, path)


def gradient_report(path: Path, report: Report) -> None:
    """A report of `check_gradients`: the errors of all entries, what each step adds and what it should add."""
    steps = report.steps
    figure = plt.figure(figsize=(8, 1.2 + 0.3 * len(report.leaves) + 2.2 * bool(steps)), layout="constrained")
    above, *below = figure.subfigures(2 if steps else 1, 1, squeeze=False)[:, 0]
    axes = above.subplots()
    for row, leaf in enumerate(report.leaves):
        x = np.clip(leaf.errors, 1e-17, 1e2)
        color = "tab:blue" if leaf.passed else "tab:red" if leaf.decided else "tab:orange"
        y = row + np.random.default_rng(row).uniform(-0.3, 0.3, len(x))
        axes.scatter(x, y, s=8, color=color, alpha=0.6, linewidths=0)
    axes.set_yticks(range(len(report.leaves)), [leaf.name for leaf in report.leaves])
    axes.set(
        xscale="log", xlim=(5e-18, 2e2), ylim=(len(report.leaves) - 0.4, -0.6), xlabel="relative error of an entry"
    )
    axes.grid(axis="x", alpha=0.25)
    if steps:
        for panel, step in zip(below[0].subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
            t = np.arange(len(step.numeric)) + (not step.name.endswith("w_hy"))  # rows of w_hy start with h_0
            panel.plot(t, np.linalg.norm(step.numeric, axis=1), color="tab:blue", marker="o", label="right")
            panel.plot(t, np.linalg.norm(step.analytic, axis=1), color="tab:red", marker="x", label="this one")
            panel.set_title(step.name.removeprefix("params."), fontsize=9)
            panel.set(xlabel="step t", ylabel="norm of what it adds")
            panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        panel.legend(fontsize=8)
    _save(figure, path)


def _literal(title: str) -> str:
    """A title in which a dollar sign, of a file name for example, does not begin a formula."""
    return shown(title).replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
