"""One forward and one backward pass, with what the loops over time emit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._cells.protocol import Cell, Deltas, hidden, only_hidden
from .._gradients.bptt import bptt
from .._gradients.through_layers import backward_readout, forward_layers
from .._nn.affine import affine_d_input
from .._nn.apply import last_states
from .._nn.loops import Residuals, deltas, states_read, weight_gradients
from .._types import Batch, Gradients, Hiddens, Objective, Params, Scalar, States


class OfLayer(NamedTuple):
    """What the way back through one layer produces."""

    d_cell: Cell
    d_h_0: Array
    d_hs: Array
    local: Hiddens
    deltas: Deltas


class Passed(NamedTuple):
    """What one forward and one backward pass produce; tuples have one entry per layer."""

    loss: Scalar
    h_T: States
    gradients: Gradients
    saved: tuple[Residuals, ...]
    layers: tuple[OfLayer, ...]


def full_pass(objective: Objective, params: Params, batch: Batch, h_0: States) -> Passed:
    """The loss and gradient of `BPTT`, with what the loops over time emit."""
    hs, saved = forward_layers(bptt(), params, batch, h_0)
    value, d_readout, d_hs_read = backward_readout(objective, params.readout, batch, hidden(params.cells[-1], hs[-1]))
    d_reads = local = d_hs_read
    layers: list[OfLayer] = []
    for i in reversed(range(len(saved))):
        d_h_0, (d_hs, d_as) = deltas(saved[i], d_reads, jnp.zeros_like(h_0[i]), emit=lambda *of_step: of_step)
        layers.insert(0, OfLayer(weight_gradients(saved[i], d_as), d_h_0, d_hs, local, d_as))
        if i:
            below, w_t = saved[i - 1].layer, params.cells[i].w_xh.T
            d_reads, local = below.down(d_as.z @ w_t), below.down(of_step(saved[i], local).z @ w_t)
    d_xs = affine_d_input(batch.inputs, layers[0].deltas.z, params.cells[0].w_xh)
    d_params = Params(tuple(layer.d_cell for layer in layers), d_readout)
    gradients = Gradients(d_params, tuple(layer.d_h_0 for layer in layers), d_xs)
    return Passed(value, last_states(h_0, hs), gradients, tuple(saved), tuple(layers))


def of_step(residuals: Residuals, d_hs: Hiddens) -> Deltas:
    """The deltas of `d_h_t`, separately for each step: nothing travels through time."""
    cell = residuals.layer.cell
    made, _ = cell.backward(residuals.kept, only_hidden(cell, d_hs))
    existing: Deltas = jax.tree.map(residuals.events.d_leave, made)
    return existing


def steps_of(residuals: Residuals, d_as: Deltas) -> tuple[Array, Hiddens, Deltas]:
    """`(x_t, h_{t-1}, d_a_t)` for t = 1..T, as the weights read them."""
    return residuals.xs, states_read(residuals), d_as
