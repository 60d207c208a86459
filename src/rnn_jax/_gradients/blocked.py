"""Loss and gradient fused, one block of time after the other: only states, and gates, are kept for all steps.

Forward, a block passes through all layers before the next block starts. Backward, the blocks come in reverse order, and
each one goes through readout, loss, cotangents, reverse scan and weight-gradient products. Logits, pre-activations and
`d_a` exist for one block only. Where the plan has segments, only the state at the start of each segment is kept; on the
way back, the segment runs forward again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._batches import num_read
from .._cells.protocol import keeps_more
from .._checks import is_tokens
from .._mesh import promote
from .._nn.apply import last_states
from .._nn.events import Events, cut
from .._nn.layer import layers_of
from .._nn.loops import Room, residuals_of
from .._require import require_sizes
from .._types import Batch, Gradients, Objective, Params, Result, Scalar, States, Trajectory, accumulation_dtype
from .autodiff import Autodiff
from .bptt import bptt
from .plan import Plan, check_plan, default_plan
from .stretches import Stretch, split, stretches_of
from .through_layers import backward_layers, forward_layers


class Block(NamedTuple):
    """One block on its way back: its part of the batch, its first step, the highest layer's states, all residuals."""

    steps: Batch
    start: Any
    hs: Trajectory
    saved: list[Any]


@dataclasses.dataclass(frozen=True)
class WayBack:
    """The way back through one block, for its whole loss at once. `Windows` goes back separately for each window."""

    unroll: int = 1

    def backward(self, problem: "Problem", block: Block, d_h: States) -> tuple[Scalar, Gradients]:
        """The loss and gradients of the block; `d_h` is what later blocks send back."""
        kept = block.hs, block.saved
        return backward_layers(bptt(self.unroll), problem.objective, problem.params, block.steps, kept, d_h)


class Problem(NamedTuple):
    """What every block and segment needs; `sent` is a field of `Events`."""

    way: WayBack
    objective: Objective
    params: Params
    batch: Batch
    sent: Float[Array, "time *#batch"] | None = None


