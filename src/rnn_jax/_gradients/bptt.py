"""Backpropagation through time by hand: only `d_s` travels back; every other product covers many steps at once."""

import dataclasses
from functools import partial

from .._nn.loops import Room, backward, forward
from .._require import require_sizes
from .._types import Batch, Objective, Params, Result, States
from .autodiff import Autodiff
from .through_layers import Loops, backpropagate


def bptt(unroll: int = 1) -> Loops:
    """The loops over time, with `unroll` steps in each iteration."""
    return Loops(partial(forward, unroll=unroll), partial(backward, unroll=unroll))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BPTT:
    """Backpropagation through time by hand: only `d_h` travels back; weight gradients are products after the loop.

    Args:
        unroll: how many steps one iteration of a loop over time takes. A larger number means fewer launches per step on
            a GPU; a CPU gains nothing. It is taken as 1 where the number of steps is symbolic (`jax.export`).

    Raises:
        TypeError: if `unroll` is not an integer.
        ValueError: if `unroll` is below 1.

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.BPTT(unroll=4), loss="cross_entropy")
    """

    unroll: int = 1

    def __post_init__(self) -> None:
        require_sizes(unroll=self.unroll)

    @property
    def reference(self) -> Autodiff:
        """`Autodiff()`, because this method is exact."""
        return Autodiff()

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        return backpropagate(bptt(self.unroll), objective, params, batch, h_0, [Room()] * len(h_0))
