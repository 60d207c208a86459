"""From the seconds of every turn to medians, ratios with their intervals and fractions of the floor; and the targets.

The targets are what the hand-written gradient set out to reach: all on the CPU, `what=gradient`. Vanilla and gated
cells have their own, and their own reports.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from .contenders import HEADLINE, NOT_JAX, RIVALS
from .problems import GATED, SHAPES, Shape

REPORTS = {"race": ("vanilla",), "race-gated": GATED}
KEY = ["series", "cell", "name", "what", "device"]  # rows with the same key raced against each other
RESAMPLES = 2000
MIB = 2**20
LONG = 256  # steps
LEAN = ("256x64x128x256x128", "1000x16x64x128x64")
OF_PRODUCT_RATE = {"64x64x64x1024x64": 0.85, "256x64x128x256x128": 0.70, "100x32x64x128x64": 0.45}


class Speed(NamedTuple):
    """How many times faster: the median over rounds, and its 95 % interval."""

    median: float
    low: float
    high: float


def speed(seconds: list[float], others: list[float]) -> Speed:
    """How many times faster the first is: the median over rounds of the ratio, and its bootstrap interval, 95 %.

    The two took their turns in the same rounds, so what slows the machine for a while is in both.
    """
    ratios = np.array(others) / np.array(seconds)
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return Speed(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))
    rng = np.random.default_rng(0)
    found = stats.bootstrap((ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=rng)
    return Speed(float(np.median(ratios)), *map(float, found.confidence_interval))


def only(data: dict, cells: tuple[str, ...]) -> dict:
    """What a race of these cells alone would have written."""
    return data | {key: [entry for entry in data[key] if entry["cell"] in cells] for key in ("rows", "missing")}


def summarise(rows: list[dict], machines: dict[str, dict]) -> pd.DataFrame:
    """The rows of `race.json` as a table, with what follows from their seconds.

    Returns:
        The columns of the rows; `name` and the five numbers of the shape; the quartiles `q1`, `ms`, `q3` in
        milliseconds; `speed`, `low`, `high` as `speed` has them, compared with the textbook, NaN where that did not
        race; `gflops`; `of_floor`, the fraction of the time in which the products would take at the machine's best
        rate; `temp_mib`.
    """
    table = pd.DataFrame(rows).astype({"compile_s": float, "temp_bytes": float})
    table = table.join(pd.DataFrame([Shape(*shape) for shape in table["shape"]]))
    table["name"] = [Shape(*shape).name for shape in table["shape"]]
    table[["q1", "ms", "q3"]] = [1e3 * np.percentile(seconds, [25, 50, 75]) for seconds in table["seconds"]]
    textbooks = table.loc[table["role"] == "textbook", [*KEY, "seconds"]]
    table = table.merge(textbooks, on=KEY, how="left", suffixes=("", "_of_textbook"))
    pairs = zip(table["seconds"], table["seconds_of_textbook"], strict=True)
    missing = Speed(np.nan, np.nan, np.nan)
    table[["speed", "low", "high"]] = [speed(*pair) if isinstance(pair[1], list) else missing for pair in pairs]
    table["gflops"] = table["flops"] / table["ms"] / 1e6
    table["of_floor"] = 1e9 * table["gflops"] / [max(machines[device]["product"]) for device in table["device"]]
    table["temp_mib"] = table["temp_bytes"] / MIB
    return table.drop(columns=["shape", "seconds_of_textbook"])


class Target(NamedTuple):
    """What was wanted, what was measured, and whether it is enough; None where the run did not measure it."""

    wanted: str
    measured: str
    met: bool | None


def targets(table: pd.DataFrame) -> list[Target]:
    """All of them, in order. Those over all shapes count the standard shapes that the run has."""
    here = table[(table["what"] == "gradient") & (table["device"] == "cpu")]
    gated, vanilla = here[here["cell"].isin(GATED)], here[~here["cell"].isin(GATED)]
    raced, again = (rows[rows["series"] == "race"] for rows in (vanilla, gated))
    long = _long(vanilla[vanilla["series"] == "long"])
    of_vanilla = [*_speed(raced), *_floor(raced), *_memory(raced), *long, *_error(raced)]
    return [*of_vanilla, *_gates_kept(again), *_gates_recomputed(again), *_error(again)]


def pairs(raced: pd.DataFrame, one: str, other: str, column: str, value: Callable[..., float]) -> dict[str, float]:
    """By cell and shape, what `value` makes of a column's entries of two contenders."""
    both = (
        raced.assign(race=raced["cell"] + " " + raced["name"])
        .pivot(index="race", columns="contender", values=column)
        .reindex(columns=[one, other])
        .dropna()
    )
    return {name: value(its, of_other) for name, its, of_other in both.itertuples(name=None)}


