"""What the hand-written gradient set out to reach, and whether the run shows it. All on the CPU, `what=gradient`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .contenders import HEADLINE, RIVALS
from .problems import SHAPES
from .statistics import geometric_mean, ratio, select

MIB = 2**20
LEAN = ("256x64x128x256x128", "1000x16x64x128x64")
OF_PRODUCT_RATE = {"64x64x64x1024x64": 0.85, "256x64x128x256x128": 0.70, "100x32x64x128x64": 0.45}


class Target(NamedTuple):
    """What was wanted, what was measured, and whether it is enough; None where the run did not measure it."""

    wanted: str
    measured: str
    met: bool | None


def targets(rows: list[dict]) -> list[Target]:
    """All of them, in order. Those over all shapes count the standard shapes that the run has."""
    raced = select(rows, series="race", what="gradient", device="cpu")
    long = select(rows, series="long", what="gradient", device="cpu")
    return [
        *_speed(raced),
        *_rivals(raced),
        *_floor(raced),
        *_memory(raced),
        *_lean(raced),
        *_long(long),
        *_error(raced),
    ]


def pairs(rows: dict, one: str, other: str, value: Callable[[dict, dict], float]) -> dict[str, float]:
    """By shape, what `value` makes of two contenders' rows, in the order of the shapes."""
    names = dict.fromkeys(shape for shape, _ in rows)
    both = (shape for shape in names if (shape, one) in rows and (shape, other) in rows)
    return {shape: value(rows[shape, one], rows[shape, other]) for shape in both}


def _judge(wanted: str, values: dict[str, float], limit: float, summary=min, unit: str = "x", over: int = 0) -> Target:
    """Met if the summary of the values is at least the limit; says which shape is the least."""
    if not values:
        return Target(wanted, "not measured", None)
    figure = summary(list(values.values()))
    where = f", at {min(values, key=values.get)}" if summary is min and len(values) > 1 else ""
    part = f" ({len(values)} of {over} shapes)" if over > len(values) else ""
    return Target(wanted, f"{figure:.3g}{unit}{where}{part}", figure >= limit)


def _median_ratio(row: dict, other: dict) -> float:
    return ratio(row, other)["median"]


def _speed(raced: dict) -> list[Target]:
    single = pairs(raced, HEADLINE, "textbook", _median_ratio)
    sharded = single | pairs(raced, f"{HEADLINE}_2", "textbook", _median_ratio)
    if sharded == single:  # no sharded contender raced
        sharded = {}
    everywhere = len(SHAPES)
    mean = geometric_mean
    return [
        _judge("never below 1.05x textbook", single, 1.05, over=everywhere),
        _judge("geometric mean >= 2.0x textbook, one device", single, 2.0, mean, over=everywhere),
        _judge("geometric mean >= 3.0x textbook, batch over both cores", sharded, 3.0, mean, over=everywhere),
    ]


def _rivals(raced: dict) -> list[Target]:
    rivals = {name for (_, name), row in raced.items() if row["role"] in RIVALS}
    best: dict[str, float] = {}
    for rival in rivals:
        for shape, speed in pairs(raced, HEADLINE, rival, _median_ratio).items():
            best[shape] = min(speed, best.get(shape, np.inf))
    return [
        _judge("never below 1.0x the best rival", best, 1.0, over=len(SHAPES)),
        _judge("geometric mean >= 1.4x the best rival", best, 1.4, geometric_mean, over=len(SHAPES)),
    ]


def _floor(raced: dict) -> list[Target]:
    found = {shape: raced[shape, HEADLINE]["of_floor"] for shape in OF_PRODUCT_RATE if (shape, HEADLINE) in raced}
    return [
        _judge(
            f">= {limit} of the product rate at {shape}", {s: f for s, f in found.items() if s == shape}, limit, unit=""
        )
        for shape, limit in OF_PRODUCT_RATE.items()
    ]


def _smaller(row: dict, other: dict) -> float:
    return (other["temp_bytes"] or 0) / max(row["temp_bytes"] or 0, 1)


def _memory(raced: dict) -> list[Target]:
    smaller = pairs(raced, "checkpointed", "textbook", _smaller)
    at = lambda time: {s: v for s, v in smaller.items() if s.startswith(f"{time}x")}  # noqa: E731
    slower = pairs(raced, HEADLINE, "checkpointed", _median_ratio)
    fast = {s: 1 / v for s, v in slower.items() if s.startswith(("1000x", "10000x"))}
    worst = Target("checkpointed in <= 1.35x the blocked time, T = 1000 and 10000", "not measured", None)
    if fast:
        worst = worst._replace(measured=f"{1 / min(fast.values()):.3g}x", met=1 / min(fast.values()) <= 1.35)
    return [
        _judge("temporaries no larger than textbook's", pairs(raced, HEADLINE, "textbook", _smaller), 1.0),
        _judge("checkpointed >= 20x smaller at T = 1000", at(1000), 20),
        _judge("checkpointed >= 90x smaller at T = 10000", at(10000), 90),
        worst,
    ]


def _lean(raced: dict) -> list[Target]:
    here = {key: row for key, row in raced.items() if key[0] in LEAN}
    smaller = pairs(here, "lean", "textbook", _smaller)
    return [
        _judge("lean >= 4x smaller than textbook, T = 256 and 1000", smaller, 4, over=len(LEAN)),
        _judge(f"lean at >= 0.95x the {HEADLINE} speed there", pairs(here, "lean", HEADLINE, _median_ratio), 0.95),
    ]


def _long(long: dict) -> list[Target]:
    rows = sorted((r for (_, name), r in long.items() if name == "checkpointed"), key=lambda row: row["shape"][0])
    wanted = (
        "a gradient through T = 1,000,000 steps within 64 MiB of temporaries",
        "checkpointed: time linear in T from 1e3 to 1e6 within 10 % (slowest over fastest time a step)",
        "checkpointed: compile time under 2 s, flat in T (last at most 1.5x the first)",
    )
    if not rows or rows[-1]["shape"][0] < 1_000_000:
        return [Target(text, "not measured", None) for text in wanted]
    a_step = [1e3 * row["ms"]["median"] / row["shape"][0] for row in rows]
    compiled = [row["compile_s"] for row in rows]
    mib = rows[-1]["temp_bytes"] / MIB
    flat = max(compiled) <= 2 and compiled[-1] <= 1.5 * compiled[0]
    return [
        Target(wanted[0], f"{mib:.3g} MiB", mib <= 64),
        Target(wanted[1], ", ".join(f"{us:.3g} µs" for us in a_step), max(a_step) <= 1.1 * min(a_step)),
        Target(wanted[2], ", ".join(f"{s:.2f} s" for s in compiled), flat),
    ]


def _error(raced: dict) -> list[Target]:
    better = pairs(raced, HEADLINE, "textbook", lambda row, other: other["error"] / max(row["error"], 1e-300))
    return [_judge("error no worse than textbook's (its error over ours)", better, 1.0, over=len(SHAPES))]
