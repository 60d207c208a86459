"""Statistics over the seeds of one setting, as text: quartiles, the mean, shares."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, t

CONFIDENCE = 0.95


class Moments(NamedTuple):
    """Mean, unbiased variance and number of the finite values; NaN where undefined."""

    mean: float
    variance: float
    num: int


def quartiles(values: np.ndarray) -> str:
    """`median [lower quartile, upper]` of the finite values, and their number if some are not finite."""
    seen = values[np.isfinite(values)]
    if not len(seen):
        return "-"
    middle, low, high = (digits(value) for value in np.quantile(seen, (0.5, 0.25, 0.75)))
    return f"{middle} [{low}, {high}]{_counted(len(seen), len(values))}"


def mean(values: np.ndarray) -> str:
    """`mean [low, high]` of the finite values, and their number if some are not finite.

    The interval is Student's: it holds the true mean with 95 % confidence if the seeds are independent and normally
    distributed. A single seed has no interval.
    """
    found = moments(values)
    if not found.num:
        return "-"
    return interval(found.mean, margin(found)) + _counted(found.num, len(values))


def moments(values: np.ndarray) -> Moments:
    """The moments of the finite values. Equal numbers have a variance of exactly zero."""
    seen = np.asarray(values, float)[np.isfinite(values)]
    if not len(seen):
        return Moments(np.nan, np.nan, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = seen - seen[0]
        middle, variance = seen[0] + apart.mean(), apart.var(ddof=1) if len(seen) > 1 else np.nan
    return Moments(float(middle), float(variance), len(seen))


def margin(*samples: Moments) -> float:
    """Half the width of the 95 % interval of a mean, or of the difference of two independent means.

    Returns:
        `t sqrt(Σ variance / num)`; t has the degrees of freedom of Welch (1947), for one sample Student's num - 1.
        Zero if no sample varies, NaN if one has fewer than two numbers.
    """
    squared = np.array([one.variance / one.num if one.num > 1 else np.nan for one in samples])
    if not 0 < squared.sum() < np.inf:
        return 0.0 if squared.sum() == 0 else np.nan
    weights = squared / squared.sum()
    freedom = 1 / np.sum(weights**2 / (np.array([one.num for one in samples]) - 1))
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(squared.sum()))


def interval(middle: float, half: float) -> str:
    """`middle [low, high]`; only `middle` if half of the width is not known."""
    return digits(middle) + (f" [{digits(middle - half)}, {digits(middle + half)}]" if np.isfinite(half) else "")


def share(found: np.ndarray) -> str:
    """`k of n`, and the interval that holds the true share with 95 % confidence (Wilson 1927)."""
    low, high = share_interval(found)
    return f"{found.sum()} of {len(found)} [{low:.2f}, {high:.2f}]"


def share_interval(found: np.ndarray) -> tuple[float, float]:
    """The ends of the interval of `share`."""
    ends = binomtest(int(found.sum()), len(found)).proportion_ci(CONFIDENCE, method="wilson")
    return ends.low, ends.high


def digits(value: float) -> str:
    """Four significant digits; no decimals from 10,000 to 10 million; `-` for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _counted(seen: int, of: int) -> str:
    return f" ({seen} of {of})" if seen < of else ""
