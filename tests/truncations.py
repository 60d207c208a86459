"""Problems, windows and definitions for the methods that are not exact."""

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy
from problems import OPTIONS, Case, method_of

import rnn_jax
from rnn_jax import Plan
from rnn_jax.verify._grid import covering, with_other_cells

CASES = covering(OPTIONS | {"num_layers": [1, 2]}, 2)
OTHER_CASES = covering(with_other_cells(OPTIONS | {"num_layers": [1, 2]}), 2)
FLAGGED = Case(num_layers=2, weights=True, mask=True, reset=True, time=13)
INEXACT = [name for name, method in rnn_jax.GRADIENTS.items() if not method.exact]
WINDOWS = [
    {"k1": 1, "k2": 1},
    {"k1": 1, "k2": 3},
    {"k1": 2, "k2": 5, "plan": Plan(2)},
    {"k1": 3, "k2": 3},
    {"k1": 3, "k2": 7, "plan": Plan(3, (6,), 3)},
    {"k1": 4, "k2": 6, "plan": Plan(8)},
    {"k1": 5, "k2": 13},
    {"k1": 13, "k2": 13},
    {"k1": 50, "k2": 60},
]
OTHER_WINDOWS = [  # gates kept, and recomputed
    {"k1": 1, "k2": 3, "plan": Plan(4)},
    {"k1": 2, "k2": 5, "plan": Plan(2, remake=True)},
    {"k1": 3, "k2": 7, "plan": Plan(3, (6,), 3)},
    {"k1": 3, "k2": 7, "plan": Plan(3, (6,), 3, remake=True)},
    {"k1": 4, "k2": 4},
]


def definition(method, case, problem, **options):
    reference = method_of(method, **options).reference
    return by_numpy(rnn_jax.make_grad_fn(reference, loss=case.loss, reduction=case.reduction))(*problem)


def keyed(problem, seed=0):
    params, batch, h_0 = problem
    return params, batch._replace(key=jax.random.key(seed)), h_0


def decaying(rho, time, seed=0, activation="identity", hid=12):
    """A network whose gradient falls by `rho` per step: a scaled rotation."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((hid, hid)))
    cell = rnn_jax.CellParams(
        jnp.asarray(0.5 * rng.standard_normal((3, hid))), jnp.asarray(rho * rotation), jnp.zeros(hid), activation
    )
    readout = rnn_jax.ReadoutParams(jnp.asarray(rng.standard_normal((hid, 5)) / hid**0.5), jnp.zeros(5))
    batch = rnn_jax.Batch(jnp.asarray(rng.standard_normal((time, 4, 3))), jnp.asarray(rng.integers(0, 5, (time, 4))))
    return rnn_jax.Params((cell,), readout), batch, (jnp.zeros((4, hid)),)
