"""`by_numpy` computes what XLA computes; every rule is tested."""

import functools

import by_numpy as module
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax import lax
from problems import Case, assert_trees_close, make_problem

import rnn_jax

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 4, 5))
POSITIVE = np.abs(X) + 0.5


def entrywise(x, positive):
    flags = x > 0, x >= 0.1, x < 0.5, x <= positive, jnp.isfinite(jnp.log(x))
    whole = (10 * x).astype(int)
    return (
        [fn(x) for fn in (jnp.negative, jnp.abs, jnp.sign, jnp.square, jnp.exp, jnp.tanh, jnp.sin, jnp.cos, jnp.cosh)],
        [fn(positive) for fn in (jnp.sqrt, jnp.log, jnp.log1p)],
        [fn(x, positive) for fn in (jnp.add, jnp.subtract, jnp.multiply, jnp.divide, jnp.maximum, jnp.minimum)],
        [x**3, positive**-2, lax.div(whole, 3 * jnp.ones_like(whole)), jnp.copy(x), lax.stop_gradient(x)],
        [whole == 3, whole != 3, *flags, flags[0] & flags[1], flags[2] | flags[3], ~flags[0], ~whole],
        [jnp.where(flags[0], x, positive), lax.select_n(jnp.abs(whole) % 3, x, positive, -x)],
    )


def reshaped(x):
    moved = jnp.transpose(x, (2, 0, 1))
    return (
        [x.reshape(6, 4), moved, x[:, :1].squeeze(1), lax.expand_dims(x, (1, 3)), jnp.flip(x, (0, 2))],
        [jnp.concatenate([x, 2 * x], 1), jnp.broadcast_to(x[0], (5, 3, 4)), lax.broadcasted_iota(int, (3, 4), 1)],
        [lax.pad(x, 7.0, [(1, 0, 0), (0, 2, 0), (0, 0, 0)]), lax.pad(x, 7.0, [(-1, 0, 0), (0, 2, 1), (0, 0, 0)])],
        [x[1:, ::2, 1:3], lax.slice(moved, (1, 0, 0), (4, 2, 3), (2, 1, 1))],
    )


def at_the_border(x, start):
    """A slice at `start` that reaches past the border."""
    starts = start, 0 * start, start
    return lax.dynamic_slice(x, starts, (1, 2, 3)), lax.dynamic_update_slice(x, -x[:1, :2, :3], starts)


def reduced(x):
    return (
        [fn(x, axis) for fn in (jnp.sum, jnp.max, jnp.min, jnp.argmax) for axis in (0, 2)],
        [jnp.sum(x, (0, 2)), jnp.all(x > -1, (1, 2)), jnp.any(x > 1, 0), jnp.argmax(x)],
        [lax.cumsum(x, 1), lax.cumsum(x, 2, reverse=True)],
    )


def products(x, y):
    return (
        [x @ y, jnp.einsum("bij,bjk->bik", x, y), jnp.einsum("bij,bjk->kbi", x, y), jnp.einsum("bij,cjk->bcik", x, y)],
        [jnp.einsum("bij,bij->i", x, x), jnp.tensordot(x, x, 3), jnp.outer(x[0, 0], y[0, 0])],
        lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,))), preferred_element_type=jnp.float64),
    )


def gathered(x, rows, columns):
    """Indices inside and outside of `x`, each at its end and before its start."""
    modes = "fill", "clip"
    taken = [x.at[rows].get(mode=mode) for mode in modes] + [x.at[1, rows].get(mode=mode) for mode in modes]
    inside = [x.at[rows % 2].get(mode="promise_in_bounds"), x[:, rows], x[rows % 2, 1:, rows]]
    along = [jnp.take_along_axis(x, columns, 2, mode=mode) for mode in ("fill", "clip")]
    return taken, inside, along, jax.vmap(lambda x, i: x[i])(x, rows[:2]), jnp.take(rows, rows, mode="fill")


def scattered(x, rows, y):
    modes = "drop", "clip", "promise_in_bounds"
    inside = rows % 2
    added = [x.at[inside if mode == "promise_in_bounds" else rows].add(y, mode=mode) for mode in modes]
    rows_of_each = jax.vmap(lambda x, i: x.at[i].add(7.0, mode="drop"))(x, jnp.stack([rows, inside])[:, :3])
    pulled_back = jax.grad(lambda x: jnp.sum(gathered(x, rows, rows[None, None, :3])[1][2] ** 2))(x)
    return added, x.at[:, 1].add(y[:2, 0]), x.at[inside, :, rows].add(2.0, mode="drop"), rows_of_each, pulled_back


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (halved(x), None), lambda _, d_y: (d_y,))  # not its derivative: seen if it is used


