"""The difference between two settings, and how many seeds it takes to find one of its size."""

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from statsmodels.stats.power import NormalIndPower, TTestIndPower, TTestPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_effectsize

from .._reporting.html_page import Section
from .._require import require_known
from ._statistics import digits, interval, margin, moments
from ._tables import best, comparable, results
from ._trials import Trial, differing, label, require_trials, short

SIGNIFICANCE, POWER = 0.05, 0.8
MOST = 10_000  # seeds; above it, the text only says that more are needed
LARGEST = 8.0  # effect size: two seeds find it, and statsmodels cannot compute with much larger ones
LARGEST_OF_PAIRS = 5.0  # three seeds find it
FEWEST_FOR_SHARES = 4  # with three seeds per setting, Fisher's exact test cannot reach 5 %
HOW_MEANS = (
    "Brackets: Welch's 95 % interval of the difference of the means. Cohen's d is that difference divided by the "
    "pooled standard deviation. The last column says how many seeds each setting needs, so that a two-sided t-test at "
    "5 % finds this d with a power of 80 %. Only seeds with a finite number count; the test assumes that their numbers "
    "are roughly normal."
)
HOW_SHARES = (
    "Brackets: Newcombe's 95 % interval of the difference of the shares. Cohen's h is the difference of "
    "2 asin(sqrt share). The last column says how many seeds each setting needs, so that a two-sided test at 5 % finds "
    f"this h with a power of 80 % (normal approximation; at least {FEWEST_FOR_SHARES})."
)
CAUTION = (
    "All seeds are treated as independent, although settings share their seeds. An effect estimated from few seeds is "
    "uncertain, and so is the number of seeds that it needs. There is no correction for the number of comparisons."
)


class Difference(NamedTuple):
    """A setting minus another one.

    Attributes:
        words: the difference and its 95 % interval, as text.
        effect: the difference as an effect size, Cohen's d or h; NaN if it is not known.
        needed: the seeds of each setting that find an effect of this size; infinite above `MOST`, NaN if not known.
        there: the seeds with a number, in the setting that has fewer of them.
        excludes_zero: whether the 95 % interval is known and does not contain 0.
    """

    words: str
    effect: float
    needed: float
    there: int
    excludes_zero: bool


def of_means(one: np.ndarray, other: np.ndarray) -> Difference:
    """The difference of two means, with the interval of Welch (1947), and Cohen's d.

    `d = (mean - mean') / s`, where s is the pooled standard deviation (Cohen 1988, section 2.5). The seeds needed are
    those of a two-sided t-test at the 5 % level with a power of 80 %. Only finite numbers count.

    Args:
        one: a number for each seed of one setting, `(seeds,)`.
        other: those of the other, `(seeds',)`.

    Returns:
        The difference. Its effect is NaN if a setting has fewer than two numbers or if the pooled deviation overflows.
        It is infinite if the means differ and no seed differs from the others of its setting.
    """
    a, b = moments(one), moments(other)
    there, apart = min(a.num, b.num), a.mean - b.mean
    if there < 2:
        return Difference(interval(apart, math.nan) if there else "-", math.nan, math.nan, there, False)
    pooled = math.sqrt(((a.num - 1) * a.variance + (b.num - 1) * b.variance) / (a.num + b.num - 2))
    half = margin(a, b)
    if pooled == 0:
        effect = math.copysign(math.inf, apart) if apart else 0.0
    else:
        effect = apart / pooled if math.isfinite(pooled) else math.nan
    return Difference(interval(apart, half), effect, _needed(TTestIndPower(), effect, 2), there, abs(apart) > half)


def of_pairs(one: np.ndarray, other: np.ndarray) -> Difference:
    """The mean difference of two settings trained from the same seeds, with Student's interval, and Cohen's d.

    The numbers of one seed are subtracted first, so what a seed does to both settings is no longer in the spread:
    `d = mean(x - x') / s`, where s is the standard deviation of the differences (Cohen 1988, section 2.3.5, d_z). The
    interval contains 0 exactly if the paired t-test has a p-value above 5 %. The seeds needed are those of that test
    with a power of 80 %. Only seeds with two finite numbers count.

    Args:
        one: a number for each seed of one setting, `(seeds,)`.
        other: those of the other, in the same order, `(seeds,)`.

    Returns:
        The difference. Its effect is NaN if fewer than two seeds count, and infinite if all differences are the same
        number and not zero.
    """
    found = moments(np.asarray(one, float) - np.asarray(other, float))
    if found.num < 2:
        words = interval(found.mean, math.nan) if found.num else "-"
        return Difference(words, math.nan, math.nan, found.num, False)
    half = margin(found)
    spread = math.sqrt(found.variance)
    if spread == 0:
        effect = math.copysign(math.inf, found.mean) if found.mean else 0.0
    else:
        effect = found.mean / spread if math.isfinite(spread) else math.nan
    needed = _needed(TTestPower(), effect, 2, LARGEST_OF_PAIRS)
    return Difference(interval(found.mean, half), effect, needed, found.num, abs(found.mean) > half)


