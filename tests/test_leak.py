"""Leaky units: the equation, its derivatives, its rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import EXACT, Case, assert_trees_close, cast, make_problem, run, run_compiled

import rnn_jax


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_a_leak_is_the_equation(activation):
    case = Case(activation=activation, leak=0.3)
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    w_xh, w_hh, b_h = map(np.asarray, (cell.w_xh, cell.w_hh, cell.b_h))
    phi = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "identity": lambda a: a}[activation]
    h = np.asarray(h_0[0])
    hs = by_numpy(rnn_jax.unroll)(cell, h_0[0], batch.inputs)
    for x, h_t in zip(np.asarray(batch.inputs), hs, strict=True):
        h = 0.7 * h + 0.3 * phi(x @ w_xh + h @ w_hh + b_h)
        np.testing.assert_allclose(h_t, h, rtol=1e-12)


def test_a_leak_under_the_transformations():
    params, batch, h_0 = make_problem(Case(leak=0.3, mask=True, reset=True))
    arguments = params.cells[0], h_0[0], jnp.where(batch.mask[..., None], batch.inputs, 0)
    tangents = jax.tree.map(lambda x: jnp.asarray(np.cos(x)), arguments)

    def states(unroll):
        return lambda *args: unroll(*args, mask=batch.mask, reset=batch.reset)

    mine, theirs = states(rnn_jax.unroll_bptt), states(rnn_jax.unroll)
    jvps = [by_numpy(lambda *a, f=f: jax.jvp(f, a, tangents))(*arguments) for f in (mine, theirs)]
    assert_trees_close(*jvps, rtol=1e-12)
    grads = [jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2)) for f in (mine, theirs)]
    expected = by_numpy(grads[1])(*arguments)
    for evaluated in (by_numpy, jax.jit):
        assert_trees_close(evaluated(grads[0])(*arguments), expected, rtol=1e-12)


def test_relu_with_a_leak_in_float32():
    """φ' from two rounded states would be wrong near the kink; from the pre-activation it is right."""
    case = Case(activation="relu", leak=0.1, time=40)
    problem = make_problem(case)
    low, truth = cast(problem, jnp.float32), cast(run("autodiff", case, problem), jnp.float32)
    of_method = {method: run_compiled(method, case, low) for method in EXACT}
    assert_trees_close(of_method, dict.fromkeys(EXACT, truth), rtol=2e-5)


BAD = [
    (lambda: rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=1, output_size=1, leak=0.0), ValueError, "`leak` must be a number above 0 and at most 1, got 0.0."),
    (lambda: rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=1, output_size=1, leak="a"), TypeError, "`leak` must be a number above 0 and at most 1, got 'a'."),
    (lambda: rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=2, output_size=1, leak=np.full(2, 1e-60), dtype=jnp.float32), ValueError, "`leak` must hold numbers above 0 and at most 1, got array([1.e-60, 1.e-60])."),
]  # fmt: skip


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("call, error, message", BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
