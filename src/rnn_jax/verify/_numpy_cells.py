"""One step of each cell in NumPy, and its partial derivatives: formulas of their own, for the witnesses.

Here z and u have the shape (gates, hid), a state (parts, hid): a row for each gate, and for each part of the state.
Units do not mix, so each partial derivative is one number per unit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._cells.activations import activation_of
from .._cells.gru import GRUParams
from .._cells.leaky import LeakyParams
from .._cells.lstm import LSTMParams
from .._cells.vanilla import CellParams


class Partials(NamedTuple):
    """The partial derivatives of a new state, each by one argument of the step with the others constant.

    `z`, `u`  (parts, gates, hid): entry `[p, g]` is the derivative of part p by gate g.
    `s`       (parts, parts, hid): entry `[p, q]` is the derivative of part p by part q of the state before.
    `own`     (parts, hid) for each own parameter of the cell.
    """

    z: Any
    u: Any
    s: Any
    own: dict[str, Any]


class NumPyCell(NamedTuple):
    """`step(cell, z, u, s)` is the new state, for real or complex numbers; `partials` takes real numbers."""

    step: Callable[[Any, Any, Any, Any], Any]
    partials: Callable[[Any, Any, Any, Any], Partials]


# The cell with an activation and a leak, one for all units or one per unit

PHI: dict[str, Callable[[Any], Any]] = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0.0), "identity": lambda a: a}
D_PHI: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda a: 1 / np.cosh(a) ** 2,
    "relu": lambda a: 1.0 * (a > 0),
    "identity": np.ones_like,
}


def _phi(cell: Any) -> Callable[[Any], Any]:
    """φ by NumPy, or your own φ by JAX, in float64."""
    return PHI[cell.activation] if isinstance(cell.activation, str) else _by_jax(activation_of(cell.activation).phi)


def _d_phi(cell: Any) -> Callable[[Any], Any]:
    if isinstance(cell.activation, str):
        return D_PHI[cell.activation]
    return _by_jax(jax.vmap(jax.grad(activation_of(cell.activation).phi)))


def _by_jax(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of_numpy(a: Any) -> Any:
        with jax.enable_x64(True):
            return np.asarray(fn(jnp.asarray(a, jnp.float64)))

    return of_numpy


def _vanilla(cell: Any, z: Any, u: Any, s: Any) -> Any:
    return (1 - cell.leak) * s + cell.leak * _phi(cell)(z + u)


def _vanilla_partials(cell: Any, z: Any, u: Any, s: Any) -> Partials:
    (a,), (h,) = z + u, s
    by_a = np.array([[cell.leak * _d_phi(cell)(a)]])
    return Partials(by_a, by_a, np.array([[np.ones_like(h) - cell.leak]]), {"leak": np.array([_phi(cell)(a) - h])})


# Cells with gates


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def _d_sigmoid(a: Any) -> Any:
    return 1 / (2 * np.cosh(a / 2)) ** 2


def _d_tanh(a: Any) -> Any:
    return 1 / np.cosh(a) ** 2


def _gru(cell: Any, z: Any, u: Any, s: Any) -> Any:
    (z_r, z_k, z_n), (u_r, u_k, u_n), (h,) = z, u, s
    r, k = _sigmoid(z_r + u_r), _sigmoid(z_k + u_k)
    n = np.tanh(z_n + r * (u_n + cell.b_n))
    return np.array([(1 - k) * n + k * h])


def _gru_partials(cell: Any, z: Any, u: Any, s: Any) -> Partials:
    (z_r, z_k, z_n), (u_r, u_k, u_n), (h,) = z, u, s
    r, k = _sigmoid(z_r + u_r), _sigmoid(z_k + u_k)
    a_n = z_n + r * (u_n + cell.b_n)
    by_a_n = (1 - k) * _d_tanh(a_n)
    by_r = by_a_n * (u_n + cell.b_n) * _d_sigmoid(z_r + u_r)
    by_k = (h - np.tanh(a_n)) * _d_sigmoid(z_k + u_k)
    by_u_n = by_a_n * r
    return Partials(
        np.array([[by_r, by_k, by_a_n]]), np.array([[by_r, by_k, by_u_n]]), np.array([[k]]), {"b_n": np.array([by_u_n])}
    )


def _lstm(cell: Any, z: Any, u: Any, s: Any) -> Any:
    (a_i, a_f, a_g, a_o), (_, c) = z + u, s
    c_new = _sigmoid(a_f) * c + _sigmoid(a_i) * np.tanh(a_g)
    return np.array([_sigmoid(a_o) * np.tanh(c_new), c_new])


def _lstm_partials(cell: Any, z: Any, u: Any, s: Any) -> Partials:
    (a_i, a_f, a_g, a_o), (_, c) = z + u, s
    zero, (_, c_new) = np.zeros_like(c), _lstm(cell, z, u, s)
    c_by_a = np.array([_d_sigmoid(a_i) * np.tanh(a_g), _d_sigmoid(a_f) * c, _sigmoid(a_i) * _d_tanh(a_g), zero])
    h_by_c = _sigmoid(a_o) * _d_tanh(c_new)  # h reads c, so it has all partials of c, times this
    h_by_a = h_by_c * c_by_a + np.array([zero, zero, zero, _d_sigmoid(a_o) * np.tanh(c_new)])
    c_by_s = np.array([zero, _sigmoid(a_f)])
    by_a = np.array([h_by_a, c_by_a])
    return Partials(by_a, by_a, np.array([h_by_c * c_by_s, c_by_s]), {})


NUMPY_CELLS: dict[type[Any], NumPyCell] = {
    CellParams: NumPyCell(_vanilla, _vanilla_partials),
    LeakyParams: NumPyCell(_vanilla, _vanilla_partials),
    GRUParams: NumPyCell(_gru, _gru_partials),
    LSTMParams: NumPyCell(_lstm, _lstm_partials),
}


def numpy_cell(cell: Any) -> NumPyCell:
    """The cell in NumPy.

    Raises:
        TypeError: for a class of cells that is not the library's own.
    """
    if type(cell) not in NUMPY_CELLS:
        known = ", ".join(kind.__name__ for kind in NUMPY_CELLS)
        raise TypeError(f"This witness needs layers of {known}, got {type(cell).__name__}.")
    return NUMPY_CELLS[type(cell)]


def is_analytic(cell: Any) -> bool:
    """Whether the step is an analytic function, as the complex step needs."""
    return getattr(cell, "activation", "tanh") in ("tanh", "identity")
