"""`x W + b` for features and tokens, and its hand-written derivatives."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._checks import is_tokens
from .._types import accumulation_dtype


def affine(x: Array, w: Float[Array, "in out"], b: Float[Array, " out"]) -> Float[Array, "*steps out"]:
    """`y = x W + b`. A token selects a row of `W`; a token out of range gives NaN, never another row."""
    if is_tokens(x):
        product = jnp.asarray(w).at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    else:
        product = x @ w
    return product + jnp.broadcast_to(b, product.shape)


def affine_d_weights(
    x: Array, d_y: Float[Array, "*steps out"], w: Float[Array, "in out"]
) -> tuple[Float[Array, "in out"], Float[Array, " out"]]:
    """`d_W = Σ xᵀ d_y` and `d_b = Σ d_y`, summed over all leading axes in one product.

    In half precision, the sums are accumulated and returned in float32.
    """
    steps = tuple(range(d_y.ndim - 1))
    dtype = accumulation_dtype(d_y.dtype)
    d_b = jnp.sum(d_y, steps, dtype=dtype)
    if is_tokens(x):
        rows = jnp.zeros(w.shape, dtype).at[x]
        d_w = rows.add(d_y.astype(dtype), mode="drop", wrap_negative_indices=False)
    else:
        d_w = lax.platform_dependent(x, d_y, cpu=partial(_product_of_rows, dtype), default=partial(_product, dtype))
    return d_w, d_b


def _product(dtype: Any, x: Array, d_y: Array) -> Array:
    steps = tuple(range(d_y.ndim - 1))
    return jnp.tensordot(x, d_y, (steps, steps), preferred_element_type=dtype)


def _product_of_rows(dtype: Any, x: Array, d_y: Array) -> Array:
    """`_product` over all leading axes merged into one, because with several axes XLA copies `x` on a CPU.

    If the axes are sharded, merging them gathers the arrays.
    """
    return _product(dtype, x.reshape(-1, x.shape[-1]), d_y.reshape(-1, d_y.shape[-1]))


def affine_d_input(
    x: Array, d_y: Float[Array, "*steps out"], w: Float[Array, "in out"]
) -> Float[Array, "*steps in"] | None:
    """`d_x = d_y Wᵀ`; None for tokens."""
    return None if is_tokens(x) else d_y @ w.T
