"""The reverse pass through loss, readout and layers, written by hand once for every kind of layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ._affine import affine_d_weights
from ._apply import last_states, readout
from ._losses import Objective, weighted_loss
from ._types import Batch, Gradients, Params, ReadoutParams, Scalar, States


class Layer(NamedTuple):
    """The unroll of one layer and its hand-written derivative.

    `forward(cell, h_0, xs, mask, reset) -> (hs, residuals)`
    `backward(residuals, d_hs) -> (d_cell, d_h_0, d_xs)`
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def backpropagate(
    layer: Layer, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """Loss, last states and gradients. Layer l + 1 reads the states of layer l, so its `d_xs` is their `d_hs`."""
    hs, saved = [], []
    xs = batch.inputs
    for cell, h in zip(params.cells, h_0, strict=True):
        xs, residuals = layer.forward(cell, h, xs, batch.mask, batch.reset)
        hs.append(xs)
        saved.append(residuals)

    first_read = xs.shape[0] - batch.targets.shape[0]
    ys = readout(params.readout, xs[first_read:])
    loss, d_ys = weighted_loss(objective, batch, ys)

    d_w_hy, d_b_y = affine_d_weights(xs[first_read:], d_ys, params.readout.w_hy)
    d_hs_read = d_ys @ params.readout.w_hy.T
    d_hs = jnp.concatenate([jnp.zeros_like(xs[:first_read]), d_hs_read])  # no loss reads the steps before

    d_cells, d_h_0 = [], []
    for residuals in reversed(saved):
        d_cell, d_h, d_hs = layer.backward(residuals, d_hs)
        d_cells.append(d_cell)
        d_h_0.append(d_h)
    d_params = Params(tuple(reversed(d_cells)), ReadoutParams(d_w_hy, d_b_y))
    return (loss, last_states(h_0, tuple(hs))), Gradients(d_params, tuple(reversed(d_h_0)), d_hs)
