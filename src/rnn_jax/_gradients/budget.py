"""What a plan costs in memory and recomputed steps, and the plan that fits a budget."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from .._batches import check_call, num_read
from .._cells.protocol import Cell, keeps_more, num_units
from .._checks import is_tokens, steps_shape
from .._nn.blocks import even
from .._require import POSITIVE, Number, are_numbers, require_known_number
from .._types import Batch, Params
from .plan import Plan, check_plan, default_plan, in_steps, outermost


class PlanCost(NamedTuple):
    """What a plan costs.

    `steps`            the length of the sequence.
    `recomputed_steps` the steps that run forward again; a step that does so twice counts twice.
    `temporary_bytes`  the memory of temporaries, in bytes.
    """

    steps: int
    recomputed_steps: int
    temporary_bytes: int

    def __str__(self) -> str:
        again = (
            f"{self.recomputed_steps:,} of {in_steps(self.steps)} recomputed"
            if self.recomputed_steps
            else "no step recomputed"
        )
        return f"{again}, {self.temporary_bytes / 1e6:,.1f} MB of temporaries"


def plan_cost(shapes: tuple[Any, Any, Any], plan: Plan | None = None) -> PlanCost:
    """What `plan` costs for arguments of these shapes.

    The bytes are those of the states that are kept, which are counted, plus those of the temporaries of one block, as
    XLA lays them out. The temporaries are the sum of:

    - 3.5 times the states of the block, plus the states of its widest layer, plus its inputs;
    - for cells that need more than their states: the pre-activations of the block, what the way back reads (if gates
      are kept, that of all steps whose states are kept), and what the loop back emits beyond one number per unit;
    - the larger of three times its outputs, and its outputs (once or twice) with a copy of `w_hy`;
    - 0.95 times the weights of the cells.

    The factors are fitted in float32 to `memory_analysis()` on a CPU. From 8 MB on they agree with it within 10 %
    (leaky and gated units: 12 %). The exception is a loop over segments that runs only once: XLA unrolls it and does
    not share memory between segments; `plan_memory` avoids such plans. Half precision counts as 6 bytes per number,
    because a CPU converts it. The estimate does not take `compute_dtype` into account.

    Args:
        shapes: the arguments `(params, batch, h_0)` of the gradient function: arrays, or what `jax.eval_shape` returns.
        plan: a `Plan`; None stands for the default of `Blocked()`.

    Returns:
        A `PlanCost`: the number of steps, of recomputed steps, and the bytes of temporaries. `print` shows it in words.

    Raises:
        TypeError: if `shapes` is not a tuple of these three, or `plan` is not a `Plan`.
        ValueError: if shapes do not fit each other or are symbolic.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> sizes = dict(input_size=32, hidden_size=64, output_size=32, dtype=jnp.float32)
    >>> params = rnn_jax.init_params(jax.random.key(0), **sizes)
    >>> batch = rnn_jax.Batch(jnp.ones((10_000, 4, 32), jnp.float32), jnp.ones((10_000, 4), int))
    >>> shapes = params, batch, rnn_jax.zero_state(params, 4)
    >>> print(rnn_jax.plan_cost(shapes, rnn_jax.Plan(block=100, segments=(100,), keep=100)))
    9,900 of 10,000 steps recomputed, 0.9 MB of temporaries
    """
    check_shapes(shapes)
    params, batch, _ = shapes
    plan = default_plan(params, batch) if plan is None else plan
    check_plan(plan)
    return _plan_cost(plan, batch, _sizes(params, batch))


def _plan_cost(plan: Plan, batch: Batch, sizes: "Sizes") -> PlanCost:
    time, last = batch.inputs.shape[0], num_read(batch)
    phases = [(time - last, max(plan.keep - last, 0)), (last, min(plan.keep, last))]
    runs = [list(_runs(plan, length, keep)) for length, keep in phases]
    states = sum(max(starts + steps for starts, steps in of_phase) for of_phase in runs)
    longest = [max(steps for _, steps in of_phase) for of_phase in runs]
    with_gates = 0 if plan.remake else sum(longest)
    again = sum(_recomputed(plan, length, keep) for length, keep in phases)
    unread, read = (min(plan.block, steps) for steps in longest)
    block = max(unread, read)
    temporaries = states * sizes.states + with_gates * sizes.kept + _block_bytes(sizes, plan, block, read)
    if plan.segments and plan.segments[-1] <= plan.block and not plan.keep:  # states are computed where they are used
        temporaries -= 2 * sizes.states * min(plan.segments[-1], block)
    return PlanCost(time, again, int(temporaries))


def plan_memory(shapes: tuple[Any, Any, Any], budget_bytes: Number) -> Plan:
    """The plan that should be the fastest among those whose temporaries stay within `budget_bytes`.

    Args:
        shapes: the arguments `(params, batch, h_0)` of the gradient function: arrays, or what `jax.eval_shape` returns.
        budget_bytes: the limit for the temporaries, in bytes; a known number, not a traced one.

    Returns:
        A `Plan` for `Blocked(plan=...)`. `plan_cost(shapes, plan)` says what it costs.

    Raises:
        TypeError: if `shapes` is not a tuple of these three, or `budget_bytes` is traced or not a number.
        ValueError: if no plan fits (the message names the smallest budget), or shapes do not fit each other.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=32, hidden_size=64, output_size=32)
    >>> batch = rnn_jax.Batch(jnp.ones((10_000, 4, 32)), jnp.ones((10_000, 4), int))
    >>> shapes = params, batch, rnn_jax.zero_state(params, 4)
    >>> plan = rnn_jax.plan_memory(shapes, 2e6)
    >>> rnn_jax.plan_cost(shapes, plan).temporary_bytes <= 2e6
    True
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Blocked(plan=plan), loss="cross_entropy")
    """
    check_shapes(shapes)
    budget_bytes = require_known_number(
        "budget_bytes", budget_bytes, POSITIVE, "the plan depends on it, so call `plan_memory` outside"
    )
    params, batch, _ = shapes
    sizes = _sizes(params, batch)
    ways = (False, True) if sizes.kept else (False,)  # gates kept, then recomputed
    plans = (plan._replace(remake=remake) for plan in _candidates(params, batch) for remake in ways)
    costs = {plan: _plan_cost(plan, batch, sizes) for plan in plans}
    fitting = [plan for plan, cost in costs.items() if cost.temporary_bytes <= budget_bytes]
    if not fitting:
        least = min(cost.temporary_bytes for cost in costs.values())
        raise ValueError(f"`budget_bytes` must be at least {least:,} for these shapes, got {budget_bytes:,.0f}.")
    num_sequences = max(math.prod(steps_shape(batch.inputs)[1:]), 1)

    def slowness(plan: Plan) -> float:  # in units of the time when all states are kept, in large blocks
        cost, remade = costs[plan], 0.3 if plan.remake else 0
        return 1 + remade + 0.3 * cost.recomputed_steps / max(cost.steps, 1) + 60 / (plan.block * num_sequences)

    return min(fitting, key=lambda plan: (slowness(plan), costs[plan].temporary_bytes))


def check_shapes(shapes: Any) -> None:
    """Raise unless `shapes` are arguments of a `GradFn`, or their shapes."""
    if not isinstance(shapes, tuple) or len(shapes) != 3:
        raise TypeError(f"`shapes` must be a tuple (params, batch, h_0), got {type(shapes).__name__}.")
    params, batch, h_0 = shapes
    check_call(params, batch._replace(key=None) if isinstance(batch, Batch) else batch, h_0)
    symbols = {str(size) for leaf in jax.tree.leaves(shapes) for size in leaf.shape if not are_numbers(size)}
    if symbols:
        raise ValueError(f"`shapes` must have known sizes, got the symbols {', '.join(sorted(symbols))}.")


def _candidates(params: Params, batch: Batch) -> Iterator[Plan]:
    """Plans of up to three levels of segments, in blocks of the default size and smaller."""
    time = batch.inputs.shape[0]
    block = default_plan(params, batch).block
    while True:  # at least two iterations: XLA unrolls a loop of one, and memory is not shared
        yield Plan(block)
        sizes = sorted({block * round(1.3**i) for i in range(60) if block * round(1.3**i) * 3 <= time}, reverse=True)
        for size in sizes:
            for keep in range(size, time - 2 * size + 1, max(time // 50, 1)):
                yield Plan(
                    block, (size,), keep + (time - keep) % size
                )  # no remainder, which would be compiled separately
        for levels in (2, 3):
            for segments in itertools.combinations(sizes[:: 2 * levels - 3], levels):
                if all(outer >= 2 * inner for outer, inner in itertools.pairwise((time, *segments))):
                    yield Plan(block, segments, segments[-1])
        if block == 1:
            return
        block = min(block - 1, even(time, block // 2))


def _runs(plan: Plan, length: int, keep: int, starts: int = 0) -> Iterator[tuple[int, int]]:
    """The steps whose states are all in memory at some time: those of one innermost segment, or of the end.

    Each comes as `(starts, steps)`. Meanwhile one state is kept for each of the `starts` segments around them.
    """
    if not plan.segments:
        yield starts, length
        return
    size, inner, count = outermost(plan, length, keep)
    if count:
        yield from _runs(inner, size, 0, starts + count)
    yield from _runs(inner, length - count * size, keep, starts + count)


def _recomputed(plan: Plan, length: int, keep: int) -> int:
    """The number of recomputed steps; a step that is recomputed twice counts twice."""
    if not plan.segments:
        return 0
    size, inner, count = outermost(plan, length, keep)
    return count * (size + _recomputed(inner, size, 0)) + _recomputed(inner, length - count * size, keep)


class Sizes(NamedTuple):
    """Bytes of the states, inputs and outputs of one step, of the weights, and of what cells recompute for one step."""

    states: int
    widest: int
    inputs: int
    outputs: int
    cells: int
    readout: int
    emitted: int
    made_again: int
    kept: int


def _sizes(params: Params, batch: Batch) -> Sizes:
    num_sequences = math.prod(steps_shape(batch.inputs)[1:])
    item = params.readout.w_hy.dtype.itemsize
    item = item if item >= 4 else 6  # on a CPU, XLA also holds a float32 copy of half precision
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
        emitted=step * sum(_emitted(cell) - num_units(cell) for cell in params.cells),
        made_again=step * sum(cell.b_h.shape[0] + _kept(cell) for cell in params.cells if not cell.from_states),
        kept=step * sum(map(_kept, filter(keeps_more, params.cells))),
    )


def _block_bytes(sizes: Sizes, plan: Plan, block: int, read: int) -> float:
    outputs, readout = read * sizes.outputs, sizes.readout
    beside_d_w_hy = readout + (2 if readout < 2 * outputs else 1) * outputs
    made_again = sizes.made_again - (0 if plan.remake else sizes.kept)
    of_steps = block * (3.5 * sizes.states + sizes.emitted + made_again + sizes.widest + sizes.inputs)
    return of_steps + max(3 * outputs, beside_d_w_hy) + 0.95 * sizes.cells


def _kept(cell: Cell) -> int:
    """How many numbers `backward` reads for one step of one sequence."""
    return _width(lambda cell, z, s: cell.kept(z, z, s, s), cell)


def _emitted(cell: Cell) -> int:
    """How many numbers the loop back emits for one step of one sequence: the cotangents of z, u and own parameters."""
    return _width(lambda cell, z, s: cell.backward(cell.kept(z, z, s, s), s)[0], cell)


def _width(of_step: Callable[..., Any], cell: Cell) -> int:
    """The numbers that `of_step(cell, z, s)` returns for one step of one sequence."""
    sizes = (cell.b_h.shape[0], cell.parts * num_units(cell))
    z, s = (jax.ShapeDtypeStruct((size,), cell.w_hh.dtype) for size in sizes)
    return sum(leaf.shape[-1] for leaf in jax.tree.leaves(jax.eval_shape(of_step, cell, z, s)))
