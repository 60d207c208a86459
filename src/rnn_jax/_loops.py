"""A loop over time whose results take the place of what it read."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array


def scan_in_place(
    body: Callable[[Any, Array, Any], tuple[Any, Array]],
    carry: Any,
    buffer: Array,
    others: Any,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Array]:
    """`lax.scan` of `body(carry, buffer[t], others[t]) -> (carry, buffer[t])`: the new entry overwrites the old one.

    XLA keeps one buffer where a scan has two, and need not fill the second with zeros first. One turn of the loop is
    `unroll` steps.
    """
    time = buffer.shape[0]
    if time == 0:
        return carry, buffer

    def step(i, state):
        carry, buffer = state
        t = time - 1 - i if reverse else i
        now, *rest = (lax.dynamic_index_in_dim(x, t, keepdims=False) for x in (buffer, *jax.tree.leaves(others)))
        carry, new = body(carry, now, jax.tree.unflatten(jax.tree.structure(others), rest))
        return carry, lax.dynamic_update_index_in_dim(buffer, new, t, 0)

    return lax.fori_loop(0, time, step, (carry, buffer), unroll=unroll)
