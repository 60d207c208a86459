"""The activations φ, and their derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Activation(NamedTuple):
    """φ, and φ' twice: `d_phi` of `h = φ(a)`, so that the pre-activation need not be kept, and `slope` of a.

    Where tanh saturates, `1 - h²` is rounding and in the end 0, in float32 from |a| = 9 on. `slope` has all its digits
    there, for those who take its logarithm.
    """

    phi: Callable[[Array], Array]
    d_phi: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def sech_squared(a: Array) -> Array:
    """`1 / cosh²(a)`, by exponentials that cannot overflow."""
    e = jnp.exp(-2 * jnp.abs(a))
    return 4 * e / (1 + e) ** 2


def _is_positive(x: Array) -> Array:
    return (x > 0).astype(x.dtype)  # φ'(0) = 0, as in jax.nn.relu


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda h: 1 - h * h, sech_squared),
    "relu": Activation(jax.nn.relu, _is_positive, _is_positive),
    "identity": Activation(lambda a: a, jnp.ones_like, jnp.ones_like),
}
