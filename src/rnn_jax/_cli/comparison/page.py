"""The page of `rnn-jax compare`."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..._reporting.console import shown
from ..._reporting.html_page import Section, html_page, png, subplots
from .runs import Group, Trained, groups, unit_of
from .tables import LONGEST, baselines, cost, ending, in_bits, in_seconds, outcome, reached, seeds, shared
from .verdict import cautions, verdict

MARKERS = "osD^vP*Xp<>h"  # besides the color, which not everyone sees
LINES = ("-", "--", ":", "-.")  # of each text
SEVERAL = "Each text has its own kind of line; compare only curves of one text."
IN_LEGEND = 46  # characters of a name
BEYOND = 1.1  # times the bits of the weakest n-gram model: what is above is cut off
APART = (0.03, 0.04)  # the least distance of two numbers, as shares of the width and height of the axes


def page(runs: Sequence[Trained]) -> str:
    """The page as text."""
    texts, unit = dict.fromkeys(run.title for run in runs), unit_of(runs)
    lead = f"{len(runs)} runs of {', '.join(texts)}. Bits are bits per {unit} of the held-out text: less is better."
    sections = [curves(runs), *_tables(runs)]
    folders = {str(number): run.name for number, run in enumerate(runs, 1)}
    end = _words("Folders", folders) + _words("The same in all runs", shared(runs))
    said = [line[0].upper() + line[1:] if line.startswith("these") else line for line in cautions(runs)]
    return html_page("Comparison of runs", lead, [*verdict(runs), *said], sections, end)


def _words(title: str, facts: dict[str, str]) -> str:
    """A table of two columns, whose long lines are wrapped."""
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(shown(value))}</td></tr>" for key, value in facts.items())
    return f'<h2>{title}</h2><table class="words">{rows}</table>' if rows else ""


def _tables(runs: Sequence[Trained]) -> list[Section]:
    named = [run._replace(name=ending(shown(run.name), LONGEST)) for run in runs]
    found = {
        "Which is best": (
            outcome(named),
            "The best run is the first. Behind: how many bits the best validation is above that of the best run of the "
            "same text. A run that validates more often has more chances of a low best validation: compare the last "
            "validations, too. Of the settings, only those that differ are shown.",
        ),
        "What it cost": (
            cost(runs),
            "Seconds are those of the training: with compiling, validations and samples, but without the time between "
            "an interruption and its continuation. What else the machine did is not known.",
        ),
        "When each reached what": (
            reached(runs),
            f"{unit_of(runs).capitalize()}s read and seconds until the first validation that is at most as high as an "
            "n-gram model of the text, and as the best validation of the worst run. A run that validates seldom seems "
            "to be late.",
        ),
        "Seeds": (
            seeds(runs),
            "Runs that differ only in the seed: mean and range of their best validations. The range of a few seeds is "
            "smaller than that of many.",
        ),
    }
    return [
        Section(title, None, reading, table.header, [[shown(word) for word in row] for row in table.rows])
        for title, (table, reading) in found.items()
        if table.rows
    ]


def curves(runs: Sequence[Trained]) -> Section:
    """The validations of all runs, against the characters or bytes read and against the seconds."""
    unit = unit_of(runs)
    found = [group for group in groups(runs) if group.bits]
    texts = list(dict.fromkeys(run.text for run in runs))
    colors = colormaps["viridis"](np.linspace(0, 0.8, len(found)))
    limit = BEYOND * max(max(run.facts["baselines"].values()) for run in runs)
    figure, axes = subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for place, color in enumerate(colors):
        line = LINES[texts.index(found[place].seeds[0].text) % len(LINES)]
        style = {"color": color, "marker": MARKERS[place % len(MARKERS)], "linestyle": line}
        for first, run in enumerate(_drawn(found[place], runs)):
            _draw(run, axes, limit, style | ({} if first else {"label": _label(found[place], runs)}))
    bits = [min(validation.bits, limit) for run in runs for validation in run.validations]
    low, high = min(bits), max(bits)
    margin = max(0.06 * (high - low), 0.02)
    axes[0].set_ylim(low - 1.5 * margin, high + margin)  # more below, for the numbers of the best
    if len(texts) == 1:
        for (name, level), line in zip(baselines(runs[0]).items(), (":", "-.", "--"), strict=True):
            if low - margin < level < high + margin:
                for panel in axes:
                    panel.axhline(level, color="0.45", linestyle=line, linewidth=1, label=f"{name} {level:.3f}")
    axes[0].set(xlabel=f"{unit}s read", ylabel=f"bits per {unit} of the held-out text")
    axes[1].set(xlabel="seconds")
    axes[0].xaxis.set_major_formatter(EngFormatter())
    for panel in axes:
        panel.set_xlim(0, 1.04 * panel.dataLim.x1 or 1)
        panel.xaxis.set_major_locator(MaxNLocator(6))
        panel.grid(alpha=0.25)
    _number_ends(runs, axes, limit)
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
        "The number at the end of a curve is that of the run in the tables. The left picture shows who learns more "
        f"from the same {unit}s, the right picture who learns more in the same time. Runs that differ only in the "
        f"seed have the same colour. A triangle at the upper edge is a validation above {limit:.2f} bits. "
        + ("Grey lines are n-gram models, if they are within the picture." if len(texts) == 1 else SEVERAL),
        ("run", "step", f"{unit}s", "seconds", "bits"),
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
    more = f" and {len(drawn) - 1} more seed{'s' * (len(drawn) > 2)}" if len(drawn) > 1 else ""
    return f"{numbers}: {ending(shown(drawn[0].name), IN_LEGEND)}{more}".replace("$", r"\$")


def _draw(run: Trained, axes: Any, limit: float, style: dict[str, Any]) -> None:
    """One curve in each panel; triangles for what is above the limit."""
    bits = np.array([validation.bits for validation in run.validations])
    for panel, xs in zip(axes, _abscissae(run), strict=True):
        panel.plot(xs, np.minimum(bits, limit), linewidth=1.4, markersize=5, **style)
        above = bits > limit
        if above.any():
            beyond = np.full(above.sum(), limit)
            panel.plot(xs[above], beyond, color=style["color"], marker="^", markersize=10, linestyle="none")


def _abscissae(run: Trained) -> Any:
    """The characters and the seconds of the validations, (2, validations)."""
    return np.array([(validation.characters, validation.seconds) for validation in run.validations], float).T


def _number_ends(runs: Sequence[Trained], axes: Any, limit: float) -> None:
    """The number of each run at the end of its curve, one above the other where they would overlap."""
    low, high = axes[0].get_ylim()
    for which, panel in enumerate(axes):
        width = panel.get_xlim()[1]
        ends = sorted(
            (_abscissae(run)[which, -1] / width, (min(run.validations[-1].bits, limit) - low) / (high - low), number)
            for number, run in enumerate(runs, 1)
            if run.validations
        )
        while ends:
            near = sorted(end[1:] for end in ends if end[0] - ends[0][0] < APART[0])
            x = ends[len(near) - 1][0]
            ends = ends[len(near) :]
            for y, (_, number) in zip(_apart([y for y, _ in near], APART[1]), near, strict=True):
                place = {"xycoords": "axes fraction", "xytext": (6, 0), "textcoords": "offset points"}
                panel.annotate(str(number), (x, y), va="center", fontsize=8, color="0.15", **place)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The increasing heights that are at least so far apart and closest to these, which increase, in squares."""
    blocks: list[tuple[float, int]] = []  # isotonic regression of what is left when the least distances are taken off
    for place, height in enumerate(heights):
        mean, count = height - place * least, 1
        while blocks and blocks[-1][0] > mean:
            before, several = blocks.pop()
            mean, count = (mean * count + before * several) / (count + several), count + several
        blocks.append((mean, count))
    left = [mean for mean, count in blocks for _ in range(count)]
    return [height + place * least for place, height in enumerate(left)]
