"""The race in pictures: speed against T, B and hid, memory against T, and the roofline."""

from pathlib import Path

import matplotlib

from .contenders import CONTENDERS, RIVALS
from .problems import Shape
from .statistics import summarise

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

AXES = {"T": ("time", "time steps T"), "B": ("batch", "batch B"), "hid": ("hidden", "hidden units")}
COLORS = dict(zip(CONTENDERS, [*plt.get_cmap("tab10").colors, *plt.get_cmap("Dark2").colors], strict=False))
MARKERS = {"textbook": "s", "ours": "o", "autodiff": "^", "peer": "D"}
BEST_RIVAL = "best rival"
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def save_pictures(data: dict, folder: Path) -> list[Path]:
    """Every picture that the run has data for."""
    rows = [row for row in summarise(data["rows"], data["machines"]) if row["what"] == "gradient"]
    saved = []
    for device, rates in data["machines"].items():
        here = [row for row in rows if row["device"] == device]
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


def curves(rows: list[dict], series: str) -> dict[str, list[dict]]:
    """The rows of a sweep by contender, in the order of the sweep."""
    here = sorted((row for row in rows if row["series"] == series), key=lambda row: row["shape"])
    return {name: found for name in CONTENDERS if (found := [row for row in here if row["contender"] == name])}


def speed(rows: list[dict], kind: str):
    """How many times faster than the textbook, along T, B and hid; bars are the 95 % interval of the median."""
    swept = {series: curves([row for row in rows if row["speed"]], series) for series in AXES}
    if not any(swept.values()):
        return None
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True, layout="constrained")
    for panel, (series, (field, label)) in zip(panels, AXES.items(), strict=True):
        for name, found in swept[series].items():
            xs = [getattr(Shape(*row["shape"]), field) for row in found]
            ratios = [row["speed"] for row in found]
            ys = [r["median"] for r in ratios]
            bars = [[r["median"] - r["low"] for r in ratios], [r["high"] - r["median"] for r in ratios]]
            panel.errorbar(xs, ys, yerr=bars, label=name, capsize=2, elinewidth=1, **style(name))
            shape = Shape(*found[0]["shape"])
        if swept[series]:
            fixed = [
                f"{n} {getattr(shape, f)}" for n, f in (("T", "time"), ("B", "batch"), ("hid", "hidden")) if f != field
            ]
            panel.set_title(f"{', '.join(fixed)}, in {shape.inputs}, out {shape.outputs}", fontsize=10)
            logarithmic(
                panel, sorted({getattr(Shape(*row["shape"]), field) for row in sum(swept[series].values(), [])})
            )
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


def memory(rows: list[dict], kind: str):
    """Temporaries and time against T, one sequence of 64 units, logarithmic both ways."""
    found = curves(rows, "long")
    if not found:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, points in found.items():
        xs = [row["shape"][0] for row in points]
        right.loglog(xs, [row["ms"]["median"] / 1e3 for row in points], label=name, **style(name))
        if all(row["temp_bytes"] is not None for row in points):
            left.loglog(xs, [row["temp_bytes"] / 2**20 for row in points], label=name, **style(name))
    left.set_ylabel("temporaries of the gradient, MiB")
    right.set_ylabel("time of the gradient, s")
    for panel in (left, right):
        panel.set_xlabel("time steps T")
        panel.grid(alpha=0.3)
        panel.yaxis.set_major_formatter(PLAIN)
    left.legend(frameon=False)
    figure.suptitle(f"one sequence, 64 units; {kind}", fontsize=10)
    return figure


def roofline(rows: list[dict], rates: dict, kind: str):
    """Rate of useful work against work per byte that must cross, under the machine's own two roofs."""
    raced = [row for row in rows if row["series"] == "race"]
    if not raced:
        return None
    product, copy = max(rates["product"]) / 1e9, max(rates["copy"]) / 1e9
    figure, panel = plt.subplots(figsize=(9.5, 6), layout="constrained")
    intensity = {row["name"]: row["flops"] / row["bytes"] for row in raced}
    ridge = product / copy
    left, right = min(*intensity.values(), ridge) / 3, max(*intensity.values(), ridge) * 1.8
    panel.loglog([left, ridge, right], [copy * left, product, product], color="black", linewidth=1.5)
    panel.text(right, product * 1.06, f"{product:.0f} GFLOP/s, large products", ha="right", va="bottom", fontsize=9)
    panel.text(ridge, product * 1.06, f"{copy:.1f} GB/s, copying", ha="right", va="bottom", fontsize=9)
    for name, here in roofed(raced).items():
        look = {"marker": "v", "color": "0.45", "markersize": 7} if name == BEST_RIVAL else style(name)
        look |= {"linestyle": "none"} | ({"markersize": 8} if name != BEST_RIVAL else {})
        panel.plot([r["flops"] / r["bytes"] for r in here], [r["gflops"] for r in here], label=name, alpha=0.9, **look)
    slowest = min(row["gflops"] for found in roofed(raced).values() for row in found)
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


def roofed(raced: list[dict]) -> dict[str, list[dict]]:
    """The textbook, ours, and of the rivals the best at each shape."""
    names = [name for name, row in CONTENDERS.items() if row.role in ("textbook", "ours")]
    found = {name: [row for row in raced if row["contender"] == name] for name in names}
    best: dict[str, dict] = {}
    for row in raced:
        if row["role"] in RIVALS and row["gflops"] > best.get(row["name"], {"gflops": 0.0})["gflops"]:
            best[row["name"]] = row
    return {name: rows for name, rows in (found | {BEST_RIVAL: list(best.values())}).items() if rows}


def apart(places: dict[str, float], left: float, right: float) -> dict[str, float]:
    """Places on a logarithmic axis for upright labels, moved right until none covers another."""
    step = (right / left) ** 0.028
    moved: dict[str, float] = {}
    last = 0.0
    for name, x in sorted(places.items(), key=lambda place: place[1]):
        last = moved[name] = max(x, last * step)
    return moved
