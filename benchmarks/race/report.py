"""The race in words: a Markdown table a shape, who was refused, the targets, and where a GPU overtakes."""

from rnn_jax._reporting.machine import machine_line

from .contenders import CONTENDERS, HEADLINE, RIVALS
from .problems import Shape
from .statistics import key, ratio, summarise
from .targets import MIB, targets

COLUMNS = (
    "contender | ms, median (quartiles) | speed to textbook (95 %) | of floor | GFLOP/s | error | compile s | temp MiB"
)
NO_GPU = "No CUDA device here: the GPU columns and the CPU/GPU crossover are left out."


def markdown(data: dict) -> str:
    """All of `race.json`."""
    rows = summarise(data["rows"], data["machines"])
    parts = ["# The race", machine(data), *targets_table(rows), *summary(rows)]
    parts += legend(rows)
    for group in groups(rows, "race").values():
        parts += [table(group), *absences(data, group)]
    parts += crossover(rows, data)
    for series in ("T", "B", "hid", "long"):
        parts += sweep(rows, series)
    return "\n\n".join(parts) + "\n"


def groups(rows: list[dict], series: str) -> dict[tuple, list[dict]]:
    """The rows of a series, those that raced against each other together, in the order of the run."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["series"] == series:
            found.setdefault(key(row), []).append(row)
    return found


def machine(data: dict) -> str:
    """Where and with what; the rates are the machine's own, measured in this run."""
    m = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    commit = f", commit {m['commit']}" if m.get("commit") else ""
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
        lines.append(NO_GPU if data["settings"]["looked_for_cuda"] else "Asked for the CPU alone.")
    settings = data["settings"]
    lines.append(
        f"Up to {settings['rounds']} rounds, fewer where calls are long, of turns of at least "
        f"{settings['turn_ms']:.0f} ms, every contender in a process of its own, the order new each round; float32 "
        "with products in full float32; errors are of the worst leaf against float64, relative to its largest entry; "
        "the floor is the time of the products alone at the rate above."
    )
    return "  \n".join(lines)


def legend(rows: list[dict]) -> list[str]:
    """Who is who."""
    raced = {row["contender"] for row in rows}
    lines = [f"| {name} | {who.role} | {who.about} |" for name, who in CONTENDERS.items() if name in raced]
    return ["## Who races", "\n".join(["| contender | | |", "|---|---|---|", *lines])]


def table(rows: list[dict]) -> str:
    """One race."""
    row = rows[0]
    count = COLUMNS.count("|") + 1
    head = [f"## {row['what']} {row['name']} on {row['device']}", "", f"| {COLUMNS} |", "|---" * count + "|"]
    return "\n".join(head + [f"| {' | '.join(cells(row))} |" for row in rows])


def cells(row: dict) -> list[str]:
    """One contender."""
    ms, speed = row["ms"], row["speed"]
    digits = 2 if ms["median"] >= 10 else 3
    return [
        row["contender"],
        f"{ms['median']:.{digits}f} ({ms['q1']:.{digits}f}-{ms['q3']:.{digits}f})",
        f"{speed['median']:.2f} ({speed['low']:.2f}-{speed['high']:.2f})" if speed else "-",
        f"{row['of_floor']:.3f}",
        f"{row['gflops']:.1f}",
        f"{row['error']:.1e}",
        "-" if row["compile_s"] is None else f"{row['compile_s']:.2f}",
        "-" if row["temp_bytes"] is None else f"{row['temp_bytes'] / MIB:.2f}",
    ]


def absences(data: dict, rows: list[dict]) -> list[str]:
    """Who is not in this race, and why."""
    here = [entry for entry in data["missing"] if key(entry) == key(rows[0])]
    return ["Not in it: " + "; ".join(f"{entry['contender']}: {entry['why']}" for entry in here) + "."] if here else []


def targets_table(rows: list[dict]) -> list[str]:
    """Wanted, measured, met or missed; those that this run can judge."""
    judged = [target for target in targets(rows) if target.met is not None]
    lines = [f"| {t.wanted} | {t.measured} | {'met' if t.met else 'missed'} |" for t in judged]
    if not judged:
        return []
    return ["## Targets (gradient, CPU)", "\n".join(["| wanted | measured | |", "|---|---|---|", *lines])]


