"""Jacobians of steps and singular values of their products, compared with JAX and with known matrices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, make_problem

import rnn_jax
from test_cells import problem_of


@pytest.mark.parametrize(
    "case",
    [
        Case(batch=(2,), time=4),
        Case(batch=(), time=4, activation="relu", leak=0.3),
        Case(batch=(2, 2), time=4, mask=True, reset=True, drop=True),
        Case(batch=(2,), time=4, mask=True, reset=True, drop=True, leak=0.4, inputs="tokens"),
    ],
    ids=str,
)
def test_step_jacobians_beside_jacfwd(case):
    beside_jacfwd(case, make_problem(case))


@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole"])
def test_step_jacobians_of_a_gated_cell_beside_jacfwd(cell):
    """Of the whole state: (h, c) of an LSTM."""
    case = Case(batch=(2,), time=4, mask=True, reset=True, drop=True)
    beside_jacfwd(case, problem_of(cell, case))


def beside_jacfwd(case, problem):
    params, batch, h_0 = problem
    cell, drop = params.cells[0], batch.drop
    flags = {"mask": batch.mask, "reset": batch.reset, "r": None if drop is None else drop.recurrent[0]}
    evaluated = jax.jit if case.drop and case.leak != 1 else by_numpy
    jacobians = evaluated(partial(rnn_jax.dynamics.step_jacobians, **flags))(cell, h_0[0], batch.inputs)
    h = h_0[0]
    for t in range(4):
        now = {name: None if flags[name] is None else flags[name][t : t + 1] for name in ("mask", "reset")}

        def step(h, t=t, now=now):
            return rnn_jax.unroll(cell, h, batch.inputs[t : t + 1], **now, r=flags["r"])[0]

        full = by_numpy(jax.jacfwd(step))(h)  # of every sequence in every other: only their own are not zero
        for b in np.ndindex(*case.batch):
            np.testing.assert_allclose(jacobians[(t, *b)], full[(*b, slice(None), *b)], atol=1e-14)
        h = by_numpy(step)(h)


def test_a_cotangent_goes_back_through_them():
    """`δ_{t-1} = δ_t J_t` where no loss is read on the way."""
    case = Case(time=6, last="one", leak=0.7)
    params, batch, h_0 = make_problem(case)
    jacobians = by_numpy(rnn_jax.dynamics.step_jacobians)(params.cells[0], h_0[0], batch.inputs)
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch, h_0).layers
    for t in range(1, 6):
        np.testing.assert_allclose(layer.d_hs[t - 1], np.einsum("bi,bij->bj", layer.d_hs[t], jacobians[t]), rtol=1e-12)


def test_singular_values_of_short_products():
    """As many as a matrix can hold: those of the matrix itself."""
    jacobians = np.random.default_rng(0).standard_normal((5, 6, 6))
    found = rnn_jax.dynamics.log_singular_values(jnp.asarray(jacobians), [1, 2, 5])
    product = np.eye(6)
    expected = {}
    for lag in range(1, 6):
        product = product @ jacobians[-lag]
        expected[lag] = np.log(np.linalg.svd(product, compute_uv=False))
    for row, lag in zip(found, (1, 2, 5), strict=True):
        np.testing.assert_allclose(row, expected[lag], atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_singular_values_of_long_products(scale):
    """Products of 400 that span 10 to the 500 and more, whose singular values are known: U D_1 D_2 … Vᵀ."""
    rng = np.random.default_rng(1)
    bases = [np.linalg.qr(rng.standard_normal((5, 5)))[0] for _ in range(401)]
    logs = rng.uniform(-1, 1, (400, 5)) + np.array([2.0, 1.9, 0.0, -1.0, -2.0]) + np.log(scale)
    jacobians = [bases[t + 1] @ np.diag(np.exp(logs[t])) @ bases[t].T for t in range(400)]
    found = rnn_jax.dynamics.log_singular_values(jnp.asarray(jacobians), [400, 50])
    for row, lag in zip(found, (400, 50), strict=True):
        np.testing.assert_allclose(row, np.sort(np.sum(logs[400 - lag :], 0))[::-1], atol=1e-6)


def test_singular_values_of_a_matrix_that_is_not_normal():
    """Beside exact arithmetic: a triangular matrix to the power 60, in integers."""
    matrix = np.array([[3, 5, 1], [0, 2, 7], [0, 0, 1]])
    exact = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=object)
    for _ in range(60):
        exact = exact @ matrix.astype(object)
    # of a 3 x 3 matrix P: the largest of PᵀP, of its second compound, and the determinant, all from integers
    gram = exact.T @ exact
    pairs = [(0, 1), (0, 2), (1, 2)]
    compound = np.array([[exact[a, c] * exact[b, d] - exact[a, d] * exact[b, c] for c, d in pairs] for a, b in pairs])
    scale, scale_2 = 10**50, 10**50
    first = 0.5 * np.log(np.linalg.eigvalsh((gram / scale).astype(float))[-1]) + 0.5 * np.log(float(scale))
    gram_2 = compound.T @ compound
    both = 0.5 * np.log(np.linalg.eigvalsh((gram_2 / scale_2).astype(float))[-1]) + 0.5 * np.log(float(scale_2))
    all_three = 60 * np.log(6.0)
    found = rnn_jax.dynamics.log_singular_values(jnp.asarray(np.broadcast_to(matrix, (60, 3, 3)), float), [60])[0]
    np.testing.assert_allclose(found, [first, both - first, all_three - both], rtol=1e-9)


@pytest.mark.parametrize("batch", [(3,), (2, 2), (0,)])
def test_singular_values_of_a_batch_are_those_of_each_sequence(batch):
    some = 0 not in batch
    params, example, h_0 = make_problem(Case(batch=batch, time=9, mask=some, reset=some))
    flags = {"mask": example.mask, "reset": example.reset}
    jacobians = rnn_jax.dynamics.step_jacobians(params.cells[0], h_0[0], example.inputs, **flags)
    found = rnn_jax.dynamics.log_singular_values(jacobians, [1, 4, 9])
    assert found.shape == (3, *batch, 4)
    for b in np.ndindex(*batch):
        alone = rnn_jax.dynamics.log_singular_values(jacobians[(slice(None), *b)], [1, 4, 9])
        np.testing.assert_allclose(found[(slice(None), *b)], alone, rtol=1e-12, atol=1e-12)
    assert rnn_jax.dynamics.log_singular_values(jacobians, []).shape == (0, *batch, 4)


def test_a_product_that_is_zero():
    """Dead units: -inf, and no NaN."""
    jacobians = jnp.stack([jnp.diag(jnp.array([2.0, 0.0, 1.0]))] * 30)
    found = rnn_jax.dynamics.log_singular_values(jacobians, [30])[0]
    np.testing.assert_allclose(found[:2], [30 * np.log(2), 0], atol=1e-12)
    assert found[2] == -np.inf
    assert np.all(rnn_jax.dynamics.log_singular_values(0 * jacobians, [1, 30]) == -np.inf)


def test_singular_values_of_saturated_steps_in_float32():
    """Jacobians whose rows are 10 orders of magnitude apart."""
    rng = np.random.default_rng(1)
    slopes = 10.0 ** rng.uniform(-10, 0, (20, 5))
    jacobians = np.float32(slopes[:, :, None] * rng.standard_normal((20, 5, 5)))
    found = rnn_jax.dynamics.log_singular_values(jnp.asarray(jacobians), [1, 20])
    exact = np.log(np.linalg.svd(jacobians[-1].astype(float), compute_uv=False))
    assert exact[-1] < exact[0] - 14  # 1e-6, and float32 has 7 digits
    np.testing.assert_allclose(found[0], exact, atol=1e-4)
    np.testing.assert_allclose(np.sum(found[1]), np.sum(np.linalg.slogdet(jacobians.astype(float))[1]), rtol=1e-5)
