"""The mesh axes that a `shard_map` splits. Only this module depends on what JAX calls them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh


def mesh_of(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """A mesh of one axis, over which XLA may place arrays as it likes."""
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))


def _varying(x: jax.Array) -> frozenset[str]:
    """The mesh axes over which `x` differs from device to device; none outside `shard_map`."""
    axes: frozenset[str] = jax.typeof(x).mat.varying
    return axes


def refuse_explicit(tree: Any, name: str, instead: str) -> None:
    """Raise if a leaf is split over an explicit mesh axis, for which JAX needs a sharding for every product."""
    for leaf in jax.tree.leaves(tree):
        spec = getattr(getattr(jax.typeof(leaf), "sharding", None), "spec", ())
        if any(axis is not None for axis in spec):
            raise ValueError(
                f"`{name}` must not get arrays that are split over explicit mesh axes, got {spec}: make the mesh with "
                f"axis_types=(jax.sharding.AxisType.Auto,), or {instead}."
            )


def promote(tree: Any) -> Any:
    """Every leaf as an array of JAX, varying over every mesh axis over which any leaf varies.

    A scan's carry must not change its type. Outside `shard_map` this marks nothing. Inside, it is the identity whose
    transpose sums over the devices, so a gradient with respect to weights that all devices share is already the sum.
    """
    tree = jax.tree.map(jnp.asarray, tree)
    axes = frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varying(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, tree)


def vary(tree: Any, axis: str) -> Any:
    """Mark every leaf as each device's own copy, so that its gradient is that of the device's part only."""
    return jax.tree.map(lambda x: lax.pcast(x, axis, to="varying"), tree)
