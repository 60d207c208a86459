"""Lyapunov exponents, compared with known matrices, with QR by NumPy, and with theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from networks import KEY, in_single, network, random_network, spectrum
from problems import Case, make_problem

import rnn_jax
from test_cells import problem_of


def test_a_linear_network():
    """Log singular values of the powers over their number, in the limit log |eigenvalue|."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((4, 4))
    values = np.array([1.3, 0.9, -0.5, 0.2])
    w_hh = basis @ np.diag(values) @ np.linalg.inv(basis)
    params = network(w_hh)
    found = spectrum(params, rnn_jax.zero_state(params), num_steps=600, skip=100)
    np.testing.assert_allclose(found.exponents, np.sort(np.log(np.abs(values)))[::-1], atol=1e-3)
    jacobians = by_numpy(rnn_jax.dynamics.step_jacobians)(params.cells[0], jnp.zeros(4), jnp.zeros((500, 1)))
    powers = rnn_jax.dynamics.log_singular_values(jnp.asarray(jacobians), [500])[0] / 500
    np.testing.assert_allclose(found.exponents, powers, atol=5e-3)
    few = spectrum(params, rnn_jax.zero_state(params), num=2, num_steps=600, skip=100)
    np.testing.assert_allclose(few.exponents, found.exponents[:2], atol=1e-3)


def test_leaky_units_that_only_forget():
    params = network(np.zeros((3, 3)), leak=0.2)
    found = spectrum(params, rnn_jax.zero_state(params, 2), num_steps=40)
    np.testing.assert_allclose(found.exponents, np.full((2, 3), np.log(0.8)), rtol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-12)


@pytest.mark.parametrize("leak", [1.0, 0.4])
@pytest.mark.parametrize("driven", [False, True])
def test_the_sum_of_all_is_the_shrinking_of_volumes(driven, leak):
    """`Σ λ = mean Σ log |φ'| + log |det W_hh|` without leak; with one, mean log |det J_t|."""
    rng = np.random.default_rng(0)
    cell = rnn_jax.CellParams(
        jnp.asarray(rng.standard_normal((2, 5))),
        jnp.asarray(rng.standard_normal((5, 5))),
        jnp.asarray(0.1 * rng.standard_normal(5)),
        "tanh",
        leak,
    )
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((5, 1)), jnp.zeros(1)))
    xs = jnp.asarray(rng.standard_normal((200, 2))) if driven else jnp.zeros((200, 2))
    h_0 = jnp.asarray(0.1 * rng.standard_normal(5))
    found = spectrum(params, (h_0,), xs) if driven else spectrum(params, (h_0,), num_steps=200)
    if leak == 1:
        hs = by_numpy(rnn_jax.unroll)(cell, h_0, xs)
        expected = np.mean(np.sum(np.log(1 - hs**2), -1)) + np.linalg.slogdet(cell.w_hh)[1]
    else:
        expected = np.mean(np.linalg.slogdet(by_numpy(rnn_jax.dynamics.step_jacobians)(cell, h_0, xs))[1])
    np.testing.assert_allclose(np.sum(found.exponents), expected, rtol=1e-10)


@pytest.mark.parametrize("cell", ["leaky", "gru", "lstm"])
def test_a_stack_beside_its_jacobians(cell):
    """The exponents of two layers together: QR of the Jacobians of the joint state, by JAX. An LSTM has 2 hid each."""
    case = Case(num_layers=2, batch=(), time=40)
    params, batch, h_0 = make_problem(case._replace(leak=0.6)) if cell == "leaky" else problem_of(cell, case)
    found = spectrum(params, h_0, batch.inputs)
    half = h_0[0].shape[0]
    size = 2 * half
    assert found.exponents.shape == (size,)

    def step(state, x_t):
        _, (a, b) = rnn_jax.apply_step(params, (state[:half], state[half:]), x_t)
        return jnp.concatenate([a, b])

    q, state, logs = np.linalg.qr(np.asarray(jax.random.normal(KEY, (size, size))))[0], jnp.concatenate(h_0), []
    jacobian, step = by_numpy(jax.jacfwd(step)), by_numpy(step)
    state = np.asarray(state)
    for x_t in np.asarray(batch.inputs):
        q, r = np.linalg.qr(jacobian(state, x_t) @ q)
        state = step(state, x_t)
        logs.append(np.log(np.abs(np.diag(r))))
    order = np.argsort(-np.mean(logs, 0))
    logs = np.asarray(logs)[:, order]
    np.testing.assert_allclose(found.exponents, np.mean(logs, 0), rtol=1e-9)
    blocks = np.reshape(logs, (10, 4, size)).mean(1)
    np.testing.assert_allclose(found.errors, blocks.std(0, ddof=1) / 10**0.5, rtol=1e-9)


