"""The one place that knows how this JAX spells the axes that a `shard_map` splits."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _varying(x: jax.Array) -> frozenset[str]:
    """The mesh axes over which `x` differs from device to device; none outside `shard_map`."""
    return jax.typeof(x).mat.varying


def promote(tree: Any) -> Any:
    """Every leaf as an array of JAX, varying over each axis over which some leaf does.

    A scan's carry must not change its type. Outside `shard_map` this marks nothing. Inside, it is the identity whose
    transpose sums over the devices, so a gradient with respect to weights that all devices share is already the sum.
    """
    tree = jax.tree.map(jnp.asarray, tree)
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varying(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, tree)
