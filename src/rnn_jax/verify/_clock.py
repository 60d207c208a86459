"""A problem with a built-in clock: on it, any gradient function shows what it takes from each time step.

Every layer gets more units, `c_0..c_T`. `c_0` is on in the state before the first step only, `c_t` in the state after
step t only. The inputs get features that switch them on. Nothing reads these units: the weights from the clock to
everything else are zero, so loss and gradients of the rest stay as they were. But the *gradients* of those weights are
not zero, and each belongs to one step:

    d_W_xh[clock feature t, :] = Σ_batch d_a_t                what w_xh's gradient takes for d_a_t
    d_W_hh[c_t, :]             = φ(1) Σ_batch d_a_{t+1}       what w_hh's gradient pairs with h_t
    d_W_hy[c_t, :]             = φ(1) Σ_batch d_y_t           what w_hy's gradient pairs with h_t

(in the first layer; φ(φ(1)) in the second). This needs no access to the inside of the gradient function. Where a step
does not exist, the state stays as it is, and the clock with it.
"""

import jax.numpy as jnp
import numpy as np

from .._cells.activations import activation_of
from .._cells.vanilla import CellParams
from .._checks import is_tokens, steps_shape
from .._nn.events import Events
from .._types import Batch, Gradients, Params, ReadoutParams, States


def with_clock(params: Params, batch: Batch, h_0: States) -> tuple[Params, Batch, States]:
    """The problem with its clock. Tokens become one-hot features, because a clock needs features.

    NumPy does the work, so that almost nothing is compiled.
    """
    time, *batch_axes = steps_shape(batch.inputs)
    in_size, dtype = params.cells[0].w_xh.shape[0], h_0[0].dtype
    xs = np.asarray(batch.inputs)
    if is_tokens(xs):
        xs = (xs[..., None] == np.arange(in_size)).astype(dtype)
    ticks = np.eye(time, time, dtype=xs.dtype).reshape(time, *(1 for _ in batch_axes), time)
    xs = np.concatenate([xs, np.broadcast_to(ticks, (*xs.shape[:-1], time))], axis=-1)

    cells, states = [], []
    on = np.ones(())  # the value of a line of the clock
    below = time  # clock lines from below: features for the first layer, then units 0..T of the layer below
    for layer, (cell, h) in enumerate(zip(params.cells, h_0, strict=True)):
        size, hid = cell.w_xh.shape
        w_xh = np.zeros((size + below, hid + time + 1), h.dtype)
        w_xh[:size, :hid] = cell.w_xh
        w_xh[size:, hid:] = np.eye(below, time + 1, k=0 if layer else 1)  # the line of step t to unit c_t
        w_hh = np.zeros((hid + time + 1, hid + time + 1), h.dtype)
        w_hh[:hid, :hid] = cell.w_hh
        b_h = np.concatenate([cell.b_h, np.zeros(time + 1, h.dtype)])
        cells.append(CellParams(jnp.asarray(w_xh), jnp.asarray(w_hh), jnp.asarray(b_h), cell.activation))
        on = np.asarray(activation_of(cell.activation).phi(jnp.asarray(on)), h.dtype)
        start = np.broadcast_to(on * np.eye(1, time + 1, dtype=h.dtype)[0], (*h.shape[:-1], time + 1))
        states.append(jnp.asarray(np.concatenate([h, start], axis=-1)))
        below = time + 1
    w_hy, b_y = params.readout
    silent = np.zeros((time + 1, w_hy.shape[1]), w_hy.dtype)
    readout = ReadoutParams(jnp.asarray(np.concatenate([w_hy, silent])), b_y)
    return Params(tuple(cells), readout), batch._replace(inputs=jnp.asarray(xs)), tuple(states)


def without_flags(params: Params, batch: Batch, h_0: States) -> tuple[Params, Batch, States]:
    """The problem without mask and reset; zeros replace the inputs of steps that do not exist."""
    inputs = Events(batch.mask).visible(batch.inputs)
    return params, batch._replace(inputs=inputs, mask=None, reset=None), h_0


def rows_of_steps(params: Params, gradients: Gradients) -> dict[str, np.ndarray]:
    """The clock's rows in the gradients of a problem from `with_clock(params, ...)`, by leaf, one row per step."""
    rows = {}
    for layer, (cell, d_cell) in enumerate(zip(params.cells, gradients.params.cells, strict=True)):
        in_size, hid = cell.w_xh.shape
        name = f"params.cells[{layer}]"
        lines = np.asarray(d_cell.w_xh)[in_size:, :hid]
        rows[f"{name}.w_xh"] = lines[1:] if layer else lines
        rows[f"{name}.w_hh"] = np.asarray(d_cell.w_hh)[hid:, :hid]
    hid = params.readout.w_hy.shape[0]
    rows["params.readout.w_hy"] = np.asarray(gradients.params.readout.w_hy)[hid:]
    return rows
