"""The reference: the same loss through the plain scan, differentiated by JAX."""

import dataclasses
from collections.abc import Callable

import jax
from jaxtyping import Array

from .._batches import num_read
from .._checks import is_tokens
from .._losses import weighted_loss
from .._nn.apply import apply
from .._nn.unroll import unroll
from .._types import Batch, Gradients, Objective, Params, Result, Scalar, States, Trajectory


@dataclasses.dataclass(frozen=True)
class Autodiff:
    """`jax.value_and_grad` of the plain scan: exact, and the reference of all other exact methods.

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Autodiff(), loss="cross_entropy")
    """

    @property
    def reference(self) -> "Autodiff":
        """The method itself."""
        return self

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        return autodiff(objective, params, batch, h_0)


def autodiff(
    objective: Objective, params: Params, batch: Batch, h_0: States, unroll: Callable[..., Trajectory] = unroll
) -> Result:
    """The loss, the last states and the gradients by `jax.value_and_grad`, through `unroll`."""

    def loss_fn(params: Params, h_0: States, features: Array | None) -> tuple[Scalar, States]:
        inputs = batch.inputs if features is None else features
        last, mask, reset = num_read(batch), batch.mask, batch.reset
        ys, h_T = apply(params, h_0, inputs, last=last, mask=mask, reset=reset, drop=batch.drop, unroll=unroll)
        loss, _ = weighted_loss(objective, batch, ys)
        return loss, h_T

    features = None if is_tokens(batch.inputs) else batch.inputs
    value_and_grad = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
    (loss, h_T), gradients = value_and_grad(params, h_0, features)
    return (loss, h_T), Gradients(*gradients)
