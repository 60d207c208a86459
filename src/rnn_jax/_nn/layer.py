"""A layer: its cell and its dropout masks, which are the same at all steps."""

from typing import Any, NamedTuple

from jaxtyping import Array

from .._cells.protocol import hidden
from .._types import Drop, Hidden, Params
from .dropout import between_of, dropped, recurrent_of


class Layer(NamedTuple):
    """A cell and its dropout masks.

    They are constant in time, so this tree must never be cut in time: that would cut the batch axis of the masks.

    `recurrent`  the dropout mask on h where `W_hh` reads it; None stands for ones.
    `between`    the dropout mask on h where the layer above or the readout reads it; None stands for ones.
    """

    cell: Any
    recurrent: Hidden | None = None
    between: Hidden | None = None

    def read(self, s: Array) -> Array:
        """What `W_hh` reads of the states `s`."""
        return dropped(hidden(self.cell, s), self.recurrent)

    def up(self, s: Array) -> Array:
        """What the layer above or the readout reads of the states `s`."""
        return dropped(hidden(self.cell, s), self.between)

    def down(self, d_x: Array) -> Array:
        """The cotangent of h from the cotangent of `up(s)`."""
        return dropped(d_x, self.between)


def layers_of(params: Params, drop: Drop | None) -> tuple[Layer, ...]:
    """The layers of a network, lowest first."""
    return tuple(Layer(cell, recurrent_of(drop, i), between_of(drop, i)) for i, cell in enumerate(params.cells))