def test_states_that_grow_out_of_range_and_units_that_are_dead():
    cell = rnn_jax.CellParams(jnp.ones((1, 3)), 3 * jnp.eye(3), jnp.zeros(3), "relu", 0.5)
    params = jax.tree.map(
        lambda x: x.astype(jnp.float32), rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((3, 1)), jnp.zeros(1)))
    )
    h_0 = rnn_jax.zero_state(params)
    short, long = (spectrum(params, h_0, jnp.ones((steps, 1), jnp.float32)) for steps in (100, 300))
    np.testing.assert_allclose(short.exponents, np.log(2), rtol=1e-5)
    assert np.all(np.isnan(long.exponents)) and np.all(long.rounding == np.inf) and np.all(long.errors == np.inf)
    linear = network(3 * np.eye(3))
    linear = linear._replace(cells=(rnn_jax.CellParams(jnp.ones((1, 3)), 3 * jnp.eye(3), jnp.zeros(3), "identity"),))
    found = spectrum(linear, rnn_jax.zero_state(linear), jnp.ones((800, 1)))
    assert np.all(np.isnan(found.exponents)) and np.all(found.rounding == np.inf)
    dead = network(np.eye(3), "relu", b_h=-jnp.ones(3))
    assert np.all(spectrum(dead, rnn_jax.zero_state(dead), num_steps=20).exponents == -np.inf)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_a_singular_recurrence_loses_a_direction(activation, single):
    """What a QR decomposition leaves of a zero is rounding, and not taken for an exponent."""
    params = network(np.ones((2, 2)), activation)
    params = in_single(params) if single else params
    found = spectrum(params, (0.01 * jnp.ones_like(params.cells[0].b_h),), num_steps=20)
    assert np.isfinite(found.exponents[0]) and found.exponents[1] == -np.inf
    assert found.rounding[0] < 1e-5 and found.rounding[1] == np.inf and found.errors[1] == np.inf
    if activation == "identity":
        settled = spectrum(params, (0.01 * jnp.ones_like(params.cells[0].b_h),), num_steps=20, skip=5)
        np.testing.assert_allclose(settled.exponents[0], np.log(2), rtol=1e-6)


def test_a_matrix_of_half_the_rank():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((32, 16)), rng.standard_normal((16, 32)) / 32
    w_hh = left @ right
    found = spectrum(in_single(network(w_hh)), (jnp.zeros(32, jnp.float32),), num_steps=60, skip=20)
    assert np.all(np.isfinite(found.exponents[:16])) and np.all(found.exponents[16:] == -np.inf)
    np.testing.assert_allclose(np.sum(found.exponents[:16]), np.linalg.slogdet(right @ left)[1], rtol=1e-5)
    assert np.all(found.rounding[:16] < 0.1)


