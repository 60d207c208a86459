"""How far apart two settings are, and how many seeds it takes to find that; whatever the seeds did."""

import math
from functools import partial

import numpy as np
import pytest
from scipy.stats import fisher_exact, ttest_ind, ttest_rel
from small_experiments import trial_of

from rnn_jax.experiments import Trial, against, learning_curves, seeds_needed, shares, summary
from rnn_jax.experiments import _report as report
from rnn_jax.experiments._differences import in_words, of_means, of_pairs, of_shares, smallest_effect

NAN, INF = math.nan, math.inf


def with_effect(d, num=20):
    """Two samples whose means are `d` pooled standard deviations apart."""
    values = np.arange(num) - (num - 1) / 2
    values /= values.std(ddof=1)
    return values + d, values


def test_means_differ_as_scipy_says():
    one, other = np.array([3.0, 1.0, 2.5, 4.0]), np.array([0.1, 0.2, 0.4])
    low, high = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    found = of_means(np.append(one, NAN), np.append(other, [INF, NAN]))
    assert found.words == f"2.392 [{low:.4g}, {high:.4g}]" and found.there == 3
    pooled = math.sqrt((np.sum((one - 2.625) ** 2) + np.sum((other - 0.7 / 3) ** 2)) / 5)
    assert found.effect == pytest.approx((2.625 - 0.7 / 3) / pooled)
    assert of_means(other, one).effect == pytest.approx(-found.effect)


def test_pairs_differ_as_scipy_says():
    """By the paired t-test; a seed with one number counts in neither setting."""
    one, other = np.array([3.0, 1.0, 2.5, 4.0]), np.array([2.1, 0.4, 1.9, 2.8])
    tested = ttest_rel(one, other)
    low, high = tested.confidence_interval(0.95)
    found = of_pairs(np.append(one, [9.0, NAN]), np.append(other, [NAN, 9.0]))
    assert found.words == f"{np.mean(one - other):.4g} [{low:.4g}, {high:.4g}]" and found.there == 4
    assert found.effect == pytest.approx(np.mean(one - other) / np.std(one - other, ddof=1))
    assert found.excludes_zero and tested.pvalue < 0.05 < ttest_ind(one, other).pvalue
    assert of_pairs(other, one).effect == pytest.approx(-found.effect)
    rng = np.random.default_rng(0)
    several = [rng.normal(shift, 1, (2, 5)) + [[0], [1]] for shift in range(40)]
    agree = [of_pairs(x, y).excludes_zero == (ttest_rel(x, y).pvalue < 0.05) for x, y in several]
    assert all(agree) and 0 < sum(of_pairs(x, y).excludes_zero for x, y in several) < 40


def test_what_pairs_cannot_say():
    assert of_pairs(np.array([1.0]), np.array([2.0])).words == "-1"
    assert in_words(of_pairs(np.array([1.0]), np.array([2.0]))).startswith("not known: needs 2 seeds with a number")
    assert of_pairs(np.array([NAN, 1.0]), np.array([2.0, NAN]))[:1] == ("-",)
    same = of_pairs(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert in_words(same) == "no difference seen" and not same.excludes_zero
    shifted = of_pairs(np.array([1.5, 2.5]), np.array([1.0, 2.0]))
    assert shifted.effect == INF and shifted.excludes_zero and shifted.needed == 3


@pytest.mark.parametrize(("d", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15), (-0.5, 34), (4.48, 3), (100.0, 3)])
def test_seeds_of_pairs(d, needed):
    """Those of a t-test of one sample, as G*Power 3.1 has them."""
    values = with_effect(d)[0]
    assert of_pairs(values, np.zeros(20)).needed == needed


@pytest.mark.parametrize(("d", "needed"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17), (-0.5, 64), (100.0, 2)])
def test_seeds_of_means_are_those_of_cohens_table(d, needed):
    """Cohen (1988), table 2.4.1, rounded up: 393, 64, 26, 17."""
    assert of_means(*with_effect(d)).needed == needed


