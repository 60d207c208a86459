"""The race in words: a Markdown table per cell and shape, who was refused, the targets, and where a GPU overtakes."""

from collections.abc import Iterable

import pandas as pd
from tabulate import tabulate

from rnn_jax._reporting.machine import machine_line

from .contenders import CONTENDERS, HEADLINE, RIVALS
from .figures import KEY, speed, summarise, targets
from .problems import Shape

COLUMNS = (
    *("contender", "ms, median (quartiles)", "speed to textbook (95 %)", "of floor"),
    *("GFLOP/s", "error", "compile s", "temp MiB"),
)
NO_GPU = "This machine has no CUDA device, so the GPU columns and the CPU/GPU crossover are left out."


def markdown(data: dict) -> str:
    """All that was written of a race."""
    rows = summarise(data["rows"], data["machines"])
    parts = ["# The race", machine(data), *targets_table(rows), *summary(rows), *legend(rows)]
    for key, group in rows[rows["series"] == "race"].groupby(KEY, sort=False):
        parts += [table(group), *absences(data, key)]
    parts += crossover(rows, data)
    for (series, cell), group in rows[rows["series"] != "race"].groupby(["series", "cell"], sort=False):
        parts += sweep(group, series, cell)
    return "\n\n".join(parts) + "\n"


def grid(lines: Iterable[Iterable[str]], head: Iterable[str]) -> str:
    """A Markdown table, its texts as they are."""
    return tabulate(lines, list(head), tablefmt="github", disable_numparse=True)


def machine(data: dict) -> str:
    """Where and with what; the rates are the machine's own, measured in this run."""
    m, settings = data["machine"], data["settings"]
    commit = f", commit {m['commit']}" if m.get("commit") else ""
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    lines = [f"{m['date']}: {machine_line(m)}, load {m['load']} at the start{commit}."]
    lines += [f"Python {m['python']}, {versions}."]
    lines += [f"{name}={value}" for name, value in m["environment"].items()]
    for device, rates in data["machines"].items():
        product, copy = max(rates["product"]) / 1e9, max(rates["copy"]) / 1e9
        spread = f"worst turn {min(rates['product']) / 1e9:.0f}"
        lines.append(
            f"{device} ({rates['kind']}): {product:.0f} GFLOP/s in large float32 products ({spread}), "
            f"{copy:.1f} GB/s copying (read and written)."
        )
    if "cuda" not in data["machines"]:
        lines.append(NO_GPU if settings["looked_for_cuda"] else "This run was for the CPU only.")
    lines.append(
        f"There are up to {settings['rounds']} rounds, fewer where calls are long. A turn takes at least "
        f"{settings['turn_ms']:.0f} ms, every contender has its own process, and the order changes each round. All "
        "contenders compute in float32, with products in full float32. The error is that of the worst leaf, compared "
        "with float64 and relative to its largest entry. The floor is the time of the products alone at the rate above."
    )
    return "  \n".join(lines)


def targets_table(rows: pd.DataFrame) -> list[str]:
    """Wanted, measured, met or missed; those that this run can judge."""
    judged = [(t.wanted, t.measured, "met" if t.met else "missed") for t in targets(rows) if t.met is not None]
    return ["## Targets (gradient, CPU)", grid(judged, ("wanted", "measured", ""))] if judged else []


def summary(rows: pd.DataFrame) -> list[str]:
    """A line a race: the headline beside the textbook and the best of the rivals."""
    head = (
        "what",
        "on",
        "cell",
        "shape",
        "textbook ms",
        "best rival ms",
        "ours ms",
        "to textbook",
        "to the best rival",
    )
    lines = []
    for (_, cell, name, what, device), group in rows[rows["series"] == "race"].groupby(KEY, sort=False):
        by_name, rivals = group.set_index("contender"), group[group["role"].isin(RIVALS)]
        if not {HEADLINE, "textbook"} <= set(by_name.index) or rivals.empty:
            continue
        textbook, ours = by_name.loc["textbook"], by_name.loc[HEADLINE]
        best = rivals.loc[rivals["ms"].idxmin()]
        ms = f"{textbook['ms']:.3f}", f"{best['ms']:.3f} {best['contender']}", f"{ours['ms']:.3f}"
        speeds = [f"{speed(ours['seconds'], other['seconds']).median:.2f}x" for other in (textbook, best)]
        lines.append((what, device, cell, name, *ms, *speeds, f"{ours['of_floor']:.3f}"))
    return [f"## {HEADLINE}, shape by shape", grid(lines, (*head, "of floor"))] if lines else []


