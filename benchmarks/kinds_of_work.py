"""Where the time of a gradient goes: products, elementwise functions, moves of data. By the profiler of JAX, on a CPU.

    python benchmarks/kinds_of_work.py            # textbook and blocked, GRU and LSTM, at two shapes of the race
    python benchmarks/kinds_of_work.py --save     # and keep it in benchmarks/results/kinds_of_work.json

The kind of an operation is read off its name in the compiled program. Times are those of the operations, added up:
operations run at the same time on both cores, so the sum can be larger than the time of the gradient.
"""

import argparse
import collections
import gzip
import json
import tempfile
from pathlib import Path

import jax
from race import networks, ours
from race.contenders import Raced
from race.problems import GATED, parse_shape

from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "kinds_of_work.json"
SHAPES = ("100x32x64x128x64", "256x64x128x256x128")
BUILDERS = {"textbook": networks.textbook, "blocked": ours.blocked}
CALLS = 10
MOVES = ("copy", "slice", "concatenate", "broadcast", "transpose", "pad", "iota")
KINDS = ("products", "elementwise", "moves")


def kind_of(name: str) -> str | None:
    """The kind of an operation; None if it is none, like a loop, whose operations count themselves."""
    if name.startswith(("dot", "ynn_fusion")):
        return "products"
    base = name.split(".")[0]
    if not base.endswith(("fusion", *MOVES)) and not base.startswith("wrapped_"):
        return None
    arithmetic = ("add", "subtract", "multiply", "divide", "tanh", "exponential", "reduce", "select", "maximum", "log")
    return "elementwise" if any(word in base for word in arithmetic) else "moves"


def milliseconds(raced: Raced) -> dict[str, float]:
    """The time of each kind in one call."""
    for _ in range(3):
        raced.call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                raced.call()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    found: collections.Counter[str] = collections.Counter(dict.fromkeys(KINDS, 0.0))
    for event in events:
        kind = kind_of(event["name"]) if event.get("ph") == "X" else None
        if kind is not None:
            found[kind] += event["dur"] / 1e3 / CALLS
    return dict(found)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help=f"keep the result in {RESULTS.name}")
    options = parser.parse_args()
    rows = []
    print(f"{'cell':6}{'shape':22}{'contender':12}" + "".join(f"{kind:>14}" for kind in KINDS) + "   (ms)")
    for cell in GATED:
        for shape in SHAPES:
            for name, build in BUILDERS.items():
                found = milliseconds(build(cell, parse_shape(shape), "gradient"))
                rows.append({"cell": cell, "shape": shape, "contender": name} | found)
                print(f"{cell:6}{shape:22}{name:12}" + "".join(f"{found[kind]:14.2f}" for kind in KINDS), flush=True)
    if options.save:
        RESULTS.write_text(json.dumps({"machine": machine_record(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
