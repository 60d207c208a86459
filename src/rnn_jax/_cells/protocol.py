"""Cells as elementwise maps: all that the engine knows about a layer.

    z_t = x_t W_xh + b_h                   all steps at once, before the loop
    u_t = h_{t-1} W_hh                     the only product in the loop
    s_t = f(z_t, u_t, s_{t-1}; own)        elementwise: the cell

The state s is one array `(*batch, parts · hid)`. Its first hid entries are h, which `W_hh`, the layer above and the
readout read. `own` are parameters with one value per unit, like a leak or a bias of the recurrence.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

if TYPE_CHECKING:
    Leaf = jax.Array
else:
    Leaf = Any  # JAX also builds trees whose leaves are not arrays: shapes, dtypes, shardings, flags


class Deltas(NamedTuple):
    """Cotangents of z, of u, and of the cell's own parameters at each step. `u` is None if it is the same as `z`."""

    z: Array
    u: Array | None = None
    own: dict[str, Array] = {}

    @property
    def of_u(self) -> Array:
        """The cotangent of u."""
        return self.z if self.u is None else self.u

    def for_products(self, cell: "Cell") -> "Deltas":
        """Those of z and u in the dtype of the weights, with which they are multiplied."""
        dtype = cell.w_hh.dtype
        return self._replace(z=self.z.astype(dtype), u=None if self.u is None else self.u.astype(dtype))


Pull = Callable[[Array], tuple[Deltas, Array | None]]
"""`d_s_t -> (deltas_t, d_s_tm1)`: the `backward` of a cell at some point."""


@runtime_checkable
class Cell(Protocol):
    """A cell: a frozen dataclass, registered with JAX.

    Its fields are `w_xh` (in, gates · hid), `w_hh` (hid, gates · hid), `b_h` (gates · hid,), then its own parameters
    (hid,), and static fields.

    `gates` is the number of values per unit in z and u, `parts` the number in the state. `lean` is true if autodiff
    keeps less per step than `Blocked` keeps within one block.

    A cell may also have `slope(z, u)` and `backward_by_slope(slope, d_s)`, for Jacobians: the derivative to full
    precision where the cell saturates. For `anatomy`, it may have `gate_names` and `slopes(kept, z, u)`: one array
    (*steps, hid) per gate, the derivative of its activation, scaled so that 1 is the largest for the sigmoid and the
    tanh; your own φ is not scaled. For `init_params`, a class may have `gate_names` and `bias`, which is added to the
    bias of a gate, and `own_start`, the first values of its own parameters. What they do not name is zero. For
    `initializers.chrono`, it may have `gate_names` and `memory`: 1 for a gate that keeps the past, -1 for one that lets
    the present in.
    """

    gates: ClassVar[int]
    parts: ClassVar[int]
    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf

    @property
    def from_states(self) -> bool:
        """Whether `kept` reads only `s`, which is kept anyway. Otherwise z and u are recomputed for it."""
        ...

    @property
    def lean(self) -> bool:
        """Whether autodiff keeps little per step."""
        ...

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """The new state `s_t`, elementwise."""
        ...

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> Any:
        """What `backward` reads, elementwise, over any leading axes."""
        ...

    def backward(self, kept_t: Any, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`(deltas_t, d_s_tm1)`, linear in `d_s_t` and elementwise. None means that `d_s_tm1` is zero."""
        ...

    def check(self, name: str) -> None:
        """Raise unless the static fields are valid."""
        ...


MEMBERS = (
    *("gates", "parts", "w_xh", "w_hh", "b_h"),
    *("from_states", "lean", "forward", "kept", "backward", "check"),
)
"""What a `Cell` must have."""


def lacking(cell: object) -> str:
    """What a dataclass, or a value of it, lacks to be a `Cell`: names separated by commas, or nothing."""
    fields = {field.name for field in dataclasses.fields(cell)}  # type: ignore[arg-type]
    return ", ".join(name for name in MEMBERS if name not in fields and not hasattr(cell, name))


def own_names(cell: Cell | type[Any]) -> tuple[str, ...]:
    """The names of the own parameters of a cell, or of a class of cells, which have one value per unit."""
    fields = dataclasses.fields(cell)  # type: ignore[arg-type]
    return tuple(field.name for field in fields[3:] if not field.metadata.get("static"))


def keeps_more(cell: Cell) -> bool:
    """Whether `backward` needs more than the states, and so much of it that keeping it can be worth its memory."""
    return not (cell.from_states or cell.lean)


def num_units(cell: Cell) -> int:
    """The width of h."""
    return int(cell.w_hh.shape[0])


def hidden(cell: Cell, s: Array) -> Array:
    """The part h of the states `s`, (*steps, hid): what `W_hh`, the layer above and the readout read.

    It has the dtype of the weights. The states may have a wider one (`state_dtype`).
    """
    return (s if cell.parts == 1 else s[..., : num_units(cell)]).astype(cell.w_hh.dtype)


def only_hidden(cell: Cell, d_h: Array) -> Array:
    """The cotangent of a state if only h was read: `d_h`, and zeros for the other parts."""
    if cell.parts == 1:
        return d_h
    rest = jnp.zeros((*d_h.shape[:-1], (cell.parts - 1) * num_units(cell)), d_h.dtype)
    return jnp.concatenate([d_h, rest], -1)


def add_to_hidden(cell: Cell, d_s: Array, d_h: Array) -> Array:
    """`d_s` with `d_h` added to its part h, or to all of `d_s` if both have the same width."""
    d_h = d_h.astype(d_s.dtype)
    if d_h.shape[-1] == d_s.shape[-1]:
        return d_h + d_s
    return jnp.concatenate([d_h + d_s[..., : num_units(cell)], d_s[..., num_units(cell) :]], -1)
