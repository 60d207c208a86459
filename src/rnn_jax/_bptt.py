"""Backpropagation through time by hand: only `d_h` travels, all else is a product over many steps at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._activations import ACTIVATIONS
from ._affine import affine, affine_d_input, affine_d_weights
from ._by_hand import Layer
from ._sharding import promote
from ._types import CellParams, Flags, Hidden, Hiddens, Inputs
from ._unroll import check_unroll, enter, leave, visible


class Residuals(NamedTuple):
    """What the forward pass keeps. Of the sequence it made, that is `hs` and nothing else."""

    cell: CellParams
    h_0: Hidden
    xs: Inputs
    hs: Hiddens
    mask: Flags | None
    reset: Flags | None


def forward(
    cell: CellParams, h_0: Hidden, xs: Inputs, mask: Flags | None, reset: Flags | None
) -> tuple[Hiddens, Residuals]:
    """`h_t = φ(x_t W_xh + b_h + h_{t-1} W_hh)`: the input projection is one product before the scan."""
    xs = visible(xs, mask)
    phi = ACTIVATIONS[cell.activation].phi

    def body(h_tm1, now):
        z_t, mask_t, reset_t = now
        a_t = z_t + enter(h_tm1, reset_t) @ cell.w_hh
        h_t = leave(phi(a_t), h_tm1, mask_t)
        return h_t, h_t

    _, hs = lax.scan(body, h_0, (affine(xs, cell.w_xh, cell.b_h), mask, reset))
    return hs, Residuals(cell, h_0, xs, hs, mask, reset)


def backward(residuals: Residuals, d_hs: Hiddens) -> tuple[CellParams, Hidden, Float[Array, "time *batch in"] | None]:
    """`(d_cell, d_h_0, d_xs)` from `d_hs[t] = d_y_t W_hyᵀ`, or whatever else reads `h_t`, for t = T..1.

    The scan carries `d_h` alone and emits `d_a`; the weight gradients are one product each after it.
    """
    cell, h_0, xs, hs, mask, reset = residuals
    d_phi = ACTIVATIONS[cell.activation].d_phi
    w_hh_t = cell.w_hh.T

    def body(d_h_next, now):  # d_h_next: what steps t+1..T send back to h_t
        d_h_read, h_t, mask_t, reset_t = now
        d_h_t = d_h_read + d_h_next
        d_a_t = leave(d_h_t * d_phi(h_t), jnp.zeros_like(h_t), mask_t)
        d_h_tm1 = leave(enter(d_a_t @ w_hh_t, reset_t), d_h_t, mask_t)
        return d_h_tm1, d_a_t

    d_h_0, d_as = lax.scan(body, jnp.zeros_like(h_0), (d_hs, hs, mask, reset), reverse=True)
    h_tm1s = enter(jnp.concatenate([h_0[None], hs])[:-1], reset)  # the states that x_1..x_T met
    d_w_xh, d_b_h = affine_d_weights(xs, d_as, cell.w_xh)
    d_w_hh, _ = affine_d_weights(h_tm1s, d_as, cell.w_hh)
    d_xs = affine_d_input(xs, d_as, cell.w_xh)
    return CellParams(d_w_xh, d_w_hh, d_b_h, cell.activation), d_h_0, d_xs


bptt = Layer(forward, backward)


@jax.custom_vjp
def _unroll_bptt(cell, h_0, xs, mask, reset):
    return forward(cell, h_0, xs, mask, reset)[0]


def _unroll_bptt_backward(residuals, d_hs):
    d_cell, d_h_0, d_xs = backward(residuals, d_hs)
    d_cell = jax.tree.map(lambda d, w: d.astype(w.dtype), d_cell, residuals.cell)
    return d_cell, d_h_0, d_xs, None, None  # the flags are booleans: no cotangent


_unroll_bptt.defvjp(forward, _unroll_bptt_backward)


def unroll_bptt(
    cell: CellParams, h_0: Hidden, xs: Inputs, *, mask: Flags | None = None, reset: Flags | None = None
) -> Hiddens:
    """States `h_1..h_T` from `x_1..x_T`: the values of `unroll`, with the derivative written by hand.

    Goes anywhere `unroll` goes, under `jax.grad` with respect to `cell`, `h_0` and `xs` as well. Forward mode
    (`jax.jvp`) is for `unroll`.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not.

    References: Rumelhart, Hinton and Williams (1986); Werbos (1990), Proceedings of the IEEE 78(10).

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> def loss(cell, unroll):
    ...     return jnp.sum(unroll(cell, jnp.ones(3), jnp.ones((7, 2))) ** 2)
    >>> by_hand = jax.grad(loss)(cell, rnn_jax.unroll_bptt)
    >>> autodiff = jax.grad(loss)(cell, rnn_jax.unroll)
    >>> bool(jnp.allclose(by_hand.w_hh, autodiff.w_hh, rtol=1e-4))
    True
    """
    check_unroll(cell, h_0, xs, mask, reset)
    return _unroll_bptt(*promote((cell, h_0, xs, mask, reset)))