def faster(raced: pd.DataFrame, one: str, other: str) -> dict[str, float]:
    """By race, how many times faster one contender is than another."""
    return pairs(raced, one, other, "seconds", lambda its, of_other: speed(its, of_other).median)


def smaller(raced: pd.DataFrame, one: str, other: str) -> dict[str, float]:
    """By race, how many times smaller the temporaries of one contender are."""
    return pairs(raced, one, other, "temp_bytes", lambda its, of_other: of_other / max(its, 1))


def _judge(wanted: str, values: dict[str, float], limit: float, summary=min, unit: str = "x", over: int = 0) -> Target:
    """Met if the summary of the values is at least the limit; says which race has the least."""
    if not values:
        return Target(wanted, "not measured", None)
    figure = float(summary(list(values.values())))
    where = f", at {min(values, key=values.get)}" if summary is min and len(values) > 1 else ""
    part = f" ({len(values)} of {over} races)" if over > len(values) else ""
    return Target(wanted, f"{figure:.3g}{unit}{where}{part}", figure >= limit)


def fastest(raced: pd.DataFrame, rivals: pd.Series) -> dict[str, float]:
    """By race, how many times faster the headline is than the best of the rivals."""
    names = raced.loc[rivals, "contender"].unique()
    return pd.DataFrame([faster(raced, HEADLINE, rival) for rival in names]).min().to_dict()


def _speed(raced: pd.DataFrame) -> list[Target]:
    single, over_devices = faster(raced, HEADLINE, "textbook"), faster(raced, f"{HEADLINE}_2", "textbook")
    sharded = single | over_devices if over_devices else {}
    over_rivals = fastest(raced, raced["role"].isin(RIVALS))
    within = pairs(raced, HEADLINE, "before", "seconds", lambda its, of_other: speed(its, of_other).high)
    everywhere = len(SHAPES)
    return [
        _judge("never below 1.05x textbook", single, 1.05, over=everywhere),
        _judge("geometric mean >= 2.0x textbook, one device", single, 2.0, stats.gmean, over=everywhere),
        _judge("geometric mean >= 3.0x textbook, batch over both cores", sharded, 3.0, stats.gmean, over=everywhere),
        _judge("never below 1.0x the best rival", over_rivals, 1.0, over=everywhere),
        _judge("geometric mean >= 1.4x the best rival", over_rivals, 1.4, stats.gmean, over=everywhere),
        _judge("no slower than before: the 95 % interval reaches 1.0x", within, 1.0, over=everywhere),
    ]


def _floor(raced: pd.DataFrame) -> list[Target]:
    found = raced[raced["contender"] == HEADLINE].set_index("name")["of_floor"].to_dict()
    wanted = {name: f">= {limit} of the product rate at {name}" for name, limit in OF_PRODUCT_RATE.items()}
    here = {name: {name: found[name]} if name in found else {} for name in wanted}
    return [_judge(text, here[name], OF_PRODUCT_RATE[name], unit="") for name, text in wanted.items()]


