"""The reverse pass through loss, readout and layers, written by hand once for all cells."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._batches import num_read
from .._cells.protocol import hidden
from .._losses import weighted_loss
from .._nn.affine import affine_d_weights
from .._nn.apply import last_states, readout
from .._nn.dropout import between_of, dropped
from .._nn.events import Events
from .._nn.layer import layers_of
from .._nn.loops import Room
from .._types import (
    Batch,
    Gradients,
    Hiddens,
    Objective,
    Params,
    ReadoutParams,
    Result,
    Scalar,
    States,
    Trajectories,
    Trajectory,
)


class Loops(NamedTuple):
    """The unroll of a layer and its hand-written derivative.

    `forward(layer, s_0, xs, events) -> (ss, residuals)`; some loops also take a `room`
    `backward(residuals, d_hs, d_s_T) -> (d_cell, d_s_0, d_xs)`
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def backpropagate(
    loops: Loops, objective: Objective, params: Params, batch: Batch, h_0: States, rooms: Sequence[Room] = ()
) -> Result:
    """The loss, last states and gradients of the whole sequence at once; `rooms` as in `forward_layers`."""
    hs, saved = forward_layers(loops, params, batch, h_0, rooms)
    d_h_T = tuple(map(jnp.zeros_like, h_0))  # no step comes after T
    loss, gradients = backward_layers(loops, objective, params, batch, (hs[-1], saved), d_h_T)
    return (loss, last_states(h_0, hs)), gradients


def forward_layers(
    loops: Loops, params: Params, batch: Batch, h_0: States, rooms: Sequence[Room] = ()
) -> tuple[Trajectories, list[Any]]:
    """The states and the residuals of each layer. Layer l + 1 reads the states of layer l.

    `rooms` are those for what each layer keeps; without them it is recomputed.
    """
    all_hs, saved = [], []
    xs, events = batch.inputs, Events(batch.mask, batch.reset)
    for i, (layer, s_0) in enumerate(zip(layers_of(params, batch.drop), h_0, strict=True)):
        ss, residuals = loops.forward(layer, s_0, xs, events, **({"room": rooms[i]} if rooms else {}))
        xs = layer.up(ss)
        all_hs.append(ss)
        saved.append(residuals)
    return tuple(all_hs), saved


def backward_layers(
    loops: Loops,
    objective: Objective,
    params: Params,
    batch: Batch,
    kept: tuple[Trajectory, list[Any]],
    d_h_T: States,
) -> tuple[Scalar, Gradients]:
    """The loss and all gradients; `d_h_T` is what later steps send back.

    `kept` holds the states of the highest layer and the residuals of every layer. Layer l + 1 reads the h of layer l,
    so the `d_xs` of layer l + 1 are the `d_hs` of layer l.
    """
    ss, saved = kept
    hs = hidden(params.cells[-1], ss)
    value, d_readout, d_hs = backward_readout(objective, params.readout, batch, hs)
    layers = layers_of(params, batch.drop)
    d_cells, d_h_0, d_xs = [], [], d_hs
    for i in reversed(range(len(saved))):
        d_cell, d_h, d_xs = loops.backward(saved[i], d_hs, d_h_T[i])
        d_hs = layers[i - 1].down(d_xs) if i else d_hs
        d_cells.append(d_cell)
        d_h_0.append(d_h)
    d_params = Params(tuple(reversed(d_cells)), d_readout)
    return value, Gradients(d_params, tuple(reversed(d_h_0)), d_xs)


def backward_readout(
    objective: Objective, params: ReadoutParams, batch: Batch, hs: Hiddens
) -> tuple[Scalar, ReadoutParams, Hiddens]:
    """The loss of the last steps, and its gradients with respect to the readout and to all `hs`."""
    first_read = hs.shape[0] - num_read(batch)
    units, read = between_of(batch.drop, -1), hs[first_read:]
    if read.shape[0] == 0:
        zeros = ReadoutParams(*(jnp.zeros_like(w, dtype=objective.scale.dtype) for w in params))
        return jnp.zeros_like(objective.scale), zeros, jnp.zeros_like(hs)
    read = dropped(read, units)
    value, d_ys = weighted_loss(objective, batch, readout(params, read))
    d_w_hy, d_b_y = affine_d_weights(read, d_ys, params.w_hy)
    d_read = dropped(d_ys @ params.w_hy.T, units)
    d_hs = jnp.concatenate([jnp.zeros_like(hs[:first_read]), d_read])  # no loss reads the steps before
    return value, ReadoutParams(d_w_hy, d_b_y), d_hs
