"""The gated recurrent unit, with the reset after the product."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .gates import Gated, joined, of_sigmoid, of_tanh, split
from .protocol import Deltas, Leaf


class GRUKept(NamedTuple):
    """The derivatives of `h_t` by `z_n`, `u_n`, `z_r`, `z_k`, and by `h_{t-1}` with u constant: (*steps, hid) each."""

    z_n: Array
    u_n: Array
    r: Array
    k: Array
    h: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GRUParams(Gated):
    """Weights of a layer of gated recurrent units, with the reset gate after the product.

        r_t = σ(z_r + u_r)                         reset gate
        k_t = σ(z_k + u_k)                         update gate: how much of h_{t-1} is kept
        n_t = tanh(z_n + r_t ∘ (u_n + b_n))        new value
        h_t = (1 - k_t) ∘ n_t + k_t ∘ h_{t-1}

    with `(z_r, z_k, z_n) = x_t W_xh + b_h` and `(u_r, u_k, u_n) = h_{t-1} W_hh`. This is the GRU of cuDNN, torch,
    Keras (`reset_after`), flax and equinox, with the gates in torch's order. A gradient is a `GRUParams` too.

    Args:
        w_xh: the weights of the input, (in, 3 hid): the columns of r, then of k, then of n.
        w_hh: the weights of the recurrence, (hid, 3 hid), in the same order.
        b_h: the biases, (3 hid,).
        b_n: the bias of the recurrent product in n, (hid,). Those of r and k would only add to `b_h`.

    References: Cho et al. (2014), EMNLP, arXiv:1406.1078. Its version 1 has the reset after the product, as cuDNN has
    it; its version 3 and Chung et al. (2014), arXiv:1412.3555, have it before.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=3, hidden_size=5, output_size=2)
    >>> batch = rnn_jax.Batch(jnp.ones((7, 3)), jnp.ones(7, int))
    >>> grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    >>> _, gradients = jax.jit(grad_fn)(params, batch, rnn_jax.zero_state(params))
    >>> gradients.params.cells[0].w_hh.shape
    (5, 15)
    """

    gates: ClassVar[int] = 3
    parts: ClassVar[int] = 1
    gate_names: ClassVar[tuple[str, ...]] = ("r", "k", "n")
    memory: ClassVar[Mapping[str, int]] = {"k": 1}

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf
    b_n: Leaf

    def values(self, z: Array, u: Array) -> tuple[Array, Array, Array, Array]:
        """`r_t`, `k_t`, `n_t`, and `q_t = u_n + b_n`, of which the reset gate lets a part through."""
        (z_r, z_k, z_n), (u_r, u_k, u_n) = split(z, 3), split(u, 3)
        b_n = jnp.broadcast_to(self.b_n.astype(u.dtype), u_n.shape)
        r, k, q = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_k + u_k), u_n + b_n
        return r, k, jnp.tanh(z_n + r * q), q

    def slopes(self, kept: object, z: Array, u: Array) -> tuple[Array, ...]:
        """`4 r (1 - r)`, `4 k (1 - k)`, `1 - n²`: 1 where a gate is half open, or n is zero."""
        r, k, n, _ = self.values(z, u)
        return 4 * of_sigmoid(r), 4 * of_sigmoid(k), of_tanh(n)

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`h_t = (1 - k_t) ∘ n_t + k_t ∘ h_{t-1}`."""
        _, k, n, _ = self.values(z_t, u_t)
        return (1 - k) * n + k * s_tm1

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> GRUKept:
        """The derivatives of `h_t`."""
        r, k, n, q = self.values(z, u)
        by_z_n = (1 - k) * of_tanh(n)
        return GRUKept(by_z_n, by_z_n * r, by_z_n * q * of_sigmoid(r), (s_before - n) * of_sigmoid(k), k)

    def backward(self, kept_t: GRUKept, d_s_t: Array) -> tuple[Deltas, Array]:
        """`d_h_t` times each of these; `u_r` and `u_k` get what `z_r` and `z_k` get, `b_n` what `u_n` gets."""
        d = GRUKept(*(factor * d_s_t for factor in kept_t))
        return Deltas(joined(d.r, d.k, d.z_n), joined(d.r, d.k, d.u_n), {"b_n": d.u_n}), d.h
