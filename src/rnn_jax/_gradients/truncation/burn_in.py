"""Burn-in with a stopped gradient: the first steps only determine the states from which the others start."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..._batches import num_read
from ..._nn.apply import apply
from ..._require import is_below, require_sizes
from ..._results import require_method
from ..._types import Batch, Gradients, Method, Objective, Params, Result, States
from ..autodiff import Autodiff
from .references import SentOn
from .windows import pad_steps


@dataclasses.dataclass(frozen=True)
class CutAfter:
    """A cut after `steps` steps: for all later steps, `h_steps` is a constant."""

    steps: int

    def __call__(self, batch: Batch, dtype: Any) -> Float[Array, "time"]:
        """The factor on what each step sends back: 0 at step `steps + 1`, otherwise 1. Shape `(time,)`."""
        return (jnp.arange(batch.inputs.shape[0]) != self.steps).astype(dtype)


@dataclasses.dataclass(frozen=True)
class BurnIn:
    """`method` after the first `steps` steps, which only compute the states to start from; these are held constant.

        h_s = stop_gradient(h_s(params, h_0, x_1..x_s))        L(params, h_s, x_{s+1}..x_T)

    The gradients for `h_0` and for the inputs of the burn-in are zero, and its steps add nothing to the gradients of
    the parameters. Without `BurnIn`, the gradient goes through all steps, even if only the last ones have targets.
    `Truncated` and similar methods count their windows from step `steps + 1` on.

    Args:
        method: the gradient method after the burn-in.
        steps: the length of the burn-in, at least 1. The burn-in has no loss: `batch.targets` may cover only the
            `T - steps` steps after it.

    Raises:
        TypeError: if `method` is not a method, or `steps` is not an integer.
        ValueError: if `steps` is below 1; in a call, if a step of the burn-in has a target.

    References: Kapturowski et al. (2019), ICLR: the burn-in of recurrent replay (R2D2).

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=8, output_size=1)
    >>> batch = rnn_jax.Batch(inputs=jnp.ones((30, 4, 2)), targets=jnp.ones((20, 4, 1)))
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.BurnIn(rnn_jax.Blocked(), 10), loss="squared_error")
    >>> (loss, h_T), gradients = jax.jit(grad_fn)(params, batch, rnn_jax.zero_state(params, 4))
    >>> bool(jnp.any(gradients.inputs[:10])), bool(jnp.any(gradients.inputs[10]))
    (False, True)
    """

    method: Method
    steps: int

    def __post_init__(self) -> None:
        require_method(self.method, "a gradient method")
        require_sizes(steps=self.steps)

    @property
    def reference(self) -> Any:
        """For an exact method, the plain scan with a `stop_gradient`; otherwise the reference of `method` after the
        burn-in.
        """
        reference = self.method.reference
        if isinstance(reference, Autodiff):
            return SentOn(CutAfter(self.steps))
        return self if reference == self.method else BurnIn(reference, self.steps)

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states, and the gradients of `method` after the burn-in."""
        time, last, steps = batch.inputs.shape[0], num_read(batch), self.steps
        if is_below("batch.inputs", time, last + steps):
            raise ValueError(
                "`batch.targets` must be for steps after the burn-in, at most the last "
                f"{max(time - steps, 0)} of {time} for a burn-in of {steps}, got {last}."
            )
        of_steps = {"inputs": batch.inputs, "mask": batch.mask, "reset": batch.reset}
        before = jax.tree.map(lambda x: x[:steps], of_steps)
        after = jax.tree.map(lambda x: x[steps:], of_steps)
        _, h = apply(params, h_0, **before, last=0, drop=batch.drop)
        rest = batch._replace(**after)
        (loss, h_T), gradients = self.method.gradient(objective, params, rest, lax.stop_gradient(h))
        d_xs = None if gradients.inputs is None else pad_steps(gradients.inputs, steps, 0)
        return (loss, h_T), Gradients(gradients.params, jax.tree.map(jnp.zeros_like, h_0), d_xs)
