"""The same network, with the same weights, in other libraries: three on JAX, PyTorch's own, and NumPy by hand.

Each function imports what it needs: the process of PyTorch or NumPy has no JAX in it.
"""

import os
import timeit

import numpy as np

from rnn_jax._reporting.machine import cores

from .contenders import Raced
from .problems import LEAVES, Shape, make_problem


def haiku(shape: Shape, what: str) -> Raced:
    """`hk.VanillaRNN` by `hk.dynamic_unroll`, and `hk.Linear`. Its cell is fixed to ReLU: here tanh stands there."""
    import haiku as hk
    import jax
    import jax.numpy as jnp

    from .networks import Model, cross_entropy, race

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
    import jax
    import jax.numpy as jnp

    from .networks import Model, cross_entropy, race

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
    import jax
    import jax.numpy as jnp
    from jax import lax

    from .networks import Model, cross_entropy, race

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


def torch(shape: Shape, what: str) -> Raced:
    """`torch.nn.RNN` and `torch.nn.Linear`, on as many threads as is best, or on the GPU without TF32."""
    import torch as t

    device = "cuda" if os.environ["JAX_PLATFORMS"] == "cuda" else "cpu"
    if device == "cuda" and not t.cuda.is_available():
        raise NotImplementedError("this torch has no CUDA")
    t.backends.cudnn.allow_tf32 = t.backends.cuda.matmul.allow_tf32 = False
    w, xs, targets, h_0 = make_problem(shape)
    rnn = t.nn.RNN(shape.inputs, shape.hidden, nonlinearity="tanh").to(device)
    readout = t.nn.Linear(shape.hidden, shape.outputs).to(device)
    parameters = [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, readout.weight, readout.bias]
    with t.no_grad():
        rnn.bias_hh_l0.zero_()  # the second bias of the one sum; its gradient is the first one's
        for parameter, name in zip(parameters, LEAVES, strict=True):
            parameter.copy_(t.from_numpy(np.ascontiguousarray(w[name].T)))
    asked = [*rnn.parameters(), *readout.parameters()]
    xs, h_0 = t.from_numpy(xs).to(device), t.from_numpy(h_0)[None].to(device)
    targets = t.from_numpy(targets.astype(np.int64)).reshape(-1).to(device)

    def loss():
        return t.nn.functional.cross_entropy(readout(rnn(xs, h_0)[0]).flatten(0, 1), targets)

    def run():
        if what == "forward":
            with t.no_grad():
                out = (loss(),)
        else:
            value = loss()
            out = value, *t.autograd.grad(value, asked)
        if device == "cuda":
            t.cuda.synchronize()
        return out

    def seconds(threads):
        t.set_num_threads(threads)
        run()
        return min(timeit.repeat(run, number=1, repeat=3))

    t.set_num_threads(min(range(1, cores() + 1), key=seconds))

    def result():
        value, *gradients = (x.detach().cpu().numpy().astype(np.float64) for x in run())
        named = dict(zip(map(id, asked), gradients, strict=False))
        leaves = zip(LEAVES, parameters, strict=True) if gradients else ()
        return {"loss": value} | {name: named[id(parameter)].T for name, parameter in leaves}

    return Raced(run, result)


def numpy(shape: Shape, what: str) -> Raced:
    """Products before and after the two loops, everything written into arrays that are made once."""
    w, xs, targets, h_0 = make_problem(shape)
    time, batch, inputs, hidden, outputs = shape
    rows = time * batch
    w_hh_t, w_hy_t = np.ascontiguousarray(w["w_hh"].T), np.ascontiguousarray(w["w_hy"].T)
    flat_xs, flat_targets, every = xs.reshape(rows, inputs), targets.reshape(rows), np.arange(rows)
    hs, d_as = np.empty((time + 1, batch, hidden), np.float32), np.empty((time, batch, hidden), np.float32)
    ys, product = np.empty((rows, outputs), np.float32), np.empty((batch, hidden), np.float32)
    hs[0] = h_0

    def forward():
        flat_hs = hs[1:].reshape(rows, hidden)
        np.matmul(flat_xs, w["w_xh"], out=flat_hs)
        flat_hs += w["b_h"]
        for t in range(time):
            h_t = hs[t + 1]
            h_t += np.matmul(hs[t], w["w_hh"], out=product)
            np.tanh(h_t, out=h_t)
        np.matmul(flat_hs, w["w_hy"], out=ys)
        ys.__iadd__(w["b_y"])
        ys.__isub__(ys.max(-1, keepdims=True))
        right = ys[every, flat_targets]
        np.exp(ys, out=ys)
        total = ys.sum(-1, keepdims=True)
        return np.mean(np.log(total[:, 0]) - right), total

    def gradient():
        loss, total = forward()
        ys.__itruediv__(total * np.float32(rows))  # now the cotangent of ys
        ys[every, flat_targets] -= np.float32(1 / rows)
        flat_das, flat_hs = d_as.reshape(rows, hidden), hs[1:].reshape(rows, hidden)
        np.matmul(ys, w_hy_t, out=flat_das)
        slopes = 1 - hs[1:] * hs[1:]
        d_as[-1] *= slopes[-1]
        for t in range(time - 2, -1, -1):
            d_a = d_as[t]
            d_a += np.matmul(d_as[t + 1], w_hh_t, out=product)
            d_a *= slopes[t]
        d_w_hh = hs[:-1].reshape(rows, hidden).T @ flat_das
        return loss, flat_xs.T @ flat_das, d_w_hh, flat_das.sum(0), flat_hs.T @ ys, ys.sum(0)

    if what == "forward":
        return Raced(forward, lambda: {"loss": np.asarray(forward()[0], np.float64)})
    result = lambda: {n: np.asarray(x, np.float64) for n, x in zip(("loss", *LEAVES), gradient(), strict=True)}  # noqa: E731
    return Raced(gradient, result)