def controlled(x, n):
    def body(carry, x_t):
        return jnp.tanh(carry + x_t @ x_t.T), carry[0]

    start = jnp.zeros((3, 3))
    forwards, backwards = (lax.scan(body, start, x, reverse=reverse) for reverse in (False, True))
    nested = lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + lax.fori_loop(0, 2, jnp.add, c[0])), (0, x))
    branches = [lambda x: x + 1, lambda x: x * 2, lambda x: x - 3]
    chosen = [lax.switch(n + i, branches, x) for i in (-9, -3, -2, 5)] + [lax.cond(n > 9, *branches[:2], x)]
    called = jax.jit(jnp.sin)(x), jax.nn.relu(x), halved(x), lax.platform_dependent(x, cpu=jnp.cos, cuda=jnp.sin)
    return forwards, backwards, nested, chosen, called


def derivatives(x):
    def loss(x):
        again = jax.checkpoint(lambda x: jnp.sin(x) * jnp.tanh(x))(x)
        return jnp.sum(again) + jnp.sum(halved(x)) + jnp.sum(jax.nn.relu(x))

    def looped(x):
        return jnp.sum(lax.scan(lambda h, x_t: (jnp.tanh(h * x_t), jnp.sin(h)), x[0], x)[1])

    again = jax.grad(jax.checkpoint(looped))(x)
    return again, jax.value_and_grad(loss)(x), jax.jvp(jax.grad(lambda x: jnp.sum(jnp.exp(x) * x)), (x,), (x,))


def unrolled(cell, h_0, xs):
    def loss(cell, h_0, xs):
        return jnp.sum(jnp.sin(rnn_jax.unroll_bptt(cell, h_0, xs)))

    return jax.value_and_grad(loss, (0, 1, 2))(cell, h_0, xs), rnn_jax.unroll_bptt(cell, h_0, xs)


PARAMS, BATCH, H_0 = make_problem(Case(time=4))
ROWS = np.array([0, 1, 2, -1, -3, 1])
PROGRAMS = {
    "entrywise": (entrywise, X, POSITIVE),
    "reshaped": (reshaped, X),
    "within the border": (at_the_border, X, np.int64(0)),
    "beyond the border": (at_the_border, X, np.int64(9)),
    "before the border": (at_the_border, X, np.int64(-9)),
    "reduced": (reduced, X),
    "products": (products, X, Y),
    "gathered": (gathered, X, ROWS, np.array([[[0, 3, 4, -1, -5]]])),
    "scattered": (scattered, X, ROWS, RNG.standard_normal((6, 3, 4))),
    "controlled": (controlled, X, np.int64(3)),
    "derivatives": (derivatives, X),
    "unrolled": (unrolled, PARAMS.cells[0], H_0[0], BATCH.inputs),
}


@functools.cache
def compiled(fn):
    return jax.jit(fn)


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_computes_what_xla_computes(name):
    fn, *args = PROGRAMS[name]
    mine, expected = by_numpy(fn)(*args), compiled(fn)(*args)
    pairs = zip(jax.tree.leaves_with_path(mine), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        where = jax.tree_util.keystr(path)
        assert x.dtype == y.dtype and x.shape == y.shape, where
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14, err_msg=where)


NAMES = [{"jit", "pjit", "closed_call"}, {"checkpoint", "remat2"}]  # of one operation in different releases of JAX


def test_every_rule_is_one_that_these_programs_use(monkeypatch):
    used = set()

    def noted(name, rule):
        return lambda equation, *xs: (used.add(name), rule(equation, *xs))[1]

    monkeypatch.setattr(module, "RULES", {name: noted(name, rule) for name, rule in module.RULES.items()})
    for fn, *args in PROGRAMS.values():
        by_numpy(fn)(*args)
    known = set().union(*(names for names in NAMES if names & used))
    assert sorted(module.RULES.keys() - used - known) == []


def test_a_wrong_rule_is_seen(monkeypatch):
    fn, *args = PROGRAMS["unrolled"]
    expected = by_numpy(fn)(*args)
    monkeypatch.setitem(module.RULES, "tanh", lambda equation, x: np.tanh(x) * (1 + 1e-9))
    with pytest.raises(AssertionError):
        assert_trees_close(by_numpy(fn)(*args), expected, rtol=1e-12)
