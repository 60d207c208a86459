"""The derivative of a cell at some point, and its transpose, for forward mode and Jacobians."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from .protocol import Cell, Deltas, Pull


def push(pull: Pull, dots: Deltas, s_dot: Array) -> Array:
    """The tangent of `s_t`, by transposing `pull`: a cell's `backward` at some point, a linear function.

    If `pull` sends the same cotangent to z and u, `dots.z` is the tangent of `z_t + u_t`, and `dots.u` is None.
    """

    def with_tangents(d_s: Array) -> tuple[Any, ...]:
        deltas, d_s_tm1 = pull(d_s)
        deltas = deltas._replace(own={name: deltas.own[name] for name in dots.own})
        return (deltas,) if d_s_tm1 is None else (deltas, d_s_tm1)

    passes = len(jax.eval_shape(with_tangents, s_dot)) == 2
    s_t_dot: Array = jax.linear_transpose(with_tangents, s_dot)((dots, s_dot) if passes else (dots,))[0]
    return s_t_dot


def has_one_delta(pull: Pull, s: Any) -> bool:
    """Whether `pull` sends the same cotangent to z and u."""
    return jax.eval_shape(pull, s)[0].u is None


def linearised(cell: Cell, z: Array, u: Array, s_before: Array, s: Array) -> Pull:
    """The cell's `backward` at this point.

    If the cell has a `slope`, small derivatives keep full precision; `1 - h²` would lose it where tanh saturates.
    """
    if hasattr(cell, "backward_by_slope"):
        return partial(cell.backward_by_slope, cell.slope(z, u))  # type: ignore[attr-defined]
    return partial(cell.backward, cell.kept(z, u, s_before, s))
