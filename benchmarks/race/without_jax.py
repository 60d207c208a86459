"""The same network, with the same weights, in PyTorch and in NumPy by hand: their processes have no JAX in them.

By hand, products of all steps come before and after the two loops, everything is written into arrays that are made
once, and what the way back reads of the gates is kept. Both loops make few calls: one costs as much as small arrays.
"""

import os
import timeit
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rnn_jax._reporting.machine import cores

from .contenders import Raced
from .problems import Shape, make_problem


def torch(cell: str, shape: Shape, what: str) -> Raced:
    """`torch.nn.RNN`, `GRU` or `LSTM`, and `Linear`, on as many threads as is best, or on the GPU without TF32."""
    import torch as t

    device = "cuda" if os.environ["JAX_PLATFORMS"] == "cuda" else "cpu"
    if device == "cuda" and not t.cuda.is_available():
        raise NotImplementedError("this torch has no CUDA")
    t.backends.cudnn.allow_tf32 = t.backends.cuda.matmul.allow_tf32 = False
    w, xs, targets, s_0 = make_problem(cell, shape)
    rnn = {"vanilla": t.nn.RNN, "gru": t.nn.GRU, "lstm": t.nn.LSTM}[cell](shape.inputs, shape.hidden).to(device)
    readout = t.nn.Linear(shape.hidden, shape.outputs).to(device)
    parameters = {"w_xh": rnn.weight_ih_l0, "w_hh": rnn.weight_hh_l0, "b_h": rnn.bias_ih_l0}
    parameters |= {"w_hy": readout.weight, "b_y": readout.bias}
    with t.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(t.from_numpy(np.ascontiguousarray(w[name].T)))
        rnn.bias_hh_l0.zero_()  # the second bias of the same sums; of a GRU's new value, the recurrent product's
        if cell == "gru":
            rnn.bias_hh_l0[-shape.hidden :] = t.from_numpy(w["b_n"])
    asked = [*parameters.values(), rnn.bias_hh_l0]
    xs, s_0 = t.from_numpy(xs).to(device), tuple(t.from_numpy(part)[None].to(device) for part in s_0)
    s_0 = s_0 if cell == "lstm" else s_0[0]
    targets = t.from_numpy(targets.astype(np.int64)).reshape(-1).to(device)

    def loss():
        return t.nn.functional.cross_entropy(readout(rnn(xs, s_0)[0]).flatten(0, 1), targets)

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
        found = {name: d.T for name, d in zip(parameters, gradients, strict=False)}
        own = {"b_n": gradients[-1][-shape.hidden :]} if cell == "gru" and gradients else {}
        return {"loss": value} | found | own

    return Raced(run, result)


class Loops(NamedTuple):
    """A layer by hand: `forward()` fills `hs`; `backward()` reads `d_hs` and gives the gradients of its weights.

    `hs` is (T + 1, B, hid), the first state first, and `d_hs` (T, B, hid).
    """

    forward: Callable[[], None]
    backward: Callable[[], dict[str, np.ndarray]]
    hs: np.ndarray
    d_hs: np.ndarray


def numpy(cell: str, shape: Shape, what: str) -> Raced:
    """The readout, the loss and the way back from it, around the loops of the cell."""
    w, xs, targets, s_0 = make_problem(cell, shape)
    rows = shape.time * shape.batch
    loops = LOOPS[cell](w, xs, s_0)
    flat_hs, flat_d_hs = flat(loops.hs[1:]), flat(loops.d_hs)
    ys, w_hy_t = np.empty((rows, shape.outputs), np.float32), np.ascontiguousarray(w["w_hy"].T)
    every, flat_targets = np.arange(rows), targets.reshape(rows)

    def forward():
        loops.forward()
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
        np.matmul(ys, w_hy_t, out=flat_d_hs)
        return {"loss": loss} | loops.backward() | {"w_hy": flat_hs.T @ ys, "b_y": ys.sum(0)}

    if what == "forward":
        return Raced(forward, lambda: {"loss": np.asarray(forward()[0], np.float64)})
    return Raced(gradient, lambda: {name: np.asarray(x, np.float64) for name, x in gradient().items()})


def flat(x: np.ndarray) -> np.ndarray:
    """Time and batch as one axis."""
    return x.reshape(-1, x.shape[-1])