def of_shares(one: np.ndarray, other: np.ndarray) -> Difference:
    """The difference of two shares, with the interval of Newcombe (1998), and Cohen's h.

    `h = 2 asin(sqrt p) - 2 asin(sqrt p')` (Cohen 1988, section 6.2). The seeds needed are those of a two-sided test at
    the 5 % level with a power of 80 %, which treats h as normal. They are at least four, because an exact test finds no
    difference with fewer.

    Args:
        one: whether it holds for each seed of one setting, `(seeds,)`.
        other: the same for the other setting, `(seeds',)`.
    """
    apart, effect = one.mean() - other.mean(), float(proportion_effectsize(one.mean(), other.mean()))
    low, high = confint_proportions_2indep(one.sum(), len(one), other.sum(), len(other), method="newcomb")
    needed = _needed(NormalIndPower(), effect, FEWEST_FOR_SHARES)
    words, there = f"{apart:.2f} [{low:.2f}, {high:.2f}]", min(len(one), len(other))
    return Difference(words, effect, needed, there, bool(low > 0 or high < 0))


def _needed(test: Any, effect: float, fewest: int, largest: float = LARGEST) -> float:
    effect = min(abs(effect), largest)
    if math.isnan(effect):
        return math.nan
    if test.power(effect, MOST, SIGNIFICANCE) < POWER:
        return math.inf

    def is_enough(seeds: int) -> bool:  # statsmodels returns NaN for some powers that are almost 1
        return not test.power(effect, seeds, SIGNIFICANCE) < POWER

    return float(fewest + bisect.bisect_left(range(fewest, MOST), True, key=is_enough))


def seeds_needed(
    trials: Sequence[Trial], name: str = "loss", *, lowest: bool | None = None, by: Sequence[str] = ()
) -> Section:
    """The table that compares each setting with the best one, and says how many seeds the difference needs.

    Args:
        trials: one trial per setting.
        name: a column of `results.csv` that all trials have, except the settings. Numbers are compared by their means,
            `solved` and `diverged` by their shares.
        lowest: whether low values are the best; None means True, except for `solved`. For a column such as "accuracy",
            say False.
        by: names of settings; only trials that agree in these are compared.

    Returns:
        A section with one row for each setting that is not the best of its group.

    Raises:
        TypeError: if `trials` does not hold trials, or `by` is text.
        ValueError: if there are no trials, or if they have no such column or setting.
    """
    if isinstance(by, str):
        raise TypeError(f"`by` must be a sequence of names of settings, got {by!r}: for one name, use [{by!r}].")
    require_trials(trials, *by)
    columns = comparable(trials)
    require_known("column", name, columns)
    shares, lowest = columns[name], name != "solved" if lowest is None else lowest
    title = f"How many seeds a difference needs: {name.replace('_', ' ')}"
    names = [one for one in differing([trial.setting for trial in trials]) if one not in by]
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(short(trial.setting[one]) for one in by), []).append(trial)
    rows = []
    for group, members in groups.items():
        reference = best(members, name, lowest=lowest)
        for trial in members:
            if trial is not reference:
                values = (results([one])[name].to_numpy() for one in (trial, reference))
                found = of_shares(*values) if shares else of_means(*values)
                compared = [label(one.setting, names) for one in (trial, reference)]
                rows.append([*group, *compared, found.words, digits(found.effect), in_words(found)])
    how = [HOW_SHARES] if shares else [HOW_MEANS, smallest_effect(min(len(trial.seeds) for trial in trials))]
    same = f" with the same {' and '.join(by)}".replace("_", " ") if by else ""
    if not rows:
        return Section(title, None, f"There are no two settings{same}, so nothing is compared.")
    which = ("lowest" if lowest else "highest") + (f" share of {name} seeds" if shares else " median at the end")
    reading = f"Each setting minus the best one{same}, the one with the {which}."
    reading = " ".join(filter(None, [reading, *how, CAUTION]))
    effect = "Cohen's h" if shares else "Cohen's d"
    header = [
        *(one.replace("_", " ") for one in by),
        "setting",
        "best",
        "difference [95 %]",
        effect,
        "seeds in each setting",
    ]
    return Section(title, None, reading, header, rows)


def smallest_effect(count: int) -> str:
    """The smallest difference that a t-test finds with `count` seeds per setting, as a sentence; "" below two seeds."""
    if count < 2:
        return ""
    effect = TTestIndPower().solve_power(nobs1=count, alpha=SIGNIFICANCE, power=POWER)
    return (
        f"With {count} seeds in each of two settings, a two-sided t-test at 5 % finds a difference of {effect:.2f} "
        "standard deviations with a power of 80 %."
    )


def in_words(found: Difference) -> str:
    """How many seeds the difference needs, and whether those of the trials suffice, as text."""
    if math.isnan(found.needed):
        few = f"needs 2 seeds with a number in each setting, there {_are(found.there)}"
        return f"not known: {few if found.there < 2 else 'the numbers are too large'}"
    if not found.effect:
        return "no difference seen"
    many = f"more than {MOST:,}" if math.isinf(found.needed) else f"{found.needed:.0f}"
    if found.needed <= found.there and found.excludes_zero:
        return f"needs {many}: the {found.there} seeds suffice"
    if found.needed <= found.there:
        return f"needs {many} by this estimate, but the interval contains 0"
    return f"needs {many} seeds, there {_are(found.there)}"


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
