"""The reference: the same loss through the plain scan, differentiated by JAX."""

from collections.abc import Callable

import jax

from ._apply import apply
from ._checks import is_tokens
from ._losses import Objective, loss_scale, weighted_loss
from ._types import Batch, Gradients, Hiddens, Params, Scalar, States, accumulation_dtype
from ._unroll import unroll


def autodiff(
    objective: Objective, params: Params, batch: Batch, h_0: States, unroll: Callable[..., Hiddens] = unroll
) -> tuple[tuple[Scalar, States], Gradients]:
    """Loss, last states and gradients by `jax.value_and_grad`."""

    def loss_fn(params, h_0, features):
        inputs = batch.inputs if features is None else features
        _, targets, _, mask, reset, _, drop = batch
        last = targets.shape[0]
        ys, h_T = apply(params, h_0, inputs, last=last, mask=mask, reset=reset, drop=drop, unroll=unroll)
        scale = loss_scale(objective, batch, accumulation_dtype(ys.dtype))
        loss, _ = weighted_loss(objective.loss, scale, batch, ys)
        return loss, h_T

    features = None if is_tokens(batch.inputs) else batch.inputs
    value_and_grad = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
    (loss, h_T), gradients = value_and_grad(params, h_0, features)
    return (loss, h_T), Gradients(*gradients)