def empty(*shape: int) -> np.ndarray:
    """An array that is made once."""
    return np.empty(shape, np.float32)


def vanilla_loops(w, xs, s_0) -> Loops:
    """Tanh units; `d_hs` becomes the cotangent of the pre-activations."""
    time, (batch, hidden) = len(xs), s_0[0].shape
    w_hh_t, hs, d_as = transposed(w["w_hh"]), empty(time + 1, batch, hidden), empty(time, batch, hidden)
    product, flat_das = empty(batch, hidden), flat(d_as)
    hs[0] = s_0[0]

    def forward():
        np.matmul(flat(xs), w["w_xh"], out=flat(hs[1:]))
        hs[1:] += w["b_h"]
        for h_tm1, h in zip(hs[:-1], hs[1:], strict=True):
            h += np.matmul(h_tm1, w["w_hh"], out=product)
            np.tanh(h, out=h)

    def backward():
        slopes = 1 - hs[1:] * hs[1:]
        d_as[-1] *= slopes[-1]
        for t in range(time - 2, -1, -1):
            d_a = d_as[t]
            d_a += np.matmul(d_as[t + 1], w_hh_t, out=product)
            d_a *= slopes[t]
        return {"w_xh": flat(xs).T @ flat_das, "w_hh": flat(hs[:-1]).T @ flat_das, "b_h": flat_das.sum(0)}

    return Loops(forward, backward, hs, d_as)


def gru_loops(w, xs, s_0) -> Loops:
    """Gated recurrent units. `u` has the columns n, r, k, so that u and z both stand side by side in n, r, k, n.

    A sigmoid is `(1 + tanh(x / 2)) / 2`: the weights of r and k are halved before the loop, and one call fills both.
    """
    time, (batch, hidden) = len(xs), s_0[0].shape
    n_last, half = slice(2 * hidden, None), np.repeat(np.float32([0.5, 0.5, 1]), hidden)
    w_xh, b_h, n_first = w["w_xh"] * half, w["b_h"] * half, lambda x: np.roll(x, hidden, -1)
    w_uh, w_hh_t = np.ascontiguousarray(n_first(w["w_hh"] * half)), transposed(n_first(w["w_hh"]))
    b_n = np.broadcast_to(w["b_n"], (batch, hidden))
    hs, gates, qs = empty(time + 1, batch, hidden), empty(time, batch, 3 * hidden), empty(time, batch, hidden)
    d_hs, d = empty(time, batch, hidden), empty(time, batch, 4, hidden)  # cotangents of u_n, r, k, z_n
    u, some, more = empty(batch, 3 * hidden), empty(batch, hidden), empty(batch, hidden)
    u_n, u_rk, factors, kept = u[:, :hidden], u[:, hidden:], empty(time, batch, 4, hidden), empty(time, batch, hidden)
    hs[0] = s_0[0]

    def forward():
        np.matmul(flat(xs), w_xh, out=flat(gates))
        gates.__iadd__(b_h)
        per_step = zip(gates[..., : n_last.start], gates[..., n_last], qs, hs[:-1], hs[1:], strict=True)
        for rk, n, q, h_tm1, h in per_step:
            np.matmul(h_tm1, w_uh, out=u)
            rk += u_rk
            np.tanh(rk, out=rk)
            rk *= HALF
            rk += HALF
            np.add(u_n, b_n, out=q)
            n += np.multiply(rk[:, :hidden], q, out=some)
            np.tanh(n, out=n)
            np.subtract(h_tm1, n, out=h)
            h *= rk[:, hidden:]
            h += n

    def backward():
        r, k, n = np.split(gates, 3, -1)
        by_u_n, by_r, by_k, by_z_n = np.moveaxis(factors, 2, 0)
        np.multiply(1 - k, 1 - n * n, out=by_z_n)
        np.multiply(by_z_n, r, out=by_u_n)
        np.multiply(by_u_n, qs * (1 - r), out=by_r)
        np.multiply(hs[:-1] - n, k * (1 - k), out=by_k)
        kept[:] = k
        np.multiply(factors[-1], d_hs[-1][:, None], out=d[-1])
        flat_u = d.reshape(time, batch, 4 * hidden)[..., : 3 * hidden]
        for t in range(time - 2, -1, -1):
            d_h = d_hs[t]
            d_h += np.matmul(flat_u[t + 1], w_hh_t, out=some)
            d_h += np.multiply(d_hs[t + 1], kept[t + 1], out=more)
            np.multiply(factors[t], d_h[:, None], out=d[t])
        rows = d.reshape(-1, 4 * hidden)
        d_u, d_z = rows[:, : 3 * hidden], rows[:, hidden:]
        d_w_hh, b = np.roll(flat(hs[:-1]).T @ d_u, -hidden, -1), rows.sum(0)
        return {"w_xh": flat(xs).T @ d_z, "w_hh": d_w_hh, "b_h": b[hidden:], "b_n": b[:hidden]}

    return Loops(forward, backward, hs, d_hs)


