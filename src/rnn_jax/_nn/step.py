"""One step of the recurrence, and its hand-written derivative."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cells.protocol import Cell, Deltas, add_to_hidden, hidden
from .._checks import check_cell, check_cotangent, check_inputs, check_layout, check_state
from .._types import Hidden, State, Step, accumulation_dtype
from .affine import affine, affine_d_input, affine_d_weights
from .dropout import dropped


def step(cell: Cell, h_tm1: State, x_t: Step) -> State:
    """One step, `h_t = φ(x_t W_xh + h_{t-1} W_hh + b_h)`, over zero or more batch axes.

    With a leak α below 1 it is `h_t = (1 - α) h_{t-1} + α φ(…)`. `GRUParams` and `LSTMParams` have their equations.

    Args:
        cell: the weights of one layer.
        h_tm1: the state before the step, (*batch, hid); (*batch, 2 hid) for an LSTM, h first.
        x_t: features (*batch, in) or integer tokens (*batch,).

    Returns:
        The state after the step, as wide as `h_tm1`.

    Raises:
        ValueError: if the shapes of `cell`, `h_tm1` and `x_t` do not fit each other.
        TypeError: if their dtypes do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> rnn_jax.step(cell, jnp.zeros((5, 3)), jnp.ones((5, 2))).shape
    (5, 3)
    """
    h_t, _ = step_forward(cell, h_tm1, x_t)
    return h_t


class StepResiduals(NamedTuple):
    """What `step_forward` keeps for `step_backward`.

    `x_t`    the input of the step.
    `h_tm1`  the state before it.
    `h_t`    the state after it.
    `kept`   what the cell keeps; `CellParams` keeps `φ(a_t)`.
    `r`      the dropout mask of `step_forward`, or None.
    """

    x_t: Step
    h_tm1: State
    h_t: State
    kept: Any
    r: Hidden | None = None


def step_forward(cell: Cell, h_tm1: State, x_t: Step, r: Hidden | None = None) -> tuple[State, StepResiduals]:
    """`step`, which also returns the residuals for its backward pass (many notebooks call them the cache).

    Args:
        cell: the weights of one layer.
        h_tm1: the state before the step, (*batch, hid).
        x_t: features (*batch, in) or integer tokens (*batch,).
        r: a dropout mask (*batch, hid), a constant: the recurrent product is `(h_{t-1} ∘ r) W_hh`.

    Returns:
        `(h_t, residuals)`: the state after the step, (*batch, hid), and what `step_backward` needs.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not fit.
    """
    check_cell(cell)
    batch = check_inputs(cell, x_t, (), "x_t", "cell")
    check_layout(x_t, h_tm1, cell.w_xh.shape[0], (), names=("x_t", "h_tm1"))
    check_state(cell, h_tm1, batch, names=("h_tm1", "x_t"), cell_name="cell")
    if r is not None:
        check_state(cell, r, batch, names=("r", "x_t"), cell_name="cell", parts=1)
    z_t, u_t = products(cell, h_tm1, x_t, r)
    h_t = cell.forward(z_t, u_t, h_tm1)
    return h_t, StepResiduals(x_t, h_tm1, h_t, cell.kept(z_t, u_t, h_tm1, h_t), r)


def products(cell: Cell, h_tm1: State, x_t: Step, r: Hidden | None = None) -> tuple[Array, Array]:
    """`z_t = x_t W_xh + b_h` and `u_t = (h_{t-1} ∘ r) W_hh`, in the dtype of the state, as the cell reads them."""
    z_t, u_t = affine(x_t, cell.w_xh, cell.b_h), dropped(hidden(cell, h_tm1), r) @ cell.w_hh
    return z_t.astype(h_tm1.dtype), u_t.astype(h_tm1.dtype)


def step_backward(
    cell: Cell, residuals: StepResiduals, d_h_t: State
) -> tuple[Cell, State, Float[Array, "*batch in"] | None]:
    """The backward pass of one step: gradients of its arguments from `d_h_t = ∂L/∂h_t`.

    `d_a_t = α d_h_t ∘ φ'(a_t)` (α is 1 without leak), then `d_W_xh = x_tᵀ d_a_t`, `d_W_hh = h_{t-1}ᵀ d_a_t`,
    `d_b_h = d_a_t` (summed over the batch), `d_h_{t-1} = d_a_t W_hhᵀ + (1 - α) d_h_t` and `d_x_t = d_a_t W_xhᵀ`.
    With a dropout mask `r`, `d_W_hh = (h_{t-1} ∘ r)ᵀ d_a_t` and `d_h_{t-1} = r ∘ (d_a_t W_hhᵀ) + …`.

    Args:
        cell: the weights of one layer.
        residuals: what `step_forward` returned.
        d_h_t: the cotangent of `h_t`, (*batch, hid).

    Returns:
        `(d_cell, d_h_tm1, d_x_t)`: the gradient of the cell, summed over the batch; that of `h_{t-1}`, (*batch, hid);
        and that of `x_t`, (*batch, in), or None for tokens.

    Raises:
        ValueError: if the shape of `d_h_t` is not that of `h_t`.
        TypeError: if the dtype of `d_h_t` is not that of `h_t`, or `residuals` are not `StepResiduals`.

    References: Werbos (1990), Proceedings of the IEEE 78(10).

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> h_t, residuals = rnn_jax.step_forward(cell, jnp.ones(3), jnp.ones(2))
    >>> d_cell, d_h_tm1, d_x_t = rnn_jax.step_backward(cell, residuals, jnp.ones(3))
    >>> d_cell.w_hh.shape, d_h_tm1.shape, d_x_t.shape
    ((3, 3), (3,), (2,))
    """
    check_cell(cell)
    if not isinstance(residuals, StepResiduals):
        raise TypeError(f"`residuals` must be StepResiduals, got {type(residuals).__name__}.")
    batch = check_inputs(cell, residuals.x_t, (), "residuals.x_t", "cell")
    check_state(cell, residuals.h_t, batch, names=("residuals.h_t", "residuals.x_t"), cell_name="cell")
    check_state(cell, residuals.h_tm1, batch, names=("residuals.h_tm1", "residuals.x_t"), cell_name="cell")
    if residuals.r is not None:
        check_state(cell, residuals.r, batch, names=("residuals.r", "residuals.x_t"), cell_name="cell", parts=1)
    check_cotangent("d_h_t", d_h_t, residuals.h_t, "`residuals.h_t`")
    deltas, d_h_kept = cell.backward(residuals.kept, d_h_t)
    deltas = deltas.for_products(cell)
    d_cell = weight_gradients(cell, residuals.x_t, dropped(hidden(cell, residuals.h_tm1), residuals.r), deltas)
    d_h_tm1 = dropped(deltas.of_u @ cell.w_hh.T, residuals.r)
    if d_h_kept is not None:
        d_h_tm1 = add_to_hidden(cell, d_h_kept, d_h_tm1)
    return d_cell, d_h_tm1, affine_d_input(residuals.x_t, deltas.z, cell.w_xh)


def weight_gradients(cell: Cell, x: Array, h_read: Array, deltas: Deltas) -> Cell:
    """`d_W_xh = Σ x_tᵀ d_z_t`, `d_W_hh = Σ h_{t-1}ᵀ d_u_t`, `d_b_h = Σ d_z_t`, and those of the cell's own parameters.

    Each is one product, over any leading axes; `h_read` is what `W_hh` read.
    """
    d_w_xh, d_b_h = affine_d_weights(x, deltas.z, cell.w_xh)
    d_w_hh, _ = affine_d_weights(h_read, deltas.of_u, cell.w_hh)
    d_own = jax.tree.map(lambda d: jnp.sum(d, tuple(range(d.ndim - 1)), dtype=accumulation_dtype(d.dtype)), deltas.own)
    return replace(cell, w_xh=d_w_xh, w_hh=d_w_hh, b_h=d_b_h, **d_own)  # type: ignore[type-var]
