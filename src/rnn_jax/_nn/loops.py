"""The loops over time, forward and backward by hand. Only `d_s` is carried back; weights get one product each."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Cell, Deltas, add_to_hidden, keeps_more, only_hidden, own_names
from .._cells.tangents import has_one_delta, push
from .._checks import is_tokens, steps_shape
from .._require import are_numbers
from .._types import (
    Hiddens,
    Inputs,
    accumulation_dtype,
)
from .affine import affine, affine_d_input
from .blocks import rows_block
from .dropout import dropped
from .events import Events, cut
from .layer import Layer
from .step import weight_gradients as products_back


class Residuals(NamedTuple):
    """What the forward pass keeps. The only new arrays for the whole sequence are the states `ss`, and `kept`.

    `kept` is what the cell's `backward` reads. If states are enough for it, it is `ss`. Otherwise the forward pass has
    kept it, or it is recomputed by one product over all steps.
    """

    layer: Layer
    s_0: Array
    xs: Inputs
    ss: Array
    events: Events
    kept: Any


class Room(NamedTuple):
    """Where `forward` keeps what the cell's `backward` reads: in `rows`, from row `start` on; in new arrays if None.

    The rows of all blocks are one array, so that no block has to be copied.
    """

    rows: Any = None
    start: Any = 0


def forward(
    layer: Layer,
    s_0: Array,
    xs: Inputs,
    events: Events,
    *,
    room: Room | None = None,
    unroll: int = 1,
) -> tuple[Array, Residuals]:
    """`s_t = f(z_t, h_{t-1} W_hh, s_{t-1})`. The input projection z is one product before the scan.

    With dropout, `W_hh` reads `h_{t-1}` times the mask. What the cell's `backward` reads is kept in the `room`; then
    the `kept` of the residuals are all rows of the room. Without a room, and for cells that keep little, it is
    recomputed from the states.
    """
    cell = layer.cell
    keep = keeps_more(cell) and room is not None

    def body(s_tm1: Array, now: Any) -> tuple[Array, Any]:
        z_t, event = now
        s_met = event.enter(s_tm1)
        u_t = layer.read(s_met) @ cell.w_hh
        z_t, u_t = z_t.astype(s_met.dtype), u_t.astype(s_met.dtype)
        s_new = cell.forward(z_t, u_t, s_met)
        s_t = event.leave(s_new, s_tm1)
        return s_t, (s_t, cell.kept(z_t, u_t, s_met, s_new) if keep else None)

    def into_room(carry: tuple[Array, Any], now: Any) -> tuple[tuple[Array, Any], Array]:
        s_tm1, rows = carry
        row, step = now
        s_t, (_, kept_t) = body(s_tm1, step)
        return (s_t, jax.tree.map(lambda x, x_t: lax.dynamic_update_index_in_dim(x, x_t, row, 0), rows, kept_t)), s_t

    zs = affine(events.visible(xs), cell.w_xh, cell.b_h)
    unroll = unroll if are_numbers(zs.shape[0]) else 1
    if room is None or room.rows is None:
        _, (ss, kept) = lax.scan(body, s_0, (zs, events), unroll=unroll)
    else:
        rows = room.start + jnp.arange(zs.shape[0])
        (_, kept), ss = lax.scan(into_room, (s_0, room.rows), (rows, (zs, events)), unroll=unroll)
    return ss, residuals_of(layer, s_0, xs, ss, events, kept)


def residuals_of(layer: Layer, s_0: Array, xs: Inputs, ss: Array, events: Events, kept: Any = None) -> Residuals:
    """What `forward` keeps, from its arguments and its states; what the cell reads is recomputed unless it was kept."""
    cell, residuals = layer.cell, Residuals(layer, s_0, events.visible(xs), ss, events, ss)
    if cell.from_states:
        return residuals
    if kept is None:
        kept = cell.kept(*pre_activations(residuals), states_met(residuals), ss)
    return residuals._replace(kept=kept)


def pre_activations(residuals: Residuals) -> tuple[Array, Array]:
    """`z` and `u` of all steps, in the dtype of the states: one product each."""
    cell, dtype = residuals.layer.cell, residuals.ss.dtype
    zs, us = affine(residuals.xs, cell.w_xh, cell.b_h), states_read(residuals) @ cell.w_hh
    return zs.astype(dtype), us.astype(dtype)


def backward(
    residuals: Residuals, d_hs: Hiddens, d_s_T: Array, *, unroll: int = 1
) -> tuple[Cell, Array, Float[Array, "time *batch in"] | None]:
    """`(d_cell, d_s_0, d_xs)` from the cotangents `d_hs`, backward in time: t = T..1.

    `d_hs[t]` is what the readout (`d_y_t W_hyᵀ`) or the layer above sends to `h_t`, and `d_s_T` what the steps after T
    send back. The loop carries only `d_s` and emits the cotangents of z and u. After it, each weight gradient is one
    product.
    """
    d_s_0, all_deltas = deltas(residuals, d_hs, d_s_T, unroll=unroll)
    d_xs = affine_d_input(residuals.xs, all_deltas.z, residuals.layer.cell.w_xh)
    return weight_gradients(residuals, all_deltas), d_s_0, d_xs


def deltas(
    residuals: Residuals,
    d_hs: Hiddens,
    d_s_T: Array,
    *,
    unroll: int = 1,
    emit: Callable[[Array, Deltas], Any] = lambda d_s_t, deltas_t: deltas_t,
) -> tuple[Array, Any]:
    """The loop over time, backward: `(d_s_0, what it emits)`. It emits `Deltas` by default."""
    layer, events = residuals.layer, residuals.events
    cell = layer.cell
    w_hh_t = cell.w_hh.T

    def body(d_s_next: Array, now: Any) -> tuple[Array, Any]:  # d_s_next: what steps t+1.. send back to s_t
        d_h_read, kept_t, event = now
        d_s_t = add_to_hidden(cell, d_s_next, d_h_read)
        deltas_t, d_s_kept = cell.backward(kept_t, d_s_t)
        deltas_t = jax.tree.map(event.d_leave, deltas_t.for_products(cell))
        d_h_met = dropped(deltas_t.of_u @ w_hh_t, layer.recurrent)
        d_s_met = only_hidden(cell, d_h_met) if d_s_kept is None else add_to_hidden(cell, d_s_kept, d_h_met)
        return event.d_enter(d_s_met, d_s_t), emit(d_s_t, deltas_t)

    unroll = unroll if are_numbers(d_hs.shape[0]) else 1
    return lax.scan(body, d_s_T, (d_hs, residuals.kept, events), reverse=True, unroll=unroll)


def weight_gradients(residuals: Residuals, all_deltas: Deltas) -> Cell:
    """The gradient of the cell: one product for each weight, over all steps."""
    return products_back(residuals.layer.cell, residuals.xs, states_read(residuals), all_deltas)


def backward_in_blocks(
    residuals: Residuals, d_hs: Hiddens, d_s_T: Array, block: int
) -> tuple[Cell, Array, Float[Array, "time *batch in"] | None]:
    """`backward`, where each weight-gradient product covers `block` steps, so that its operands stay in the cache."""
    layer, xs, ss = residuals.layer, residuals.xs, residuals.ss
    time = ss.shape[0]
    if time <= block:
        return backward(residuals, d_hs, d_s_T)

    def of_steps(carry: tuple[Cell, Array], start: Any, size: int) -> Any:
        d_cell, d_s = carry
        kept = residuals.kept if keeps_more(layer.cell) else None  # None: recomputed for each block
        xs_now, d_hs_now, (ss_now, events, kept_now) = cut((xs, d_hs, (ss, residuals.events, kept)), start, size)
        s_before = jnp.where(
            start == 0, residuals.s_0, lax.dynamic_index_in_dim(ss, jnp.maximum(start - 1, 0), keepdims=False)
        )
        now = residuals_of(layer, s_before, xs_now, ss_now, events, kept_now)
        d_cell_now, d_s, d_xs = backward(now, d_hs_now, d_s)
        return (jax.tree.map(jnp.add, d_cell, d_cell_now), d_s), d_xs

    d_cell = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=accumulation_dtype(w.dtype)), layer.cell)
    count, rest = divmod(time, block)
    carry, d_xs = (d_cell, d_s_T), []
    if rest:
        carry, d_xs_rest = of_steps(carry, count * block, rest)
        d_xs.append(d_xs_rest)
    carry, d_xs_blocks = lax.scan(lambda c, i: of_steps(c, i * block, block), carry, jnp.arange(count), reverse=True)
    if is_tokens(xs):
        return *carry, None
    return *carry, jnp.concatenate([d_xs_blocks.reshape(-1, *xs.shape[1:]), *d_xs])


def pullback(residuals: Residuals, d_ss: Array) -> tuple[Cell, Array, Float[Array, "time *batch in"] | None]:
    """`backward`, with each cotangent in the dtype of its argument, as JAX requires of a derivative rule.

    `d_ss` are the cotangents of the whole states.
    """
    time, *batch_axes = steps_shape(residuals.xs)
    block = rows_block(time, batch_axes)
    d_cell, d_s_0, d_xs = backward_in_blocks(residuals, d_ss, jnp.zeros_like(residuals.s_0), block)
    return jax.tree.map(lambda d, w: d.astype(w.dtype), d_cell, residuals.layer.cell), d_s_0, d_xs


def pushforward(residuals: Residuals, cell_dot: Any, s_0_dot: Array | None, xs_dot: Inputs | None) -> Array:
    """Forward mode: the tangents of `s_1..s_T`. None, also as a leaf of `cell_dot`, means zero.

    `ż_t = ẋ_t W_xh + x_t Ẇ_xh + ḃ_h` and `u̇_t = h_{t-1} Ẇ_hh + ḣ_{t-1} W_hh`; the derivative of the cell maps them to
    `ṡ_t`. Only the last product is in the loop.
    """
    layer, s_0, xs, dtype = residuals.layer, residuals.s_0, residuals.xs, residuals.ss.dtype
    cell = layer.cell
    zero_b = jnp.zeros_like(cell.b_h)
    z_dot = jnp.zeros((*residuals.ss.shape[:-1], cell.b_h.shape[0]), dtype)
    if xs_dot is not None:
        z_dot += affine(xs_dot, cell.w_xh, zero_b).astype(dtype)
    if cell_dot.w_xh is not None:
        z_dot += affine(xs, cell_dot.w_xh, zero_b).astype(dtype)
    if cell_dot.b_h is not None:
        z_dot += jnp.broadcast_to(cell_dot.b_h.astype(dtype), z_dot.shape)
    kept_1 = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), residuals.kept)
    tied = has_one_delta(partial(cell.backward, kept_1), s_0)
    u_dot = None if tied else jnp.zeros_like(z_dot)
    if cell_dot.w_hh is not None:
        by_w_hh = (states_read(residuals) @ cell_dot.w_hh).astype(dtype)
        z_dot, u_dot = (z_dot + by_w_hh, None) if u_dot is None else (z_dot, u_dot + by_w_hh)
    own_dots = {name: getattr(cell_dot, name) for name in own_names(cell)}
    own = {name: dot.astype(dtype) for name, dot in own_dots.items() if dot is not None}

    def body(s_tm1_dot: Array, now: Any) -> tuple[Array, Array]:
        z_t_dot, u_t_dot, kept_t, event = now
        s_met_dot = event.enter(s_tm1_dot)
        by_h = (layer.read(s_met_dot) @ cell.w_hh).astype(dtype)
        here = {name: jnp.broadcast_to(dot, s_met_dot.shape[:-1] + dot.shape) for name, dot in own.items()}
        dots = Deltas(z_t_dot + by_h, None, here) if u_t_dot is None else Deltas(z_t_dot, u_t_dot + by_h, here)
        s_t_dot = event.leave(push(partial(cell.backward, kept_t), dots, s_met_dot), s_tm1_dot)
        return s_t_dot, s_t_dot

    start = jnp.zeros_like(s_0) if s_0_dot is None else s_0_dot
    _, ss_dot = lax.scan(body, start, (z_dot, u_dot, residuals.kept, residuals.events))
    return ss_dot


def states_read(residuals: Residuals) -> Hiddens:
    """What `W_hh` read at t = 1..T: the h of the step before, times the dropout mask."""
    return residuals.layer.read(states_met(residuals))


def states_met(residuals: Residuals) -> Array:
    """The states that the steps t = 1..T started from."""
    return residuals.events.enter(jnp.concatenate([residuals.s_0[None], residuals.ss])[:-1])
