"""Norms in float32 or better, without overflow or underflow in between."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._types import Scalar, accumulation_dtype


def norms(x: Array) -> Array:
    """The norm over the last axis."""
    x = x.astype(accumulation_dtype(x.dtype))
    scale = _scale(jnp.max(jnp.abs(x), -1, keepdims=True, initial=0))
    return _root(jnp.sum(jnp.square(x / scale), -1)) * scale[..., 0]


def tree_norm(tree: Any) -> Scalar:
    """The norm over all leaves together; for one array, over all its axes."""
    return unit_and_norm(tree)[1]


def unit_and_norm(tree: Any) -> tuple[Any, Scalar]:
    """`(tree / ‖tree‖, ‖tree‖)`; zeros stay zeros. The first result is right even if the norm overflows."""
    exact = jax.tree.map(lambda x: x.astype(accumulation_dtype(x.dtype)), tree)
    leaves = jax.tree.leaves(exact)
    if not leaves:
        return tree, jnp.zeros(())
    scale = _scale(jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in leaves])))
    small = jax.tree.map(lambda x: x / scale, exact)
    length = _root(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(small)))  # type: ignore[arg-type]
    return jax.tree.map(lambda x: x / jnp.where(length == 0, 1, length), small), length * scale


def _scale(largest: Array) -> Array:
    """A power of two near `largest`, whose inverse is not subnormal, because subnormal numbers are flushed to 0."""
    bound = jnp.finfo(largest.dtype).maxexp - 8
    exponent = jnp.clip(jnp.floor(jnp.log2(largest)), -bound, bound)  # for 0: -bound
    # The barrier keeps XLA from making (x / scale)² of a constant x to x² / scale², which is 0 / 0 or infinite.
    scale: Array = lax.optimization_barrier(lax.stop_gradient(jnp.exp2(exponent)))
    return scale


def _root(square: Array) -> Array:
    """The square root, with a derivative of 0 at 0."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
