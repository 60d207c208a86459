"""Pictures of a report: a metric against steps, and a number or a share of seeds against a setting."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps

from .._reporting.html_page import Section, png, subplots
from .._require import require_known
from ._statistics import share_interval
from ._trials import Setting, Trial, differing, label, require_trials, short

Value = Callable[[Trial], np.ndarray]  # one number per seed


def panels(trials: Sequence[Trial], by: str | None) -> dict[Any, list[Trial]]:
    """The trials by the value of one of their settings, in order of appearance."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(None if by is None else trial.setting[by], []).append(trial)
    return groups


def _axes(groups: dict[Any, Any], by: str | None) -> tuple[Any, list[Any]]:
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure, grid = subplots(
        rows,
        columns,
        figsize=((9, 11, 12)[columns - 1], 3.6 * rows),
        squeeze=False,
        sharey=by is not None,
    )
    axes = list(grid.ravel())
    for unused in axes[len(groups) :]:
        unused.remove()
    for ax, value in zip(axes, groups, strict=False):
        ax.grid(alpha=0.25)
        if by is not None:
            ax.set_title(_words({by: value}, [by]), fontsize=11)
    return figure, axes[: len(groups)]


def _set_scale(axes: Sequence[Any], log: bool) -> None:
    """Make the axes logarithmic if `log` and if a number above zero is drawn; otherwise leave them linear."""
    drawn = [np.asarray(line.get_ydata(), float) for ax in axes for line in ax.lines]
    if log and any(np.any(np.isfinite(y) & (y > 0)) for y in drawn):
        for ax in axes:
            ax.set_yscale("log")


