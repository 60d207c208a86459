"""Backpropagation through time by hand: only `d_h` travels, all else is a product over many steps at once."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._activations import ACTIVATIONS
from ._affine import affine, affine_d_input, affine_d_weights
from ._autodiff import Autodiff
from ._by_hand import Layer, backpropagate
from ._cell import d_integrate, integrate
from ._checks import is_tokens, steps_shape
from ._dropout import dropped
from ._events import Events, cut
from ._plan import rows_block
from ._require import require_sizes
from ._types import (
    Batch,
    CellParams,
    Hidden,
    Hiddens,
    Inputs,
    Objective,
    Params,
    Result,
    States,
    accumulation_dtype,
)


class Residuals(NamedTuple):
    """What the forward pass keeps. Of the sequence it made, that is `hs` and nothing else.

    `fs` are the `φ(a_t)` of a cell that leaks. They are not kept: with all states there, they are one product. Without
    leak they are `hs`. They cannot be recovered from two rounded states: `φ'` would be wrong near a kink. `r` is the
    dropout mask of the recurrence; that of the layer below is in `xs`.
    """

    cell: CellParams
    h_0: Hidden
    xs: Inputs
    hs: Hiddens
    events: Events
    fs: Hiddens
    r: Hidden | None = None


def forward(
    cell: CellParams, h_0: Hidden, xs: Inputs, events: Events, r: Hidden | None, *, unroll: int = 1
) -> tuple[Hiddens, Residuals]:
    """`h_t = φ(x_t W_xh + b_h + h_{t-1} W_hh)`: the input projection is one product before the scan.

    With a leak α, `h_t = (1 - α) h_{t-1} + α φ(…)`. With a dropout mask r, `W_hh` reads `h_{t-1} ∘ r`.
    """
    phi = ACTIVATIONS[cell.activation].phi

    def body(h_tm1, now):
        z_t, event = now
        h_met = event.enter(h_tm1)
        a_t = z_t + dropped(h_met, r) @ cell.w_hh
        h_t = event.leave(integrate(cell, phi(a_t), h_met), h_tm1)
        return h_t, h_t

    zs = affine(events.visible(xs), cell.w_xh, cell.b_h)
    _, hs = lax.scan(body, h_0, (zs, events), unroll=unroll)
    return hs, residuals_of(cell, h_0, xs, hs, events, r)


def residuals_of(cell: CellParams, h_0: Hidden, xs: Inputs, hs: Hiddens, events: Events, r: Hidden | None) -> Residuals:
    """What `forward` keeps, from its arguments and the states it made."""
    residuals = Residuals(cell, h_0, events.visible(xs), hs, events, hs, r)
    if cell.leak == 1:
        return residuals
    a = affine(residuals.xs, cell.w_xh, cell.b_h) + states_read(residuals) @ cell.w_hh
    return residuals._replace(fs=ACTIVATIONS[cell.activation].phi(a))


def backward(
    residuals: Residuals, d_hs: Hiddens, d_h_T: Hidden, *, unroll: int = 1
) -> tuple[CellParams, Hidden, Float[Array, "time *batch in"] | None]:
    """`(d_cell, d_h_0, d_xs)` from `d_hs[t] = d_y_t W_hyᵀ`, or whatever else reads `h_t`, for t = T..1.

    `d_h_T` is what the steps after T send back. The loop carries `d_h` alone and emits `d_a`; the weight
    gradients are one product each after it.
    """
    d_h_0, d_as = deltas(residuals, d_hs, d_h_T, unroll=unroll)
    return weight_gradients(residuals, d_as), d_h_0, affine_d_input(residuals.xs, d_as, residuals.cell.w_xh)


def deltas(
    residuals: Residuals,
    d_hs: Hiddens,
    d_h_T: Hidden,
    *,
    unroll: int = 1,
    emit: Callable[[Hidden, Hidden], Any] = lambda d_h_t, d_a_t: d_a_t,
) -> tuple[Hidden, Any]:
    """`(d_h_0, d_as)`: the loop over time, and what it emits of each step."""
    cell, events, r = residuals.cell, residuals.events, residuals.r
    d_phi = ACTIVATIONS[cell.activation].d_phi
    w_hh_t = cell.w_hh.T

    def body(d_h_next, now):  # d_h_next: what steps t+1.. send back to h_t
        d_h_read, f_t, event = now
        d_h_t = d_h_read + d_h_next
        d_f_t, d_h_kept = d_integrate(cell, d_h_t)
        d_a_t = event.d_leave(d_f_t * d_phi(f_t))
        d_h_read_t = dropped(d_a_t @ w_hh_t, r)
        d_h_met = d_h_read_t if d_h_kept is None else d_h_read_t + d_h_kept
        return event.d_enter(d_h_met, d_h_t), emit(d_h_t, d_a_t)

    return lax.scan(body, d_h_T, (d_hs, residuals.fs, events), reverse=True, unroll=unroll)


def weight_gradients(residuals: Residuals, d_as: Hiddens) -> CellParams:
    """`d_W_xh = Σ x_tᵀ d_a_t`, `d_W_hh = Σ h_{t-1}ᵀ d_a_t` and `d_b_h = Σ d_a_t`: one product each."""
    cell = residuals.cell
    d_w_xh, d_b_h = affine_d_weights(residuals.xs, d_as, cell.w_xh)
    d_w_hh, _ = affine_d_weights(states_read(residuals), d_as, cell.w_hh)
    return dataclasses.replace(cell, w_xh=d_w_xh, w_hh=d_w_hh, b_h=d_b_h)


def backward_in_blocks(
    residuals: Residuals, d_hs: Hiddens, d_h_T: Hidden, block: int
) -> tuple[CellParams, Hidden, Float[Array, "time *batch in"] | None]:
    """`backward`, with the weight-gradient products of `block` steps at a time: their operands stay in cache."""
    cell, xs, hs = residuals.cell, residuals.xs, residuals.hs
    time = hs.shape[0]
    if time <= block:
        return backward(residuals, d_hs, d_h_T)

    def of_steps(carry: tuple[CellParams, Hidden], start: Any, size: int) -> Any:
        d_cell, d_h = carry
        xs_now, hs_now, events, d_hs_now = cut((xs, hs, residuals.events, d_hs), start, size)
        h_before = jnp.where(
            start == 0, residuals.h_0, lax.dynamic_index_in_dim(hs, jnp.maximum(start - 1, 0), keepdims=False)
        )
        now = residuals_of(cell, h_before, xs_now, hs_now, events, residuals.r)
        d_cell_now, d_h, d_xs = backward(now, d_hs_now, d_h)
        return (jax.tree.map(jnp.add, d_cell, d_cell_now), d_h), d_xs

    d_cell = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=accumulation_dtype(w.dtype)), cell)
    count, rest = divmod(time, block)
    carry, d_xs = (d_cell, d_h_T), []
    if rest:
        carry, d_xs_rest = of_steps(carry, count * block, rest)
        d_xs.append(d_xs_rest)
    carry, d_xs_blocks = lax.scan(lambda c, i: of_steps(c, i * block, block), carry, jnp.arange(count), reverse=True)
    if is_tokens(xs):
        return *carry, None
    return *carry, jnp.concatenate([d_xs_blocks.reshape(-1, *xs.shape[1:]), *d_xs])


def pullback(residuals: Residuals, d_hs: Hiddens) -> tuple[CellParams, Hidden, Float[Array, "time *batch in"] | None]:
    """`backward`, with each cotangent in the dtype of what it is the cotangent of, as JAX asks of a derivative rule."""
    time, *batch_axes = steps_shape(residuals.xs)
    block = rows_block(time, batch_axes)
    d_cell, d_h_0, d_xs = backward_in_blocks(residuals, d_hs, jnp.zeros_like(residuals.h_0), block)
    return jax.tree.map(lambda d, w: d.astype(w.dtype), d_cell, residuals.cell), d_h_0, d_xs


def pushforward(residuals: Residuals, cell_dot: CellParams, h_0_dot: Hidden | None, xs_dot: Inputs | None) -> Hiddens:
    """The tangents of `h_1..h_T`, forward mode; None stands for a tangent of zero, of a leaf of `cell_dot` too.

    `ȧ_t = ẋ_t W_xh + x_t Ẇ_xh + ḃ_h + h_{t-1} Ẇ_hh + ḣ_{t-1} W_hh` and `ḣ_t = φ'(a_t) ∘ ȧ_t`, with a leak as in
    `forward`. Only the last product needs the loop.
    """
    cell, h_0, xs, r = residuals.cell, residuals.h_0, residuals.xs, residuals.r
    d_phi = ACTIVATIONS[cell.activation].d_phi
    zero_b = jnp.zeros_like(cell.b_h)
    u = jnp.zeros_like(residuals.hs)
    if xs_dot is not None:
        u += affine(xs_dot, cell.w_xh, zero_b)
    if cell_dot.w_xh is not None:
        u += affine(xs, cell_dot.w_xh, zero_b)
    if cell_dot.b_h is not None:
        u += jnp.broadcast_to(cell_dot.b_h, u.shape)
    if cell_dot.w_hh is not None:
        u += states_read(residuals) @ cell_dot.w_hh

    def body(h_tm1_dot, now):
        u_t, f_t, event = now
        h_met_dot = event.enter(h_tm1_dot)
        f_t_dot = d_phi(f_t) * (u_t + dropped(h_met_dot, r) @ cell.w_hh)
        h_t_dot = event.leave(integrate(cell, f_t_dot, h_met_dot), h_tm1_dot)
        return h_t_dot, h_t_dot

    start = jnp.zeros_like(h_0) if h_0_dot is None else h_0_dot
    _, hs_dot = lax.scan(body, start, (u, residuals.fs, residuals.events))
    return hs_dot


def states_read(residuals: Residuals) -> Hiddens:
    """What `W_hh` read at t = 1..T: the states that were left, one step later, but for units that are dropped."""
    before = jnp.concatenate([residuals.h_0[None], residuals.hs])[:-1]
    return dropped(residuals.events.enter(before), residuals.r)


def bptt(unroll: int = 1) -> Layer:
    """The layer whose loops over time take `unroll` steps a turn."""
    return Layer(partial(forward, unroll=unroll), partial(backward, unroll=unroll))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BPTT:
    """By hand: `d_h` alone travels back, the weight gradients are products after the loop.

    `unroll` is the number of steps in one turn of a loop over time. More are fewer launches per step on a GPU; a CPU
    gains nothing.
    """

    unroll: int = 1

    def __post_init__(self) -> None:
        require_sizes(unroll=self.unroll)

    @property
    def reference(self) -> Autodiff:
        """It is exact."""
        return Autodiff()

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """Loss, last states and gradients."""
        return backpropagate(bptt(self.unroll), objective, params, batch, h_0)
