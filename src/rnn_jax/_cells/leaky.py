"""A cell in which each unit has its own leak, which is trained."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .activations import Phi, activation_of, check_activation
from .protocol import Deltas, Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LeakyParams:
    """Weights of a layer in which each unit has its own leak α, a parameter with a gradient.

        h_t = (1 - α) ∘ h_{t-1} + α ∘ φ(a_t)

    Training may move α out of the range from 0 to 1. To prevent this, train another parameter, and compute the leak
    from it: `jax.nn.sigmoid(theta)`. A gradient is a `LeakyParams` too.

    Args:
        w_xh: the weights of the input, (in, hid).
        w_hh: the weights of the recurrence, (hid, hid).
        b_h: the bias, (hid,).
        leak: the α of each unit, (hid,).
        activation: a name ("tanh", "relu", "identity"), a function φ, or an `Activation`; static.

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
    gate_names: ClassVar[tuple[str, ...]] = ("a",)
    from_states: ClassVar[bool] = False
    lean: ClassVar[bool] = True

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf
    leak: Leaf
    activation: Phi = dataclasses.field(default="tanh", metadata={"static": True})

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`h_t = h_{t-1} + α ∘ (φ(a_t) - h_{t-1})`."""
        return s_tm1 + self._leak_of(s_tm1) * (activation_of(self.activation).phi(z_t + u_t) - s_tm1)

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> tuple[Array, Array]:
        """`(φ(a_t), h_{t-1})`; or `(a_t, h_{t-1})` if φ' cannot be computed from `φ(a_t)`."""
        phi = activation_of(self.activation)
        return z + u if phi.d_phi is None else phi.phi(z + u), s_before

    def backward(self, kept_t: tuple[Array, Array], d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`d_a_t = α ∘ φ'(a_t) ∘ d_h_t`, `d_α = (φ(a_t) - h_{t-1}) ∘ d_h_t`; `(1 - α) ∘ d_h_t` goes to `h_{t-1}`."""
        phi, (f_t, s_tm1) = activation_of(self.activation), kept_t
        f_t = phi.phi(f_t) if phi.d_phi is None else f_t
        deltas, d_s_tm1 = self.backward_by_slope(self.d_phi(kept_t), d_s_t)
        return deltas._replace(own={"leak": d_s_t * (f_t - s_tm1)}), d_s_tm1

    def slope(self, z: Array, u: Array) -> Array:
        """`φ'(a_t)` to full precision."""
        return activation_of(self.activation).slope_at(z + u)

    def d_phi(self, kept: tuple[Array, Array]) -> Array:
        """`φ'(a_t)` from what is kept."""
        phi = activation_of(self.activation)
        return phi.slope_at(kept[0]) if phi.d_phi is None else phi.d_phi(kept[0])

    def slopes(self, kept: tuple[Array, Array], z: Array, u: Array) -> tuple[Array, ...]:
        """`φ'(a_t)`."""
        return (self.d_phi(kept),)

    def backward_by_slope(self, slope_t: Array, d_s_t: Array) -> tuple[Deltas, Array | None]:
        """`backward` from `φ'(a_t)`, without the cotangent of the leak."""
        leak = self._leak_of(d_s_t)
        return Deltas(leak * d_s_t * slope_t), (1 - leak) * d_s_t

    def _leak_of(self, s: Array) -> Array:
        return jnp.broadcast_to(self.leak.astype(s.dtype), s.shape)

    def replace(self, **changes: Any) -> "LeakyParams":
        """The cell with some fields changed."""
        return dataclasses.replace(self, **changes)

    def check(self, name: str) -> None:
        """Raise unless the activation is valid."""
        check_activation(self.activation, f"{name}.activation")
