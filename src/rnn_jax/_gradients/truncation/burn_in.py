"""Burn-in whose gradient is stopped: the first steps only say from which states the others start."""

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
    """`h_steps` is a constant of all steps after it."""

    steps: int

    def __call__(self, batch: Batch, dtype: Any) -> Float[Array, "time"]:
        """What each step sends back is multiplied by this: 0 at step `steps + 1`, otherwise 1."""
        return (jnp.arange(batch.inputs.shape[0]) != self.steps).astype(dtype)


@dataclasses.dataclass(frozen=True)
class BurnIn:
    """`method` on the steps after the first `steps`, from the states that these end in, which are held constant.

        h_s = stop_gradient(h_s(params, h_0, x_1..x_s))        L(params, h_s, x_{s+1}..x_T)

    No loss may be at the first `steps`: `batch.targets` are for at most the `T - steps` steps after them. Gradients in
    `h_0` and in the inputs of these steps are zero; those in the parameters come from the steps after them alone. With
    the method alone and targets for the last steps, the gradient goes through the steps before those too. Windows of
    `Truncated` and the others are counted from step `steps + 1` on.

    Raises:
        TypeError: unless `method` is a method and `steps` an integer.
        ValueError: for `steps` below 1; in a call, for targets at one of the first `steps`.

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
        """Of an exact method the plain scan with `stop_gradient` in it; otherwise its reference after the burn-in."""
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
