"""The vanilla cell: one activation, and one leak for all units."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax
from jaxtyping import Array

from .._require import Number, Range, require_known_number
from .activations import Phi, activation_of, check_activation, states_suffice
from .protocol import Deltas, Leaf

if TYPE_CHECKING:
    Leak = float
else:
    Leak = Number  # any number is accepted, and stored as a float

LEAKY = "use `LeakyParams`, or pass `init_params` an array with one leak per unit, which may be traced"
LEAK = Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class CellParams:
    """Weights of one layer, with its activation and its leak.

        h_t = (1 - α) h_{t-1} + α φ(x_t W_xh + h_{t-1} W_hh + b_h)

    `replace` changes some fields and keeps the others. A gradient is a `CellParams` too.

    Args:
        w_xh: the weights of the input, (in, hid).
        w_hh: the weights of the recurrence, (hid, hid).
        b_h: the bias, (hid,).
        activation: a name ("tanh", "relu", "identity"), a function φ, or an `Activation`. It is static: part of the
            structure of the parameters.
        leak: the α of all units, above 0 and at most 1: the time step divided by the time constant. It is static, so it
            must not be traced. For one trained leak per unit use `LeakyParams`.

    Raises:
        ValueError: for a leak out of range.
        TypeError: for a leak that is not a number, or is traced.

    >>> import jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.CellParams(jnp.ones((2, 3)), jnp.eye(3), jnp.zeros(3))
    >>> cell.activation, cell.leak
    ('tanh', 1.0)
    >>> cell.replace(leak=0.5).replace(w_hh=2 * cell.w_hh).leak
    0.5
    """

    gates: ClassVar[int] = 1
    parts: ClassVar[int] = 1
    gate_names: ClassVar[tuple[str, ...]] = ("a",)

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf
    activation: Phi = dataclasses.field(default="tanh", metadata={"static": True})
    leak: Leak = dataclasses.field(default=1.0, metadata={"static": True})

    def __post_init__(self) -> None:
        """Make the leak a Python float, because static fields must be hashable and comparable."""
        if type(self.leak) is not float or not LEAK.holds(self.leak):
            object.__setattr__(self, "leak", known_leak(self.leak))

    @property
    def from_states(self) -> bool:
        """Without leak, φ' follows from `h_t`. With a leak, two rounded states would give a wrong φ' near a kink."""
        return states_suffice(self.activation) and self.leak == 1

    @property
    def lean(self) -> bool:
        """Autodiff keeps one bit per relu unit, and for a leaky unit no more than `Blocked` keeps."""
        return self.activation in ("relu", "identity") or self.leak != 1

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`h_t = (1 - α) h_{t-1} + α φ(a_t)`, `a_t = z_t + u_t`."""
        return self._mixed(activation_of(self.activation).phi(z_t + u_t), s_tm1)

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> Array:
        """`φ(a_t)`, which is `h_t` without leak; or `a_t` if φ' cannot be computed from `φ(a_t)`."""
        if self.from_states:
            return s
        phi = activation_of(self.activation)
        return z + u if phi.d_phi is None else phi.phi(z + u)

    def backward(self, kept_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`d_a_t = α d_h_t ∘ φ'(a_t)`; `(1 - α) d_h_t` goes to `h_{t-1}`."""
        return self.backward_by_slope(self.d_phi(kept_t), d_s_t)

    def slope(self, z: Array, u: Array) -> Array:
        """`φ'(a_t)` to full precision, also where `1 - h²` loses it. Its logarithm needs this."""
        return activation_of(self.activation).slope_at(z + u)

    def d_phi(self, kept: Array) -> Array:
        """`φ'(a_t)` from what is kept."""
        phi = activation_of(self.activation)
        return phi.slope_at(kept) if phi.d_phi is None else phi.d_phi(kept)

    def slopes(self, kept: Array, z: Array, u: Array) -> tuple[Array, ...]:
        """`φ'(a_t)`."""
        return (self.d_phi(kept),)

    def backward_by_slope(self, slope_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`backward` from `φ'(a_t)`."""
        if self.leak == 1:
            return Deltas(d_s_t * slope_t), None
        return Deltas(self.leak * d_s_t * slope_t), (1 - self.leak) * d_s_t

    def _mixed(self, f_t: Array, s_tm1: Array) -> Array:
        return f_t if self.leak == 1 else (1 - self.leak) * s_tm1 + self.leak * f_t

    def replace(self, **changes: Any) -> "CellParams":
        """The cell with some fields changed."""
        return dataclasses.replace(self, **changes)

    def check(self, name: str) -> None:
        """Raise unless the activation is valid."""
        check_activation(self.activation, f"{name}.activation")


def known_leak(leak: object) -> float:
    """One leak for all units as a float, because it is part of the structure of the parameters."""
    return require_known_number("leak", leak, LEAK, LEAKY)


def plain(cells: tuple[Any, ...], who: str) -> tuple[CellParams, ...]:
    """`cells`, checked to be `CellParams`, the only class of cells that `who` supports.

    Raises:
        TypeError: if a cell is of another class.
    """
    for cell in cells:
        if not isinstance(cell, CellParams):
            raise TypeError(f"{who} needs layers of CellParams, got {type(cell).__name__}.")
    return cells