def test_seeds_of_shares():
    """For h = 0.5 and 0.8, Cohen (1988) has 63 and 25 in table 6.4.1; and what no exact test could find is refused."""
    halves = np.arange(1000) < 500
    for h, needed in ((0.5, 63), (0.8, 25)):
        share = math.sin(math.pi / 4 + h / 2) ** 2
        found = of_shares(np.arange(1000) < round(1000 * share), halves)
        assert found.effect == pytest.approx(h, abs=0.005) and found.needed == pytest.approx(needed, abs=1)
    all_or_none = of_shares(np.ones(3, bool), np.zeros(3, bool))
    assert all_or_none.needed == 4 and in_words(all_or_none) == "needs 4 seeds, there are 3"
    assert [fisher_exact([[n, 0], [0, n]]).pvalue < 0.05 for n in (3, 4)] == [False, True]
    assert of_shares(np.arange(10) < 8, np.arange(10) < 2).words == "0.60 [0.16, 0.80]"  # Newcombe, by hand
    assert in_words(of_shares(halves, halves)) == "no difference seen"
    assert not of_shares(np.arange(4) < 1, np.arange(4) >= 5).excludes_zero  # 0.25 [-0.28, 0.70]
    assert of_shares(np.zeros(9, bool), np.ones(9, bool)).excludes_zero


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([0.1] * 10, [0.1] * 7, "no difference seen"),
        ([0.1] * 10, [0.2] * 7, "needs 2: the 7 seeds suffice"),
        ([1.0], [2.0, 3.0], "not known: needs 2 seeds with a number in each setting, there is 1"),
        ([NAN, INF], [2.0, 3.0], "not known: needs 2 seeds with a number in each setting, there are 0"),
        ([NAN, INF, 1.0], [2.0, 3.0], "not known: needs 2 seeds with a number in each setting, there is 1"),
        ([1.0, 2.0], [1.000001, 2.0], "needs more than 10,000 seeds, there are 2"),
        ([1.0, 2.0], [2.0, 3.0], "needs 9 seeds, there are 2"),
        ([1e-200, 2e-200], [0.0, 1e-200], "needs 2: the 2 seeds suffice"),
        ([0.0, 1.4], [5.0, 5.0], "needs 2 by this estimate, but the interval contains 0"),
        ([1e300, -1e300], [1.0, 2.0], "not known: the numbers are too large"),
        ([1e300, -1e300], [0.0, 0.0], "not known: the numbers are too large"),
        ([1.7e308, -1.7e308], [-1.7e308, 1.7e308], "not known: the numbers are too large"),
    ],
)
def test_nothing_that_seeds_do_is_too_much(one, other, words):
    found = of_means(np.array(one), np.array(other))
    assert in_words(found) == words and "nan" not in found.words


def trials(losses, solved=None):
    return [
        trial_of([[1.0] * len(seeds), seeds], None if solved is None else [[0] * len(seeds), solved[i]])._replace(
            setting={"task": task, "rate": rate}
        )
        for i, ((task, rate), seeds) in enumerate(losses.items())
    ]


def test_each_setting_is_compared_with_the_best_of_its_task():
    found = trials(
        {
            ("a", 0.1): [0.5, 0.6, 0.7],
            ("a", 0.2): [0.1, 0.2, 0.3],
            ("b", 0.1): [0.01, 0.02, NAN],
            ("b", 0.2): [0.0, NAN, NAN],  # the median seed has no number
        }
    )
    section = seeds_needed(found, by=("task",))
    assert section.header[0] == "task" and "lowest median" in section.reading
    assert [row[:3] for row in section.rows] == [["a", "rate 0.1", "rate 0.2"], ["b", "rate 0.2", "rate 0.1"]]
    assert section.rows[0][3:] == ["0.4 [0.1733, 0.6267]", "4", "needs 3: the 3 seeds suffice"]
    assert section.rows[1][-1].startswith("not known")
    assert len(seeds_needed(found).rows) == 3 and "task" not in seeds_needed(found).header
    alone = seeds_needed(found, by=("task", "rate"))
    assert not alone.rows
    assert alone.reading == "There are no two settings with the same task and rate, so nothing is compared."
    assert smallest_effect(3) in section.reading and "3.07 standard deviations" in smallest_effect(3)


