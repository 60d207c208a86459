"""One layer with flags or tokens, its tangents, and a loss that is curved, for tests of `unroll_bptt`."""

import jax
import jax.numpy as jnp
import numpy as np
from problems import Case, make_problem

ALL = (0, 1, 2)
CASES = {
    "plain": Case(time=4),
    "flags": Case(time=4, mask=True, reset=True, activation="relu"),
    "tokens": Case(time=4, mask=True, inputs="tokens", activation="identity"),
}


def problem_of(name, seed=0):
    """`(cell, h_0, xs)`, tangents of the same shapes, and the flags."""
    params, batch, h_0 = make_problem(CASES[name], seed)
    primals = params.cells[0], h_0[0], batch.inputs
    rng = np.random.default_rng(seed + 1)
    tangents = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), primals)
    return primals, tangents, {"mask": batch.mask, "reset": batch.reset}


def loss_of(unroll_fn, flags):
    """A loss that is not a sum over steps, with second and third derivatives that are not zero, even for relu."""

    def loss(cell, h_0, xs):
        hs = unroll_fn(cell, h_0, xs, **flags)
        return jnp.sum(jnp.sin(hs[-1] * hs[0])) + jnp.sum(jnp.tanh(jnp.cumsum(hs, axis=0)) ** 2)

    return loss


def over_sequences(f, h_0, xs):
    """`f(h_0, xs)` vmapped over the sequences of a batch."""
    return jax.vmap(f, (0, 1), 1)(h_0, xs)
