"""A plan applied to a number of steps: equal blocks and segments, one after the other."""

from typing import NamedTuple

from .._require import are_numbers
from .plan import Plan, outermost


class Stretch(NamedTuple):
    """Equal blocks or equal segments, one after the other: `pieces` of `size` steps, the first at step `start`.

    The loss reads the last `read` steps of each. If `inner` is None, they are blocks, and all their states are kept.
    Otherwise they are segments: only the state at the start of each is kept. `inner` lists the stretches that a segment
    consists of; their steps are counted from the start of the segment. `remake` is that of `Plan`.
    """

    start: int
    pieces: int
    size: int
    read: int
    inner: tuple["Stretch", ...] | None = None
    remake: bool = False


def stretches_of(plan: Plan, time: int, last: int, first: int = 0) -> tuple[Stretch, ...]:
    """The stretches from step `first` on: those before the steps that the loss reads, then those that it reads.

    If all steps fit into one block, they are one stretch: two would take the memory of two sets of weight gradients.
    """
    length = time - first
    if not plan.segments and (length == plan.block or (are_numbers(length) and 0 < length < plan.block)):
        return (Stretch(first, 1, length, last, remake=plan.remake),)
    for size in (plan.block, *plan.segments):
        if not are_numbers(time, last) and (plan.keep or time % size != 0 or last % size != 0):
            raise ValueError(
                f"`plan` must cut {time} steps, {last} of them read, into equal blocks and segments, with keep = 0, "
                f"got {tuple(plan)}: export for `{size} * n` steps, or without a plan."
            )
    before = split(plan, first, length - last, max(plan.keep - last, 0) if plan.keep else 0, read=False)
    return before + split(plan, time - last, last, min(plan.keep, last) if plan.keep else 0, read=True)


def split(plan: Plan, start: int, length: int, keep: int, *, read: bool) -> tuple[Stretch, ...]:
    """The stretches of `length` steps from `start` on: segments while more than `keep` steps are left, then blocks."""
    if not plan.segments:
        block = min(plan.block, max(length, 1))
        count, rest = divmod(length, block)
        stretches = (
            Stretch(start, count, block, read * block, remake=plan.remake),
            Stretch(start + count * block, 1, rest, read * rest, remake=plan.remake),
        )
        return tuple(stretch for stretch in stretches if stretch.pieces and stretch.size)
    size, inner, count = outermost(plan, length, keep)
    left = split(inner, start + count * size, length - count * size, keep, read=read)
    return (Stretch(start, count, size, read * size, split(inner, 0, size, 0, read=read)), *left) if count else left
