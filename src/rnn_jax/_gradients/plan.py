"""What a time-blocked gradient keeps and what it computes again: the plan.

With d levels of segments about `(d + 1) T^(1 / (d + 1))` of T states are in memory, and a step is computed up to d
times more. One level is the schedule of Chen et al. (2016), arXiv:1604.06174. Griewank and Walther's revolve (2000),
ACM TOMS 26(1), takes the fewest steps for a number of states, Gruslys et al. (2016), arXiv:1606.03401, for a budget.
Levels of equal segments take more, but they are loops, which compile once however long the sequence is.
"""

import itertools
from typing import NamedTuple

from .._checks import steps_shape
from .._nn.blocks import ROWS, even, num_sequences
from .._require import are_numbers, require_sizes
from .._types import Batch, Params

OUTPUT_BYTES = 8 << 20  # of a block's outputs, which a large vocabulary makes larger than its states
SMALL_BYTES = 2 << 20  # states and outputs of a sequence that is one block


class Plan(NamedTuple):
    """How `"blocked"` goes through time.

    `block`     steps whose readout, loss and weight gradients are computed at once.
    `segments`  lengths in steps, each within the one before. Of a segment only the state at its start is kept; when its
                turn comes on the way back it runs forward again. None of them: the states of all steps are kept.
    `keep`      of at least so many steps at the end the states are kept in any case: they are needed first.

    `plan_memory` makes one that fits a budget. In words: `str(plan)`.

    >>> import rnn_jax
    >>> print(rnn_jax.Plan(block=50, segments=(100,), keep=100))
    blocks of 50 steps; of each 100 steps one state is kept and the others are computed again, but for the last 100
    """

    block: int
    segments: tuple[int, ...] = ()
    keep: int = 0

    def __str__(self) -> str:
        blocks = f"blocks of {in_steps(self.block)}"
        if not self.segments:
            return f"{blocks}; all states are kept"
        within = ", within them of each ".join(in_steps(size) for size in self.segments)
        text = f"{blocks}; of each {within} one state is kept and the others are computed again"
        return f"{text}, but for the last {self.keep:,}" if self.keep else text


def in_steps(count: int) -> str:
    """A number of steps in words."""
    return f"{count:,} step{'s' if count != 1 else ''}"


def check_plan(plan: Plan) -> None:
    """Raise unless `plan` is a `Plan` of lengths that fit into each other."""
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan, got {type(plan).__name__}.")
    if not isinstance(plan.segments, tuple):
        raise TypeError(f"`plan.segments` must be a tuple of lengths, got {type(plan.segments).__name__}.")
    require_sizes(**{"plan.block": plan.block})
    require_sizes(least=0, **{"plan.keep": plan.keep})
    for size in plan.segments:
        require_sizes(**{"plan.segments": size})
    for outer, inner in itertools.pairwise(plan.segments):
        if inner > outer:
            raise ValueError(f"`plan.segments` must each lie within the one before, got {inner} in {outer}.")


def default_plan(params: Params, batch: Batch) -> Plan:
    """All states kept, in blocks of about `ROWS` rows, fewer if their outputs would leave the cache.

    A short sequence is one block: no states to move. So is one whose number of steps is a symbol, under `jax.export`.
    Not so if a cell is lean: autodiff would keep less than one block.
    """
    time, *batch_axes = steps_shape(batch.inputs)
    if not are_numbers(time):
        return Plan(time)
    sequences = num_sequences(batch_axes)
    states, outputs = (sequences * size * params.readout.w_hy.dtype.itemsize for size in params.readout.w_hy.shape)
    keeps_much = not any(cell.lean for cell in params.cells)
    if keeps_much and time * states <= SMALL_BYTES and time * outputs <= SMALL_BYTES:
        return Plan(max(time, 1))
    return Plan(even(time, min(ROWS // sequences, OUTPUT_BYTES // max(outputs, 1))))


def outermost(plan: Plan, length: int, keep: int) -> tuple[int, Plan, int]:
    """The outermost segments of `length` steps: their size, the plan within and after them, and how many there are."""
    size, *inner = plan.segments
    return size, plan._replace(segments=tuple(inner)), max(length - keep, 0) // size
