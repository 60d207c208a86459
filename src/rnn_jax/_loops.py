"""The two loops over time that the hand-written passes are made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def scan(
    body: Callable[[Any, Array, Any], tuple[Any, Array]],
    carry: Any,
    buffer: Array,
    others: Any,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Array]:
    """`lax.scan` of `body(carry, buffer[t], others[t]) -> (carry, new[t])`."""
    return lax.scan(lambda c, now: body(c, *now), carry, (buffer, others), reverse=reverse, unroll=unroll)


def scan_in_place(
    body: Callable[[Any, Array, Any], tuple[Any, Array]],
    carry: Any,
    buffer: Array,
    others: Any,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Array]:
    """`scan` whose new entries overwrite the old ones in `buffer`.

    XLA keeps one buffer where a scan has two, and need not fill the second with zeros first. To be differentiated it is
    the wrong one: there each step would handle the cotangent of the whole buffer.
    """
    turns, rest = divmod(buffer.shape[0], unroll)

    def turn(state: tuple[Any, Array], start: Any, size: int) -> tuple[Any, Array]:
        carry, buffer = state
        new: list[Any] = [None] * size
        for j in reversed(range(size)) if reverse else range(size):
            now, others_now = jax.tree.map(
                lambda x, at=start + j: lax.dynamic_index_in_dim(x, at, keepdims=False), (buffer, others)
            )
            carry, new[j] = body(carry, now, others_now)
        return carry, lax.dynamic_update_slice_in_dim(buffer, jnp.stack(new), start, 0)

    state = carry, buffer
    if rest and reverse:
        state = turn(state, turns * unroll, rest)
    if turns:
        first = (turns - 1) * unroll if reverse else 0
        step = -unroll if reverse else unroll
        state = lax.fori_loop(0, turns, lambda i, state: turn(state, first + step * i, unroll), state)
    if rest and not reverse:
        state = turn(state, turns * unroll, rest)
    return state
