"""Problems of many steps, and the errors of a gradient on them: for test_rounding.py and `benchmarks/rounding.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy
from problems import cast

import rnn_jax

F32_EPS, BF16_EPS = 2.0**-23, 2.0**-8
IN, HID, OUT = 5, 16, 7


@functools.cache
def compiled(method, loss="cross_entropy", reduction="sum", compute_dtype=None):
    return jax.jit(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction, compute_dtype=compute_dtype))


@functools.cache
def evaluated(method, loss="cross_entropy", reduction="sum"):
    """Evaluated by NumPy, except "blocked", which stays compiled; for tests that are not about rounding."""
    return (jax.jit if method == "blocked" else by_numpy)(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction))


@functools.cache
def long_problem(loss, time, seed, dtype=jnp.float32):
    """A rotation under tanh, in float32: errors do not grow from step to step, and early steps still matter."""
    rng = np.random.default_rng(seed)

    def normal(scale, *shape):
        return scale * rng.standard_normal(shape)

    rotation, _ = np.linalg.qr(normal(1, HID, HID))
    cell = rnn_jax.CellParams(normal(IN**-0.5, IN, HID), rotation, normal(0.1, HID), "tanh")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(normal(HID**-0.5, HID, OUT), normal(0.1, OUT)))
    inputs = normal(0.7, time, 2, IN)
    targets = rng.integers(0, OUT, (time, 2)) if loss == "cross_entropy" else normal(1, time, 2, OUT)
    return cast((params, rnn_jax.Batch(inputs, targets), (normal(0.5, 2, HID),)), dtype)


@functools.cache
def slow_problem(kind, time):
    """Units that remember for hundreds of steps; the numbers are those of bfloat16, held in float32."""
    key, xs_key = jax.random.split(jax.random.key(0))
    slow = {"leak": 0.01} if kind == "leaky" else {"leak": jnp.full(HID, 0.01)} if kind == "leaks" else {"cell": kind}
    params = rnn_jax.init_params(key, input_size=IN, hidden_size=HID, output_size=OUT, **slow)
    if kind in ("gru", "lstm"):  # the update gate, the forget gate
        (cell,) = params.cells
        params = params._replace(cells=(cell.replace(b_h=cell.b_h.at[HID : 2 * HID].set(6.0)),))
    batch = rnn_jax.Batch(jax.random.normal(xs_key, (time, 2, IN)), jnp.array([[1, 4]]))  # targets of the last step
    return cast(cast((params, batch, rnn_jax.zero_state(params, 2)), jnp.bfloat16), jnp.float32)


def leaf_errors(actual, truth):
    """The largest error of each leaf, relative to the largest entry of that leaf, by name."""
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(truth), strict=True)
    return {
        jax.tree_util.keystr(path): float(np.max(np.abs(np.float64(x) - np.float64(y))) / np.max(np.abs(np.float64(y))))
        for (path, x), y in pairs
    }


TIMES = (10, 100, 1000, 10000)


@functools.cache
def float64_truth(loss, reduction, time, seed):
    method = evaluated if time <= 100 else compiled
    return method("bptt", loss, reduction)(*cast(long_problem(loss, time, seed), jnp.float64))


def bfloat16_errors(method, loss, problem, compute_dtype):
    """Errors in eps of bfloat16, compared with the exact result for the rounded values of the problem."""
    result = compiled(method, loss, "sum", compute_dtype)(*problem)
    truth = evaluated("stepwise", loss)(*cast(problem, jnp.float64))
    return {leaf: error / BF16_EPS for leaf, error in leaf_errors(result, truth).items()}
