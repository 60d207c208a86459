"""Check the gradient at places nearby, where differences cannot decide at the place itself."""

from typing import Any

import numpy as np

from ._compared import SHARP, UNRESOLVED, Beside, Differences, Sample, about, compared, doubtful, leaf_report, wrong
from ._differences import TOLERANCE, largest
from ._findings import Finding
from ._report import LeafReport
from ._subject import Subject

NEXT = 1e-3  # how far away the rule is checked, relative to the size of a leaf
CLOSE = 2.0**-44, 1e-100  # how far away its limits are read; the second is for entries that are zero
NUM_NEXT = 2
NUM_CLOSE = 32


def decided_next_to(
    subject: Subject, differences: Differences, sample: Sample, beside: Beside, rng: Any
) -> tuple[LeafReport, Finding | None]:
    """The verdict on a leaf that is on a kink, or where no step fits.

    A mistake in a rule shows at a random place next to this one, where the function is smooth. The gradient at this
    place itself must lie within the range of the gradients at ever closer places, as every element of Clarke's
    generalised gradient does (F. H. Clarke, Optimization and Nonsmooth Analysis, 1983, §2.5).
    """
    here, failing = leaf_report(sample, beside, TOLERANCE), wrong(beside)
    places = _next_to(subject, differences, rng)
    undecided = not places
    for place in places:
        there = compared(place, differences, sample)
        told = leaf_report(sample, there, TOLERANCE)
        if not told.passed and not doubtful(sample, there):
            finding = about(place.gradient, sample, there, told)
            return told, finding._replace(words=f"{finding.words[:-1]}, near `args`, where differences can decide.")
        undecided |= not told.passed
    if here.passed:
        return here, None
    if undecided:
        words = f"at {here.entry} it is {here.analytic:.6g} and differences give {here.numeric:.6g}, but no step fits"
        words = f"{here.name} cannot be decided: {words}, neither there nor nearby. Use a witness."
        return here._replace(decided=False), Finding(here.name, words, explained=True)
    lowest, highest = _limits(subject, sample, rng)
    margin = UNRESOLVED * max(largest(lowest), largest(highest))
    within = (lowest - margin <= beside.analytic) & (beside.analytic <= highest + margin)
    if np.all(within[failing]):
        told = leaf_report(sample, beside._replace(kink=beside.kink | failing), TOLERANCE)
        return told._replace(num_kinks=here.num_kinks, num_next_to=int(failing[: len(sample.entries)].sum())), None
    return here, about(subject.gradient, sample, beside, here)


def _next_to(subject: Subject, differences: Differences, rng: Any) -> list[Subject]:
    """Random places where function and gradient are finite; all entries larger, or all smaller, where a domain ends."""
    found: list[Subject] = []
    for number in range(8):
        size = NEXT * rng.uniform(0.5, 1.5, subject.theta.shape) * _units(subject)
        place = subject.moved(subject.theta + size * _signs(number, subject.theta.shape, rng))
        value = differences.at_entries(place.theta)(np.zeros(1, int), np.zeros(1))
        found += [place] if np.all(np.isfinite(place.gradient)) and np.all(np.isfinite(value)) else []
        if len(found) == NUM_NEXT:
            break
    return found


def _limits(subject: Subject, sample: Sample, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest slopes of a sample close by, extended to zero where there are several.

    Where several slopes meet (equal values that are sorted), all entries together decide which slope an entry has, and
    a few draws do not show every combination. So an entry may have any slope that some entry of the leaf has.
    Directions with one slope show whether the entries fit together. Directions with several slopes are not bounded:
    they add up what relu'(0) = 0 leaves out of each unit, and that is not a limit.
    """
    rows = []
    for number in range(NUM_CLOSE):
        signs = _signs(number, subject.theta.shape, rng) * rng.uniform(0.5, 1.5, subject.theta.shape)
        for scale in CLOSE:
            size = np.where(subject.theta == 0, scale * _units(subject), CLOSE[0] * np.abs(subject.theta))
            rows.append(subject.gradient_at(subject.theta + size * signs)[sample.leaf.entries])
    near = np.stack([row for row in rows if np.all(np.isfinite(row))] or [np.full(rows[0].shape, np.nan)])
    slopes = np.stack([sample.of(row) for row in near])
    lowest, highest = slopes.min(0), slopes.max(0)
    several = highest - lowest > SHARP * largest(near)
    if not np.any(several):
        return lowest, highest
    num = len(sample.entries)
    lowest[:num], highest[:num] = near.min(), near.max()
    lowest[several], highest[several] = np.minimum(lowest[several], 0), np.maximum(highest[several], 0)
    lowest[num:][several[num:]], highest[num:][several[num:]] = -np.inf, np.inf
    return lowest, highest


def _units(subject: Subject) -> np.ndarray:
    """The size of the leaf of each entry; 1 for a leaf of zeros."""
    units = np.ones(subject.theta.shape)
    for leaf in subject.leaves:
        units[leaf.entries] = largest(subject.theta[leaf.entries]) or 1.0
    return units


def _signs(number: int, shape: tuple[int, ...], rng: Any) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) if number % 4 < 2 else np.full(shape, 5.0 - 2 * (number % 4))
