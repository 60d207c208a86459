"""The cells by name."""

import dataclasses
from typing import Any

from .._require import require_known
from .gru import GRUParams
from .leaky import LeakyParams
from .lstm import LSTMParams
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
    if isinstance(cell, type) and dataclasses.is_dataclass(cell) and hasattr(cell, "gates"):
        return cell
    raise TypeError(f"`cell` must be one of {', '.join(map(repr, CELLS))} or a class of cells, got {cell!r}.")
