"""The race in pictures: speed against T, B and hid, memory against T, and the roofline."""

from pathlib import Path

import matplotlib
import pandas as pd

from .contenders import CONTENDERS, RIVALS
from .figures import summarise
from .problems import Shape

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

AXES = {"T": ("time", "time steps T"), "B": ("batch", "batch B"), "hid": ("hidden", "hidden units")}
PALETTES = ("tab10", "Dark2", "Set2")
COLORS = dict(zip(CONTENDERS, [color for name in PALETTES for color in plt.get_cmap(name).colors], strict=False))
MARKERS = {"textbook": "s", "ours": "o", "autodiff": "^", "peer": "D"}
BEST_RIVAL = "best rival"
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def save_pictures(data: dict, folder: Path) -> list[Path]:
    """Every picture that the run has data for; of the vanilla cell."""
    rows = summarise(data["rows"], data["machines"]).query("what == 'gradient' and cell == 'vanilla'")
    saved = []
    for device, rates in data["machines"].items():
        here = rows[rows["device"] == device]
        suffix = "" if device == "cpu" else f"_{device}"
        kind = f"{data['machine']['cpu']}, {data['machine']['cores']} cores" if device == "cpu" else rates["kind"]
        figures = {"speed": speed(here, kind), "memory": memory(here, kind), "roofline": roofline(here, rates, kind)}
        for name, figure in figures.items():
            if figure is not None:
                saved.append(folder / f"race_{name}{suffix}.png")
                figure.savefig(saved[-1], dpi=130)
                plt.close(figure)
    return saved


def style(name: str) -> dict:
    """One color a contender in every picture, one marker a role, ours the thicker lines."""
    role = CONTENDERS[name].role
    line = {"textbook": "--", "ours": "-", "autodiff": ":", "peer": "-."}[role]
    width = 2.2 if role == "ours" else 1.3
    return {"color": COLORS[name], "marker": MARKERS[role], "linestyle": line, "linewidth": width, "markersize": 5}


def curves(rows: pd.DataFrame, series: str) -> dict[str, pd.DataFrame]:
    """The rows of a sweep by contender, in the order of the sweep."""
    here = rows[rows["series"] == series].sort_values(list(Shape._fields))
    found = dict(iter(here.groupby("contender")))
    return {name: found[name] for name in CONTENDERS if name in found}


def speed(rows: pd.DataFrame, kind: str):
    """How many times faster than the textbook, along T, B and hid; bars are the 95 % interval of the median."""
    swept = {series: curves(rows.dropna(subset=["speed"]), series) for series in AXES}
    if not any(swept.values()):
        return None
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True, layout="constrained")
    for panel, (series, (field, label)) in zip(panels, AXES.items(), strict=True):
        for name, found in swept[series].items():
            bars = [found["speed"] - found["low"], found["high"] - found["speed"]]
            panel.errorbar(found[field], found["speed"], bars, label=name, capsize=2, elinewidth=1, **style(name))
        if swept[series]:
            points = pd.concat(swept[series].values())
            first = points.iloc[0]
            fixed = [f"{name} {first[other]}" for name, (other, _) in AXES.items() if other != field]
            panel.set_title(f"{', '.join(fixed)}, in {first['inputs']}, out {first['outputs']}", fontsize=10)
            logarithmic(panel, sorted(points[field].unique()))
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("speed of the gradient, textbook = 1")
    panels[0].set_ylim(bottom=0)
    entries = {n: h for p in panels for h, n in zip(*p.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False)
    figure.suptitle(kind, fontsize=10)
    return figure


def logarithmic(panel, values: list[int]) -> None:
    """A logarithmic axis with a label at each of the values."""
    panel.set_xscale("log")
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())


