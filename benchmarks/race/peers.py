"""The same network in other libraries on JAX, with the same weights, differentiated by JAX."""

import jax
import jax.numpy as jnp
from jax import lax

from .autodiff import cross_entropy
from .compiled import Model, race
from .contenders import Raced
from .problems import Shape, make_problem


def haiku(shape: Shape, what: str) -> Raced:
    """`hk.VanillaRNN` by `hk.dynamic_unroll`, and `hk.Linear`. Its cell is fixed to ReLU: here tanh stands there."""
    import haiku as hk

    class VanillaRNN(hk.VanillaRNN):
        def __call__(self, inputs, prev_state):
            recurrent = hk.Linear(self.hidden_size, with_bias=self.double_bias, name="from_state")
            out = jnp.tanh(hk.Linear(self.hidden_size, name="from_input")(inputs) + recurrent(prev_state))
            return out, out

    def network(xs, h_0):
        hs, _ = hk.dynamic_unroll(VanillaRNN(shape.hidden, double_bias=False, name="rnn"), xs, h_0)
        return hk.Linear(shape.outputs, name="readout")(hs)

    w, xs, targets, h_0 = jax.tree.map(jnp.asarray, make_problem(shape))
    apply = hk.without_apply_rng(hk.transform(network)).apply
    params = {
        "rnn/from_input": {"w": w["w_xh"], "b": w["b_h"]},
        "rnn/from_state": {"w": w["w_hh"]},
        "readout": {"w": w["w_hy"], "b": w["b_y"]},
    }
    leaves = lambda p: {  # noqa: E731
        "w_xh": p["rnn/from_input"]["w"],
        "b_h": p["rnn/from_input"]["b"],
        "w_hh": p["rnn/from_state"]["w"],
        "w_hy": p["readout"]["w"],
        "b_y": p["readout"]["b"],
    }
    loss = lambda p, xs, targets, h_0: cross_entropy(apply(p, xs, h_0), targets)  # noqa: E731
    return race(Model(params, (xs, targets, h_0), loss, leaves), what)


def flax(shape: Shape, what: str) -> Raced:
    """`nn.RNN` of `nn.SimpleCell`, and `nn.Dense`."""
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, xs, h_0):
            cell = nn.SimpleCell(shape.hidden, name="cell")
            hs = nn.RNN(cell, time_major=True, name="rnn")(xs, initial_carry=h_0)
            return nn.Dense(shape.outputs, name="readout")(hs)

    w, xs, targets, h_0 = jax.tree.map(jnp.asarray, make_problem(shape))
    cell = {"i": {"kernel": w["w_xh"], "bias": w["b_h"]}, "h": {"kernel": w["w_hh"]}}
    params = {"params": {"cell": cell, "readout": {"kernel": w["w_hy"], "bias": w["b_y"]}}}

    def leaves(p):
        cell, readout = p["params"]["cell"], p["params"]["readout"]
        here = {"w_xh": cell["i"]["kernel"], "b_h": cell["i"]["bias"], "w_hh": cell["h"]["kernel"]}
        return here | {"w_hy": readout["kernel"], "b_y": readout["bias"]}

    loss = lambda p, xs, targets, h_0: cross_entropy(Network().apply(p, xs, h_0), targets)  # noqa: E731
    return race(Model(params, (xs, targets, h_0), loss, leaves), what)


def equinox(shape: Shape, what: str) -> Raced:
    """A cell of two `eqx.nn.Linear` written for one sequence, vmapped over the batch, under `lax.scan`."""
    import equinox as eqx

    class Network(eqx.Module):
        from_input: eqx.nn.Linear
        from_state: eqx.nn.Linear
        readout: eqx.nn.Linear

        def __call__(self, xs, h_0):
            def body(h, x):
                h = jnp.tanh(self.from_input(x) + self.from_state(h))
                return h, self.readout(h)

            return lax.scan(body, h_0, xs)[1]

    def linear(w, b):
        empty = eqx.nn.Linear(*w.shape, use_bias=b is not None, key=jax.random.key(0))
        return eqx.tree_at(lambda m: (m.weight, m.bias), empty, (w.T, b), is_leaf=lambda x: x is None)

    w, xs, targets, h_0 = jax.tree.map(jnp.asarray, make_problem(shape))
    network = Network(linear(w["w_xh"], w["b_h"]), linear(w["w_hh"], None), linear(w["w_hy"], w["b_y"]))
    params, static = eqx.partition(network, eqx.is_array)
    leaves = lambda p: {  # noqa: E731
        "w_xh": p.from_input.weight.T,
        "b_h": p.from_input.bias,
        "w_hh": p.from_state.weight.T,
        "w_hy": p.readout.weight.T,
        "b_y": p.readout.bias,
    }

    def loss(p, xs, targets, h_0):
        ys = jax.vmap(eqx.combine(p, static), in_axes=(1, 0), out_axes=1)(xs, h_0)
        return cross_entropy(ys, targets)

    return race(Model(params, (xs, targets, h_0), loss, leaves), what)