def summary(rows: list[dict]) -> list[str]:
    """A line a race: the headline beside the textbook and the best of the rivals."""
    head = "what | on | shape | textbook ms | best rival ms | ours ms | to textbook | to the best rival | of floor"
    lines = []
    for group in groups(rows, "race").values():
        by_name = {row["contender"]: row for row in group}
        rivals = [row for row in group if row["role"] in RIVALS]
        if HEADLINE in by_name and "textbook" in by_name and rivals:
            ours, best = by_name[HEADLINE], min(rivals, key=lambda row: row["ms"]["median"])
            ms = [f"{row['ms']['median']:.3f}" for row in (by_name["textbook"], best, ours)]
            ms[1] += f" {best['contender']}"
            ratios = [f"{ratio(ours, other)['median']:.2f}x" for other in (by_name["textbook"], best)]
            where = [ours["what"], ours["device"], ours["name"]]
            lines.append(f"| {' | '.join([*where, *ms, *ratios, format(ours['of_floor'], '.3f')])} |")
    count = head.count("|") + 1
    title = f"## {HEADLINE}, shape by shape"
    return [title, "\n".join([f"| {head} |", "|---" * count + "|", *lines])] if lines else []


def crossover(rows: list[dict], data: dict) -> list[str]:
    """The best gradient of each device by shape, least work a step first, and where in the sweeps the GPU overtakes."""
    if not {"cpu", "cuda"} <= set(data["machines"]):
        return []
    head = "shape | MFLOP a step | best on CPU, ms | best on GPU, ms | GPU ahead by"
    lines = []
    for (_, shape), (cpu, gpu) in sorted(fastest(rows).items(), key=lambda item: a_step(item[1][0])):
        ms = [f"{row['ms']['median']:.3f} {row['contender']}" for row in (cpu, gpu)]
        ahead = cpu["ms"]["median"] / gpu["ms"]["median"]
        lines.append(f"| {' | '.join([Shape(*shape).name, f'{a_step(cpu):.3g}', *ms, f'{ahead:.2f}x'])} |")
    said = [overtakes(rows, series) for series in ("T", "B", "hid")]
    table = "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])
    return ["## CPU/GPU crossover", table, *filter(None, said)]


def a_step(row: dict) -> float:
    """Millions of operations that one time step has: what a device can do at once."""
    return row["flops"] / row["shape"][0] / 1e6


def fastest(rows: list[dict]) -> dict[tuple, tuple[dict, dict]]:
    """By series and shape, the fastest gradient on the CPU and on the GPU, where both raced."""
    best: dict[tuple, dict[str, dict]] = {}
    for row in sorted(rows, key=lambda row: -row["ms"]["median"]):
        if row["what"] == "gradient":
            best.setdefault((row["series"], tuple(row["shape"])), {})[row["device"]] = row
    return {point: (of["cpu"], of["cuda"]) for point, of in best.items() if len(of) == 2}


def overtakes(rows: list[dict], series: str) -> str | None:
    """The first point of a sweep from which the GPU stays ahead."""
    points = [(shape, pair) for (name, shape), pair in sorted(fastest(rows).items()) if name == series]
    if not points:
        return None
    behind = [n for n, (_, (cpu, gpu)) in enumerate(points) if gpu["ms"]["median"] >= cpu["ms"]["median"]]
    first = behind[-1] + 1 if behind else 0
    if first == len(points):
        return f"Along {series} the GPU does not overtake up to {Shape(*points[-1][0]).name}."
    return f"Along {series} the GPU is ahead from {Shape(*points[first][0]).name} on."


def sweep(rows: list[dict], series: str) -> list[str]:
    """Milliseconds of every contender along a sweep; of the long one temporaries and compile time too."""
    found = groups(rows, series)
    devices = dict.fromkeys(group[0]["device"] for group in found.values())
    parts = []
    for device in devices:
        points = [group for group in found.values() if group[0]["device"] == device]
        names = [name for name in CONTENDERS if any(row["contender"] == name for row in sum(points, []))]
        more = ("temp MiB", "compile s") if series == "long" else ()
        for column in ("ms", *more):
            head = [f"| shape | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
            lines = [
                f"| {Shape(*group[0]['shape']).name} | {' | '.join(_along(group, names, column))} |" for group in points
            ]
            parts += [f"## Along {series} on {device}: {column}", "\n".join(head + lines)]
    return parts


def _along(group: list[dict], names: list[str], column: str) -> list[str]:
    by_name = {row["contender"]: row for row in group}
    figures = {
        "ms": lambda row: f"{row['ms']['median']:.3g}",
        "temp MiB": lambda row: "-" if row["temp_bytes"] is None else f"{row['temp_bytes'] / MIB:.3g}",
        "compile s": lambda row: "-" if row["compile_s"] is None else f"{row['compile_s']:.2f}",
    }
    return [figures[column](by_name[name]) if name in by_name else "-" for name in names]
