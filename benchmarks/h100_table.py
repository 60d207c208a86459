"""The facts of `h100.py` as Markdown."""

from typing import Any

COLUMNS = {
    "": lambda name, f: name,
    "per step, forward / backward": lambda name, f: _steps(f),
    "per block": lambda name, f: " / ".join(map(_number, f["launches_per_block"])) or "–",
    "in all": lambda name, f: f"{f['launches']:,}",
    "products per step": lambda name, f: " / ".join(map(_number, f["products_per_step"])),
    "of weight gradients": lambda name, f: str(f["weight_gradients_of_a_step"] or "none"),
    "temporaries": lambda name, f: _megabytes(f["temp_bytes"]),
    "peak": lambda name, f: _megabytes(f["peak_bytes"]),
    "atomics": lambda name, f: str(f["atomics"]),
    "TF32, default / highest": lambda name, f: f"{f['tf32_products']} / {f['tf32_products_at_highest']}",
    "top level": lambda name, f: _top_level(f["thunks"]),
    "with graph flags": lambda name, f: _top_level(f["thunks_with_graph_flags"]),
}
SHARDED = {
    "": COLUMNS[""],
    "per step": COLUMNS["per step, forward / backward"],
    "collectives": lambda name, f: _collectives(f["collectives"]),
    "peak of a device": COLUMNS["peak"],
}
LEGEND = """\
Launches are kernels and copies of the optimised program; the condition of a loop is not counted. "Per step" is one
time step of each innermost loop, in the order in which the loops run. "Per block" is one turn of a loop around those
loops. "In all" is one gradient. "Of weight gradients" are products in a loop that sum over the sequences of a single
step (two weights may share one). Temporaries are reserved in addition to arguments and results. Peak is the most
memory in use at one time, arguments and results included. Atomics and TF32 products are instructions of the machine
code (PTX). A sum by atomics may differ from run to run; a TF32 product keeps 10 of a float32's 23 bits, and
"highest" is `jax.default_matmul_precision("highest")`. "Top level" is the number of items that the host issues for
one gradient. Some of them are CUDA graphs, others are loops that the host drives turn by turn. The last column has
the same numbers under these flags:"""


def markdown(facts: dict[str, Any]) -> str:
    """All tables, each under a heading, and what they were made with."""
    flags = "\n".join(f"    {flag}" for flag in facts["graph flags"])
    versions = ", ".join(f"{package} {version}" for package, version in facts["machine"]["versions"].items())
    parts = [f"*Compiled for H100, not executed*: {versions}, float32, softmax cross-entropy.\n\n{LEGEND}\n\n{flags}"]
    for title in (key for key in facts if key.endswith(("device", "devices"))):
        for problem, programs in facts[title].items():
            columns = COLUMNS if title == "one device" else SHARDED
            parts += [f"### {problem}, {title}: compiled for H100, not executed", _table(columns, programs)]
    return "\n\n".join(parts)


def _table(columns: dict[str, Any], programs: dict[str, Any]) -> str:
    rows = [columns, ["---"] * len(columns)]
    rows += [[column(name, facts) for column in columns.values()] for name, facts in programs.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _steps(facts: dict[str, Any]) -> str:
    return " / ".join(map(_number, facts["launches_per_step"]))


def _number(value: float) -> str:
    return f"{value:g}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _top_level(thunks: list[str]) -> str:
    graphs, loops = thunks.count("CommandBuffer"), thunks.count("While")
    return f"{len(thunks)} ({graphs} graph{'s' * (graphs != 1)}, {loops} loop{'s' * (loops != 1)})"


def _collectives(counts: dict[str, int]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind != "in a loop")
    return f"{kinds or 'none'}; {counts.get('in a loop', 0)} in a loop"