def legend(rows: pd.DataFrame) -> list[str]:
    """Who is who."""
    raced = set(rows["contender"])
    lines = [(name, who.role, who.about) for name, who in CONTENDERS.items() if name in raced]
    return ["## Who races", grid(lines, ("contender", "", ""))]


def table(rows: pd.DataFrame) -> str:
    """One race."""
    first = rows.iloc[0]
    title = f"## {first['what']} {first['cell']} {first['name']} on {first['device']}"
    return f"{title}\n\n{grid((cells(row) for _, row in rows.iterrows()), COLUMNS)}"


def cells(row: pd.Series) -> list[str]:
    """One contender."""
    digits = 2 if row["ms"] >= 10 else 3
    return [
        row["contender"],
        f"{row['ms']:.{digits}f} ({row['q1']:.{digits}f}-{row['q3']:.{digits}f})",
        "-" if pd.isna(row["speed"]) else f"{row['speed']:.2f} ({row['low']:.2f}-{row['high']:.2f})",
        f"{row['of_floor']:.3f}",
        f"{row['gflops']:.1f}",
        f"{row['error']:.1e}",
        known(row["compile_s"], ".2f"),
        known(row["temp_mib"], ".2f"),
    ]


def known(value: float, form: str) -> str:
    """The value, or a dash where there is none."""
    return "-" if pd.isna(value) else format(value, form)


def absences(data: dict, key: tuple) -> list[str]:
    """Who is not in this race, and why."""
    whys = [
        f"{entry['contender']}: {entry['why']}"
        for entry in data["missing"]
        if (entry["series"], entry["cell"], Shape(*entry["shape"]).name, entry["what"], entry["device"]) == key
    ]
    return [f"Not in this race: {'; '.join(whys)}."] if whys else []


def crossover(rows: pd.DataFrame, data: dict) -> list[str]:
    """The best gradient of each device by shape, least work a step first, and where in the sweeps the GPU overtakes."""
    if not {"cpu", "cuda"} <= set(data["machines"]):
        return []
    gradients = rows[rows["what"] == "gradient"]
    best = gradients.loc[gradients.groupby(["series", "cell", "name", "device"], sort=False)["ms"].idxmin()]
    cpu, gpu = (best[best["device"] == device] for device in ("cpu", "cuda"))
    race = ["series", "cell", "name"]
    both = cpu.merge(gpu[[*race, "ms", "contender"]], on=race, suffixes=("", "_gpu"))
    both["a_step"] = both["flops"] / both["time"] / 1e6  # what a device can do at once
    both["ahead"] = both["ms"] / both["ms_gpu"]
    lines = [
        (
            p.cell,
            p.name,
            f"{p.a_step:.3g}",
            f"{p.ms:.3f} {p.contender}",
            f"{p.ms_gpu:.3f} {p.contender_gpu}",
            f"{p.ahead:.2f}x",
        )
        for p in both.sort_values("a_step", kind="stable").itertuples(index=False)
    ]
    head = ("cell", "shape", "MFLOP per step", "best on CPU, ms", "best on GPU, ms", "GPU ahead by")
    swept = both[both["series"].isin(("T", "B", "hid"))].groupby(["series", "cell"], sort=False)
    said = [overtakes(points, f"{series} of {cell}") for (series, cell), points in swept]
    return ["## CPU/GPU crossover", grid(lines, head), *said]


def overtakes(points: pd.DataFrame, series: str) -> str:
    """The first point of a sweep from which the GPU stays ahead."""
    points = points.sort_values(list(Shape._fields))
    behind = [place for place, ahead in enumerate(points["ahead"]) if ahead <= 1]
    first = behind[-1] + 1 if behind else 0
    if first == len(points):
        return f"Along {series} the GPU does not overtake up to {points['name'].iloc[-1]}."
    return f"Along {series} the GPU is ahead from {points['name'].iloc[first]} on."


def sweep(rows: pd.DataFrame, series: str, cell: str) -> list[str]:
    """Milliseconds of every contender along a sweep; of the long one temporaries and compile time too."""
    titles = {"ms": ("ms", ".3g")}
    if series == "long":
        titles |= {"temp_mib": ("temp MiB", ".3g"), "compile_s": ("compile s", ".2f")}
    parts = []
    for device, here in rows.groupby("device", sort=False):
        names = [name for name in CONTENDERS if name in set(here["contender"])]
        for column, (title, form) in titles.items():
            along = here.pivot(index="name", columns="contender", values=column).reindex(here["name"].unique())[names]
            lines = [(name, *(known(value, form) for value in values)) for name, *values in along.itertuples(name=None)]
            parts += [f"## {cell} along {series} on {device}: {title}", grid(lines, ("shape", *names))]
    return parts
