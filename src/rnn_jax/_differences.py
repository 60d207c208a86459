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
ONE_SIDED = (2e-7, 3.2e-6)
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


def closer(
    found: Slopes, values: Values, index: np.ndarray, size: np.ndarray, suspects: np.ndarray, relative: float
) -> Slopes:
    """Looks again at some entries, with steps of the size of a leaf that is small in itself.

    Where weights are of the order of 1e-30 a step of 1e-4 is a leap, after which a saturated function may look flat.
    The shorter step is believed where its own error is a small part of such slopes.
    """
    again = suspects[(0 < size[suspects]) & (size[suspects] < 1)]
    if not len(again):
        return found
    slope, truncation, rounding = _four_points(values, index[again], STEP * size[again])
    sure = truncation + rounding <= relative * np.max(np.abs(slope))
    for old, new in zip(found[:3], (slope, truncation, rounding), strict=True):
        old[again[sure]] = new[sure]
    return found


def kinks(values: Values, index: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which entries stand on a kink, and the slopes on both sides.

    The slopes of both sides differ there by the same amount for two steps: not by one that grows with the step, as a
    bend's does, nor by what rounding makes of them.
    """
    near, far = (_sides(values, index, step * np.maximum(1.0, size)) for step in ONE_SIDED)
    gap, other = near[1] - near[0], far[1] - far[0]
    steady = np.abs(gap - other) <= 0.2 * np.minimum(np.abs(gap), np.abs(other))
    return steady & (np.abs(gap) > 8 * near[2]), near[0], near[1]


def _sides(values: Values, index: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The slope to the left, to the right, and what rounding may do to them."""
    f = values(np.repeat(index, 3), np.outer(step, [-1.0, 0.0, 1.0]).ravel()).reshape(-1, 3)
    rounding = 4 * EPS * np.max(np.abs(f), axis=1) / step
    return np.stack([(f[:, 1] - f[:, 0]) / step, (f[:, 2] - f[:, 1]) / step, rounding])
