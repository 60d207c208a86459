"""Norms that neither over- nor underflow, in float32 or better whatever the type of what they are taken of."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._types import Scalar, accumulation_dtype


def norms(x: Array) -> Array:
    """The norm over the last axis, of half precision in float32; no square over- or underflows on the way."""
    x = x.astype(accumulation_dtype(x.dtype))
    largest = jnp.max(jnp.abs(x), -1, keepdims=True, initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.linalg.norm(x / scale, axis=-1) * scale[..., 0]


def norm(x: Array) -> Scalar:
    """The norm over all axes."""
    return norms(x.ravel())


def tree_norm(tree: Any) -> Scalar:
    """The norm over all leaves together, which share one dtype."""
    of_leaves = [norm(leaf) for leaf in jax.tree.leaves(tree)]
    return norm(jnp.stack(of_leaves)) if of_leaves else jnp.zeros(())
