"""Witnesses without JAX: NumPy loops over single sequences, with steps that do not exist deleted.

`loop` is backpropagation through time, `rtrl` real-time recurrent learning; `complex_step` needs only the loss. Each
makes a `GradFn` that returns float64 NumPy arrays. They are written to be obviously right, not fast.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from .._cells.protocol import num_units, own_names
from .._types import Batch, GradFn, Gradients, Params, States
from ._numpy_cells import is_analytic, numpy_cell


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
    ones = tuple(np.ones((*s.shape[:-1], num_units(cell))) for cell, s in zip(params.cells, h_0, strict=True))
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
    """What one layer did with one sequence: the state before each step, its z and u, the state after it."""

    met: list[Any]
    pre: list[tuple[Any, Any]]
    left: list[Any]


def _rows(cell: Any, x: Any) -> Any:
    """The gates, or the parts of a state, as rows (gates or parts, hid)."""
    return x.reshape(-1, num_units(cell))


def _run(p: Arrays, b: tuple[int, ...], exists: list[int]) -> list[_Trace]:
    traces, below = [], [p.xs[(t, *b)] for t in exists]
    for layer, (cell, s_0) in enumerate(zip(p.params.cells, p.h_0, strict=True)):
        trace, s = _Trace([], [], []), _rows(cell, s_0[b])
        for x_t, t in zip(below, exists, strict=True):
            s = np.zeros_like(s) if p.reset[(t, *b)] else s
            z, u = x_t @ cell.w_xh + cell.b_h, (p.on[layer][b] * s[0]) @ cell.w_hh
            trace.met.append(s)
            trace.pre.append((_rows(cell, z), _rows(cell, u)))
            s = numpy_cell(cell).step(cell, *trace.pre[-1], s)
            trace.left.append(s)
        traces.append(trace)
        below = [p.up[layer][b] * s[0] for s in trace.left]
    return traces


def _position(exists: list[int], t: int) -> int:
    """The position in `exists` of the last step up to `t`, whose state a readout at `t` reads; -1 if none."""
    return sum(e <= t for e in exists) - 1


def _total_loss(p: Arrays, loss: str) -> Any:
    total = 0.0
    for b, exists, read in _sequences(p):
        left = _run(p, b, exists)[-1].left
        states = [*left, _rows(p.params.cells[-1], p.h_0[-1][b])]
        total += sum(_step_loss(p, loss, t, b, states[_position(exists, t)][0])[0] for t in read)
    return total


def loop(loss: str, reduction: str) -> GradFn:
    """Backpropagation through time as in the textbook: every sum is a loop, one sequence at a time."""

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        p = _read(params, batch, h_0, reduction)
        total, h_T, d = 0.0, jax.tree.map(np.array, p.h_0), _zeros_like(p)
        for b, exists, read in _sequences(p):
            traces = _run(p, b, exists)
            top = p.params.cells[-1]
            d_s_0 = [_rows(cell, d_s[b]) for cell, d_s in zip(p.params.cells, d.h_0, strict=True)]  # views
            states = [*traces[-1].left, _rows(top, p.h_0[-1][b])]
            d_left = [np.zeros(num_units(top)) for _ in exists]  # what the losses send to the h they read
            for layer, trace in enumerate(traces):
                h_T[layer][b] = trace.left[-1].ravel() if exists else p.h_0[layer][b]
            for t in read:
                i = _position(exists, t)
                value, d_y = _step_loss(p, loss, t, b, states[i][0])
                total += value
                d.params.readout.w_hy[...] += np.outer(p.up[-1][b] * states[i][0], d_y)
                d.params.readout.b_y[...] += d_y
                d_h = d_left[i] if i >= 0 else d_s_0[-1][0]
                d_h += p.up[-1][b] * (p.params.readout.w_hy @ d_y)
            for layer in reversed(range(len(traces))):
                cell, d_cell, trace = p.params.cells[layer], d.params.cells[layer], traces[layer]
                on = p.on[layer][b]
                up = p.up[layer - 1][b] if layer else 1.0  # inputs are not dropped
                xs = [s[0] for s in traces[layer - 1].left] if layer else [p.xs[(t, *b)] for t in exists]
                d_below: list[np.ndarray] = []
                d_s = np.zeros_like(d_s_0[layer])
                for i in reversed(range(len(exists))):
                    d_s[0] += d_left[i]
                    by = numpy_cell(cell).partials(cell, *trace.pre[i], trace.met[i])
                    d_z, d_u = (np.einsum("ph,pgh->gh", d_s, by_gates).ravel() for by_gates in (by.z, by.u))
                    d_cell.w_xh[...] += np.outer(up * xs[i], d_z)
                    d_cell.w_hh[...] += np.outer(on * trace.met[i][0], d_u)
                    d_cell.b_h[...] += d_z
                    for name in own_names(cell):
                        getattr(d_cell, name)[...] += np.sum(d_s * by.own[name], axis=0)
                    d_below.insert(0, up * (cell.w_xh @ d_z))
                    d_s = np.einsum("ph,pqh->qh", d_s, by.s)
                    d_s[0] += on * (cell.w_hh @ d_u)
                    d_s = np.zeros_like(d_s) if p.reset[(exists[i], *b)] else d_s
                d_s_0[layer][...] += d_s
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

    `∂s_t/∂θ = ∂s_t/∂z ∂z/∂θ + ∂s_t/∂u ∂u/∂θ + ∂s_t/∂s_{t-1} ∂s_{t-1}/∂θ`, with `∂z/∂θ = W_xhᵀ ∂x_t/∂θ + x_t`,
    `∂u/∂θ = W_hhᵀ ∂h_{t-1}/∂θ + h_{t-1}` and the direct terms of the cell's own parameters, for every layer and every
    `θ`: weights, first states and inputs. Memory grows with hid³, so it is for small networks.

    References: Williams and Zipser (1989), Neural Computation 1(2).
    """

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        p = _read(params, batch, h_0, reduction)
        total, h_T, d = 0.0, jax.tree.map(np.array, p.h_0), _zeros_like(p)
        for b, exists, read in _sequences(p):
            own = (p.params.cells, tuple(h[b] for h in p.h_0), p.xs[(slice(None), *b)])
            size = sum(leaf.size for leaf in jax.tree.leaves(own))
            columns, columns_h_0, columns_xs = _numbered(own)  # each θ has its own column of the sensitivities
            cells = p.params.cells
            s = [_rows(cell, x[b]) for cell, x in zip(cells, p.h_0, strict=True)]
            by_theta = [np.eye(size)[_rows(*each)] for each in zip(cells, columns_h_0, strict=True)]  # (parts, hid, θ)
            d_theta = np.zeros(size)
            for t in range(p.mask.shape[0]):
                if t in exists:
                    below, by_below = p.xs[(t, *b)], np.eye(size)[columns_xs[t]]
                    for layer, cell in enumerate(cells):
                        if p.reset[(t, *b)]:
                            s[layer], by_theta[layer] = np.zeros_like(s[layer]), np.zeros_like(by_theta[layer])
                        on, up, its = p.on[layer][b], p.up[layer][b], columns[layer]
                        z, u = below @ cell.w_xh + cell.b_h, (on * s[layer][0]) @ cell.w_hh
                        z_by = cell.w_xh.T @ by_below
                        u_by = cell.w_hh.T @ (on[:, None] * by_theta[layer][0])
                        for k in range(len(z)):
                            z_by[k, its.w_xh[:, k]] += below
                            z_by[k, its.b_h[k]] += 1
                            u_by[k, its.w_hh[:, k]] += on * s[layer][0]
                        gates = _rows(cell, z), _rows(cell, u)
                        by = numpy_cell(cell).partials(cell, *gates, s[layer])
                        by_theta[layer] = (
                            np.einsum("pgh,ghn->phn", by.z, z_by.reshape(*gates[0].shape, size))
                            + np.einsum("pgh,ghn->phn", by.u, u_by.reshape(*gates[0].shape, size))
                            + np.einsum("pqh,qhn->phn", by.s, by_theta[layer])
                        )
                        for name in own_names(cell):
                            by_theta[layer] += by.own[name][:, :, None] * np.eye(size)[getattr(its, name)]
                        s[layer] = numpy_cell(cell).step(cell, *gates, s[layer])
                        below, by_below = up * s[layer][0], up[:, None] * by_theta[layer][0]
                if t in read:
                    h = s[-1][0]
                    value, d_y = _step_loss(p, loss, t, b, h)
                    total += value
                    d.params.readout.w_hy[...] += np.outer(p.up[-1][b] * h, d_y)
                    d.params.readout.b_y[...] += d_y
                    d_theta += (p.up[-1][b] * (p.params.readout.w_hy @ d_y)) @ by_theta[-1][0]
            for d_leaf, index in zip(jax.tree.leaves(d.params.cells), jax.tree.leaves(columns), strict=True):
                d_leaf += d_theta[index]
            for layer, index in enumerate(columns_h_0):
                d.h_0[layer][b] += d_theta[index]
                h_T[layer][b] = s[layer].ravel()
            if d.inputs is not None:
                d.inputs[(slice(None), *b)] += d_theta[columns_xs]
        return (np.float64(total), h_T), d

    return grad_fn


def complex_step(loss: str, reduction: str, step: float = 1e-30) -> GradFn:
    """`∂L/∂θ = Im L(θ + iε) / ε`, entry by entry: without differences, so without rounding, and without a derivative.

    It needs analytic cells: those with gates, and those with the activation tanh or identity.

    References: Squire and Trapp (1998), SIAM Review 40(1).
    """

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Any:
        real = _read(params, batch, h_0, reduction)
        other = [cell.activation for cell in params.cells if not is_analytic(cell)]
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
                h_T[layer][b] = trace.left[-1].ravel() if exists else real.h_0[layer][b]
        return (np.float64(np.real(_total_loss(real, loss))), h_T), d

    return grad_fn
