"""Initial weights, in the form of `jax.nn.initializers`: functions `(key, shape, dtype) -> array`."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers as of_jax
from jaxtyping import Array, Float, Key

from ._require import POSITIVE, Number, require_known, require_number
from ._types import accumulation_dtype

__all__ = ["INITS", "RECURRENT_INITS", "identity", "normal", "orthogonal", "spectral_radius"]

Initializer = Callable[..., Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers


def orthogonal(scale: Number = 1.0) -> Initializer:
    """`scale` times a random orthogonal matrix. If it is not square, its rows or its columns are orthonormal.

    Args:
        scale: a number above zero, the absolute value of every singular value and eigenvalue.

    Returns:
        An initialiser `(key, shape, dtype) -> array`.

    Raises:
        ValueError: unless `scale` is above zero.

    References: Saxe, McClelland and Ganguli (2014), ICLR, arXiv:1312.6120.
    """
    scale = require_number("scale", scale, POSITIVE)

    def init(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = float) -> Array:
        dtype = jnp.zeros((), dtype).dtype
        return of_jax.orthogonal(scale)(key, shape, accumulation_dtype(dtype)).astype(dtype)

    return init


def normal(stddev: Number) -> Initializer:
    """Independent normal entries of standard deviation `stddev`.

    Args:
        stddev: a number above zero.

    Returns:
        An initialiser `(key, shape, dtype) -> array`.

    Raises:
        ValueError: unless `stddev` is above zero.
    """
    return of_jax.normal(require_number("stddev", stddev, POSITIVE))


def identity(scale: Number = 1.0) -> Initializer:
    """`scale` times the identity. With relu and zero biases this is the IRNN.

    Args:
        scale: a number above zero.

    Returns:
        An initialiser `(key, shape, dtype) -> array`.

    Raises:
        ValueError: unless `scale` is above zero.

    References: Le, Jaitly and Hinton (2015), arXiv:1504.00941.
    """
    scale = require_number("scale", scale, POSITIVE)

    def init(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = float) -> Float[Array, "hid hid"]:
        del key
        return jnp.asarray(scale, dtype) * jnp.eye(*shape, dtype=dtype)

    return init


def spectral_radius(rho: Number) -> Initializer:
    """Independent normal entries, scaled so that the largest |eigenvalue| is exactly `rho`.

    Args:
        rho: the spectral radius, a number above zero.

    Returns:
        An initialiser `(key, shape, dtype) -> array` for square matrices.

    Raises:
        ValueError: unless `rho` is above zero.

    References: Jaeger (2001), the echo state network, GMD report 148.
    """
    rho = require_number("rho", rho, POSITIVE)

    def init(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = float) -> Float[Array, "hid hid"]:
        w = jax.random.normal(key, shape, accumulation_dtype(jnp.zeros((), dtype).dtype))
        return (w * (jnp.asarray(rho, w.dtype) / jnp.max(jnp.abs(jnp.linalg.eigvals(w))))).astype(dtype)

    return init


def _normal_by_fan_in(gain: Number) -> Initializer:
    """Independent normal entries of standard deviation `gain / sqrt(hid)`: the spectral radius is about `gain`."""
    gain = require_number("gain", gain, POSITIVE)

    def init(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = float) -> Float[Array, "hid hid"]:
        return normal(gain / math.sqrt(shape[0]))(key, shape, dtype)

    return init


RECURRENT_INITS: dict[str, Callable[[Number], Initializer]] = {
    "orthogonal": orthogonal,
    "identity": identity,
    "normal": _normal_by_fan_in,
    "spectral_radius": spectral_radius,
}
"""Initialisers of `w_hh` by name. Each is made from one number, its gain, which is the spectral radius.

For "normal" the spectral radius is only nearly the gain. The function `normal` takes a standard deviation instead.
"""

INITS: dict[str, Initializer] = {
    **{name: make(1.0) for name, make in RECURRENT_INITS.items()},
    "lecun_normal": of_jax.lecun_normal(),
    "glorot_uniform": of_jax.glorot_uniform(),
    "he_normal": of_jax.he_normal(),
    "zeros": of_jax.zeros,
}
"""Initialisers by the names that `init_params` takes. Those of `RECURRENT_INITS` have gain 1."""


def initializer_of(given: str | Initializer, name: str) -> Initializer:
    """The initialiser with this name in `INITS`; an initialiser is returned unchanged."""
    if not isinstance(given, str):
        return given
    require_known(name, given, INITS)
    return INITS[given]


def __dir__() -> list[str]:
    return __all__
