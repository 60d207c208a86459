"""Two gated cells, only for the tests: they show that the interface of a cell suffices for them."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rnn_jax._cells.protocol import Deltas


class Gated:
    """The common part: the backward pass needs z and u again, and there are no static fields to check."""

    from_states: ClassVar[bool] = False
    lean: ClassVar[bool] = False

    def check(self, name):
        """There is nothing to check."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Gru(Gated):
    """Cho et al. (2014), reset after the product: gates r, k, n, and a bias `b_n` of the recurrence."""

    gates: ClassVar[int] = 3
    parts: ClassVar[int] = 1

    w_xh: Any
    w_hh: Any
    b_h: Any
    b_n: Any

    def values(self, z, u):
        (z_r, z_k, z_n), (u_r, u_k, u_n) = jnp.split(z, 3, -1), jnp.split(u, 3, -1)
        r, k, q = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_k + u_k), u_n + jnp.broadcast_to(self.b_n, u_n.shape)
        return r, k, q, jnp.tanh(z_n + r * q)

    def forward(self, z_t, u_t, s_tm1):
        _, k, _, n = self.values(z_t, u_t)
        return (1 - k) * n + k * s_tm1

    def kept(self, z, u, s_before, s):
        r, k, q, n = self.values(z, u)
        by_n = (1 - k) * (1 - n * n)
        return by_n, by_n * r, by_n * q * r * (1 - r), (s_before - n) * k * (1 - k), k

    def backward(self, kept_t, d_s_t):
        d_n, d_q, d_r, d_k, d_s = (factor * d_s_t for factor in kept_t)
        d_z, d_u = jnp.concatenate([d_r, d_k, d_n], -1), jnp.concatenate([d_r, d_k, d_q], -1)
        return Deltas(d_z, d_u, {"b_n": d_q}), d_s


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lstm(Gated):
    """Gers et al. (2000): gates i, f, g, o; the state is (h, c)."""

    gates: ClassVar[int] = 4
    parts: ClassVar[int] = 2

    w_xh: Any
    w_hh: Any
    b_h: Any

    def values(self, z, u):
        i, f, g, o = jnp.split(z + u, 4, -1)
        return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)

    def forward(self, z_t, u_t, s_tm1):
        i, f, g, o = self.values(z_t, u_t)
        c_t = f * jnp.split(s_tm1, 2, -1)[1] + i * g
        return jnp.concatenate([o * jnp.tanh(c_t), c_t], -1)

    def kept(self, z, u, s_before, s):
        (i, f, g, o), c_before, t = self.values(z, u), jnp.split(s_before, 2, -1)[1], jnp.tanh(jnp.split(s, 2, -1)[1])
        of_gates = g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g), t * o * (1 - o)
        return (*of_gates, o * (1 - t * t), f)

    def backward(self, kept_t, d_s_t):
        i, f, g, o, by_c, passes = kept_t
        d_h, d_c = jnp.split(d_s_t, 2, -1)
        d_c = d_c + d_h * by_c
        d_a = jnp.concatenate([d_c * i, d_c * f, d_c * g, d_h * o], -1)
        return Deltas(d_a), jnp.concatenate([jnp.zeros_like(d_h), d_c * passes], -1)
