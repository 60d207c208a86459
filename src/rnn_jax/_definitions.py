"""What the gradients that are not exact mean: `stop_gradient` in the plain scan, differentiated by JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._adaptive import adaptive
from ._autodiff import autodiff
from ._losses import Objective, loss_scale, step_weights
from ._randomised import cuts
from ._types import (
    Batch,
    CellParams,
    Flags,
    Gradients,
    Hidden,
    Hiddens,
    Inputs,
    Params,
    Scalar,
    States,
    accumulation_dtype,
)
from ._unroll import unroll


def unroll_sent(
    cell: CellParams,
    h_0: Hidden,
    xs: Inputs,
    *,
    mask: Flags | None,
    reset: Flags | None,
    sent: Any,
    r: Hidden | None = None,
) -> Hiddens:
    """`unroll`, the gradient that step t sends to `h_{t-1}` times `sent[t]`: 0 is `stop_gradient`."""

    def body(h_tm1, now):
        x_t, mask_t, reset_t, sent_t = now
        h_tm1 = sent_t * h_tm1 + lax.stop_gradient((1 - sent_t) * h_tm1)
        h_t = unroll(cell, h_tm1, x_t, mask=mask_t, reset=reset_t, r=r)[0]
        return h_t, h_t

    one_by_one = jax.tree.map(lambda x: x[:, None], (xs, mask, reset))
    return lax.scan(body, h_0, (*one_by_one, sent))[1]


def truncated_windows(
    k1: int, k2: Any, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """Σ_i ∂L_i: the loss of the steps `(i - 1) k1 < t ≤ e_i` for each window, with `h_{e_i - k2}` held constant."""
    time, last = batch.inputs.shape[0], batch.targets.shape[0]
    dtype = accumulation_dtype(params.readout.b_y.dtype)
    weights = loss_scale(objective, batch, dtype) * step_weights(batch, dtype)
    t = jnp.arange(1, time + 1)

    def of_window(i: Any) -> Gradients:
        end = jnp.minimum(i * k1, time)
        sent = (t != end - k2 + 1) | (t == 1)
        read = (t > (i - 1) * k1) & (t <= end)
        own = jnp.where(read[time - last :].reshape(last, *(1,) * (weights.ndim - 1)), weights, 0)
        return differentiated(sent, objective.loss, params, batch._replace(weights=own), h_0)[1]

    parts = lax.map(of_window, jnp.arange(1, -(-time // k1) + 1))
    result, _ = autodiff(objective, params, batch, h_0)
    return result, jax.tree.map(lambda d: jnp.sum(d, 0), parts)


def last_steps_only(
    k: int, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """∂ of the loss of the steps `T - k < t ≤ T`, with `h_{T-k}` held constant."""
    time, last = batch.inputs.shape[0], batch.targets.shape[0]
    dtype = accumulation_dtype(params.readout.b_y.dtype)
    weights = loss_scale(objective, batch, dtype) * step_weights(batch, dtype)
    t = jnp.arange(1, time + 1)
    own = jnp.where((t > time - k)[time - last :].reshape(last, *(1,) * (weights.ndim - 1)), weights, 0)
    sent = (t != time - k + 1) | (t == 1)
    result, _ = autodiff(objective, params, batch, h_0)
    return result, differentiated(sent, objective.loss, params, batch._replace(weights=own), h_0)[1]


def differentiated(
    sent: Any, loss: Any, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """Autodiff of the weighted sum, through `unroll_sent`."""
    steps = batch.inputs.shape[0]
    factors = sent.astype(h_0[0].dtype).reshape(steps, *sent.shape[1:], *(1,) * (h_0[0].ndim - sent.ndim + 1))
    return autodiff(Objective(loss, "sum"), params, batch, h_0, unroll=partial(unroll_sent, sent=factors))


def adaptive_windows(
    k1: int, bias: float | Array, k2_max: int | None, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """`truncated_windows` with the `k2` that was chosen."""
    k2, _ = adaptive(k1, bias, k2_max, objective, params, batch, h_0)
    return truncated_windows(k1, k2, objective, params, batch, h_0)


def randomised_cuts(
    mean_reach: float | Array, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """∂L, what each step sends back times what was drawn."""
    dtype = accumulation_dtype(params.readout.b_y.dtype)
    weights = loss_scale(objective, batch, dtype) * step_weights(batch, dtype)
    sent = cuts(mean_reach, batch, h_0[0].dtype)
    return differentiated(sent, objective.loss, params, batch._replace(weights=weights), h_0)
