"""The textbook algorithm by hand: a scan of `step_forward`, then a reverse scan of `step_backward`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Cell, add_to_hidden
from .._nn.events import Events
from .._nn.layer import Layer
from .._nn.step import step_backward, step_forward
from .._types import (
    Batch,
    Hiddens,
    Inputs,
    Objective,
    Params,
    Result,
    State,
    States,
    Trajectory,
    accumulation_dtype,
)
from .autodiff import Autodiff
from .through_layers import Loops, backpropagate


def forward(layer: Layer, s_0: State, xs: Inputs, events: Events) -> tuple[Trajectory, Any]:
    """`hs`, and the residuals of every step."""

    def body(h_tm1: Array, now: Any) -> tuple[Array, Any]:
        x_t, event = now
        h_new, residuals_t = step_forward(layer.cell, event.enter(h_tm1), x_t, layer.recurrent)
        h_t = event.leave(h_new, h_tm1)
        return h_t, (h_t, residuals_t._replace(r=None))  # the same at every step

    _, (hs, residuals) = lax.scan(body, s_0, (events.visible(xs), events))
    return hs, (layer, residuals, events)


def backward(residuals: Any, d_hs: Hiddens, d_h_T: State) -> tuple[Cell, State, Float[Array, "time *batch in"] | None]:
    """`(d_cell, d_h_0, d_xs)`; `d_cell` travels back in time, t = T..1, and each step adds to it."""
    layer, residuals, events = residuals
    cell = layer.cell

    def body(carry: tuple[Cell, Array], now: Any) -> tuple[tuple[Any, Array], Any]:
        d_cell, d_h_next = carry
        d_h_read, residuals_t, event = now
        d_h_t = add_to_hidden(cell, d_h_next, d_h_read)
        d_cell_t, d_h_met, d_x_t = step_backward(cell, residuals_t._replace(r=layer.recurrent), event.d_leave(d_h_t))
        d_h_tm1 = event.d_enter(d_h_met, d_h_t)
        return (jax.tree.map(jnp.add, d_cell, d_cell_t), d_h_tm1), d_x_t

    d_cell = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=accumulation_dtype(w.dtype)), cell)
    (d_cell, d_h_0), d_xs = lax.scan(body, (d_cell, d_h_T), (d_hs, residuals, events), reverse=True)
    return d_cell, d_h_0, d_xs


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """The textbook algorithm by hand: every product is inside the loop.

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Stepwise(), loss="cross_entropy")
    """

    @property
    def reference(self) -> Autodiff:
        """`Autodiff()`, because this method is exact."""
        return Autodiff()

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        return backpropagate(Loops(forward, backward), objective, params, batch, h_0)
