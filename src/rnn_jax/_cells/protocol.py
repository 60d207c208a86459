"""Cells as elementwise maps: all that the engine knows of a layer.

    z_t = x_t W_xh + b_h                   all steps at once, before the loop
    u_t = h_{t-1} W_hh                     the only product in the loop
    s_t = f(z_t, u_t, s_{t-1}; own)        elementwise: the cell

The state s is one array `(*batch, parts · hid)`, of which the first hid entries are h: what `W_hh`, the layer above and
the readout read. `own` are parameters with one value per unit, like a leak or a bias of the recurrence.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._require import require_known
from .activations import ACTIVATIONS

if TYPE_CHECKING:
    Leaf = jax.Array
else:
    Leaf = Any  # JAX rebuilds a tree with whatever was made of its leaves: shapes, dtypes, shardings, flags


class Deltas(NamedTuple):
    """Cotangents of z, of u, and of the own parameters at each step; `u` is None where it is the same array as z."""

    z: Array
    u: Array | None = None
    own: dict[str, Array] = {}  # noqa: RUF012  (never changed)

    @property
    def of_u(self) -> Array:
        """The cotangent of u."""
        return self.z if self.u is None else self.u


Pull = Callable[[Array], tuple[Deltas, Array | None]]
"""`d_s_t -> (deltas_t, d_s_tm1)`: the `backward` of a cell at some point."""


@runtime_checkable
class Cell(Protocol):
    """A registered frozen dataclass: `w_xh` (in, gates · hid), `w_hh` (hid, gates · hid), `b_h` (gates · hid,), then
    own parameters (hid,), and static fields.

    `gates` is the number of values per unit in z and u, `parts` the number in the state. `lean` says that autodiff
    keeps little of a step, less than `Blocked` does in one block.

    A cell may also have `slope(z, u)` and `backward_by_slope(slope, d_s)`, for the Jacobians: the derivative with all
    its digits where the cell saturates.
    """

    gates: ClassVar[int]
    parts: ClassVar[int]
    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf

    @property
    def from_states(self) -> bool:
        """Whether `kept` reads `s` alone, which is kept anyway; otherwise z and u are computed again for it."""
        ...

    @property
    def lean(self) -> bool:
        """Whether autodiff keeps little of a step."""
        ...

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`s_t`, elementwise."""
        ...

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> Any:
        """What `backward` reads, elementwise, over any leading axes."""
        ...

    def backward(self, kept_t: Any, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`(deltas_t, d_s_tm1)`, linear in `d_s_t` and elementwise; None stands for zero."""
        ...

    def check(self, name: str) -> None:
        """Raise unless the static fields are what they must be."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class CellParams:
    """Weights of one layer: `w_xh` (in, hid), `w_hh` (hid, hid), `b_h` (hid,).

    The activation belongs to the weights and is static: "tanh" unless given. So is `leak`, the α of
    `h_t = (1 - α) h_{t-1} + α φ(a_t)`, which is the time step over the time constant: a number, never traced, because
    the program depends on it. For one leak per unit, with a gradient, take `LeakyParams`. A gradient is a `CellParams`
    too.

    >>> import jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.CellParams(jnp.ones((2, 3)), jnp.eye(3), jnp.zeros(3))
    >>> cell.activation, cell.leak
    ('tanh', 1.0)
    """

    gates: ClassVar[int] = 1
    parts: ClassVar[int] = 1

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf
    activation: str = dataclasses.field(default="tanh", metadata={"static": True})
    leak: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def from_states(self) -> bool:
        """Without leak φ' comes from `h_t`. With it, two rounded states would give a wrong φ' near a kink."""
        return self.leak == 1

    @property
    def lean(self) -> bool:
        """Of relu autodiff keeps one bit, and of a leaky unit no more than `Blocked`."""
        return self.activation != "tanh" or self.leak != 1

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`h_t = (1 - α) h_{t-1} + α φ(a_t)`, `a_t = z_t + u_t`."""
        return self._mixed(ACTIVATIONS[self.activation].phi(z_t + u_t), s_tm1)

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> Array:
        """`φ(a_t)`, which is `h_t` without leak."""
        return s if self.from_states else ACTIVATIONS[self.activation].phi(z + u)

    def backward(self, kept_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`d_a_t = α d_h_t ∘ φ'(a_t)`, and `(1 - α) d_h_t`."""
        return self.backward_by_slope(self.d_phi(kept_t), d_s_t)

    def slope(self, z: Array, u: Array) -> Array:
        """`φ'(a_t)` with all its digits, where `1 - h²` is rounding: for those who take its logarithm."""
        return ACTIVATIONS[self.activation].slope(z + u)

    def d_phi(self, kept: Array) -> Array:
        """`φ'(a_t)` from what is kept."""
        return ACTIVATIONS[self.activation].d_phi(kept)

    def backward_by_slope(self, slope_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`backward` from `φ'(a_t)`."""
        if self.leak == 1:
            return Deltas(d_s_t * slope_t), None
        return Deltas(self.leak * d_s_t * slope_t), (1 - self.leak) * d_s_t

    def _mixed(self, f_t: Array, s_tm1: Array) -> Array:
        return f_t if self.leak == 1 else (1 - self.leak) * s_tm1 + self.leak * f_t

    def check(self, name: str) -> None:
        """Raise unless activation and leak are what they must be."""
        require_known("activation", self.activation, ACTIVATIONS)
        check_leak(self.leak, f"{name}.leak")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LeakyParams:
    """Weights of a layer whose units leak each at its own rate: `leak` (hid,), a parameter with a gradient.

        h_t = (1 - α) ∘ h_{t-1} + α ∘ φ(a_t)

    Nothing keeps α between 0 and 1 in training: make it of what is trained, as `jax.nn.sigmoid(theta)`. A gradient is a
    `LeakyParams` too.

    References: Tallec and Ollivier (2018), ICLR, arXiv:1804.11188: leaks as time scales.

    >>> import dataclasses, jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> w = params.cells[0]
    >>> leaky = rnn_jax.LeakyParams(w.w_xh, w.w_hh, w.b_h, leak=jnp.linspace(0.1, 1.0, 5))
    >>> batch = rnn_jax.Batch(jnp.ones((7, 3)), jnp.ones(7, int))
    >>> grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    >>> _, gradients = jax.jit(grad_fn)(params._replace(cells=(leaky,)), batch, rnn_jax.zero_state(params))
    >>> gradients.params.cells[0].leak.shape
    (5,)
    """

    gates: ClassVar[int] = 1
    parts: ClassVar[int] = 1
    from_states: ClassVar[bool] = False
    lean: ClassVar[bool] = True

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf
    leak: Leaf
    activation: str = dataclasses.field(default="tanh", metadata={"static": True})

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`h_t = h_{t-1} + α ∘ (φ(a_t) - h_{t-1})`."""
        return s_tm1 + self._leak_of(s_tm1) * (ACTIVATIONS[self.activation].phi(z_t + u_t) - s_tm1)

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> tuple[Array, Array]:
        """`(φ(a_t), h_{t-1})`."""
        return ACTIVATIONS[self.activation].phi(z + u), s_before

    def backward(self, kept_t: tuple[Array, Array], d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`d_a_t = α ∘ φ'(a_t) ∘ d_h_t`, `d_α = (φ(a_t) - h_{t-1}) ∘ d_h_t`, and `(1 - α) ∘ d_h_t`."""
        f_t, s_tm1 = kept_t
        deltas, d_s_tm1 = self.backward_by_slope(self.d_phi(kept_t), d_s_t)
        return deltas._replace(own={"leak": d_s_t * (f_t - s_tm1)}), d_s_tm1

    def slope(self, z: Array, u: Array) -> Array:
        """`φ'(a_t)` with all its digits."""
        return ACTIVATIONS[self.activation].slope(z + u)

    def d_phi(self, kept: tuple[Array, Array]) -> Array:
        """`φ'(a_t)` from what is kept."""
        return ACTIVATIONS[self.activation].d_phi(kept[0])

    def backward_by_slope(self, slope_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`backward` from `φ'(a_t)`, without the cotangent of the leak."""
        leak = self._leak_of(d_s_t)
        return Deltas(leak * d_s_t * slope_t), (1 - leak) * d_s_t

    def _leak_of(self, s: Array) -> Array:
        return jnp.broadcast_to(self.leak, s.shape)

    def check(self, name: str) -> None:
        """Raise unless the activation is one."""
        require_known("activation", self.activation, ACTIVATIONS)


def check_leak(leak: object, name: str) -> None:
    """Raise unless `leak` is a number above 0 and at most 1, known while the program is made."""
    if isinstance(leak, jax.core.Tracer):
        raise TypeError(
            f"`{name}` must be a number that is known at trace time, because it is part of the structure of the "
            f"parameters, got {leak!r}: loop over its values in Python instead of jit, vmap or grad."
        )
    if not isinstance(leak, (int, float, np.floating)) or isinstance(leak, bool):
        raise TypeError(f"`{name}` must be a number above 0 and at most 1, got {leak!r}.")
    if not 0 < leak <= 1:
        raise ValueError(f"`{name}` must be above 0 and at most 1, got {leak!r}.")


def plain(cells: tuple[Any, ...], who: str) -> tuple[CellParams, ...]:
    """`cells`, if each is a `CellParams`, the only one that `who` knows.

    Raises:
        TypeError: otherwise.
    """
    for cell in cells:
        if not isinstance(cell, CellParams):
            raise TypeError(f"{who} needs layers of CellParams, got {type(cell).__name__}.")
    return cells


def own_names(cell: Cell) -> tuple[str, ...]:
    """The names of the parameters with one value per unit."""
    fields = dataclasses.fields(cell)  # type: ignore[arg-type]
    return tuple(field.name for field in fields[3:] if not field.metadata.get("static"))


def num_units(cell: Cell) -> int:
    """The width of h."""
    return int(cell.w_hh.shape[0])


def hidden(cell: Cell, s: Array) -> Array:
    """The part h of a state: what `W_hh`, the layer above and the readout read."""
    return s if cell.parts == 1 else s[..., : num_units(cell)]


def only_hidden(cell: Cell, d_h: Array) -> Array:
    """A cotangent of a state of which only h was read."""
    if cell.parts == 1:
        return d_h
    rest = jnp.zeros((*d_h.shape[:-1], (cell.parts - 1) * num_units(cell)), d_h.dtype)
    return jnp.concatenate([d_h, rest], -1)


def add_to_hidden(cell: Cell, d_s: Array, d_h: Array) -> Array:
    """`d_s` with `d_h` added to its part h, or to all of it if `d_h` is as wide."""
    if d_h.shape[-1] == d_s.shape[-1]:
        return d_h + d_s
    return jnp.concatenate([d_h + hidden(cell, d_s), d_s[..., num_units(cell) :]], -1)


def push(pull: Pull, dots: Deltas, s_dot: Array) -> Array:
    """The tangent of `s_t`: `pull`, a cell's `backward` at some point, is linear, and this is its transpose.

    Where `pull` sends the same to z and u, `dots.z` is the tangent of `z_t + u_t`, and `dots.u` is None.
    """

    def with_tangents(d_s: Array) -> tuple[Any, ...]:
        deltas, d_s_tm1 = pull(d_s)
        deltas = deltas._replace(own={name: deltas.own[name] for name in dots.own})
        return (deltas,) if d_s_tm1 is None else (deltas, d_s_tm1)

    passes = len(jax.eval_shape(with_tangents, s_dot)) == 2
    return jax.linear_transpose(with_tangents, s_dot)((dots, s_dot) if passes else (dots,))[0]


def has_one_delta(pull: Pull, s: Any) -> bool:
    """Whether `pull` sends the same to z and u."""
    return jax.eval_shape(pull, s)[0].u is None


def linearised(cell: Cell, z: Array, u: Array, s_before: Array, s: Array) -> Pull:
    """`backward` at these points. Where the cell can tell its slope, small ones keep their digits: `1 - h²` is rounding
    where tanh saturates.
    """
    if hasattr(cell, "backward_by_slope"):
        return partial(cell.backward_by_slope, cell.slope(z, u))  # type: ignore[attr-defined]
    return partial(cell.backward, cell.kept(z, u, s_before, s))
