"""Definitions of the inexact gradients: `stop_gradient` in the plain scan, differentiated by JAX."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..._cells.protocol import Cell
from ..._losses import step_weights
from ..._nn.unroll import unroll
from ..._types import Batch, Flags, Gradients, Hidden, Inputs, Objective, Params, Result, State, States, Trajectory
from ..autodiff import autodiff


def sending_on(sent: Any) -> Callable[..., Trajectory]:
    """`unroll`, with the gradient that step t sends to `h_{t-1}` multiplied by `sent[t]`; 0 is `stop_gradient`."""

    def unroll_sent(
        cell: Cell, h_0: State, xs: Inputs, *, mask: Flags | None, reset: Flags | None, r: Hidden | None = None
    ) -> Trajectory:
        def body(h_tm1: Array, now: Any) -> tuple[Array, Array]:
            x_t, mask_t, reset_t, sent_t = now
            stopped = (sent_t - 1).astype(h_tm1.dtype)
            h_tm1 = h_tm1 + stopped * (h_tm1 - lax.stop_gradient(h_tm1))  # adds an exact zero
            h_t = unroll(cell, h_tm1, x_t, mask=mask_t, reset=reset_t, r=r)[0]
            return h_t, h_t

        one_by_one = jax.tree.map(lambda x: x[:, None], (xs, mask, reset))
        return lax.scan(body, h_0, (*one_by_one, sent))[1]

    return unroll_sent


@dataclasses.dataclass(frozen=True)
class WindowsByAutodiff:
    """Σ_i ∂L_i: the loss of the steps `(i - 1) k1 < t ≤ e_i` for each window, with `h_{e_i - k2}` held constant.

    `reach(objective, params, batch, h_0)` is k2.
    """

    k1: int
    reach: Callable[[Objective, Params, Batch, States], Any]

    @property
    def reference(self) -> "WindowsByAutodiff":
        """The method itself, because it is a definition."""
        return self

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        k1, k2 = self.k1, self.reach(objective, params, batch, h_0)
        time = batch.inputs.shape[0]
        t = jnp.arange(1, time + 1)

        def of_window(i: Any) -> Gradients:
            end = jnp.minimum(i * k1, time)
            sent = (t != end - k2 + 1) | (t == 1)
            own = with_loss_of(batch, (t > (i - 1) * k1) & (t <= end), objective.scale.dtype)
            return differentiated(sent, objective, params, own, h_0)[1]

        parts = lax.map(of_window, jnp.arange(1, -(-time // k1) + 1))
        result, _ = autodiff(objective, params, batch, h_0)
        return result, jax.tree.map(lambda d: jnp.sum(d, 0), parts)


@dataclasses.dataclass(frozen=True)
class LastStepsByAutodiff:
    """The gradient of the loss of the steps `T - k < t ≤ T`, with `h_{T-k}` held constant; the loss of all steps."""

    k: int

    @property
    def reference(self) -> "LastStepsByAutodiff":
        """The method itself, because it is a definition."""
        return self

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        time = batch.inputs.shape[0]
        t = jnp.arange(1, time + 1)
        sent = (t != time - self.k + 1) | (t == 1)
        own = with_loss_of(batch, t > time - self.k, objective.scale.dtype)
        result, _ = autodiff(objective, params, batch, h_0)
        return result, differentiated(sent, objective, params, own, h_0)[1]


@dataclasses.dataclass(frozen=True)
class SentOn:
    """The gradient of the loss, with what step t sends back multiplied by `factors(batch, dtype)[t]`."""

    factors: Callable[[Batch, Any], Array]

    @property
    def reference(self) -> "SentOn":
        """The method itself, because it is a definition."""
        return self

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        return differentiated(self.factors(batch, h_0[0].dtype), objective, params, batch, h_0)


def with_loss_of(batch: Batch, read: Array, dtype: Any) -> Batch:
    """`batch` in which only the losses of the steps with `read` count."""
    weights = step_weights(batch, dtype)
    last = weights.shape[0]
    read = read[batch.inputs.shape[0] - last :].reshape(last, *(1,) * (weights.ndim - 1))
    return batch._replace(weights=jnp.where(read, weights, 0))


def differentiated(sent: Any, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
    """Autodiff of the weighted sum, through `sending_on`."""
    steps = batch.inputs.shape[0]
    factors = sent.astype(h_0[0].dtype).reshape(steps, *sent.shape[1:], *(1,) * (h_0[0].ndim - sent.ndim + 1))
    return autodiff(objective, params, batch, h_0, unroll=sending_on(factors))
