"""Backpropagation through time by hand: only `d_h` travels back, all else is a product over many steps at once."""

import dataclasses
from functools import partial

from .._nn.loops import backward, forward
from .._require import require_sizes
from .._types import Batch, Objective, Params, Result, States
from .autodiff import Autodiff
from .through_layers import Loops, backpropagate


def bptt(unroll: int = 1) -> Loops:
    """The loops over time, `unroll` steps a turn."""
    return Loops(partial(forward, unroll=unroll), partial(backward, unroll=unroll))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BPTT:
    """By hand: `d_h` alone travels back, the weight gradients are products after the loop.

    `unroll` is the number of steps in one turn of a loop over time. More are fewer launches per step on a GPU; a CPU
    gains nothing. It is 1 where the number of steps is a symbol.
    """

    unroll: int = 1

    def __post_init__(self) -> None:
        require_sizes(unroll=self.unroll)

    @property
    def reference(self) -> Autodiff:
        """It is exact."""
        return Autodiff()

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """Loss, last states and gradients."""
        return backpropagate(bptt(self.unroll), objective, params, batch, h_0)
