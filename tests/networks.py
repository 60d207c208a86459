"""Networks whose dynamics are known, and their Lyapunov exponents."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import rnn_jax

KEY = jax.random.key(0)


def network(w_hh, activation="identity", leak=1.0, b_h=None):
    """One layer without input weights."""
    hid = len(w_hh)
    b_h = jnp.zeros(hid) if b_h is None else b_h
    cell = rnn_jax.CellParams(jnp.zeros((1, hid)), jnp.asarray(w_hh), b_h, activation, leak)
    return rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((hid, 1)), jnp.zeros(1)))


def random_network(hid, gain, seed=0, activation="tanh"):
    w_hh = gain / hid**0.5 * np.random.default_rng(seed).standard_normal((hid, hid))
    h_0 = (jnp.asarray(np.random.default_rng(seed + 1).standard_normal(hid)),)
    return network(w_hh, activation), h_0


def spectrum(params, h_0, *args, **options):
    fn = partial(rnn_jax.dynamics.lyapunov_exponents, **options)
    return jax.jit(fn)(KEY, params, h_0, *args)


def in_single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