class Carry(NamedTuple):
    """What goes back from block to block: the loss and gradients so far, and what later steps send to `h`."""

    loss: Scalar
    d_h: States
    d_params: Params
    d_xs: Float[Array, "time *batch in"] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocked:
    """The fused gradient by hand, one block of time after the other; `plan` says which states are kept or recomputed.

    Args:
        plan: a `Plan`, for example from `plan_memory`. None keeps all states and gates, in blocks of a default size.
        unroll: how many steps one iteration of a loop over time takes, as in `BPTT`.

    Raises:
        TypeError: if `plan` is not a `Plan`, or `unroll` is not an integer.
        ValueError: if `unroll` is below 1, or the lengths of `plan` do not fit into each other.

    >>> import rnn_jax
    >>> method = rnn_jax.Blocked(plan=rnn_jax.Plan(block=50, segments=(100,)))
    >>> grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    """

    plan: Plan | None = None
    unroll: int = 1

    def __post_init__(self) -> None:
        require_sizes(unroll=self.unroll)
        if self.plan is not None:
            check_plan(self.plan)

    @property
    def reference(self) -> Autodiff:
        """`Autodiff()`, because this method is exact."""
        return Autodiff()

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states and the gradients."""
        problem = Problem(WayBack(self.unroll), objective, params, batch)
        return there_and_back(problem, planned(self.plan, problem), h_0)


def planned(plan: Plan | None, problem: Problem) -> tuple[Stretch, ...]:
    """The stretches of all steps of a problem, by the given plan or the default one."""
    plan = default_plan(problem.params, problem.batch) if plan is None else plan
    return stretches_of(plan, problem.batch.inputs.shape[0], num_read(problem.batch))


def there_and_back(problem: Problem, stretches: Sequence[Stretch], h: States, d_h_T: States | None = None) -> Result:
    """The loss, last states and gradients of the steps in `stretches`, from the states `h` before them.

    `d_h_T` is what later steps send back to the last states; zero unless given.
    """
    d_h_T = jax.tree.map(jnp.zeros_like, h) if d_h_T is None else d_h_T
    params, batch = problem.params, problem.batch
    h_T, kept = advance(problem, stretches, 0, h)
    d_params = jax.tree.map(lambda w: jnp.zeros_like(w, dtype=accumulation_dtype(w.dtype)), params)
    d_xs = None if is_tokens(batch.inputs) else jnp.zeros_like(batch.inputs)
    carry = Carry(jnp.sum(d_params.readout.b_y), d_h_T, d_params, d_xs)
    loss, d_h, d_params, d_xs = retreat(problem, stretches, 0, kept, carry)
    return (loss, h_T), Gradients(d_params, d_h, d_xs)


def advance(problem: Problem, stretches: Sequence[Stretch], offset: Any, h: States) -> tuple[States, list[Any]]:
    """The last states, and what is kept of each stretch.

    For segments, the states where they begin are kept; for blocks, the states before the first block, and for all steps
    within the states and what cells keep in addition.
    """
    kept: list[Any] = []
    for stretch in stretches:
        first = h
        if stretch.inner is None:
            h, made = advance_blocks(problem, stretch, offset, h)
            kept.append((first, made))
        else:
            h, begins = advance_segments(problem, stretch, offset, h)
            kept.append(begins)
    return h, kept


def advance_segments(problem: Problem, stretch: Stretch, offset: Any, h: States) -> tuple[States, States]:
    """`advance` through segments: the last states, and those where the segments begin."""
    start = offset + stretch.start
    return _scan(lambda h, i: (reach(problem, stretch, start + i * stretch.size, h), h), h, stretch)


def advance_blocks(problem: Problem, stretch: Stretch, offset: Any, h: States) -> tuple[States, Any]:
    """`advance` through blocks: the last states; all states, and what cells keep in addition, block by block."""

    def through(i: Any, h: States, rows: Any) -> tuple[Any, Any]:
        """The states of block `i`, and what is kept of it: None for nothing, or if it is recomputed."""
        rooms = () if stretch.remake else [Room(of_layer, i * stretch.size) for of_layer in rows]
        steps = _steps(problem, stretch, offset + stretch.start + i * stretch.size)
        hs, saved = forward_layers(bptt(problem.way.unroll), problem.params, steps, h, rooms)
        return hs, [r.kept if keeps_more(r.layer.cell) and rooms else None for r in saved]

    def body(carry: tuple[States, Any], i: Any) -> tuple[tuple[States, Any], Any]:
        h, rows = carry
        hs, rows = through(i, h, rows)
        return (last_states(h, hs), rows), hs

    nothing = [None] * len(h)
    if stretch.pieces == 1:
        hs, kept = through(0, h, nothing)
        return last_states(h, hs), (hs, kept)
    _, of_block = jax.eval_shape(lambda h: through(0, h, nothing), h)
    rows = jax.tree.map(lambda x: jnp.zeros((stretch.pieces * x.shape[0], *x.shape[1:]), x.dtype), of_block)
    (h, rows), hs = lax.scan(body, promote((h, rows)), jnp.arange(stretch.pieces))
    return h, (hs, jax.tree.map(lambda x: x.reshape(stretch.pieces, stretch.size, *x.shape[1:]), rows))


def reach(problem: Problem, segment: Stretch, offset: Any, h: States) -> States:
    """The states after a segment that starts at step `offset`; nothing is kept."""
    for stretch in _blocks(segment):

        def body(h: States, i: Any, stretch: Stretch = stretch) -> tuple[States, None]:
            start = offset + stretch.start + i * stretch.size
            hs, _ = forward_layers(bptt(problem.way.unroll), problem.params, _steps(problem, stretch, start), h)
            return last_states(h, hs), None

        h, _ = _scan(body, h, stretch)
    return h


def _blocks(segment: Stretch) -> tuple[Stretch, ...]:
    """The steps of a segment, in the blocks that lie in it, for the way forward."""
    block = segment
    while block.inner is not None:
        block = block.inner[0]
    return split(Plan(block.size), 0, segment.size, 0, read=False)


def retreat(problem: Problem, stretches: Sequence[Stretch], offset: Any, kept: Sequence[Any], carry: Carry) -> Carry:
    """Back through the blocks and segments that `advance` went through, the last one first."""
    for stretch, made in zip(reversed(stretches), reversed(kept), strict=True):
        if stretch.pieces == 1:
            carry = retreat_piece(problem, stretch, offset + stretch.start, made, carry)
            continue

        def body(carry: Carry, now: Any, stretch: Stretch = stretch, made: Any = made) -> tuple[Carry, None]:
            i, piece = now
            piece = piece if stretch.inner is not None else (_states_before(i, made[0], made[1][0]), piece)
            return retreat_piece(problem, stretch, offset + stretch.start + i * stretch.size, piece, carry), None

        pieces = made if stretch.inner is not None else made[1]
        carry, _ = lax.scan(body, carry, (jnp.arange(stretch.pieces), pieces), reverse=True)
    return carry


def _states_before(i: Any, first: States, blocks: States) -> States:
    """The states from which block `i` of a stretch began: the last states of the block before."""
    before = (lax.dynamic_index_in_dim(hs, jnp.maximum(i - 1, 0), keepdims=False)[-1] for hs in blocks)
    return tuple(jnp.where(i == 0, h, h_before) for h, h_before in zip(first, before, strict=True))


def retreat_piece(problem: Problem, stretch: Stretch, start: Any, piece: Any, carry: Carry) -> Carry:
    """Back through one block or segment of a stretch, which begins at step `start`.

    For a segment, `piece` holds the states at its start; for a block, these and what `advance` kept of it.
    """
    if stretch.inner is not None:
        _, kept = advance(problem, stretch.inner, start, piece)
        return retreat(problem, stretch.inner, start, kept, carry)
    h, (hs, kept) = piece
    steps = _steps(problem, stretch, start)
    events = Events(steps.mask, steps.reset, cut(problem.sent, start, stretch.size))
    saved, xs = [], steps.inputs
    for layer, s_0, ss, kept_here in zip(layers_of(problem.params, steps.drop), h, hs, kept, strict=True):
        saved.append(residuals_of(layer, s_0, xs, ss, events, kept_here))
        xs = layer.up(ss)
    loss, (d_params, d_h, d_xs) = problem.way.backward(problem, Block(steps, start, hs[-1], saved), carry.d_h)
    if d_xs is not None and carry.d_xs is not None:
        d_xs = lax.dynamic_update_slice_in_dim(carry.d_xs, d_xs, start, 0)
    return Carry(carry.loss + loss, d_h, jax.tree.map(jnp.add, carry.d_params, d_params), d_xs)


def _steps(problem: Problem, stretch: Stretch, start: Any) -> Batch:
    """The batch of one block or segment of `stretch`, which begins at step `start`."""
    batch = problem.batch
    unread = batch.inputs.shape[0] - num_read(batch)
    first_read = start + stretch.size - stretch.read - unread if stretch.read else 0
    inputs, mask, reset = cut((batch.inputs, batch.mask, batch.reset), start, stretch.size)
    targets, weights = cut((batch.targets, batch.weights), first_read, stretch.read)
    return Batch(inputs, targets, weights, mask, reset, drop=batch.drop)


def _scan(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, stretch: Stretch) -> tuple[Any, Any]:
    """`body(carry, i)` for each block or segment, with the outputs stacked; no loop if there is only one."""
    return body(carry, 0) if stretch.pieces == 1 else lax.scan(body, carry, jnp.arange(stretch.pieces))
