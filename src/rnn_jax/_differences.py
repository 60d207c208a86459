"""Slopes of a function by central differences, each with an estimate of its own error."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EPS = float(np.finfo(np.float64).eps)
STEP = EPS**0.25  # a truncation of δ⁴ against a rounding of ε/δ
# Tried in turn where the function bends, or has a kink, within a step.
SHORTER = tuple(8.0**-n for n in range(1, 6))
TOLERANCE = 1e-7  # of a gradient beside them, relative to the largest entry of the leaf
CHUNK = 4096  # values of the function a dispatch

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Slopes(NamedTuple):
    """`∂f/∂θ_i` for some `i`, what truncation and rounding may add to each, and how many needed a shorter step."""

    slope: np.ndarray
    truncation: np.ndarray  # an estimate
    rounding: np.ndarray  # a bound
    shortened: int


def largest(x: np.ndarray) -> float:
    """The largest absolute value among those that are finite."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))


def at_entries(f: Callable, theta: np.ndarray) -> Values:
    """`values(i, s)[n] = f(θ + s[n] e_i[n])`, compiled once for any number of them."""
    width = max(1, min(CHUNK, 4 * theta.size))

    @jax.jit
    def chunk(theta, index, shift):
        return lax.map(lambda pair: f(theta.at[pair[0]].add(pair[1])), (index, shift))

    def values(index: np.ndarray, shift: np.ndarray) -> np.ndarray:
        padding = (0, -len(index) % width)
        rows = (np.pad(x, padding).reshape(-1, width) for x in (index, shift))
        out = [np.asarray(chunk(theta, *map(jnp.asarray, row))) for row in zip(*rows, strict=True)]
        return np.concatenate([*out, np.zeros(0)])[: len(index)]

    return values


def along(f: Callable, theta: np.ndarray, direction: np.ndarray) -> Values:
    """`values(_, s)[n] = f(θ + s[n] u)` for one direction `u`."""
    u = jnp.asarray(direction)
    chunk = jax.jit(lambda shift: lax.map(lambda s: f(theta + s * u), shift))
    return lambda index, shift: np.asarray(chunk(jnp.asarray(shift)))


