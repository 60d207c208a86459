"""What a time-blocked gradient keeps and what it computes again: the plan, what it costs, and one that fits a budget.

With d levels of segments about `(d + 1) T^(1 / (d + 1))` of T states are in memory, and a step is computed up to d
times more. One level is the schedule of Chen et al. (2016), arXiv:1604.06174. Griewank and Walther's revolve (2000),
ACM TOMS 26(1), takes the fewest steps for a number of states, Gruslys et al. (2016), arXiv:1606.03401, for a budget.
Levels of equal segments take more, but they are loops, which compile once however long the sequence is.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from .._cells.protocol import Cell, num_units
from .._checks import check_call, is_tokens, num_read, steps_shape
from .._require import are_numbers, require_positive, require_sizes
from .._types import Batch, Params

ROWS = 1024  # steps times sequences in the products of a block: enough for their speed, few enough for the cache
OUTPUT_BYTES = 8 << 20  # of a block's outputs, which a large vocabulary makes larger than its states
SMALL_BYTES = 2 << 20  # states and outputs of a sequence that is one block
SEQUENCES = 16  # of a batch whose size is a symbol


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
        blocks = f"blocks of {_steps(self.block)}"
        if not self.segments:
            return f"{blocks}; all states are kept"
        within = ", within them of each ".join(_steps(size) for size in self.segments)
        text = f"{blocks}; of each {within} one state is kept and the others are computed again"
        return f"{text}, but for the last {self.keep:,}" if self.keep else text


def _steps(count: int) -> str:
    return f"{count:,} step{'s' if count != 1 else ''}"


class Forecast(NamedTuple):
    """What a plan costs: steps computed more than once, each time counted, of `steps`; bytes of temporaries."""

    steps: int
    recomputed_steps: int
    temporary_bytes: int

    def __str__(self) -> str:
        again = f"{self.recomputed_steps:,} of {_steps(self.steps)} again" if self.recomputed_steps else "no step again"
        return f"{again}, {self.temporary_bytes / 1e6:,.1f} MB of temporaries"


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
    num_sequences = _num_sequences(batch_axes)
    states, outputs = (num_sequences * size * params.readout.w_hy.dtype.itemsize for size in params.readout.w_hy.shape)
    keeps_much = not any(cell.lean for cell in params.cells)
    if keeps_much and time * states <= SMALL_BYTES and time * outputs <= SMALL_BYTES:
        return Plan(max(time, 1))
    return Plan(_even(time, min(ROWS // num_sequences, OUTPUT_BYTES // max(outputs, 1))))


def rows_block(time: int, batch_axes: Sequence[int]) -> int:
    """Steps in a block of about `ROWS` rows; all, if their number is a symbol."""
    return _even(time, ROWS // _num_sequences(batch_axes)) if are_numbers(time) else time


def _num_sequences(batch_axes: Sequence[int]) -> int:
    return max(math.prod(batch_axes), 1) if are_numbers(*batch_axes) else SEQUENCES


def _even(time: int, block: int) -> int:
    """About `block` steps, from one to `time`; a divisor of `time` if one is near, for a rest is compiled once more."""
    block = max(1, min(block, time))
    near = [size for size in range(max(1, 2 * block // 3), block * 3 // 2 + 1) if time % size == 0]
    return min(near, key=lambda size: abs(math.log(size / block)), default=block)


def forecast(shapes: tuple[Any, Any, Any], plan: Plan | None = None) -> Forecast:
    """What `plan` costs on arguments `(params, batch, h_0)` of these shapes: arrays, or what `jax.eval_shape` gives.

    The bytes are the states, counted, and the temporaries of one block, as XLA lays them out: 3.5 times its states and
    once more those of the widest layer, its inputs, its outputs three times or beside a copy of `w_hy`, and 0.95 of the
    cells' weights. Fitted in float32 to `memory_analysis()` on a CPU, which it meets within 10 % (leaky units: 12 %)
    from 8 MB on, but where a loop over segments turns only once: XLA takes that apart and shares no memory, which
    `plan_memory` avoids.
    Half precision is counted at 6 bytes a number, for a CPU converts it; a `compute_dtype` is not known here.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> sizes = dict(input_size=32, hidden_size=64, output_size=32, dtype=jnp.float32)
    >>> params = rnn_jax.init_params(jax.random.key(0), **sizes)
    >>> batch = rnn_jax.Batch(jnp.ones((10_000, 4, 32), jnp.float32), jnp.ones((10_000, 4), int))
    >>> shapes = params, batch, rnn_jax.zero_state(params, 4)
    >>> print(rnn_jax.forecast(shapes, rnn_jax.Plan(block=100, segments=(100,), keep=100)))
    9,900 of 10,000 steps again, 0.9 MB of temporaries
    """
    check_shapes(shapes)
    params, batch, _ = shapes
    plan = default_plan(params, batch) if plan is None else plan
    check_plan(plan)
    return _forecast(plan, batch, _sizes(params, batch))


def _forecast(plan: Plan, batch: Batch, sizes: "Sizes") -> Forecast:
    time, last = batch.inputs.shape[0], num_read(batch)
    phases = [(time - last, max(plan.keep - last, 0)), (last, min(plan.keep, last))]
    states = sum(_kept_states(plan, length, keep) for length, keep in phases)
    again = sum(_recomputed(plan, length, keep) for length, keep in phases)
    unread, read = (_longest_block(plan, length, keep) for length, keep in phases)
    block = max(unread, read)
    temporaries = states * sizes.states + _block_bytes(sizes, block, read)
    if plan.segments and plan.segments[-1] <= plan.block and not plan.keep:  # states are made where they are used
        temporaries -= 2 * sizes.states * min(plan.segments[-1], block)
    return Forecast(time, again, int(temporaries))


def plan_memory(shapes: tuple[Any, Any, Any], budget_bytes: float) -> Plan:
    """The plan expected to be the fastest among those whose temporaries stay within `budget_bytes`.

    `shapes` are the arguments `(params, batch, h_0)` of the gradient function, arrays or what `jax.eval_shape` gives.
    What it costs says `forecast(shapes, plan)`.

    Raises:
        ValueError: if nothing fits; the message says what would.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=32, hidden_size=64, output_size=32)
    >>> batch = rnn_jax.Batch(jnp.ones((10_000, 4, 32)), jnp.ones((10_000, 4), int))
    >>> shapes = params, batch, rnn_jax.zero_state(params, 4)
    >>> plan = rnn_jax.plan_memory(shapes, 2e6)
    >>> rnn_jax.forecast(shapes, plan).temporary_bytes <= 2e6
    True
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Blocked(plan=plan), loss="cross_entropy")
    """
    check_shapes(shapes)
    require_positive(budget_bytes=budget_bytes)
    params, batch, _ = shapes
    sizes = _sizes(params, batch)
    costs = {plan: _forecast(plan, batch, sizes) for plan in _candidates(params, batch)}
    fitting = [plan for plan, cost in costs.items() if cost.temporary_bytes <= budget_bytes]
    if not fitting:
        least = min(cost.temporary_bytes for cost in costs.values())
        raise ValueError(f"`budget_bytes` must be at least {least:,} for these shapes, got {budget_bytes:,}.")
    num_sequences = max(math.prod(steps_shape(batch.inputs)[1:]), 1)

    def slowness(plan: Plan) -> float:  # in units of the time when all states are kept, in large blocks
        cost = costs[plan]
        return 1 + 0.3 * cost.recomputed_steps / max(cost.steps, 1) + 60 / (plan.block * num_sequences)

    return min(fitting, key=lambda plan: (slowness(plan), costs[plan].temporary_bytes))


def check_shapes(shapes: Any) -> None:
    """Raise unless `shapes` are arguments of a `GradFn`, or their shapes."""
    if not isinstance(shapes, tuple) or len(shapes) != 3:
        raise TypeError(f"`shapes` must be a tuple (params, batch, h_0), got {type(shapes).__name__}.")
    params, batch, h_0 = shapes
    check_call(params, batch._replace(key=None) if isinstance(batch, Batch) else batch, h_0)
    symbols = {str(size) for leaf in jax.tree.leaves(shapes) for size in leaf.shape if not are_numbers(size)}
    if symbols:
        raise ValueError(f"`shapes` must be made of numbers, got the symbols {', '.join(sorted(symbols))}.")


def _candidates(params: Params, batch: Batch) -> Iterator[Plan]:
    """Plans of up to three levels, in blocks of the default size and smaller."""
    time = batch.inputs.shape[0]
    block = default_plan(params, batch).block
    while True:  # a loop that turns once is none: XLA takes it apart, and memory is not shared
        yield Plan(block)
        sizes = sorted({block * round(1.3**i) for i in range(60) if block * round(1.3**i) * 3 <= time}, reverse=True)
        for size in sizes:
            for keep in range(size, time - 2 * size + 1, max(time // 50, 1)):
                yield Plan(block, (size,), keep + (time - keep) % size)  # no rest, which would compile again
        for levels in (2, 3):
            for segments in itertools.combinations(sizes[:: 2 * levels - 3], levels):
                if all(outer >= 2 * inner for outer, inner in itertools.pairwise((time, *segments))):
                    yield Plan(block, segments, segments[-1])
        if block == 1:
            return
        block = min(block - 1, _even(time, block // 2))


def _kept_states(plan: Plan, length: int, keep: int) -> int:
    """States in memory at once: where segments start, and those of the end or, later, of one segment."""
    if not plan.segments:
        return length
    size, inner, count = outermost(plan, length, keep)
    of_one = _kept_states(inner, size, 0) if count else 0
    return count + max(of_one, _kept_states(inner, length - count * size, keep))


def _recomputed(plan: Plan, length: int, keep: int) -> int:
    """Steps that run forward again, as often as they do."""
    if not plan.segments:
        return 0
    size, inner, count = outermost(plan, length, keep)
    return count * (size + _recomputed(inner, size, 0)) + _recomputed(inner, length - count * size, keep)


def _longest_block(plan: Plan, length: int, keep: int) -> int:
    """Steps in the longest block that there is."""
    if not plan.segments:
        return min(plan.block, length)
    size, inner, count = outermost(plan, length, keep)
    of_one = _longest_block(inner, size, 0) if count else 0
    return max(of_one, _longest_block(inner, length - count * size, keep))


def outermost(plan: Plan, length: int, keep: int) -> tuple[int, Plan, int]:
    """The outermost segments of `length` steps: their size, the plan within and after them, and how many there are."""
    size, *inner = plan.segments
    return size, plan._replace(segments=tuple(inner)), max(length - keep, 0) // size


class Sizes(NamedTuple):
    """Bytes: of the states, inputs and outputs of one step, of weights, and of what cells make again of one step."""

    states: int
    widest: int
    inputs: int
    outputs: int
    cells: int
    readout: int
    made_again: int


def _sizes(params: Params, batch: Batch) -> Sizes:
    num_sequences = math.prod(steps_shape(batch.inputs)[1:])
    item = params.readout.w_hy.dtype.itemsize
    item = item if item >= 4 else 6  # on a CPU, XLA has half precision in float32 besides
    widths = [cell.parts * num_units(cell) for cell in params.cells]
    inputs = 0 if is_tokens(batch.inputs) else batch.inputs.shape[-1]
    cells = sum(cell.w_xh.size + cell.w_hh.size for cell in params.cells)
    cells -= params.cells[0].w_xh.size if is_tokens(batch.inputs) else 0  # its gradient is added to, row by row
    step = num_sequences * item
    return Sizes(
        states=step * sum(widths),
        widest=step * max(widths),
        inputs=step * inputs,
        outputs=step * params.readout.w_hy.shape[1],
        cells=item * cells,
        readout=item * params.readout.w_hy.size,
        made_again=step * sum(map(_made_again, params.cells)),
    )


def _block_bytes(sizes: Sizes, block: int, read: int) -> float:
    outputs, readout = read * sizes.outputs, sizes.readout
    beside_d_w_hy = readout + (2 if readout < 2 * outputs else 1) * outputs
    of_steps = block * (3.5 * sizes.states + sizes.made_again + sizes.widest + sizes.inputs)
    return of_steps + max(3 * outputs, beside_d_w_hy) + 0.95 * sizes.cells


def _made_again(cell: Cell) -> int:
    """Numbers of one step of one sequence that are made again on the way back: z + u, and what the cell keeps."""
    if cell.from_states:
        return 0
    z, s = (
        jax.ShapeDtypeStruct((wide,), cell.w_hh.dtype) for wide in (cell.b_h.shape[0], cell.parts * num_units(cell))
    )
    kept = jax.tree.leaves(jax.eval_shape(cell.kept, z, z, s, s))
    return int(z.shape[0] + sum(leaf.shape[-1] for leaf in kept))
