"""Initial weights, in the form of `jax.nn.initializers`, and `chrono`, which gives a network new biases."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers as of_jax
from jaxtyping import Array, Float, Key

from ._cells.elementwise import Elementwise
from ._checks import check_params
from ._require import POSITIVE, Number, require_key, require_known, require_number, require_sizes
from ._types import Params, accumulation_dtype

__all__ = ["INITS", "RECURRENT_INITS", "chrono", "identity", "normal", "orthogonal", "spectral_radius"]

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


def chrono(key: Key[Array, ""], params: Params, max_steps: int) -> Params:
    """`params` with gates that remember for up to `max_steps` steps: one time scale per unit.

    With `b = log u`, `u` uniform from 1 to `max_steps - 1`, each unit forgets within about `u` steps. In an LSTM, b is
    the bias of the forget gate and -b that of the input gate. In a GRU, b is the bias of the update gate k. The other
    biases stay as they are. For a cell that `elementwise` makes, its `memory` names the gates with b and with -b.

    Args:
        key: the randomness of the time scales.
        params: the network, whose layers must all have gates, like those of `init_params(cell="lstm")`.
        max_steps: the longest time scale, in steps; at least 3.

    Returns:
        The network with new biases.

    Raises:
        ValueError: for fewer than 3 steps, or `params` that do not fit each other.
        TypeError: if `max_steps` is not an integer, `params` are no parameters, or a layer has no gates that keep the
            past.

    References: Tallec and Ollivier (2018), ICLR, arXiv:1804.11188, section 2, for the LSTM equation 16.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=3, hidden_size=5, output_size=2)
    >>> params = rnn_jax.initializers.chrono(jax.random.key(1), params, 100)
    >>> bool((params.cells[0].b_h[5:10] > 0).all())  # the gate k
    True
    """
    require_key(key)
    require_sizes(least=3, max_steps=max_steps)
    check_params(params)
    cells = []
    for layer, (cell, cell_key) in enumerate(zip(params.cells, jax.random.split(key, len(params.cells)), strict=True)):
        signs: Mapping[str, int] = getattr(cell, "memory", {})
        if not signs:
            wanted = f"`params.cells[{layer}]` must have gates that keep the past, like LSTMParams"
            hint = ": give `memory` to `elementwise`" if isinstance(cell, Elementwise) else ""
            raise TypeError(f"{wanted}, got {type(cell).__name__}{hint}.")
        gates = dict(zip(cell.gate_names, jnp.split(cell.b_h, cell.gates), strict=True))
        units, dtype = cell.w_hh.shape[:1], accumulation_dtype(cell.b_h.dtype)
        b = jnp.log(jax.random.uniform(cell_key, units, dtype, 1, max_steps - 1))
        gates |= {gate: (sign * b).astype(cell.b_h.dtype) for gate, sign in signs.items()}
        cells.append(dataclasses.replace(cell, b_h=jnp.concatenate(list(gates.values()))))
    return params._replace(cells=tuple(cells))


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