def memory(rows: pd.DataFrame, kind: str):
    """Temporaries and time against T, one sequence of 64 units, logarithmic both ways."""
    found = curves(rows, "long")
    if not found:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, points in found.items():
        right.loglog(points["time"], points["ms"] / 1e3, label=name, **style(name))
        if points["temp_mib"].notna().all():
            left.loglog(points["time"], points["temp_mib"], label=name, **style(name))
    left.set_ylabel("temporaries of the gradient, MiB")
    right.set_ylabel("time of the gradient, s")
    for panel in (left, right):
        panel.set_xlabel("time steps T")
        panel.grid(alpha=0.3)
        panel.yaxis.set_major_formatter(PLAIN)
    left.legend(frameon=False)
    figure.suptitle(f"one sequence, 64 units; {kind}", fontsize=10)
    return figure


def roofline(rows: pd.DataFrame, rates: dict, kind: str):
    """Rate of useful work against work per byte that must cross, under the machine's own two roofs."""
    raced = rows[rows["series"] == "race"]
    if raced.empty:
        return None
    raced = raced.assign(intensity=raced["flops"] / raced["bytes"])
    product, copy = max(rates["product"]) / 1e9, max(rates["copy"]) / 1e9
    figure, panel = plt.subplots(figsize=(9.5, 6), layout="constrained")
    intensity = raced.drop_duplicates("name").set_index("name")["intensity"].to_dict()
    ridge = product / copy
    left, right = min(*intensity.values(), ridge) / 3, max(*intensity.values(), ridge) * 1.8
    panel.loglog([left, ridge, right], [copy * left, product, product], color="black", linewidth=1.5)
    panel.text(right, product * 1.06, f"{product:.0f} GFLOP/s, large products", ha="right", va="bottom", fontsize=9)
    panel.text(ridge, product * 1.06, f"{copy:.1f} GB/s, copying", ha="right", va="bottom", fontsize=9)
    for name, here in roofed(raced).items():
        look = {"marker": "v", "color": "0.45", "markersize": 7} if name == BEST_RIVAL else style(name)
        look |= {"linestyle": "none"} | ({"markersize": 8} if name != BEST_RIVAL else {})
        panel.plot(here["intensity"], here["gflops"], label=name, alpha=0.9, **look)
    slowest = min(here["gflops"].min() for here in roofed(raced).values())
    bottom = slowest / 8
    panel.set_ylim(bottom, product * 1.7)
    panel.set_xlim(left, right)
    for shape, x in apart(intensity, left, right).items():
        panel.plot([intensity[shape]] * 2, [slowest / 1.3, product], color="0.85", linewidth=0.8, zorder=0)
        panel.plot([x, intensity[shape]], [slowest / 1.7, slowest / 1.3], color="0.7", linewidth=0.8, zorder=0)
        panel.text(x, slowest / 1.8, shape, rotation=90, ha="center", va="top", fontsize=7)
    panel.set_xlabel("work per byte that must cross, flop/byte")
    panel.set_ylabel("products of the gradient, GFLOP/s")
    panel.yaxis.set_major_formatter(PLAIN)
    panel.xaxis.set_major_formatter(PLAIN)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.2)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.suptitle(kind, fontsize=10)
    return figure


def roofed(raced: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The textbook, ours, and of the rivals the best at each shape."""
    rivals = raced[raced["role"].isin(RIVALS)]
    best = rivals.loc[rivals.groupby("name", sort=False)["gflops"].idxmax()]
    names = [name for name, row in CONTENDERS.items() if row.role in ("textbook", "ours")]
    found = {name: raced[raced["contender"] == name] for name in names} | {BEST_RIVAL: best}
    return {name: rows for name, rows in found.items() if not rows.empty}


def apart(places: dict[str, float], left: float, right: float) -> dict[str, float]:
    """Places on a logarithmic axis for upright labels, moved right until none covers another."""
    step = (right / left) ** 0.028
    moved: dict[str, float] = {}
    last = 0.0
    for name, x in sorted(places.items(), key=lambda place: place[1]):
        last = moved[name] = max(x, last * step)
    return moved