def test_a_saturated_unit_is_not_dead():
    """In float32 `1 - tanh(8)²` is 0: `log(W / cosh(8)²)` is right."""
    params = in_single(network([[0.5]], "tanh", b_h=jnp.array([7.5])))
    found = spectrum(params, rnn_jax.zero_state(params), num_steps=30, skip=1)
    right = np.log(0.5 / np.cosh(8.0) ** 2)
    assert right == pytest.approx(-15.307, abs=1e-3)
    np.testing.assert_allclose(found.exponents, right, rtol=1e-6)
    jacobians = rnn_jax.dynamics.step_jacobians(
        params.cells[0], jnp.ones(1, jnp.float32), jnp.zeros((3, 1), jnp.float32)
    )
    np.testing.assert_allclose(np.log(jacobians[1:, 0, 0]), right, rtol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_small_exponents_in_float32_beside_float64(gain):
    """All 32 of a driven network, the last of them far below the rounding of a matrix; QR at each step by NumPy."""
    rng = np.random.default_rng(0)
    w_hh, w_xh = gain / 32**0.5 * rng.standard_normal((32, 32)), rng.standard_normal((4, 32))
    xs = rng.standard_normal((200, 4))
    cell = rnn_jax.CellParams(jnp.asarray(w_xh), jnp.asarray(w_hh), jnp.zeros(32), "tanh")
    params = in_single(network(w_hh)._replace(cells=(cell,)))
    found = spectrum(params, rnn_jax.zero_state(params), jnp.asarray(xs, jnp.float32))
    q = np.linalg.qr(np.asarray(jax.random.normal(KEY, (32, 32), jnp.float32), float))[0]
    h, logs = np.zeros(32), []
    for x_t in xs:
        a = x_t @ w_xh + h @ w_hh
        h = np.tanh(a)
        q, r = np.linalg.qr((w_hh / np.cosh(a) ** 2).T @ q)
        logs.append(np.log(np.abs(np.diag(r))))
    exact = np.mean(logs, 0)
    assert exact[-1] < -7 and np.all(found.rounding < 1e-3)
    assert np.all(np.abs(np.asarray(found.exponents, float) - exact) <= np.asarray(found.rounding, float) + 2e-5)


@pytest.mark.parametrize("factor", [1e-5, 100.0])
def test_one_factor_at_every_step(factor):
    """Steps whose product leaves the range of float32."""
    params = in_single(network(factor * np.eye(3)))
    found = spectrum(params, rnn_jax.zero_state(params), num_steps=40)
    np.testing.assert_allclose(found.exponents, np.log(factor), rtol=1e-6)


def test_units_that_are_off_are_told_from_rounding():
    params = in_single(network(np.eye(3), "relu", b_h=jnp.array([-1.0, 1.0, 1.0])))
    found = spectrum(params, rnn_jax.zero_state(params), num_steps=40, skip=10)
    np.testing.assert_allclose(found.exponents, [0, 0, -np.inf], atol=1e-6)
    assert found.rounding[2] == 0 and np.all(np.isfinite(found.rounding))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("w_hh", [[[0.5]], 0.5 * np.eye(2), [[0.5, 0.2], [0.1, 0.5]]])
def test_a_slope_that_underflows_is_no_exact_zero(w_hh, single):
    """`log(W / cosh(60)²)` is -120 in float64; float32 has no such number, float64 none such as `1 / cosh(400)²`."""
    b_h = np.full(len(w_hh), 60.0 if single else 400.0)
    params = network(w_hh, "tanh", b_h=jnp.asarray(b_h))
    found = spectrum(
        in_single(params) if single else params,
        rnn_jax.zero_state(in_single(params) if single else params),
        num_steps=20,
        skip=2,
    )
    assert np.all(found.exponents == -np.inf) and np.all(found.rounding == np.inf)


def test_an_underflow_below_a_relu_that_is_off():
    """The tanh layer may have lost its slope, the unit above it is certainly off."""
    tanh = rnn_jax.CellParams(jnp.ones((1, 1)), jnp.array([[0.5]]), jnp.array([60.0]), "tanh")
    relu = rnn_jax.CellParams(jnp.ones((1, 1)), jnp.array([[0.5]]), jnp.array([-9.0]), "relu")
    params = in_single(network([[0.5]])._replace(cells=(tanh, relu)))
    found = spectrum(params, rnn_jax.zero_state(params), num_steps=20, skip=2)
    assert np.all(found.exponents == -np.inf) and sorted(found.rounding) == [0, np.inf]


def test_no_sequences():
    params = network(np.eye(3))
    found = spectrum(params, (jnp.zeros((0, 3)),), num=2, num_steps=20)
    assert all(x.shape == (0, 2) for x in found)
    assert rnn_jax.dynamics.flossing(KEY, params, (jnp.zeros((0, 3)),), num=2, num_steps=3) == 0


def test_half_precision_is_computed_in_float32():
    params, h_0 = random_network(8, 1.5)
    params, h_0 = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, h_0))
    assert spectrum(params, h_0, num_steps=20).exponents.dtype == jnp.float32
    jacobians = rnn_jax.dynamics.step_jacobians(params.cells[0], h_0[0], jnp.zeros((5, 1), jnp.bfloat16))
    assert rnn_jax.dynamics.log_singular_values(jacobians, np.array([1, 5])).dtype == jnp.float32


