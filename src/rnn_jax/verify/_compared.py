"""One leaf of a gradient compared with central differences, and what that says about it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ._differences import TOLERANCE, Values, along, at_entries, closer, largest, slopes, steps_to_try
from ._findings import Finding, about_leaf
from ._report import LeafReport
from ._subject import Leaf, Subject

UNRESOLVED = 1e-5  # a larger error is never excused, however much the function bends
SHARP = 1e-4  # if both sides of a kink differ by more, relative to the larger, zero is not wrong either


class Sample(NamedTuple):
    """What is checked of one leaf: some entries, and the whole leaf along some directions of length one."""

    leaf: Leaf
    entries: np.ndarray
    directions: np.ndarray  # (number, size of the leaf)

    def of(self, d: np.ndarray) -> np.ndarray:
        """The slopes of the sample if the gradient of the leaf is `d`."""
        return np.concatenate([d[self.entries], self.directions @ d])

    @property
    def names(self) -> list[str]:
        """The name of each slope of the sample in a report."""
        entries = [entry_name(int(k), self.leaf.shape) for k in self.entries]
        return entries + [f"direction {number + 1}" for number in range(len(self.directions))]


class Beside(NamedTuple):
    """Entries of one leaf, what they should be, and how far truncation and rounding may move them."""

    analytic: np.ndarray
    numeric: np.ndarray
    truncation: np.ndarray
    rounding: np.ndarray
    kinked: np.ndarray  # whether the entry is on a kink
    kink: np.ndarray  # whether it is on a kink, where it is right
    shortened: np.ndarray  # one number: how many entries needed a shorter step


class Differences(NamedTuple):
    """The functions that differences need, compiled once for any place."""

    at_entries: Callable[[np.ndarray], Values]
    along: Callable[[np.ndarray, np.ndarray], Values]


def differences_of(subject: Subject) -> Differences:
    """The differences of the function that is checked."""
    return Differences(at_entries(subject.value, subject.theta.size), along(subject.value))


def compared(subject: Subject, differences: Differences, sample: Sample) -> Beside:
    """The gradient at a place, compared with central differences there."""
    leaf, index = sample.leaf, sample.entries
    d, theta = subject.gradient[leaf.entries], np.asarray(subject.theta[leaf.entries])
    nearest = np.min(np.abs(theta), initial=np.inf, where=theta != 0)  # distance to zero, where a domain may end
    size = np.array([nearest * np.sqrt(d.size) if np.isfinite(nearest) else 0.0])
    values = differences.at_entries(subject.theta)
    parts = [_beside(d[index], values, leaf.entries.start + index, largest(theta), np.abs(theta[index]), d)]
    for direction in sample.directions:
        u = np.zeros(len(subject.theta))
        u[leaf.entries] = direction
        values, slope = differences.along(subject.theta, u), np.array([direction @ d])
        parts.append(_beside(slope, values, np.zeros(1, int), largest(theta), size, d))
    joined = Beside(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return joined._replace(shortened=parts[0].shortened)


def _beside(
    analytic: np.ndarray,
    values: Values,
    at: np.ndarray,
    leaf_size: float,
    sizes: np.ndarray,
    d: np.ndarray,
) -> Beside:
    """`analytic`, a part of the gradient `d` of a leaf, compared with slopes of `values` at entries of `sizes`."""
    leaf_sizes = np.full(len(at), leaf_size)
    found = slopes(values, at, leaf_sizes, TOLERANCE / 4 * largest(d))
    steps = steps_to_try(leaf_sizes, sizes)
    again = closer(found, values, at, _suspects(analytic, found.slope), steps, TOLERANCE)
    found = again.found
    sides = np.stack([again.left, again.right])
    sharp = np.abs(again.right - again.left) >= SHARP * np.abs(sides).max(0)
    sides = np.stack([*sides, np.where(sharp, 0, again.left)])  # relu'(0) = 0 leaves out what goes through a kink
    margin = UNRESOLVED * max(largest(d), largest(found.slope))
    kink = again.kinked & (sides.min(0) - margin <= analytic) & (analytic <= sides.max(0) + margin)
    rounding, truncation, kinked = found.rounding, found.truncation, again.kinked | found.peaked
    shortened = np.array([found.shortened])
    return Beside(analytic, found.slope, truncation, rounding, kinked, kink, shortened)


def _suspects(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~(np.abs(analytic - numeric) <= TOLERANCE * max(largest(analytic), largest(numeric))))


def _off(beside: Beside, tolerance: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """How far each entry is off, and how far it may be."""
    scale = max(largest(beside.analytic), largest(beside.numeric), floor)
    allowed = np.maximum(tolerance * scale, np.minimum(10 * beside.truncation, UNRESOLVED * scale) + beside.rounding)
    off = np.where(beside.kink, 0.0, np.abs(beside.analytic - beside.numeric))
    return np.where(np.isfinite(off), off, np.inf), allowed


def leaf_report(sample: Sample, beside: Beside, tolerance: float, floor: float = 0.0) -> LeafReport:
    """An entry may be off by the tolerance, by rounding, and, within bounds, by truncation."""
    leaf, names = sample.leaf, sample.names
    if not names:
        return LeafReport(leaf.name, leaf.shape, 0, 0.0, "-", 0.0, 0.0, 0.0, 0, 0, 0, True, True, np.zeros(0))
    off, allowed = _off(beside, tolerance, floor)
    unit = max(largest(beside.analytic), largest(beside.numeric), floor) or 1.0
    excess = off / np.maximum(allowed, np.finfo(float).tiny)
    of_entries = excess[: len(sample.entries)]
    worst = int(np.argmax(of_entries if np.any(of_entries > 1) else excess))  # an entry says more than a direction
    return LeafReport(
        name=leaf.name,
        shape=leaf.shape,
        num_checked=len(sample.entries),
        error=float(off[worst] / unit),
        entry=names[worst],
        analytic=float(beside.analytic[worst]),
        numeric=float(beside.numeric[worst]),
        resolved=float(np.max(allowed) / unit),
        num_kinks=int(beside.kink[: len(sample.entries)].sum()),
        num_shortened=int(beside.shortened[0]),
        num_next_to=0,
        passed=bool(np.all(off <= allowed)),
        decided=True,
        errors=off / unit,
    )


def wrong(beside: Beside) -> np.ndarray:
    """Which slopes are off by more than they may be."""
    off, allowed = _off(beside, TOLERANCE, 0.0)
    return off > allowed


def about(gradient: np.ndarray, sample: Sample, beside: Beside, report: LeafReport) -> Finding:
    """What is wrong with the gradient of a leaf, in words."""
    leaf = sample.leaf
    d = gradient[leaf.entries].reshape(leaf.shape)
    right = beside.numeric[: d.size].reshape(leaf.shape) if len(sample.entries) == d.size else None
    return about_leaf(leaf.name, d, right, worst(report), leaf.gates)


def doubtful(sample: Sample, beside: Beside) -> bool:
    """Whether differences cannot decide here what is right.

    There are three such cases: a kink; slopes of entries that do not add up to those along directions (a median of
    equals has slopes of zero, and no derivative); and errors that are all smaller than the error of the differences.
    """
    num = len(sample.entries)
    own, off = beside.truncation + beside.rounding, np.abs(beside.analytic - beside.numeric)
    resolved = np.isfinite(own) & (beside.truncation <= 0.1 * np.abs(beside.numeric) + beside.rounding)
    found = wrong(beside)
    found[num:] &= not found[:num].any()
    unknown = found.any() and not np.any(found & resolved & (off > 10 * own))
    if num == sample.directions.shape[1]:
        apart = np.abs(sample.directions @ beside.numeric[:num] - beside.numeric[num:])
        errors = np.abs(sample.directions) @ own[:num] + own[num:]
        unknown |= bool(np.any(apart > SHARP * largest(beside.numeric) + 2 * errors))
    return bool(np.all(np.isfinite(beside.analytic)) and (beside.kinked.any() or unknown))


def worst(report: LeafReport) -> str:
    """The worst entry, in words."""
    return f"most at {report.entry}, {report.analytic:.6g} where {report.numeric:.6g} is right"


def entry_name(flat: int, shape: tuple[int, ...]) -> str:
    """The indices of an entry, from its position in the flat leaf."""
    return "(" + ", ".join(str(int(i)) for i in np.unravel_index(flat, shape)) + ")" if shape else "()"
