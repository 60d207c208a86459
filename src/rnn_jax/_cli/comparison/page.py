"""The page of `rnn-jax compare`."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..._reporting.console import shown
from ..._reporting.html_page import Section, html_page, png, subplots
from .runs import Group, Trained, groups
from .tables import Table, baselines, cost, in_bits, in_seconds, outcome, seeds, shared
from .verdict import cautions, verdict

MARKERS = "osD^vP*Xp<>h"  # besides the color, which not everyone sees
LONGEST = 46  # characters of a name in the legend
BEYOND = 1.5  # times the bits of the weakest n-gram model: what is above is cut off


def page(runs: Sequence[Trained]) -> str:
    """The page as text."""
    texts = dict.fromkeys(run.facts["text"] for run in runs)
    lead = f"{len(runs)} runs of {', '.join(texts)}. Bits are bits per character of the held-out text: less is better."
    sections = [curves(runs), *_tables(runs)]
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in shared(runs).items())
    end = f'<h2>The same in all runs</h2><table class="words">{rows}</table>' if rows else ""
    said = [line[0].upper() + line[1:] if line.startswith("these") else line for line in cautions(runs)]
    return html_page("Comparison of runs", lead, [*verdict(runs), *said], sections, end)


def _tables(runs: Sequence[Trained]) -> list[Section]:
    reading = (
        "The best run is the first. Behind: how many bits the best validation is above that of the best run of the "
        "same text. A run that validates more often has more chances of a low best validation: compare the last "
        "validations, too. Of the settings, only those that differ are shown."
    )
    found = [_section("Which is best", reading, outcome(runs))]
    reading = (
        "Seconds are those of the training: with compiling, validations and samples, but without the time between an "
        "interruption and its --resume. What else the machine did is not known. A level is reached at the first "
        "validation that is at most as high, so a run that validates seldom seems to reach it late."
    )
    found.append(_section("What it cost", reading, cost(runs)))
    reading = (
        "Runs that differ only in the seed: mean and range of their best validations. The range of a few seeds is "
        "smaller than that of many."
    )
    return [*found, *([_section("Seeds", reading, table)] if (table := seeds(runs)).rows else [])]


def _section(title: str, reading: str, table: Table) -> Section:
    return Section(title, None, reading, table.header, [[shown(word) for word in row] for row in table.rows])


def curves(runs: Sequence[Trained]) -> Section:
    """The validations of all runs, against the characters read and against the seconds."""
    found = [group for group in groups(runs) if group.bits]
    colors = colormaps["viridis"](np.linspace(0, 0.88, len(found)))
    limit = BEYOND * max(max(run.facts["baselines"].values()) for run in runs)
    figure, axes = subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for place, color in enumerate(colors):
        style = {"color": color, "marker": MARKERS[place % len(MARKERS)]}
        for first, run in enumerate(_drawn(found[place], runs)):
            _draw(run, runs, axes, limit, style | ({} if first else {"label": _label(found[place], runs)}))
    bits = [min(validation.bits, limit) for run in runs for validation in run.validations]
    low, high = min(bits), max(bits)
    margin = max(0.06 * (high - low), 0.02)
    axes[0].set_ylim(low - margin, high + margin)
    if len({run.text for run in runs}) == 1:
        for (name, level), line in zip(baselines(runs[0]).items(), (":", "-.", "--"), strict=True):
            if low - margin < level < high + margin:
                for panel in axes:
                    panel.axhline(level, color="0.45", linestyle=line, linewidth=1, label=f"{name} {level:.3f}")
    axes[0].set(xlabel="characters read", ylabel="bits per character of the held-out text")
    axes[1].set(xlabel="seconds")
    axes[0].xaxis.set_major_formatter(EngFormatter())
    for panel in axes:
        panel.set_xlim(0, None)
        panel.xaxis.set_major_locator(MaxNLocator(6))
        panel.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), 130 // (max(map(len, labels)) + 8)))
    figure.set_size_inches(11, 4.6 + 0.2 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    rows = [
        (str(number), f"{v.step:,}", f"{v.characters:,}", in_seconds(v.seconds), in_bits(v.bits))
        for number, run in enumerate(runs, 1)
        for v in run.validations
    ]
    return Section(
        "Validation",
        png(figure),
        "The numbers are those of the tables. The left picture shows who learns more from the same characters, the "
        "right picture who learns more in the same time. Runs that differ only in the seed have the same color. A "
        f"triangle at the upper edge is a validation above {limit:.2f} bits. Grey lines are n-gram models of the same "
        "text, if they are within the picture.",
        ("run", "step", "characters", "seconds", "bits"),
        rows,
    )


def _drawn(group: Group, runs: Sequence[Trained]) -> list[Trained]:
    """The runs of a group that have validations, repeated seeds too."""
    members = [*group.seeds, *(again for _, again in group.repeated)]
    return [run for run in runs if run in members and run.validations]


def _label(group: Group, runs: Sequence[Trained]) -> str:
    """The numbers and names of the runs of a group; of several, the name of the first."""
    drawn = _drawn(group, runs)
    numbers = ", ".join(str(number) for number, run in enumerate(runs, 1) if run in drawn)
    name = shown(drawn[0].name).replace("\n", " ")
    name = name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
    more = f" and {len(drawn) - 1} more seed{'s' * (len(drawn) > 2)}" if len(drawn) > 1 else ""
    return f"{numbers}: {name}{more}".replace("$", r"\$")


def _draw(run: Trained, runs: Sequence[Trained], axes: Any, limit: float, style: dict[str, Any]) -> None:
    """One curve in each panel, with the number of its run at its end; triangles for what is above the limit."""
    bits = np.array([validation.bits for validation in run.validations])
    heights = np.minimum(bits, limit)
    for panel, xs in zip(
        axes, np.transpose([(v.characters, v.seconds) for v in run.validations]).astype(float), strict=True
    ):
        panel.plot(xs, heights, linewidth=1.4, markersize=4, **style)
        above = bits > limit
        panel.plot(xs[above], heights[above], color=style["color"], marker="^", markersize=9, linestyle="none")
        number = str(runs.index(run) + 1)
        panel.annotate(
            number,
            (xs[-1], heights[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style["color"],
        )
