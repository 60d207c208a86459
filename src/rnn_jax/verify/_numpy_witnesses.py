"""Witnesses without JAX: NumPy loops over single sequences, with steps that do not exist deleted.

`loop` is backpropagation through time, `rtrl` real-time recurrent learning; `complex_step` needs only the loss. Each
makes a `GradFn` that returns float64 NumPy arrays. They are written to be obviously right, not fast.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._cells.activations import activation_of
from .._cells.vanilla import CellParams, plain
from .._types import Batch, GradFn, Gradients, Params, States

PHI: dict[str, Callable[[Any], Any]] = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0.0), "identity": lambda a: a}
D_PHI: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda a: 1 / np.cosh(a) ** 2,
    "relu": lambda a: 1.0 * (a > 0),
    "identity": np.ones_like,
}


def _phi(cell: CellParams) -> Callable[[Any], Any]:
    """φ by NumPy, or your own φ by JAX, in float64."""
    return PHI[cell.activation] if isinstance(cell.activation, str) else _by_jax(activation_of(cell.activation).phi)


def _d_phi(cell: CellParams) -> Callable[[Any], Any]:
    if isinstance(cell.activation, str):
        return D_PHI[cell.activation]
    return _by_jax(jax.vmap(jax.grad(activation_of(cell.activation).phi)))


def _by_jax(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of_numpy(a: Any) -> Any:
        with jax.enable_x64(True):
            return np.asarray(fn(jnp.asarray(a, jnp.float64)))

    return of_numpy


class Arrays(NamedTuple):
    """The arguments of a call as NumPy arrays.

    `xs` are features, one-hot vectors for tokens; `weights` are normalised.
    """

    params: Params
    h_0: States
    xs: Any
    targets: Any
    weights: Any
    mask: Any
    reset: Any
    tokens: bool
    up: Any  # the factor on the states of each layer where the layer above reads them
    on: Any  # the factor where the next step reads them


def _read(params: Params, batch: Batch, h_0: States, reduction: str) -> Arrays:
    params, h_0 = jax.tree.map(lambda x: np.array(x, np.float64), (params, h_0))
    inputs, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    tokens = np.issubdtype(inputs.dtype, np.integer)
    if tokens:
        inputs = 1.0 * (inputs[..., None] == np.arange(params.cells[0].w_xh.shape[0]))
    steps = inputs.shape[:-1]
    mask = np.ones(steps, bool) if batch.mask is None else np.asarray(batch.mask)
    reset = np.zeros(steps, bool) if batch.reset is None else np.asarray(batch.reset)
    last = targets.shape[0]
    weights = (mask[steps[0] - last :] if batch.weights is None else np.asarray(batch.weights)).astype(np.float64)
    if reduction != "sum":
        counted = np.abs(weights) if reduction == "mean" else mask[steps[0] - last :] | (weights != 0)
        total = counted.sum()
        weights = weights / total if total else 0 * weights
    ones = tuple(np.ones_like(h) for h in h_0)
    drop: Any = batch.drop or (None, None)
    up, on = (ones if units is None else tuple(np.array(r, np.float64) for r in units) for units in drop)
    return Arrays(params, h_0, inputs.astype(np.float64), targets, weights, mask, reset, tokens, up, on)


def _sequences(p: Arrays) -> Iterator[tuple[tuple[int, ...], list[int], list[int]]]:
    """For each sequence: its place in the batch, the steps that exist, and the steps whose loss counts."""
    time, *axes = p.mask.shape
    first_read = time - p.targets.shape[0]
    for b in np.ndindex(*axes):
        exists = [t for t in range(time) if p.mask[(t, *b)]]
        yield b, exists, [t for t in range(first_read, time) if p.weights[(t - first_read, *b)] != 0]


def _step_loss(p: Arrays, loss: str, t: int, b: tuple[int, ...], h: Any) -> tuple[Any, Any]:
    """`w_t ℓ(y_t, target_t)` and `d_y_t` of the state `h` that step `t` reads out."""
    index = (t - p.mask.shape[0] + p.targets.shape[0], *b)
    w, target = p.weights[index], p.targets[index]
    y = (p.up[-1][b] * h) @ p.params.readout.w_hy + p.params.readout.b_y
    if loss == "cross_entropy":
        e = np.exp(y - y.real.max())
        return -w * np.log(e[target] / e.sum()), w * (e / e.sum() - (np.arange(len(y)) == target))
    return w * np.sum((y - target) ** 2), 2 * w * (y - target)


def _zeros_like(p: Arrays) -> Gradients:
    zeros: Gradients = jax.tree.map(np.zeros_like, Gradients(p.params, p.h_0, None if p.tokens else p.xs))
    return zeros


class _Trace(NamedTuple):
    """What one layer did with one sequence: the state before each step, the pre-activation, the state after it."""

    met: list[Any]
    pre: list[Any]
    left: list[Any]


def _run(p: Arrays, b: tuple[int, ...], exists: list[int]) -> list[_Trace]:
    traces, below = [], [p.xs[(t, *b)] for t in exists]
    for layer, (cell, h) in enumerate(zip(plain(p.params.cells, "This witness"), p.h_0, strict=True)):
        trace = _Trace([], [], [])
        h_tm1: Any = h[b]
        for x_t, t in zip(below, exists, strict=True):
            h_tm1 = np.zeros_like(h_tm1) if p.reset[(t, *b)] else h_tm1
            a_t = x_t @ cell.w_xh + (p.on[layer][b] * h_tm1) @ cell.w_hh + cell.b_h
            trace.met.append(h_tm1)
            trace.pre.append(a_t)
            h_tm1 = (1 - cell.leak) * h_tm1 + cell.leak * _phi(cell)(a_t)
            trace.left.append(h_tm1)
        traces.append(trace)
        below = [p.up[layer][b] * h_t for h_t in trace.left]
    return traces


def _position(exists: list[int], t: int) -> int:
    """The position in `exists` of the last step up to `t`, whose state a readout at `t` reads; -1 if none."""
    return sum(e <= t for e in exists) - 1


def _total_loss(p: Arrays, loss: str) -> Any:
    total = 0.0
    for b, exists, read in _sequences(p):
        left = _run(p, b, exists)[-1].left
        states = [*left, p.h_0[-1][b]]
        total += sum(_step_loss(p, loss, t, b, states[_position(exists, t)])[0] for t in read)
    return total


def loop(loss: str, reduction: str) -> GradFn:
    """Backpropagation through time as in the textbook: every sum is a loop, one sequence at a time."""

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        p = _read(params, batch, h_0, reduction)
        total, h_T, d = 0.0, jax.tree.map(np.array, p.h_0), _zeros_like(p)
        for b, exists, read in _sequences(p):
            traces = _run(p, b, exists)
            d_left = [np.zeros_like(p.h_0[-1][b]) for _ in exists]  # what the losses send to the states they read
            for layer, trace in enumerate(traces):
                h_T[layer][b] = trace.left[-1] if exists else p.h_0[layer][b]
            for t in read:
                i = _position(exists, t)
                h = traces[-1].left[i] if i >= 0 else p.h_0[-1][b]
                value, d_y = _step_loss(p, loss, t, b, h)
                total += value
                d.params.readout.w_hy[...] += np.outer(p.up[-1][b] * h, d_y)
                d.params.readout.b_y[...] += d_y
                d_left_t = d_left[i] if i >= 0 else d.h_0[-1][b]
                d_left_t += p.up[-1][b] * (p.params.readout.w_hy @ d_y)
            for layer in reversed(range(len(traces))):
                cell, d_cell, trace = p.params.cells[layer], d.params.cells[layer], traces[layer]
                on = p.on[layer][b]
                up = p.up[layer - 1][b] if layer else 1.0  # inputs are not dropped
                read = traces[layer - 1].left if layer else [p.xs[(t, *b)] for t in exists]
                d_below: list[np.ndarray] = []
                d_h_next = np.zeros_like(p.h_0[layer][b])
                for i in reversed(range(len(exists))):
                    d_h = d_left[i] + d_h_next
                    d_a = cell.leak * d_h * _d_phi(cell)(trace.pre[i])
                    d_cell.w_xh[...] += np.outer(up * read[i], d_a)
                    d_cell.w_hh[...] += np.outer(on * trace.met[i], d_a)
                    d_cell.b_h[...] += d_a
                    d_below.insert(0, up * (cell.w_xh @ d_a))
                    d_h_next = on * (cell.w_hh @ d_a) + (1 - cell.leak) * d_h
                    d_h_next = np.zeros_like(d_h_next) if p.reset[(exists[i], *b)] else d_h_next
                d.h_0[layer][b] += d_h_next
                d_left = d_below
            if d.inputs is not None:
                for i, t in enumerate(exists):
                    d.inputs[(t, *b)] = d_left[i]
        return (np.float64(total), h_T), d

    return grad_fn


def _numbered(tree: Any) -> Any:
    """The entries of all leaves, numbered."""
    number = itertools.count()
    return jax.tree.map(lambda x: np.array([next(number) for _ in range(x.size)], int).reshape(x.shape), tree)


def rtrl(loss: str, reduction: str) -> GradFn:
    """Real-time recurrent learning: the sensitivities `∂h_t/∂θ` are carried forward; no states are kept, no step goes
    back.

    `∂h_t/∂θ = φ'(a_t) ∘ (W_hhᵀ ∂h_{t-1}/∂θ + W_xhᵀ ∂x_t/∂θ + the direct term)`, for every layer and every `θ`: weights,
    first states and inputs. Memory grows with hid³, so it is for small networks.

    References: Williams and Zipser (1989), Neural Computation 1(2).
    """

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        p = _read(params, batch, h_0, reduction)
        total, h_T, d = 0.0, jax.tree.map(np.array, p.h_0), _zeros_like(p)
        for b, exists, read in _sequences(p):
            own = (p.params.cells, tuple(h[b] for h in p.h_0), p.xs[(slice(None), *b)])
            size = sum(leaf.size for leaf in jax.tree.leaves(own))
            columns, columns_h_0, columns_xs = _numbered(own)  # each θ has its own column of the sensitivities
            h: list[Any] = [x[b] for x in p.h_0]
            s = [np.eye(size)[columns] for columns in columns_h_0]  # s[layer]: (hid, θ)
            d_theta = np.zeros(size)
            for t in range(p.mask.shape[0]):
                if t in exists:
                    below, s_below = p.xs[(t, *b)], np.eye(size)[columns_xs[t]]
                    for layer, cell in enumerate(plain(p.params.cells, "This witness")):
                        if p.reset[(t, *b)]:
                            h[layer], s[layer] = np.zeros_like(h[layer]), np.zeros_like(s[layer])
                        on, up = p.on[layer][b], p.up[layer][b]
                        a = below @ cell.w_xh + (on * h[layer]) @ cell.w_hh + cell.b_h
                        s_a = cell.w_xh.T @ s_below + cell.w_hh.T @ (on[:, None] * s[layer])
                        for k in range(len(a)):
                            s_a[k, columns[layer].w_xh[:, k]] += below
                            s_a[k, columns[layer].w_hh[:, k]] += on * h[layer]
                            s_a[k, columns[layer].b_h[k]] += 1
                        kept, new = 1 - cell.leak, cell.leak
                        h[layer] = kept * h[layer] + new * _phi(cell)(a)
                        s[layer] = kept * s[layer] + new * _d_phi(cell)(a)[:, None] * s_a
                        below, s_below = up * h[layer], up[:, None] * s[layer]
                if t in read:
                    value, d_y = _step_loss(p, loss, t, b, h[-1])
                    total += value
                    d.params.readout.w_hy[...] += np.outer(p.up[-1][b] * h[-1], d_y)
                    d.params.readout.b_y[...] += d_y
                    d_theta += (p.up[-1][b] * (p.params.readout.w_hy @ d_y)) @ s[-1]
            for d_leaf, index in zip(jax.tree.leaves(d.params.cells), jax.tree.leaves(columns), strict=True):
                d_leaf += d_theta[index]
            for layer, index in enumerate(columns_h_0):
                d.h_0[layer][b] += d_theta[index]
                h_T[layer][b] = h[layer]
            if d.inputs is not None:
                d.inputs[(slice(None), *b)] += d_theta[columns_xs]
        return (np.float64(total), h_T), d

    return grad_fn


def complex_step(loss: str, reduction: str, step: float = 1e-30) -> GradFn:
    """`∂L/∂θ = Im L(θ + iε) / ε`, entry by entry: without differences, so without rounding, and without a derivative.

    It needs analytic activations: tanh and the identity.

    References: Squire and Trapp (1998), SIAM Review 40(1).
    """

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        real = _read(params, batch, h_0, reduction)
        other = [cell.activation for cell in params.cells if cell.activation not in ("tanh", "identity")]
        if other:
            raise ValueError(f"The complex step needs an analytic activation, 'tanh' or 'identity', got {other[0]!r}.")
        d = _zeros_like(real)
        as_complex = jax.tree.map(lambda x: x.astype(complex), (real.params, real.h_0, real.xs))
        p = real._replace(params=as_complex[0], h_0=as_complex[1], xs=as_complex[2])
        where = Gradients(p.params, p.h_0, None if p.tokens else p.xs)
        for leaf, d_leaf in zip(jax.tree.leaves(where), jax.tree.leaves(d), strict=True):
            for index in np.ndindex(*leaf.shape):
                leaf[index] += 1j * step
                d_leaf[index] = _total_loss(p, loss).imag / step if np.size(p.weights) else 0.0
                leaf[index] = leaf[index].real
        h_T = jax.tree.map(np.array, real.h_0)
        for b, exists, _ in _sequences(real):
            for layer, trace in enumerate(_run(real, b, exists)):
                h_T[layer][b] = trace.left[-1] if exists else real.h_0[layer][b]
        return (np.float64(np.real(_total_loss(real, loss))), h_T), d

    return grad_fn
