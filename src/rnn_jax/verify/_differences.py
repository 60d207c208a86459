"""Slopes of a function by central differences, each with an estimate of its own error."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

EPS = float(np.finfo(np.float64).eps)
STEP = EPS**0.25  # balances a truncation of δ⁴ and a rounding of ε/δ
# Factors tried in turn where the function bends, or has a kink, within a step.
SHORTER = tuple(8.0**-n for n in range(1, 6))
TOLERANCE = 1e-7  # for a gradient compared with them, relative to the largest entry of the leaf
CHUNK = 4096  # values of the function per dispatch

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Slopes(NamedTuple):
    """`∂f/∂θ_i` for some `i`, each with its possible errors."""

    slope: np.ndarray
    truncation: np.ndarray  # an estimate
    rounding: np.ndarray  # a bound
    peaked: np.ndarray  # on a kink whose sides have opposite slopes
    shortened: int  # how many needed a shorter step


def power_of_two(x: np.ndarray) -> np.ndarray:
    """The nearest power of two, a step that `θ ± δ` represents exactly."""
    nearest: np.ndarray = np.exp2(np.round(np.log2(x)))
    return nearest


def largest(x: np.ndarray) -> float:
    """The largest absolute value among those that are finite."""
    return float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))


def at_entries(f: Callable[[Array], Array], num_entries: int) -> Callable[[np.ndarray], Values]:
    """`at_entries(f, n)(θ)` is `values(i, s)[n] = f(θ + s[n] e_i[n])`, compiled once for any number and any `θ`."""
    width = max(1, min(CHUNK, 4 * num_entries))

    @jax.jit
    def chunk(theta: Array, index: Array, shift: Array) -> Array:
        values: Array = lax.map(lambda pair: f(theta.at[pair[0]].add(pair[1])), (index, shift))
        return values

    def values(theta: Array, index: np.ndarray, shift: np.ndarray) -> np.ndarray:
        padding = (0, -len(index) % width)
        rows = (np.pad(x, padding).reshape(-1, width) for x in (index, shift))
        out = [np.asarray(chunk(theta, *map(jnp.asarray, row))) for row in zip(*rows, strict=True)]
        return np.concatenate([*out, np.zeros(0)])[: len(index)]

    return lambda theta: functools.partial(values, jnp.asarray(theta))


def along(f: Callable[[Array], Array]) -> Callable[[np.ndarray, np.ndarray], Values]:
    """`along(f)(θ, u)` is `values(_, s)[n] = f(θ + s[n] u)`, compiled once for any `θ` and direction `u`."""

    @jax.jit
    def chunk(theta: Array, u: Array, shift: Array) -> Array:
        values: Array = lax.map(lambda s: f(theta + s * u), shift)
        return values

    def values(theta: Array, u: Array, index: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return np.asarray(chunk(theta, u, jnp.asarray(shift)))

    return lambda theta, u: functools.partial(values, jnp.asarray(theta), jnp.asarray(u))


def _four_points(values: Values, index: np.ndarray, step: np.ndarray) -> np.ndarray:
    """`(slope, truncation, rounding, peaked)` from `f(θ ± δ)` and `f(θ ± 2δ)`; exact up to the fourth degree.

    `peaked`: f has a kink here. For twice the step, the summed rise of both sides is then twice as large; on a smooth
    function it is four times as large.
    """
    at_place = values(index[:1], np.zeros(len(index[:1])))
    shifts = np.array([-2.0, -1.0, 1.0, 2.0])
    f = values(np.repeat(index, 4), np.outer(step, shifts).ravel()).reshape(-1, 4)
    narrow, wide = (f[:, 2] - f[:, 1]) / (2 * step), (f[:, 3] - f[:, 0]) / (4 * step)
    slope = (4 * narrow - wide) / 3
    largest_f = np.max(np.abs(f), axis=1, initial=0.0)
    bend, wide_bend = f[:, 1] + f[:, 2] - 2 * at_place, f[:, 0] + f[:, 3] - 2 * at_place
    peaked = (np.abs(wide_bend - 2 * bend) <= 0.2 * np.abs(bend)) & (np.abs(bend) > 64 * EPS * largest_f)
    return np.stack([slope, 0.1 * np.abs(slope - narrow), 4 * EPS * largest_f / step, peaked])


def slopes(values: Values, index: np.ndarray, size: np.ndarray, enough: float) -> Slopes:
    """The slopes at the entries `index` of leaves of this `size`; steps shrink until the error is below `enough`."""
    longest = power_of_two(STEP * np.maximum(1.0, size))
    found = _four_points(values, index, longest)
    shortened = np.zeros(len(index), bool)
    for step in (longest * factor for factor in SHORTER):
        todo = np.flatnonzero(~(found[1] + found[2] <= enough))
        if not len(todo):
            break
        again = _four_points(values, index[todo], step[todo])
        better = ~(again[1] + again[2] >= found[1, todo] + found[2, todo])
        found[:, todo[better]], shortened[todo[better]] = again[:, better], True
    return Slopes(found[0], found[1], found[2], found[3] > 0, int(shortened.sum()) if enough > 0 else 0)


def steps_to_try(leaf_size: np.ndarray, entry_size: np.ndarray) -> np.ndarray:
    """Steps for entries whose differences do not agree with the gradient, `(steps, entries)`.

    There is one step for each kind of place: shorter and shorter ones, one that fits a leaf of small numbers, and one
    that fits an entry that is small within its leaf. If weights are about 1e-30, a step of 1e-4 is far too long: with
    it, a saturated function may look flat. At 1e-8, a step of that length leaves the domain of a logarithm.
    """
    longest = STEP * np.maximum(1.0, leaf_size)
    steps = [power_of_two(step) for step in (longest, longest / 8, *(longest * 64.0**-n for n in range(1, 5)))]
    steps += [
        power_of_two(np.where(size > 0, STEP * size, longest)) for size in (np.minimum(leaf_size, 1.0), entry_size)
    ]
    return np.stack([*steps, np.min(steps, axis=0) / 8])


class Closer(NamedTuple):
    """Slopes after a second look: which entries may be on a kink, and the slopes of both its sides."""

    found: Slopes
    kinked: np.ndarray
    left: np.ndarray
    right: np.ndarray


def closer(
    found: Slopes, values: Values, index: np.ndarray, suspects: np.ndarray, steps: np.ndarray, relative: float
) -> Closer:
    """Take a second look at the `suspects`, at each side alone.

    Central differences assume that f is smooth across the place. One-sided slopes only assume it of each side. So they
    are right where the second derivative jumps (relu squared at 0), and at the edge of a domain, where only one side
    exists. Of all steps, the one with the smallest error is taken; the error includes how far both sides disagree. At a
    jump of f itself, both slopes are that of the side without the jump.
    """
    nothing = np.zeros(len(index))
    if not len(suspects):
        return Closer(found, nothing > 0, nothing, nothing)
    rows, tried = np.arange(len(suspects)), steps[:, suspects]
    sides = [_sides(values, index[suspects], step) for step in tried]
    left, right, bent, rounding, f = (np.stack(parts) for parts in zip(*sides, strict=True))
    bound = np.maximum(rounding, 4 * _stair(f, tried) / tried)
    rounding = np.maximum(bound, 18 * _noise(values, index[suspects], tried) / tried)
    kinked, at_kink = _kinks(left, right, rounding, tried)
    jumps, at_jump = _kinks(left * tried, right * tried, rounding * tried, tried)
    flat = np.where(np.abs(left) <= np.abs(right), left, right)[at_jump, rows]  # the side without the jump
    left_at = np.where(kinked, left[at_kink, rows], flat)
    right_at = np.where(kinked, right[at_kink, rows], flat)
    left, right = np.where(np.isfinite(left), left, right), np.where(np.isfinite(right), right, left)
    slope = (left + right) / 2
    truncation = np.fmax(bent + np.abs(left - right), _spread(slope, rounding, tried))
    error = np.where(np.isfinite(slope), truncation + rounding, np.inf)
    seen = np.where(error <= 0.01 * np.abs(slope), np.abs(slope), 0).max(1, keepdims=True)  # the largest of all steps
    within = np.where(seen > 0, error / np.where(seen > 0, seen, 1), np.inf)
    at = np.where(np.isfinite(within.min(0)), within.argmin(0), error.argmin(0)), rows
    sure = within[at] <= relative
    better = np.isfinite(error[at])
    least = np.fmax(rounding[at], bound[0])  # a slope below the rounding of the longest step cannot be seen

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
            found.peaked,
            found.shortened,
        ),
        put(nothing, (kinked | jumps) & ~sure, everywhere),
        put(nothing, left_at, everywhere),
        put(nothing, right_at, everywhere),
    )


def _noise(values: Values, index: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The noise of `f` around each place at the scale of each step, from digits that cancel inside `f`.

    The fourth differences of a smooth function vanish as their spacing does; those of independent errors of size σ have
    the variance 70 σ² (J. J. Moré, S. M. Wild, Estimating computational noise, 2011). The smaller of both sides counts,
    because the other may contain a kink or the end of a domain. If neither shows noise, f may be rounded to a single
    number; then the noise of the next longer step counts. Since a few points may lie on a line by chance, the median of
    three steps in a row is taken.
    """
    shifts = np.outer([-1.0, 1.0], np.arange(8)) / 64
    noise = np.zeros_like(steps)
    for row, step in enumerate(steps):
        f = values(np.repeat(index, shifts.size), np.outer(step, shifts).ravel()).reshape(-1, *shifts.shape)
        with np.errstate(invalid="ignore", over="ignore"):
            found = np.sqrt(np.mean(np.diff(f, 4) ** 2, axis=-1) / 70)
        found = np.min(found, axis=1, initial=np.inf, where=np.isfinite(found))
        noise[row] = np.where(np.isfinite(found), found, 0.0)
    order = np.argsort(-steps, axis=0)
    ordered = np.take_along_axis(noise, order, 0)
    for row in range(1, len(ordered)):
        ordered[row] = np.where(ordered[row] > 0, ordered[row], ordered[row - 1])
    around = np.concatenate([ordered[:1], ordered, ordered[-1:]])
    np.put_along_axis(noise, order, np.median([around[:-2], around[1:-1], around[2:]], axis=0), 0)
    return noise


