"""Problems in which a mistake would show, and the comparison that says where."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnn_jax

IN, HID, OUT = 3, 4, 5
GAIN = {"tanh": 1.5, "relu": 1.5, "identity": 1.0}


class Case(NamedTuple):
    """One point of the grid of options."""

    activation: str = "tanh"
    num_layers: int = 1
    batch: tuple = (3,)
    loss: str = "cross_entropy"
    reduction: str = "mean"
    weights: bool = False
    mask: bool = False
    reset: bool = False
    time: int = 7
    last: str = "all"  # all, some, one
    inputs: str = "features"  # features, tokens


def make_problem(case: Case, seed: int = 0, dtype=jnp.float64):
    """`(params, batch, h_0)`: a state and biases that are not zero, a recurrence that does not forget its first step.

    Drawn by NumPy, which compiles nothing.
    """
    rng = np.random.default_rng(seed)

    def normal(scale, *shape):
        return jnp.asarray(scale * rng.standard_normal(shape), dtype)

    def cell(in_size):
        rotation, _ = np.linalg.qr(rng.standard_normal((HID, HID)))
        w_hh = jnp.asarray(GAIN[case.activation] * rotation + 0.1 * rng.standard_normal((HID, HID)), dtype)
        return rnn_jax.CellParams(normal(in_size**-0.5, in_size, HID), w_hh, normal(0.1, HID), case.activation)

    cells = tuple(cell(HID if layer else IN) for layer in range(case.num_layers))
    params = rnn_jax.Params(cells, rnn_jax.ReadoutParams(normal(HID**-0.5, HID, OUT), normal(0.1, OUT)))
    last = {"all": case.time, "some": max(1, case.time // 2), "one": 1}[case.last]
    time_batch, steps = (case.time, *case.batch), (last, *case.batch)

    mask = reset = weights = None
    if case.mask:
        mask = rng.random(time_batch) < 0.7
        mask[(-1, *(0,) * len(case.batch))] = True  # something to sum
    if case.reset:
        reset = rng.random(time_batch) < 0.3
        reset[(case.time // 2, *(0,) * len(case.batch))] = True
    if case.weights:
        weights = 0.3 + rng.random(steps)
        if weights.size > 1:
            weights[(0,) * weights.ndim] = 0.0
    if case.inputs == "tokens":
        inputs = rng.integers(0, IN, time_batch)
        inputs = jnp.asarray(inputs if mask is None else np.where(mask, inputs, -7))
    else:
        inputs = 0.7 * rng.standard_normal((*time_batch, IN))
        inputs = jnp.asarray(inputs if mask is None else np.where(mask[..., None], inputs, np.nan), dtype)
    classes = case.loss == "cross_entropy"
    targets = jnp.asarray(rng.integers(0, OUT, steps)) if classes else normal(1.0, *steps, OUT)
    h_0 = tuple(normal(0.5, *case.batch, HID) for _ in cells)
    optional = (None if x is None else jnp.asarray(x) for x in (weights, mask, reset))
    weights, mask, reset = optional
    weights = None if weights is None else weights.astype(dtype)
    return params, rnn_jax.Batch(inputs, targets, weights, mask, reset), h_0


def run(method: str, case: Case, problem, **options):
    """`((loss, h_T), gradients)` of a method, jitted."""
    grad_fn = rnn_jax.make_grad_fn(method, loss=case.loss, reduction=case.reduction, **options)
    return jax.jit(grad_fn)(*problem)


def assert_trees_close(actual, expected, *, rtol: float, floor: float = 1e-30) -> None:
    """Each leaf within `rtol` of the largest entry of that leaf, at least `floor`; the message names the leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        x, y, name = np.asarray(x), np.asarray(y), jax.tree_util.keystr(path)
        assert x.shape == y.shape and x.dtype == y.dtype, f"{name}: {x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
        if x.size == 0:
            continue
        error = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
        scale = max(np.max(np.abs(y.astype(np.float64))), floor)
        assert error <= rtol * scale, f"{name}: {error / scale:.1e} > {rtol:.0e}"
