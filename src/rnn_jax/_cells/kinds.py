"""The cells by name."""

import dataclasses
from typing import Any

import jax
import numpy as np

from .._require import require_known
from .gru import GRUParams
from .leaky import LeakyParams
from .lstm import LSTMParams
from .protocol import Cell, lacking
from .vanilla import CellParams

CELLS: dict[str, type[Any]] = {"vanilla": CellParams, "gru": GRUParams, "lstm": LSTMParams}
"""The names that `init_params` takes. With a leak for each unit, the vanilla cell is a `LeakyParams`."""

OURS = (CellParams, LeakyParams, GRUParams, LSTMParams)


def require_kind(cell: object) -> type[Any]:
    """The class of cells with this name; a class of cells is returned unchanged.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything that is neither a name nor a class of cells.
    """
    if isinstance(cell, str):
        require_known("cell", cell, CELLS)
        return CELLS[cell]
    wanted = f"`cell` must be one of {', '.join(map(repr, CELLS))} or a class of cells"
    if isinstance(cell, type) and dataclasses.is_dataclass(cell):
        if lacks := lacking(cell):
            raise TypeError(f"{wanted}, but {cell.__name__} lacks {lacks}: see `rnn_jax.typing.Cell`.")
        return cell
    if isinstance(cell, type):
        raise TypeError(f"{wanted}, which is a dataclass, got {cell.__name__}.")
    kind = type(cell).__name__
    hint = f": pass its class, {kind}" if isinstance(cell, Cell) else ""
    raise TypeError(f"{wanted}, got {f'a cell, {kind}' if hint else kind}{hint}.")


def require_plain(kind: type[Any], activation: object, leak: Any) -> None:
    """Raise a `ValueError` if a class without them gets an activation or a leak other than the default."""
    if activation == "tanh" and not isinstance(leak, jax.core.Tracer) and np.ndim(leak) == 0 and leak == 1:
        return
    came = f"{leak.dtype}{list(leak.shape)}" if hasattr(leak, "dtype") else repr(leak)
    raise ValueError(
        f"`activation` and `leak` are for the vanilla cell only, got {activation!r} and {came} with {kind.__name__}: "
        "leave them out."
    )
