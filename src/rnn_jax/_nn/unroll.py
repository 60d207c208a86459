"""The recurrence over time, as a plain `lax.scan` of `step`."""

from typing import Any

from jax import lax
from jaxtyping import Array

from .._cells.protocol import Cell
from .._checks import check_cell, check_flags, check_inputs, check_layout, check_state, steps_shape
from .._mesh import promote
from .._types import Flags, Hidden, Inputs, State, Trajectory
from .dropout import constant
from .events import Events
from .step import products


def check_unroll(cell: Cell, h_0: State, xs: Inputs, mask: Flags | None, reset: Flags | None, r: Hidden | None) -> None:
    """Raise unless the arguments of an unroll fit each other."""
    check_cell(cell)
    batch = check_inputs(cell, xs, ("time",), "xs", "cell")
    check_layout(xs, h_0, cell.w_xh.shape[0], ("time",), names=("xs", "h_0"))
    check_state(cell, h_0, batch, names=("h_0", "xs"), cell_name="cell")
    check_flags(steps_shape(xs), mask=mask, reset=reset)
    if r is not None:
        check_state(cell, r, batch, names=("r", "xs"), cell_name="cell", parts=1)


def unroll(
    cell: Cell,
    h_0: State,
    xs: Inputs,
    *,
    mask: Flags | None = None,
    reset: Flags | None = None,
    r: Hidden | None = None,
) -> Trajectory:
    """States `h_1..h_T` from `x_1..x_T`, by a `lax.scan` of `step`: the reference, differentiated by JAX.

    The last state is `hs[-1]`. To run backwards in time, call `unroll(cell, h_0, xs[::-1])`.

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
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> rnn_jax.unroll(cell, jnp.zeros((5, 3)), jnp.ones((7, 5, 2))).shape  # 7 steps of 5 sequences
    (7, 5, 3)
    """
    check_unroll(cell, h_0, xs, mask, reset, r)
    events = Events(mask, reset)
    (cell, h_0, xs), events, r = promote(((cell, h_0, events.visible(xs)), events, constant(r)))

    def body(h_tm1: Array, now: Any) -> tuple[Array, Array]:
        x_t, event = now
        h_met = event.enter(h_tm1)
        h_t = event.leave(cell.forward(*products(cell, h_met, x_t, r), h_met), h_tm1)
        return h_t, h_t

    _, hs = lax.scan(body, h_0, (xs, events))
    return hs
