"""The same network, with the same weights, in four libraries on JAX.

Each function imports what it needs. Where a library has its gates apart or in another order, our columns are taken
apart before the race, and its gradients put together after it.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .contenders import Raced
from .networks import Model, cross_entropy, race
from .problems import Shape, make_problem


def numbers(cell: str, shape: Shape) -> tuple[dict[str, Any], Any, Any, Any]:
    """The weights, features, classes and first state of a problem; a state of one part is no tuple."""
    w, xs, targets, s_0 = jax.tree.map(jnp.asarray, make_problem(cell, shape))
    return w, xs, targets, s_0 if len(s_0) > 1 else s_0[0]


def gates(x: Any, count: int) -> list[Any]:
    """The columns of each gate."""
    return jnp.split(x, count, -1)


def joined(*columns: Any) -> Any:
    """The inverse of `gates`."""
    return jnp.concatenate(columns, -1)


def haiku(cell: str, shape: Shape, what: str) -> Raced:
    """`hk.VanillaRNN` or `hk.LSTM` by `hk.dynamic_unroll`, and `hk.Linear`."""
    import haiku as hk

    w, xs, targets, s_0 = numbers(cell, shape)
    core, params, of_cell = {"vanilla": haiku_vanilla, "lstm": haiku_lstm}[cell](hk, shape.hidden, w)

    def network(xs, s_0):
        hs, _ = hk.dynamic_unroll(core(), xs, s_0 if cell == "vanilla" else hk.LSTMState(*s_0))
        return hk.Linear(shape.outputs, name="readout")(hs)

    apply = hk.without_apply_rng(hk.transform(network)).apply
    params = params | {"readout": {"w": w["w_hy"], "b": w["b_y"]}}
    leaves = lambda p: of_cell(p) | {"w_hy": p["readout"]["w"], "b_y": p["readout"]["b"]}  # noqa: E731
    loss = lambda p, xs, targets, s_0: cross_entropy(apply(p, xs, s_0), targets)  # noqa: E731
    return race(Model(params, (xs, targets, s_0), loss, leaves), what)


def haiku_vanilla(hk, hidden, w):
    """`hk.VanillaRNN`, its parameters, and the way back. Its cell is fixed to ReLU: here tanh stands there."""

    class VanillaRNN(hk.VanillaRNN):
        def __call__(self, inputs, prev_state):
            recurrent = hk.Linear(self.hidden_size, with_bias=self.double_bias, name="from_state")
            out = jnp.tanh(hk.Linear(self.hidden_size, name="from_input")(inputs) + recurrent(prev_state))
            return out, out

    params = {"rnn/from_input": {"w": w["w_xh"], "b": w["b_h"]}, "rnn/from_state": {"w": w["w_hh"]}}
    leaves = lambda p: {  # noqa: E731
        "w_xh": p["rnn/from_input"]["w"],
        "b_h": p["rnn/from_input"]["b"],
        "w_hh": p["rnn/from_state"]["w"],
    }
    return lambda: VanillaRNN(hidden, double_bias=False, name="rnn"), params, leaves


def haiku_lstm(hk, hidden, w):
    """`hk.LSTM`, its parameters, and the way back: one product, gates i, g, f, o, and 1 added to f in each step."""
    swap = lambda x: joined(*(gates(x, 4)[i] for i in (0, 2, 1, 3)))  # noqa: E731
    i, f, g, o = gates(w["b_h"], 4)
    params = {"rnn/linear": {"w": swap(jnp.concatenate([w["w_xh"], w["w_hh"]])), "b": joined(i, g, f - 1, o)}}

    def leaves(p):
        both = swap(p["rnn/linear"]["w"])
        return {"w_xh": both[:-hidden], "w_hh": both[-hidden:], "b_h": swap(p["rnn/linear"]["b"])}

    return lambda: hk.LSTM(hidden, name="rnn"), params, leaves


FLAX = {  # the class, its names of the gates in our order, and which of its layers have the bias
    "vanilla": ("SimpleCell", ("",), "i"),
    "gru": ("GRUCell", ("r", "z", "n"), "i"),
    "lstm": ("OptimizedLSTMCell", ("i", "f", "g", "o"), "h"),
}


def flax(cell: str, shape: Shape, what: str) -> Raced:
    """`nn.RNN` of `nn.SimpleCell`, `nn.GRUCell` or `nn.OptimizedLSTMCell`, and `nn.Dense`."""
    import flax.linen as nn

    kind, names, with_bias = FLAX[cell]

    class Network(nn.Module):
        @nn.compact
        def __call__(self, xs, s_0):
            layer = getattr(nn, kind)(shape.hidden, name="cell")
            carry = s_0[::-1] if cell == "lstm" else s_0  # c first
            hs = nn.RNN(layer, time_major=True, name="rnn")(xs, initial_carry=carry)
            return nn.Dense(shape.outputs, name="readout")(hs)

    w, xs, targets, s_0 = numbers(cell, shape)
    layers = {f"{side}{name}": {} for side in "ih" for name in names}
    for side, kernel in (("i", "w_xh"), ("h", "w_hh")):
        for name, columns in zip(names, gates(w[kernel], len(names)), strict=True):
            layers[f"{side}{name}"]["kernel"] = columns
    for name, columns in zip(names, gates(w["b_h"], len(names)), strict=True):
        layers[f"{with_bias}{name}"]["bias"] = columns
    if cell == "gru":
        layers["hn"]["bias"] = w["b_n"]
    params = {"params": {"cell": layers, "readout": {"kernel": w["w_hy"], "bias": w["b_y"]}}}

    def leaves(p):
        layers, readout = p["params"]["cell"], p["params"]["readout"]
        of = lambda side, kind: joined(*(layers[f"{side}{name}"][kind] for name in names))  # noqa: E731
        found = {"w_xh": of("i", "kernel"), "w_hh": of("h", "kernel"), "b_h": of(with_bias, "bias")}
        found |= {"b_n": layers["hn"]["bias"]} if cell == "gru" else {}
        return found | {"w_hy": readout["kernel"], "b_y": readout["bias"]}

    loss = lambda p, xs, targets, s_0: cross_entropy(Network().apply(p, xs, s_0), targets)  # noqa: E731
    return race(Model(params, (xs, targets, s_0), loss, leaves), what)


def equinox(cell: str, shape: Shape, what: str) -> Raced:
    """A cell written for one sequence, under `lax.scan`, vmapped over the batch; its weights are (out, in)."""
    import equinox as eqx

    class Vanilla(eqx.Module):
        weight_ih: eqx.nn.Linear
        weight_hh: eqx.nn.Linear

        def __call__(self, x, h):
            return jnp.tanh(self.weight_ih(x) + self.weight_hh(h))

    class Network(eqx.Module):
        cell: eqx.Module
        readout: eqx.nn.Linear

        def __call__(self, xs, s_0):
            def body(s, x):
                s = self.cell(x, s)
                return s, self.readout(s[0] if cell == "lstm" else s)

            return lax.scan(body, s_0, xs)[1]

    def linear(w, b):
        empty = eqx.nn.Linear(*w.shape, use_bias=b is not None, key=jax.random.key(0))
        return eqx.tree_at(lambda m: (m.weight, m.bias), empty, (w.T, b), is_leaf=lambda x: x is None)

    where = {"w_xh": "weight_ih", "w_hh": "weight_hh", "b_h": "bias", "b_n": "bias_n"}
    w, xs, targets, s_0 = numbers(cell, shape)
    here = {ours: its for ours, its in where.items() if ours in w}
    if cell == "vanilla":
        layer = Vanilla(linear(w["w_xh"], w["b_h"]), linear(w["w_hh"], None))
        of_cell = lambda p: {"w_xh": p.weight_ih.weight.T, "b_h": p.weight_ih.bias, "w_hh": p.weight_hh.weight.T}  # noqa: E731
    else:
        kind = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[cell]
        empty = kind(shape.inputs, shape.hidden, key=jax.random.key(0))
        places = lambda m: [getattr(m, its) for its in here.values()]  # noqa: E731
        layer = eqx.tree_at(places, empty, [w[ours].T for ours in here])
        of_cell = lambda p: {ours: getattr(p, its).T for ours, its in here.items()}  # noqa: E731
    params, static = eqx.partition(Network(layer, linear(w["w_hy"], w["b_y"])), eqx.is_array)
    leaves = lambda p: of_cell(p.cell) | {"w_hy": p.readout.weight.T, "b_y": p.readout.bias}  # noqa: E731

    def loss(p, xs, targets, s_0):
        ys = jax.vmap(eqx.combine(p, static), in_axes=(1, 0), out_axes=1)(xs, s_0)
        return cross_entropy(ys, targets)

    return race(Model(params, (xs, targets, s_0), loss, leaves), what)


def keras(cell: str, shape: Shape, what: str) -> Raced:
    """`keras.layers.GRU(reset_after=True)` or `LSTM`, and `Dense`, as pure functions; the batch is its first axis."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras as k

    w, xs, targets, s_0 = numbers(cell, shape)
    xs, targets = jnp.swapaxes(xs, 0, 1), targets.T
    swap = lambda x: joined(*(gates(x, 3)[i] for i in (1, 0, 2))) if cell == "gru" else x  # noqa: E731  z, r, h
    make = {"gru": k.layers.GRU, "lstm": k.layers.LSTM}[cell]
    rnn, dense = make(shape.hidden, return_sequences=True), k.layers.Dense(shape.outputs)
    rnn.build(xs.shape)
    dense.build((*xs.shape[:2], shape.hidden))
    bias = swap(w["b_h"])
    if cell == "gru":  # a second row for the recurrent product, of which the n part is ours
        bias = jnp.stack([bias, jnp.pad(w["b_n"], (2 * shape.hidden, 0))])
    params = [swap(w["w_xh"]), swap(w["w_hh"]), bias], [w["w_hy"], w["b_y"]]
    fixed = [[jnp.asarray(v.value) for v in layer.non_trainable_variables] for layer in (rnn, dense)]

    def loss(p, xs, targets, s_0):
        states = list(s_0) if cell == "lstm" else [s_0]
        hs, _ = rnn.stateless_call(p[0], fixed[0], xs, initial_state=states, training=True)
        ys, _ = dense.stateless_call(p[1], fixed[1], hs)
        return cross_entropy(ys, targets)

    def leaves(p):
        (w_xh, w_hh, bias), (w_hy, b_y) = p
        own = {"b_h": swap(bias[0]), "b_n": bias[1, -shape.hidden :]} if cell == "gru" else {"b_h": bias}
        return {"w_xh": swap(w_xh), "w_hh": swap(w_hh), "w_hy": w_hy, "b_y": b_y} | own

    return race(Model(params, (xs, targets, s_0), loss, leaves), what)
