"""`unroll` with its derivatives written by hand."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from .._cells.protocol import Cell
from .._mesh import promote, refuse_explicit
from .._types import Flags, Hidden, Inputs, State, Trajectory
from .dropout import constant
from .events import Events
from .layer import Layer
from .loops import Residuals, Room, forward, pullback
from .unroll import check_unroll


@jax.custom_vjp
def _reverse_only(cell: Cell, h_0: State, xs: Inputs, events: Events, r: Hidden | None) -> Trajectory:
    return forward(Layer(cell, r), h_0, xs, events)[0]


def _reverse_only_forward(
    cell: Cell, h_0: State, xs: Inputs, events: Events, r: Hidden | None
) -> tuple[Trajectory, Residuals]:
    return forward(Layer(cell, r), h_0, xs, events, room=Room())


def _reverse_only_backward(residuals: Residuals, d_hs: Array) -> tuple[Any, ...]:
    return *pullback(residuals, d_hs), None, None  # flags are booleans, and r is a constant


_reverse_only.defvjp(_reverse_only_forward, _reverse_only_backward)


def _fallback(args: tuple[Any, ...]) -> Trajectory:
    try:
        return _reverse_only(*args)
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(
            "`unroll_bptt` has no forward mode (jvp, jacfwd, linearize) on this version of JAX, whose "
            "jax.experimental.hijax lacks the base class it needs: use `unroll`, which returns the same values, apply "
            "the forward mode outside of `jax.grad`, or change the version of JAX."
        ) from error


_unroll: Callable[[tuple[Any, ...]], Trajectory]
try:
    from .primitive import states as _unroll
except ImportError:
    _unroll = _fallback


def unroll_bptt(
    cell: Cell,
    h_0: State,
    xs: Inputs,
    *,
    mask: Flags | None = None,
    reset: Flags | None = None,
    r: Hidden | None = None,
) -> Trajectory:
    """States `h_1..h_T` from `x_1..x_T`: the values of `unroll`, with the derivatives written by hand.

    It works wherever `unroll` works: under `jax.grad` and `jax.jvp` with respect to `cell`, `h_0` and `xs`, to any
    order and in any mixture, and under `jax.vmap`. A `vmap` over sequences costs no more than a batch axis. See
    `docs/transformations.md`. If JAX lacks the experimental base class that this function needs, it uses
    `jax.custom_vjp` instead, which has no forward mode.

    Args:
        cell: the weights of one layer.
        h_0: the initial state (*batch, hid); (*batch, 2 hid) for an LSTM, h first.
        xs: features (time, *batch, in) or integer tokens (time, *batch).
        mask: booleans (time, *batch). Where false the step does not exist: `h_t = h_{t-1}`, and neither `x_t` nor
            `reset` is read.
        reset: booleans (time, *batch). Where true, the state is set to zero before `x_t`.
        r: a dropout mask (*batch, hid), the same at every step: `W_hh` reads `h_{t-1} ∘ r`. It gets no gradient.

    Returns:
        The states `h_1..h_T`, (time, *batch, hid), or as wide as `h_0`; `hidden` returns the h of each.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other, or one is split over an explicit mesh axis.
        TypeError: if their dtypes do not fit, or for forward mode on a version of JAX that does not support it here.

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
    check_unroll(cell, h_0, xs, mask, reset, r)
    args = promote((cell, h_0, xs, Events(mask, reset), constant(r)))
    refuse_explicit(args, "unroll_bptt", "use `unroll`")
    return _unroll(args)
