"""The textbook by hand: a scan of `step_forward`, a reverse scan of `step_backward`, everything step by step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._by_hand import Layer
from ._cell import step_backward, step_forward
from ._types import CellParams, Flags, Hidden, Hiddens, Inputs, accumulation_dtype
from ._unroll import enter, leave, visible


def forward(
    cell: CellParams, h_0: Hidden, xs: Inputs, mask: Flags | None, reset: Flags | None, r: Hidden | None
) -> tuple[Hiddens, Any]:
    """`hs`, and the residuals of every step."""

    def body(h_tm1, now):
        x_t, mask_t, reset_t = now
        h_new, residuals_t = step_forward(cell, enter(h_tm1, reset_t), x_t, r)
        h_t = leave(h_new, h_tm1, mask_t)
        return h_t, (h_t, residuals_t._replace(r=None))  # the same at every step

    _, (hs, residuals) = lax.scan(body, h_0, (visible(xs, mask), mask, reset))
    return hs, (cell, residuals, mask, reset, r)


def backward(
    residuals: Any, d_hs: Hiddens, d_h_T: Hidden
) -> tuple[CellParams, Hidden, Float[Array, "time *batch in"] | None]:
    """`(d_cell, d_h_0, d_xs)`; `d_cell` is carried through time and summed step by step, for t = T..1."""
    cell, residuals, mask, reset, r = residuals

    def body(carry, now):
        d_cell, d_h_next = carry
        d_h_read, residuals_t, mask_t, reset_t = now
        d_h_t = d_h_read + d_h_next
        d_h_new = leave(d_h_t, jnp.zeros_like(d_h_t), mask_t)
        d_cell_t, d_h_met, d_x_t = step_backward(cell, residuals_t._replace(r=r), d_h_new)
        d_h_tm1 = leave(enter(d_h_met, reset_t), d_h_t, mask_t)
        return (jax.tree.map(jnp.add, d_cell, d_cell_t), d_h_tm1), d_x_t

    d_cell = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=accumulation_dtype(w.dtype)), cell)
    (d_cell, d_h_0), d_xs = lax.scan(body, (d_cell, d_h_T), (d_hs, residuals, mask, reset), reverse=True)
    return d_cell, d_h_0, d_xs


stepwise = Layer(forward, backward)