def _memory(raced: pd.DataFrame) -> list[Target]:
    checkpointed = smaller(raced, "checkpointed", "textbook")
    at = lambda time: {race: x for race, x in checkpointed.items() if f" {time}x" in race}  # noqa: E731
    slower = faster(raced[raced["time"].isin((1000, 10000))], HEADLINE, "checkpointed")
    slow = Target("checkpointed in <= 1.35x the blocked time, T = 1000 and 10000", "not measured", None)
    if slower:
        slow = slow._replace(measured=f"{max(slower.values()):.3g}x", met=max(slower.values()) <= 1.35)
    here = raced[raced["name"].isin(LEAN)]
    lean = smaller(here, "lean", "textbook"), faster(here, "lean", HEADLINE)
    return [
        _judge("temporaries no larger than textbook's", smaller(raced, HEADLINE, "textbook"), 1.0),
        _judge("checkpointed >= 20x smaller at T = 1000", at(1000), 20),
        _judge("checkpointed >= 90x smaller at T = 10000", at(10000), 90),
        slow,
        _judge("lean >= 4x smaller than textbook, T = 256 and 1000", lean[0], 4, over=len(LEAN)),
        _judge(f"lean at >= 0.95x the {HEADLINE} speed on these shapes", lean[1], 0.95),
    ]


def _long(swept: pd.DataFrame) -> list[Target]:
    wanted = (
        "a gradient through T = 1,000,000 steps within 64 MiB of temporaries",
        "checkpointed: time linear in T from 1e3 to 1e6 within 10 % (slowest over fastest time per step)",
        "checkpointed: compile time under 2 s, flat in T (last at most 1.5x the first)",
    )
    rows = swept[swept["contender"] == "checkpointed"].sort_values("time")
    if rows["time"].max() < 1_000_000 or rows.empty:
        return [Target(text, "not measured", None) for text in wanted]
    us_per_step, compile_s, mib = 1e3 * rows["ms"] / rows["time"], list(rows["compile_s"]), rows["temp_mib"].iloc[-1]
    flat = max(compile_s) <= 2 and compile_s[-1] <= 1.5 * compile_s[0]
    linear = us_per_step.max() <= 1.1 * us_per_step.min()
    return [
        Target(wanted[0], f"{mib:.3g} MiB", bool(mib <= 64)),
        Target(wanted[1], ", ".join(f"{us:.3g} µs" for us in us_per_step), bool(linear)),
        Target(wanted[2], ", ".join(f"{s:.2f} s" for s in compile_s), flat),
    ]


def _error(raced: pd.DataFrame) -> list[Target]:
    better = pairs(raced, HEADLINE, "textbook", "error", lambda its, of_other: of_other / max(its, 1e-300))
    cells = raced["cell"].nunique()
    return [_judge("error no worse than textbook's (its error over ours)", better, 1.0, over=cells * len(SHAPES))]


def _gates_kept(raced: pd.DataFrame) -> list[Target]:
    rivals = raced["role"].isin(RIVALS)
    textbook, all_rivals = faster(raced, HEADLINE, "textbook"), fastest(raced, rivals)
    on_jax = fastest(raced, rivals & ~raced["contender"].isin(NOT_JAX))
    everywhere = len(GATED) * len(SHAPES)
    return [
        _judge("gates kept: geometric mean >= 1.6x textbook", textbook, 1.6, stats.gmean, over=everywhere),
        _judge("gates kept: never below 1.0x textbook", textbook, 1.0, over=everywhere),
        _judge("gates kept: geometric mean >= 1.3x the best JAX rival", on_jax, 1.3, stats.gmean, over=everywhere),
        _judge("gates kept: geometric mean >= 1.0x the best rival", all_rivals, 1.0, stats.gmean, over=everywhere),
        _judge("gates kept: temporaries no larger than textbook's", smaller(raced, HEADLINE, "textbook"), 1.0),
    ]


def _gates_recomputed(raced: pd.DataFrame) -> list[Target]:
    long = raced[raced["time"] >= LONG]
    over = len(GATED) * sum(shape.time >= LONG for shape in SHAPES)
    thousand = smaller(raced[raced["time"] == 1000], "checkpointed", "textbook")
    return [
        _judge(f"lean >= 4x smaller than textbook, T >= {LONG}", smaller(long, "lean", "textbook"), 4, over=over),
        _judge("lean at >= 1.0x the textbook speed on these shapes", faster(long, "lean", "textbook"), 1.0, over=over),
        _judge("checkpointed >= 20x smaller than textbook at T = 1000", thousand, 20, over=len(GATED)),
    ]
