"""Long short-term memory, with a forget gate."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .gates import Gated, joined, of_sigmoid, of_tanh, split
from .protocol import Deltas, Leaf


class LSTMKept(NamedTuple):
    """The derivatives of `c_t` by `a_i`, `a_f`, `a_g`, `c_{t-1}`, and of `h_t` by `a_o`, `c_t`: (*steps, hid) each."""

    i: Array
    f: Array
    g: Array
    passes: Array
    o: Array
    c: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LSTMParams(Gated):
    """Weights of a layer of long short-term memory. Its state is `(h, c)`, one array (*batch, 2 hid), h first.

        i_t = σ(a_i)         input gate               f_t = σ(a_f)    forget gate: how much of c_{t-1} is kept
        g_t = tanh(a_g)      new value                o_t = σ(a_o)    output gate
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t               h_t = o_t ∘ tanh(c_t)

    with `(a_i, a_f, a_g, a_o) = x_t W_xh + h_{t-1} W_hh + b_h`: the gates in the order of torch, flax and equinox. A
    gradient is an `LSTMParams` too.

    Args:
        w_xh: the weights of the input, (in, 4 hid): the columns of i, f, g and o.
        w_hh: the weights of the recurrence, (hid, 4 hid), in the same order.
        b_h: the biases, (4 hid,). `init_params` makes those of f larger by 1, which is in no equation.

    References: Hochreiter and Schmidhuber (1997), Neural Computation 9(8); the forget gate: Gers, Schmidhuber and
    Cummins (2000), Neural Computation 12(10); its bias of 1: Jozefowicz, Zaremba and Sutskever (2015), ICML.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="lstm", input_size=3, hidden_size=5, output_size=2)
    >>> params.cells[0].w_hh.shape, [s.shape for s in rnn_jax.zero_state(params, 4)]
    ((5, 20), [(4, 10)])
    """

    gates: ClassVar[int] = 4
    parts: ClassVar[int] = 2
    gate_names: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    bias: ClassVar[Mapping[str, float]] = {"f": 1.0}
    memory: ClassVar[Mapping[str, int]] = {"f": 1, "i": -1}

    w_xh: Leaf
    w_hh: Leaf
    b_h: Leaf

    def values(self, z: Array, u: Array) -> tuple[Array, Array, Array, Array]:
        """`i_t`, `f_t`, `g_t`, `o_t`."""
        i, f, g, o = split(z + u, 4)
        return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)

    def slopes(self, kept: object, z: Array, u: Array) -> tuple[Array, ...]:
        """`4 i (1 - i)`, `4 f (1 - f)`, `1 - g²`, `4 o (1 - o)`: 1 where a gate is half open, or g is zero."""
        i, f, g, o = self.values(z, u)
        return 4 * of_sigmoid(i), 4 * of_sigmoid(f), of_tanh(g), 4 * of_sigmoid(o)

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`(h_t, c_t)`."""
        i, f, g, o = self.values(z_t, u_t)
        c_t = f * split(s_tm1, 2)[1] + i * g
        return joined(o * jnp.tanh(c_t), c_t)

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> LSTMKept:
        """The derivatives of `c_t` and `h_t`."""
        (i, f, g, o), (_, c_before), tanh_c = self.values(z, u), split(s_before, 2), jnp.tanh(split(s, 2)[1])
        of_c = g * of_sigmoid(i), c_before * of_sigmoid(f), i * of_tanh(g), f
        return LSTMKept(*of_c, tanh_c * of_sigmoid(o), o * of_tanh(tanh_c))

    def backward(self, kept_t: LSTMKept, d_s_t: Array) -> tuple[Deltas, Array]:
        """`d_c_t` gets what `h_t` sends to `c_t`; then each gate gets its part, and `c_{t-1}` gets `f_t ∘ d_c_t`."""
        by, (d_h, d_c) = kept_t, split(d_s_t, 2)
        d_c = d_c + d_h * by.c
        d_a = joined(d_c * by.i, d_c * by.f, d_c * by.g, d_h * by.o)
        return Deltas(d_a), joined(jnp.zeros_like(d_h), d_c * by.passes)
