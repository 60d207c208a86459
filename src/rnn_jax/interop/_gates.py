"""Gates in another order, one bias for two, and which of our cells another library has."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._cells.activations import Phi, check_activation
from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from .._cells.vanilla import CellParams
from .._checks import check_cell
from .._require import require_values
from ._arrays import joined, of_jax, values

GATES = {kind.gates: "".join(kind.gate_names) for kind in (CellParams, GRUParams, LSTMParams)}
"""Our gates, in our order, by their number: `rkn` of a GRU, `ifgo` of an LSTM. A vanilla cell has one, `a`."""


def reordered(x: Any, given: str, wanted: str) -> Any:
    """`x`, whose last axis holds the gates in the order `given`, with the gates as `wanted`."""
    hid = x.shape[-1] // len(given)
    parts = {gate: x[..., i * hid : (i + 1) * hid] for i, gate in enumerate(given)}
    return x if given == wanted else joined([parts[gate] for gate in wanted])


def one_bias(gates: int, b_x: Any, b_u: Any) -> tuple[Any, Any]:
    """`b_h` and `b_n` from the biases of the products with x and with h. What there is not is None.

    In a GRU, the reset gate multiplies the second bias of n, which is `b_n`. All other biases of a sum are one.
    """
    if b_x is None or b_u is None:
        return b_x, None
    shared = len(b_x) if gates != GRUParams.gates else 2 * (len(b_x) // gates)
    with np.errstate(over="ignore", invalid="ignore"):  # in half precision a sum may be infinite: torch says nothing
        summed = b_x[:shared] + b_u[:shared]
    return (summed, None) if shared == len(b_x) else (joined([summed, b_x[shared:]]), b_u[shared:])


def two_biases(cell: Any) -> tuple[Any, Any]:
    """The inverse: biases of both products, from which `one_bias` makes those of the cell to the bit.

    The second bias is -0.0 where it has nothing to add: `x + 0.0` is not x if x is -0.0.
    """
    nothing = np.full(cell.b_h.shape, -0.0, cell.b_h.dtype)
    if isinstance(cell, GRUParams):
        return cell.b_h, joined([nothing[: 2 * cell.b_n.shape[0]], cell.b_n])
    return cell.b_h, nothing


def built(w_xh: Any, w_hh: Any, b_h: Any = None, b_n: Any = None, activation: Phi = "tanh") -> Cell:
    """The cell with these weights, whose gates come in our order. No bias stands for zeros."""
    hid, wide = w_hh.shape
    b_h = np.zeros(wide, w_hh.dtype) if b_h is None else b_h
    b_n = np.zeros(hid, w_hh.dtype) if b_n is None else b_n
    made: Any
    if wide == GRUParams.gates * hid:
        made = GRUParams(w_xh, w_hh, b_h, b_n)
    elif wide == LSTMParams.gates * hid:
        made = LSTMParams(w_xh, w_hh, b_h)
    else:
        made = CellParams(w_xh, w_hh, b_h, activation)
    cell: Cell = of_jax(made)
    check_cell(cell)
    return cell


def require_activation(activation: Phi, gates: int, modules: Mapping[int, str]) -> None:
    """Raise unless it is an activation, and the one of `tanh` for a cell with gates."""
    check_activation(activation)
    if gates > 1 and activation != "tanh":
        raise ValueError(
            f"`activation` is for {modules[1]} only, got {activation!r} with {modules[gates]}: leave it out."
        )


def require_cell(name: str, cell: Any, library: str, modules: Mapping[type, str]) -> Any:
    """A cell with arrays of NumPy, or traced ones, if the library has such a cell.

    Raises:
        TypeError, ValueError: if it is not a cell, or the library has none like it.
    """
    check_cell(cell, name)
    if type(cell) not in modules:
        known = ", ".join(f"{kind.__name__} ({module})" for kind, module in modules.items())
        raise TypeError(
            f"`{name}` must be one of the cells that {library} has too, {known}, got {type(cell).__name__}."
        )
    if isinstance(cell, CellParams) and cell.leak != 1:
        raise ValueError(f"`{name}.leak` must be 1, because {library} has no leak, got {cell.leak}.")
    return values(name, cell)


def require_known_activation(name: str, cell: Any, known: tuple[str, ...], module: str) -> None:
    """Raise a `ValueError` if the activation of a vanilla cell is none that the module has."""
    if isinstance(cell, CellParams) and cell.activation not in known:
        one = " or ".join(map(repr, known))
        raise ValueError(f"`{name}.activation` must be {one}, as in {module}, got {cell.activation!r}.")


def require_zero(who: str, reason: str, **biases: Any) -> None:
    """Raise a `ValueError` unless the biases are zero; `reason` says why they must be."""
    for name, b in biases.items():
        require_values(who, b)
        if np.any(b):
            raise ValueError(f"`{name}` must be zero {reason}, got numbers up to {np.max(np.abs(b)):.3g}.")


def own_biases(cell: Any) -> dict[str, Any]:
    """All biases of a cell by name."""
    return {"b_h": cell.b_h} | ({"b_n": cell.b_n} if isinstance(cell, GRUParams) else {})