def _stair(f: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How high the steps of the staircase `f`, `(steps, entries, 7)`, may be; 0 where it is not a staircase.

    Something inside may be rounded, as `1 + e^-38` is to 1. Then f is a single number around here, or it rises over
    longer steps but not within shorter ones. Only stairs of a few machine epsilons count as rounding.
    """
    finite = np.isfinite(f)
    rise = np.max(f, axis=2, initial=-np.inf, where=finite) - np.min(f, axis=2, initial=np.inf, where=finite)
    flat, size = rise == 0, np.max(np.abs(f), axis=(0, 2), initial=0.0, where=finite)
    missed = np.max(np.where(flat, steps, 0), axis=0) * np.max(rise / steps, axis=0, initial=0.0, where=rise > 0)
    height = np.where(flat.all(0), EPS, missed)
    return np.where((height > 4 * EPS * size) & (height <= 64 * EPS * np.maximum(1.0, size)), height, 0.0)


def _spread(slope: np.ndarray, rounding: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How far each slope is from those of steps up to 64 times shorter, minus what rounding may do to both.

    The shortest step has no shorter one: it gets the distance of the next longer step.
    """
    shorter = (steps[:, None] > steps) & (steps[:, None] <= 64 * steps)  # (steps, shorter steps, entries)
    with np.errstate(invalid="ignore"):
        apart = np.abs(slope[:, None] - slope) - rounding[:, None] - rounding
    spread = np.max(np.nan_to_num(apart), axis=1, initial=0.0, where=shorter)
    next_longer = spread[np.argsort(steps, axis=0)[1], np.arange(steps.shape[1])]
    distances: np.ndarray = np.where(np.any(shorter, axis=1), spread, next_longer)
    return distances


def _kinks(
    left: np.ndarray, right: np.ndarray, rounding: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which entries, `(steps, entries)`, are on a kink, and the shortest step that shows it.

    On a kink, the slopes of both sides differ by the same amount for two steps. At a bend, the difference grows with
    the step; and rounding must be too small to explain it. If a shorter step shows that both sides agree, the kink is
    only close by. At a jump of f, the difference times the step is the same for two steps.
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
    """Slopes of both sides, how far they are from slopes of one order less, and their rounding."""

    left: np.ndarray
    right: np.ndarray
    bent: np.ndarray
    rounding: np.ndarray
    f: np.ndarray  # (entries, 7)


def _sides(values: Values, index: np.ndarray, step: np.ndarray) -> Sides:
    """From `f(θ ± kδ)`, k = 0..3, for each side alone; exact up to the third degree."""
    f = values(np.repeat(index, 7), np.outer(step, np.arange(-3.0, 4.0)).ravel()).reshape(-1, 7)

    def slope(f_0: np.ndarray, f_1: np.ndarray, f_2: np.ndarray, f_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        third, second = (-11 * f_0 + 18 * f_1 - 9 * f_2 + 2 * f_3) / 6, (-3 * f_0 + 4 * f_1 - f_2) / 2
        return third / step, np.abs(third - second) / step

    with np.errstate(invalid="ignore", over="ignore"):  # outside its domain f has no value
        right, bent_right = slope(*f.T[3:])
        left, bent_left = slope(*f.T[3::-1])
    largest_f = np.max(np.abs(f), axis=1, initial=0.0, where=np.isfinite(f))
    return Sides(-left, right, np.fmax(bent_left, bent_right), 18 * EPS * largest_f / step, f)
