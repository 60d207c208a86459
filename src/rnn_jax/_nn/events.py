"""What may happen to a step, as one tree: it does not exist, it starts from zero, it sends back less gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .._types import Flags, Inputs, Step


class Events(NamedTuple):
    """What happens to each step. Every field has the axes `(time, *batch)`; None stands for never.

    A scan passes the events of one step to its body, which calls the methods. Arrays without a time axis, like dropout
    masks, must not be here: this tree is cut in time, which would cut their batch axis.

    `mask`   where false the step does not exist.
    `reset`  where true the state is zero before the step; not read where the step does not exist.
    `sent`   for truncated gradients: the factor of the gradient that step t sends back to `h_{t-1}`.
    """

    mask: Flags | None = None
    reset: Flags | None = None
    sent: Float[Array, "time *#batch"] | None = None

    def enter(self, h_tm1: Array) -> Array:
        """The state that step t starts from: zero at a reset, otherwise `h_{t-1}`. This map is its own transpose."""
        return h_tm1 if self.reset is None else select(self.reset, jnp.zeros_like(h_tm1), h_tm1)

    def leave(self, h_t: Array, h_tm1: Array) -> Array:
        """The state after the step: `h_t`, or `h_{t-1}` where the step does not exist."""
        return h_t if self.mask is None else select(self.mask, h_t, h_tm1)

    def d_leave(self, d_h_t: Array) -> Array:
        """The part of `d_h_t` that reaches the step: zero where the step does not exist."""
        return self.leave(d_h_t, jnp.zeros_like(d_h_t))

    def d_enter(self, d_h_met: Array, d_h_t: Array) -> Array:
        """`d_h_{t-1}`: `d_h_met` sent back through `enter`, or `d_h_t` where the step does not exist."""
        d_h_tm1 = self.leave(self.enter(d_h_met), d_h_t)
        return d_h_tm1 if self.sent is None else self.sent[..., None].astype(d_h_tm1.dtype) * d_h_tm1

    def visible(self, xs: Inputs | Step) -> Inputs | Step:
        """`xs` with zeros at the steps that do not exist, so that a NaN there reaches nothing (0 · NaN is NaN)."""
        return xs if self.mask is None else select(self.mask, xs, jnp.zeros_like(xs))


def select(flag: Bool[Array, "*steps"], x: Array, y: Array) -> Array:
    """`x` where `flag`, otherwise `y`. `flag` has no feature axis; `x` and `y` may have one."""
    return jnp.where(flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim)), x, y)


def cut(tree: Any, start: Any, size: int) -> Any:
    """`size` steps of every leaf, from step `start` on. Time is the first axis of each leaf."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), tree)