def _words(setting: Setting, names: Sequence[str]) -> str:
    """`label` for a picture. Dollar signs are escaped, because matplotlib reads them as mathematics."""
    return label(setting, names).replace("$", r"\$")


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    named = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    if len(named) > 1:
        columns = max(1, min(len(named), 110 // (max(map(len, named)) + 6)))
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.2 * -(-len(named) // columns))
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )


def _band(ax: Any, x: Any, values: np.ndarray, **style: Any) -> None:
    """Median and quartiles over the last axis. A missing value counts as infinite; an infinite median is not drawn."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), -1)
    low, middle, high = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))
    seen = np.isfinite(middle)
    top = np.max(ordered, initial=-np.inf, where=np.isfinite(ordered))
    (line,) = ax.plot(x, np.where(seen, middle, np.nan), **style)
    ax.fill_between(x, low, np.minimum(high, top), where=seen, color=line.get_color(), alpha=0.18, lw=0)


def _quantile(ordered: np.ndarray, q: float) -> np.ndarray:
    """As `np.quantile`, linear between neighbours, for values that may be infinite."""
    place = q * (ordered.shape[-1] - 1)
    below, above = ordered[..., math.floor(place)], ordered[..., math.ceil(place)]
    inside = np.isfinite(above)
    found: np.ndarray
    found = np.where(inside, below, np.inf) + np.where(inside, above - np.where(inside, below, 0), 0) * (place % 1)
    return found


def learning_curves(
    trials: Sequence[Trial],
    metric: str = "loss",
    *,
    by: str | None = None,
    title: str = "Loss during training",
    ylabel: str | None = None,
    log: bool = True,
    top: float | None = None,
    reading: str = "",
) -> Section:
    """A metric against steps, one line per setting: the median over seeds, with a band between the quartiles.

    A missing value counts as infinite. What is above `top` is cut off.

    Args:
        trials: one trial per setting.
        metric: the name of a metric that all trials have.
        by: the name of a setting; each of its values has a panel. None means one panel.
        title: the title of the section.
        ylabel: the label of the vertical axes; None means the name of the metric.
        log: if True, the vertical axes are logarithmic, unless no number above zero is drawn.
        top: the highest number that is shown. None means all numbers; on logarithmic axes, of losses, those up to 1,000
            times chance and the first losses.
        reading: how to read the picture, in words; "" means the default text.

    Returns:
        A section with the picture.

    Raises:
        TypeError: if `trials` does not hold trials.
        ValueError: if there are no trials, or if they have no such metric or setting.
    """
    require_trials(trials, by)
    for trial in trials:
        require_known("metric", metric, trial.curves)
    groups = panels(trials, by)
    figure, axes = _axes(groups, by)
    names = [name for name in differing([trial.setting for trial in trials]) if name != by]
    if len(groups) == len(trials):
        names = []  # the title of the panel names the setting
    seen = list(dict.fromkeys(label(trial.setting, names) for trial in trials))
    colors = colormaps["viridis"](np.linspace(0, 0.92, len(seen))) if len(seen) > 10 else [f"C{i}" for i in range(10)]
    for ax, group in zip(axes, groups.values(), strict=True):
        for trial in group:
            name = label(trial.setting, names)
            _band(ax, trial.steps, trial.curves[metric], color=colors[seen.index(name)], label=name.replace("$", r"\$"))
        levels = {trial.chance for trial in group} - {math.inf, 0.0}  # a logarithmic axis cannot show a line at 0
        if metric == "loss" and len(levels) == 1:
            ax.axhline(levels.pop(), color="0.5", ls=":", lw=1.2, label="chance")
        ax.set(xlabel="steps")
    _set_scale(axes, log)
    if top is None and metric == "loss" and axes[0].get_yscale() == "log" and np.isfinite(trials[0].chance):
        top = 1e3 * max(max(trial.chance, trial.curves["loss"][0].max()) for trial in trials)
    if top is not None and axes[0].get_ylim()[1] > top > 0:  # losses that diverge would squeeze the others
        axes[0].set_ylim(top=top)
        figure.suptitle(f"The losses above {top:.3g} are cut off.", x=0.01, ha="left", size="small")
    axes[0].set_ylabel(ylabel or metric.replace("_", " "))
    _legend(figure, axes)
    return Section(
        title, png(figure), reading or "Lines are medians over seeds. Bands reach from the lower to the upper quartile."
    )


def against(
    trials: Sequence[Trial],
    x: str,
    value: Value,
    *,
    lines: str | None,
    by: str | None = None,
    title: str,
    ylabel: str,
    reading: str,
    log: bool = False,
    level: float | None = None,
) -> Section:
    """One number per seed against one of the settings: a line through the medians, and a dot for each seed.

    Args:
        trials: one trial per setting.
        x: the name of the setting on the horizontal axis.
        value: `value(trial)` returns the numbers, `(seeds,)`. Those that are not finite are not drawn.
        lines: the name of a setting; each of its values has a line. None means one line.
        by: the name of a setting; each of its values has a panel. None means one panel.
        title: the title of the section.
        ylabel: the label of the vertical axes.
        reading: how to read the picture, in words.
        log: if True, the vertical axes are logarithmic, unless no number above zero is drawn.
        level: the height of a dotted line, in the units of `value`; None means no line.

    Returns:
        A section with the picture.

    Raises:
        TypeError: if `trials` does not hold trials.
        ValueError: if there are no trials, or if they have no such setting.
    """
    require_trials(trials, x, lines, by)
    groups = panels(trials, by)
    figure, axes = _axes(groups, by)
    ticks = list(dict.fromkeys(trial.setting[x] for trial in trials))
    seen = list(panels(trials, lines))
    for ax, group in zip(axes, groups.values(), strict=True):
        for name, of_line in panels(group, lines).items():
            i = seen.index(name)
            where = np.array([ticks.index(trial.setting[x]) for trial in of_line])
            _band(
                ax,
                where,
                np.stack([value(trial) for trial in of_line]),
                color=f"C{i}",
                marker="o",
                ms=4,
                label=None if lines is None else _words({lines: name}, [lines]),
            )
            for at, trial in zip(where, of_line, strict=True):
                ax.plot(np.full(len(trial.seeds), at), value(trial), ".", color=f"C{i}", ms=3, alpha=0.4)
        if level is not None:
            ax.axhline(level, color="0.5", ls=":", lw=1.2)
        ax.set(
            xlabel=x.replace("_", " "),
            xticks=range(len(ticks)),
            xticklabels=[short(tick) for tick in ticks],
        )
    _set_scale(axes, log)
    axes[0].set_ylabel(ylabel)
    _legend(figure, axes)
    return Section(title, png(figure), reading)


def shares(
    trials: Sequence[Trial],
    x: str,
    found: Value,
    *,
    lines: str,
    by: str | None = None,
    title: str,
    ylabel: str,
    reading: str,
) -> Section:
    """The share of seeds for which `found` is true, against one of the settings, with 95 % intervals.

    Args:
        trials: one trial per setting.
        x: the name of the setting on the horizontal axis.
        found: `found(trial)` returns booleans, `(seeds,)`.
        lines: the name of a setting; each of its values has a line.
        by: the name of a setting; each of its values has a panel. None means one panel.
        title: the title of the section.
        ylabel: the label of the vertical axes.
        reading: how to read the picture, in words.

    Returns:
        A section with the picture.

    Raises:
        TypeError: if `trials` does not hold trials.
        ValueError: if there are no trials, or if they have no such setting.
    """
    require_trials(trials, x, lines, by)
    groups = panels(trials, by)
    figure, axes = _axes(groups, by)
    seen = list(panels(trials, lines))
    ticks = list(dict.fromkeys(trial.setting[x] for trial in trials))
    for ax, group in zip(axes, groups.values(), strict=True):
        for name, of_line in panels(group, lines).items():
            i = seen.index(name)
            places = np.array([ticks.index(trial.setting[x]) for trial in of_line]) + 0.06 * (i - (len(seen) - 1) / 2)
            middle = np.array([found(trial).mean() for trial in of_line])
            low, high = np.array([share_interval(found(trial)) for trial in of_line]).T
            error = np.clip([middle - low, high - middle], 0, None)
            ax.errorbar(
                places,
                middle,
                error,
                color=f"C{i}",
                marker="o",
                ms=5,
                capsize=2,
                lw=1.6,
                elinewidth=0.8,
                label=_words({lines: name}, [lines]),
            )
        ax.set(
            xlabel=x.replace("_", " "),
            ylim=(-0.05, 1.05),
            xticks=range(len(ticks)),
            xticklabels=[short(t) for t in ticks],
        )
    axes[0].set_ylabel(ylabel)
    _legend(figure, axes)
    return Section(title, png(figure), reading)