def lstm_loops(w, xs, s_0) -> Loops:
    """Long short-term memory. One call gives all gates of a step: `σ(x) = (1 + tanh(x / 2)) / 2`, halved beforehand."""
    time, (batch, hidden) = len(xs), s_0[0].shape
    scale, shift = (np.repeat(np.float32(x), hidden) for x in ([0.5, 0.5, 1, 0.5], [0.5, 0.5, 0, 0.5]))
    w_xh, w_hh, b_h, w_hh_t = w["w_xh"] * scale, w["w_hh"] * scale, w["b_h"] * scale, transposed(w["w_hh"])
    hs, cs, tanh_cs = empty(time + 1, batch, hidden), empty(time + 1, batch, hidden), empty(time, batch, hidden)
    gates, u = empty(time, batch, 4 * hidden), empty(batch, 4 * hidden)
    apart = gates.reshape(time, batch, 4, hidden)  # i, f, g, o
    d_hs, d_as, d_c = empty(time, batch, hidden), empty(time, batch, 4, hidden), empty(batch, hidden)
    factors, by_c, some = empty(time, batch, 4, hidden), empty(time, batch, hidden), empty(batch, hidden)
    flat_das = d_as.reshape(time, batch, 4 * hidden)
    hs[0], cs[0] = s_0

    def forward():
        np.matmul(flat(xs), w_xh, out=flat(gates))
        gates.__iadd__(b_h)
        per_step = zip(gates, apart, cs[:-1], cs[1:], tanh_cs, hs[:-1], hs[1:], strict=True)
        for a, ifgo, c_tm1, c, tanh_c, h_tm1, h in per_step:
            a += np.matmul(h_tm1, w_hh, out=u)
            np.tanh(a, out=a)
            a *= scale
            a += shift
            np.multiply(ifgo[:, 0], ifgo[:, 2], out=c)
            c += np.multiply(ifgo[:, 1], c_tm1, out=some)
            np.tanh(c, out=tanh_c)
            np.multiply(ifgo[:, 3], tanh_c, out=h)

    def backward():
        (i, f, g, o), (by_i, by_f, by_g, by_o) = np.moveaxis(apart, 2, 0), np.moveaxis(factors, 2, 0)
        np.multiply(g * i, 1 - i, out=by_i)
        np.multiply(cs[:-1] * f, 1 - f, out=by_f)
        np.multiply(i, 1 - g * g, out=by_g)
        np.multiply(tanh_cs * o, 1 - o, out=by_o)
        np.multiply(o, 1 - tanh_cs * tanh_cs, out=by_c)
        d_c.fill(0)
        for t in range(time - 1, -1, -1):
            d_h = d_hs[t]
            if t + 1 < time:
                d_h += np.matmul(flat_das[t + 1], w_hh_t, out=some)
                d_c.__imul__(f[t + 1])
            d_c.__iadd__(np.multiply(d_h, by_c[t], out=some))
            np.multiply(factors[t, :, :3], d_c[:, None], out=d_as[t, :, :3])
            np.multiply(by_o[t], d_h, out=d_as[t, :, 3])
        rows = flat(flat_das)
        return {"w_xh": flat(xs).T @ rows, "w_hh": flat(hs[:-1]).T @ rows, "b_h": rows.sum(0)}

    return Loops(forward, backward, hs, d_hs)


def transposed(w: np.ndarray) -> np.ndarray:
    """The transpose, in order in memory."""
    return np.ascontiguousarray(w.T)


HALF = np.float32(0.5)
LOOPS = {"vanilla": vanilla_loops, "gru": gru_loops, "lstm": lstm_loops}
