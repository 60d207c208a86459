"""The activations φ, and their derivatives from `h = φ(a)` alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Activation(NamedTuple):
    """φ, and φ' as a function of `h = φ(a)`: the pre-activation need not be kept."""

    phi: Callable[[Array], Array]
    d_phi: Callable[[Array], Array]


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda h: 1 - h * h),
    "relu": Activation(jax.nn.relu, lambda h: (h > 0).astype(h.dtype)),  # φ'(0) = 0, as in jax.nn.relu
    "identity": Activation(lambda a: a, jnp.ones_like),
}