def test_neighbouring_trajectories():
    """The largest exponent is how fast a pair of states, brought close again at every step, parts: here, meets.

    Driven, so that there is one trajectory to follow: of chaos, rounding makes another one on every machine.
    """
    params, h_0 = random_network(40, 1.5)
    w_xh = jnp.asarray(np.random.default_rng(2).standard_normal((1, 40)))
    cell = rnn_jax.CellParams(w_xh, params.cells[0].w_hh, params.cells[0].b_h, "tanh")
    xs = jnp.asarray(np.random.default_rng(3).standard_normal((1500, 1)))
    found = spectrum(params._replace(cells=(cell,)), h_0, xs, num=1, skip=500)

    def body(pair, x_t):
        h, other = rnn_jax.step(cell, pair[0], x_t), rnn_jax.step(cell, pair[1], x_t)
        apart = jnp.linalg.norm(other - h)
        return (h, h + 1e-7 * (other - h) / apart), jnp.log(apart / 1e-7)

    _, logs = jax.jit(lambda h: jax.lax.scan(body, (h, h + 1e-7 / 40**0.5), xs))(h_0[0])
    np.testing.assert_allclose(found.exponents[0], jnp.mean(logs[500:]), atol=1e-5)
    assert found.exponents[0] < -0.05


def mean_field(gain):
    """`λ_1 = ½ ln(g² E[φ'(√q z)²])` with `q = g² E[φ(√q z)²]`, z standard normal, of an infinitely large network."""
    z, w = np.polynomial.hermite_e.hermegauss(201)
    w, q = w / w.sum(), 1.0
    for _ in range(2000):
        q = gain**2 * np.sum(w * np.tanh(q**0.5 * z) ** 2)
    return 0.5 * np.log(gain**2 * np.sum(w * (1 - np.tanh(q**0.5 * z) ** 2) ** 2))


@pytest.mark.parametrize("gain, expected", [(2.0, 0.1547), (1.2, None), (4.0, None)])
def test_large_random_networks_beside_mean_field_theory(gain, expected):
    theory = mean_field(gain)
    if expected is not None:
        assert theory == pytest.approx(expected, abs=5e-5)
    params, h_0 = random_network(600, gain)
    params, h_0 = jax.tree.map(lambda x: x.astype(jnp.float32), (params, h_0))
    found = spectrum(params, h_0, num=1, num_steps=2500, skip=500)
    assert abs(float(found.exponents[0]) - theory) < 0.02
    assert 0 < float(found.errors[0]) < 0.01


def test_below_the_edge_of_chaos_everything_dies():
    params, h_0 = random_network(100, 0.7)
    found = spectrum(params, h_0, num=3, num_steps=400, skip=100)
    assert np.all(found.exponents < -0.25)


def test_kaplan_yorke():
    dimension = by_numpy(rnn_jax.dynamics.kaplan_yorke)
    assert float(jax.jit(rnn_jax.dynamics.kaplan_yorke)(np.array([0.5, 0.0, -0.25, -1.0]))) == pytest.approx(3.25)
    assert float(dimension(jnp.array([-0.1, -0.2]))) == 0
    assert float(dimension(jnp.array([0.3, 0.1]))) == 2
    assert float(dimension(jnp.array([0.5, 0.0, -0.25, -1.0]))) == pytest.approx(3.25)
    assert float(dimension(jnp.array([0.0, -1.0]))) == 1
    several = jnp.array([[[-0.1, -0.2], [0.3, 0.1]], [[0.0, -1.0], [0.5, jnp.nan]]])
    np.testing.assert_allclose(dimension(several), [[0, 2], [1, np.nan]])


def test_flossing_has_the_gradient_of_its_value():
    """By JAX through the QR decompositions, beside central differences; and descent brings the exponents to zero."""
    params, h_0 = random_network(6, 0.8)
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((12, 1)))

    def penalty(params):
        return rnn_jax.dynamics.flossing(KEY, params, h_0, xs, num=3)

    report = rnn_jax.check_gradients(penalty, params)
    assert report.passed, report

    @jax.jit
    def descend(params, _):
        value, d_params = jax.value_and_grad(penalty)(params)
        return jax.tree.map(lambda w, d: w - 0.05 * d, params, d_params), value

    params, values = jax.lax.scan(descend, params, length=200)
    assert values[-1] < 0.01 * values[0]
    found = spectrum(params, h_0, jnp.tile(xs, (2, 1)), num=3)
    assert np.all(np.abs(found.exponents) < 0.3)