def test_default_sections_compare_shares_where_there_are_some():
    losses = {("a", 0.1): [0.5] * 4, ("a", 0.2): [0.1] * 4}
    assert len(report.default_sections(trials(losses))) == 3
    section = report.default_sections(trials(losses, [[0, 0, 0, 1], [1, 1, 1, 1]]))[3]
    assert section.rows == [["rate 0.1", "rate 0.2", "-0.75 [-0.95, -0.09]", "-2.094", "needs 4: the 4 seeds suffice"]]
    assert "highest share" in section.reading and "Newcombe" in section.reading
    diverged = trials({("a", 0.1): [NAN] * 2, ("a", 0.2): [NAN] * 2})
    assert seeds_needed(diverged).rows[0][-1].startswith("not known")
    assert seeds_needed(diverged, "diverged").rows[0][-1] == "no difference seen"
    single = trials({("a", 0.1): [0.5], ("a", 0.2): [0.1]})
    assert seeds_needed(single).rows[0][2:4] == ["0.4", "-"] and len(report.default_sections(single[:1])) == 3
    assert "  " not in seeds_needed(single).reading and "  " not in seeds_needed(single, "diverged").reading


def test_many_are_best_of_solved_and_few_of_the_rest():
    found = trials({("a", 0.1): [0.1, 0.1], ("a", 0.2): [0.5, 0.5]}, [[0, 0], [1, 1]])
    assert [seeds_needed(found, name).rows[0][1] for name in ("loss", "solved")] == ["rate 0.1", "rate 0.2"]
    assert [seeds_needed(found, "loss", lowest=low).rows[0][1] for low in (True, False)] == ["rate 0.1", "rate 0.2"]
    assert [seeds_needed(found, "solved", lowest=low).rows[0][1] for low in (True, False)] == ["rate 0.1", "rate 0.2"]


TWO = trials({("a", 0.1): [0.5, 0.6], ("a", 0.2): [0.1, 0.2]})
KNOWN = {"x": "rate", "lines": "task", "by": "task", "title": "A", "ylabel": "y", "reading": "r"}
SETTINGS = "known names: 'task', 'rate'"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: seeds_needed(TWO, "nope"), ValueError, "No column named 'nope'; known names: 'seed', .*'loss', 'ms'"),
        (lambda: seeds_needed(TWO, "rate"), ValueError, "No column named 'rate'"),
        (lambda: seeds_needed(TWO, by=["nope"]), ValueError, f"No setting named 'nope'; {SETTINGS}"),
        (lambda: seeds_needed(TWO, by="rate"), TypeError, r"`by` must be a sequence .*, got 'rate': .* use \['rate'\]"),
        (lambda: seeds_needed([]), ValueError, r"`len\(trials\)` must be at least 1, got 0"),
        (lambda: summary([]), ValueError, r"`len\(trials\)` must be at least 1, got 0"),
        (lambda: learning_curves([]), ValueError, r"`len\(trials\)` must be at least 1, got 0"),
        (lambda: summary(TWO[0]), TypeError, "`trials` must be a sequence of Trial, .*, got Trial"),
        (lambda: learning_curves(TWO, "nope"), ValueError, "No metric named 'nope'; known names: 'loss', 'solved'"),
        (lambda: learning_curves(TWO, by="nope"), ValueError, f"No setting named 'nope'; {SETTINGS}"),
        *(
            (
                partial(draw, TWO, **(KNOWN | {at: "nope"}), **{value: Trial.final}),
                ValueError,
                f"No setting named 'nope'; {SETTINGS}",
            )
            for draw, value in ((against, "value"), (shares, "found"))
            for at in ("x", "lines", "by")
        ),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_a_wrong_argument_is_said_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