def _four_points(values: Values, index: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The slope from `f(θ ± δ)` and `f(θ ± 2δ)`, exact up to the fourth degree; its truncation; its rounding."""
    shifts = np.array([-2.0, -1.0, 1.0, 2.0])
    f = values(np.repeat(index, 4), np.outer(step, shifts).ravel()).reshape(-1, 4)
    narrow, wide = (f[:, 2] - f[:, 1]) / (2 * step), (f[:, 3] - f[:, 0]) / (4 * step)
    slope = (4 * narrow - wide) / 3
    rounding = 4 * EPS * np.max(np.abs(f), axis=1, initial=0.0) / step
    return np.stack([slope, 0.1 * np.abs(slope - narrow), rounding])


def slopes(values: Values, index: np.ndarray, size: np.ndarray, enough: float) -> Slopes:
    """The slopes at the entries `index` of leaves of that `size`; the steps shrink until the error is `enough`."""
    longest = STEP * np.maximum(1.0, size)
    found = _four_points(values, index, longest)
    shortened = np.zeros(len(index), bool)
    for step in (longest * factor for factor in SHORTER):
        todo = np.flatnonzero(~(found[1] + found[2] <= enough))
        if not len(todo):
            break
        again = _four_points(values, index[todo], step[todo])
        better = ~(again[1] + again[2] >= found[1, todo] + found[2, todo])
        found[:, todo[better]], shortened[todo[better]] = again[:, better], True
    return Slopes(found[0], found[1], found[2], int(shortened.sum()) if enough > 0 else 0)


def steps_to_try(leaf_size: np.ndarray, entry_size: np.ndarray) -> np.ndarray:
    """Steps for entries whose differences do not agree with the gradient, `(steps, entries)`.

    One for each kind of place: ever shorter ones, one that fits a leaf of small numbers, and one that fits an entry
    that is small within it.
    Where weights are of the order of 1e-30 a step of 1e-4 is a leap, after which a saturated function may look flat;
    at 1e-8 it leaves the domain of a logarithm.
    """
    longest = STEP * np.maximum(1.0, leaf_size)
    own = [np.where(size > 0, STEP * size, longest) for size in (np.minimum(leaf_size, 1.0), entry_size)]
    return np.stack([longest, longest / 8, *(longest * 64.0**-n for n in range(1, 5)), *own])


class Closer(NamedTuple):
    """Slopes looked at again; which are `sure` now; which of the others stand on a kink, between which slopes."""

    found: Slopes
    sure: np.ndarray
    kinked: np.ndarray
    left: np.ndarray
    right: np.ndarray


def closer(
    found: Slopes, values: Values, index: np.ndarray, suspects: np.ndarray, steps: np.ndarray, relative: float
) -> Closer:
    """Looks again at the `suspects`, from both sides apart.

    Central differences take f to be smooth across the place. Slopes of one side ask that of each side alone: they
    are right where the second derivative jumps (relu squared at 0), and at the edge of a domain, where only one side
    is there. That of the step with the smallest error, which counts how far both sides disagree, is taken instead. At
    a jump of f itself both are that of the side without it.
    """
    nothing = np.zeros(len(index))
    if not len(suspects):
        return Closer(found, nothing > 0, nothing > 0, nothing, nothing)
    sides = [_sides(values, index[suspects], step[suspects]) for step in steps]
    left, right, bent, rounding = (np.stack(parts) for parts in zip(*sides, strict=True))
    rows, tried = np.arange(len(suspects)), steps[:, suspects]
    kinked, at_kink = _kinks(left, right, rounding, tried)
    jumps, at_jump = _kinks(left * tried, right * tried, rounding * tried, tried)
    flat = np.where(np.abs(left) <= np.abs(right), left, right)[at_jump, rows]  # the side without the jump
    left_at = np.where(kinked, left[at_kink, rows], flat)
    right_at = np.where(kinked, right[at_kink, rows], flat)
    left, right = np.where(np.isfinite(left), left, right), np.where(np.isfinite(right), right, left)
    slope, truncation = (left + right) / 2, bent + np.abs(left - right)
    error = np.where(np.isfinite(slope), truncation + rounding, np.inf)
    seen = np.where(error <= 0.01 * np.abs(slope), np.abs(slope), 0).max(
        1, keepdims=True
    )  # the largest slope of a step
    within = np.where(seen > 0, error / np.where(seen > 0, seen, 1), np.inf)
    at = np.where(np.isfinite(within.min(0)), within.argmin(0), error.argmin(0)), rows
    sure = within[at] <= relative
    better = np.isfinite(error[at])
    least = np.fmax(rounding[at], rounding[0])  # less than the rounding of the longest step is no slope at all

    def put(old: np.ndarray, new: np.ndarray, which: np.ndarray) -> np.ndarray:
        old = old.astype(new.dtype)
        old[suspects[which]] = new[which]
        return old

    everywhere = np.ones(len(suspects), bool)
    return Closer(
        Slopes(
            put(found.slope, slope[at], better),
            put(found.truncation, truncation[at], better),
            put(found.rounding, least, better),
            found.shortened,
        ),
        put(nothing, sure, everywhere),
        put(nothing, (kinked | jumps) & ~sure, everywhere),
        put(nothing, left_at, everywhere),
        put(nothing, right_at, everywhere),
    )


def _kinks(
    left: np.ndarray, right: np.ndarray, rounding: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which entries, `(steps, entries)`, stand on a kink, and the shortest step that shows it.

    The slopes of both sides differ there by the same amount for two steps: not by one that grows with the step, as a
    bend's does, nor by what rounding makes of them. If a shorter step resolves that they agree, the kink is close by.
    Times the step they differ by the same amount at a jump of f.
    """
    gap = right - left
    size = np.abs(gap)
    steady = np.abs(gap[1:] - gap[:-1]) <= 0.2 * np.minimum(size[1:], size[:-1])
    steady &= (size > 8 * rounding)[1:] & (size > 8 * rounding)[:-1] & (steps[1:] != steps[:-1])
    kinked, at_kink = steady.any(0), len(steady) - np.argmax(steady[::-1], axis=0)
    columns = np.arange(gap.shape[1])
    whole, shorter = size[at_kink, columns], steps < steps[at_kink, columns]
    agree = shorter & (8 * rounding < 0.2 * whole) & (size < 0.5 * whole)
    return kinked & ~agree.any(0), at_kink


class Sides(NamedTuple):
    """Slopes of both sides, how far they are from those of one order less, and what rounding may do to them."""

    left: np.ndarray
    right: np.ndarray
    bent: np.ndarray
    rounding: np.ndarray


def _sides(values: Values, index: np.ndarray, step: np.ndarray) -> Sides:
    """From `f(θ ± kδ)`, k = 0..3, each side alone: exact up to the third degree."""
    f = values(np.repeat(index, 7), np.outer(step, np.arange(-3.0, 4.0)).ravel()).reshape(-1, 7)

    def slope(f_0: np.ndarray, f_1: np.ndarray, f_2: np.ndarray, f_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        third, second = (-11 * f_0 + 18 * f_1 - 9 * f_2 + 2 * f_3) / 6, (-3 * f_0 + 4 * f_1 - f_2) / 2
        return third / step, np.abs(third - second) / step

    with np.errstate(invalid="ignore", over="ignore"):  # outside of a domain there is no number
        right, bent_right = slope(*f.T[3:])
        left, bent_left = slope(*f.T[3::-1])
    largest_f = np.max(np.abs(f), axis=1, initial=0.0, where=np.isfinite(f))
    return Sides(-left, right, np.fmax(bent_left, bent_right), 18 * EPS * largest_f / step)
