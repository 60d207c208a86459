"""From the seconds of every turn to medians, spreads, ratios pair by pair and fractions of the floor."""

import numpy as np

from .problems import Shape

TAILS = (2.5, 97.5)  # per cent: what is between them is the interval
RESAMPLES = 2000


def key(row: dict) -> tuple:
    """Rows with the same key raced against each other."""
    return row["series"], tuple(row["shape"]), row["what"], row["device"]


def ratio(row: dict, other: dict) -> dict[str, float]:
    """How many times faster `row` is than `other`: the median over rounds of their ratio, and its interval.

    The two took their turns in the same rounds, so what slows the machine for a while is in both. The interval is the
    bootstrap's, 95 %, by percentiles.
    """
    ratios = np.array(other["seconds"]) / np.array(row["seconds"])
    median = float(np.median(ratios))
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return {"median": median, "low": float(ratios.min()), "high": float(ratios.max())}
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), TAILS)
    return {"median": median, "low": float(low), "high": float(high)}


def summarise(rows: list[dict], machines: dict[str, dict]) -> list[dict]:
    """The rows with what follows from their seconds. `floor_s` is the products' time at the machine's best rate."""
    textbooks = {key(row): row for row in rows if row["role"] == "textbook"}
    return [_summary(row, textbooks.get(key(row)), machines[row["device"]]) for row in rows]


def _summary(row: dict, textbook: dict | None, machine: dict) -> dict:
    q1, median, q3 = (float(q) for q in np.percentile(row["seconds"], [25, 50, 75]))
    floor_s = row["flops"] / max(machine["product"])
    return row | {
        "name": Shape(*row["shape"]).name,
        "ms": {"median": median * 1e3, "q1": q1 * 1e3, "q3": q3 * 1e3},
        "speed": ratio(row, textbook) if textbook else None,
        "gflops": row["flops"] / median / 1e9,
        "floor_s": floor_s,
        "of_floor": floor_s / median,
    }


def select(rows: list[dict], **wanted) -> dict[tuple[str, str], dict]:
    """The rows with these values, by name of shape and contender."""
    found = (row for row in rows if all(row[k] == value for k, value in wanted.items()))
    return {(row["name"], row["contender"]): row for row in found}


def geometric_mean(values: list[float]) -> float:
    """Of ratios."""
    return float(np.exp(np.mean(np.log(values))))
