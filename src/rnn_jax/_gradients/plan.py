"""What a time-blocked gradient keeps and what it recomputes: the plan.

With d levels of segments, about `(d + 1) T^(1 / (d + 1))` of T states are in memory, and each step is computed up to d
more times. One level is the schedule of Chen et al. (2016), arXiv:1604.06174. The schedule `revolve` of Griewank and
Walther (2000), ACM TOMS 26(1), takes the fewest steps for a given number of states; that of Gruslys et al. (2016),
arXiv:1606.03401, does so for a given budget. Levels of equal segments take more steps than these. But they are loops,
so the time to compile does not depend on the length of the sequence.
"""

import itertools
from typing import NamedTuple

from .._cells.protocol import keeps_more
from .._checks import steps_shape
from .._nn.blocks import ROWS, even, num_sequences
from .._require import are_numbers, require_sizes
from .._types import Batch, Params

OUTPUT_BYTES = 8 << 20  # limit for a block's outputs, which a large vocabulary makes larger than its states
SMALL_BYTES = 2 << 20  # limit for the states, and for the outputs, of a sequence that is one block


class Plan(NamedTuple):
    """How `"blocked"` goes through time. `plan_memory` makes a plan that fits a budget; `str(plan)` describes it.

    Args:
        block: the number of steps whose readout, loss and weight gradients are computed at once.
        segments: lengths in steps, outermost first; none may be longer than the one before. Only the state at the start
            of a segment is kept; on the way back, the segment runs forward again. An empty tuple keeps the states of
            all steps.
        keep: at least this many steps at the end keep their states in any case, because they are needed first.
        remake: whether the gates of gated cells are recomputed from the states. Otherwise they are kept wherever states
            are kept, which is faster but takes several times the memory. The same holds for the pre-activations of an
            `Activation` without `d_phi`. Other cells need only their states, and recompute what a leak needs.

    >>> import rnn_jax
    >>> print(rnn_jax.Plan(block=50, segments=(100,), keep=100))
    blocks of 50 steps; one state is kept per 100 steps; the others are recomputed, except for the last 100
    """

    block: int
    segments: tuple[int, ...] = ()
    keep: int = 0
    remake: bool = False

    def __str__(self) -> str:
        blocks = f"blocks of {in_steps(self.block)}"
        gates = "; gates are recomputed" if self.remake else ""
        if not self.segments:
            return f"{blocks}; all states are kept{gates}"
        within = " and, within them, per ".join(in_steps(size) for size in self.segments)
        text = f"{blocks}; one state is kept per {within}; the others are recomputed"
        return text + (f", except for the last {self.keep:,}" if self.keep else "") + gates


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
    if not isinstance(plan.remake, bool):
        raise TypeError(f"`plan.remake` must be True or False, got {plan.remake!r}.")
    for size in plan.segments:
        require_sizes(**{"plan.segments": size})
    for outer, inner in itertools.pairwise(plan.segments):
        if inner > outer:
            raise ValueError(f"`plan.segments` must not grow from one to the next, got {inner} after {outer}.")


def default_plan(params: Params, batch: Batch) -> Plan:
    """All states are kept, in blocks of about `ROWS` rows, or fewer if their outputs would not fit into the cache.

    A short sequence is one block, so that no states have to be moved. The exception is a lean cell, for which autodiff
    would keep less than one block does. A sequence with a symbolic number of steps (`jax.export`) is one block too.

    The gates of gated cells are kept. Then at most a quarter of the steps is one block, so that everything together
    takes no more than autodiff keeps. A loop over blocks has two sets of weight gradients: where these are larger than
    what a smaller block saves, the sequence is one block.
    """
    time, *batch_axes = steps_shape(batch.inputs)
    if not are_numbers(time):
        return Plan(time)
    sequences, itemsize = num_sequences(batch_axes), params.readout.w_hy.dtype.itemsize
    states, outputs = (sequences * size * itemsize for size in params.readout.w_hy.shape)
    gated = any(map(keeps_more, params.cells))
    weights = itemsize * sum(cell.w_xh.size + cell.w_hh.size for cell in params.cells)
    small = min(SMALL_BYTES, weights // 8) if gated else SMALL_BYTES
    keeps_much = not any(cell.lean for cell in params.cells)
    if keeps_much and time * states <= small and time * outputs <= SMALL_BYTES:
        return Plan(max(time, 1))
    longest = time // 4 if gated else time
    return Plan(even(time, min(ROWS // sequences, OUTPUT_BYTES // max(outputs, 1), longest)))


def outermost(plan: Plan, length: int, keep: int) -> tuple[int, Plan, int]:
    """The outermost segments of `length` steps: their size, the plan within and after them, and their number."""
    size, *inner = plan.segments
    return size, plan._replace(segments=tuple(inner)), max(length - keep, 0) // size
