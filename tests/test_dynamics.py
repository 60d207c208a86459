"""Jacobians, their products, Lyapunov exponents: beside JAX, beside matrices whose answer is known, beside theory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, make_problem

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
    params, batch, h_0 = make_problem(case)
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


def test_a_product_that_is_zero():
    """Dead units: -inf, and no NaN."""
    jacobians = jnp.stack([jnp.diag(jnp.array([2.0, 0.0, 1.0]))] * 30)
    found = rnn_jax.dynamics.log_singular_values(jacobians, [30])[0]
    np.testing.assert_allclose(found[:2], [30 * np.log(2), 0], atol=1e-12)
    assert found[2] == -np.inf
    assert np.all(rnn_jax.dynamics.log_singular_values(0 * jacobians, [1, 30]) == -np.inf)


def spectrum(params, h_0, *args, **options):
    fn = partial(rnn_jax.dynamics.lyapunov_exponents, **options)
    return jax.jit(fn)(KEY, params, h_0, *args)


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


def test_a_stack_beside_its_jacobians():
    """The exponents of two layers together: QR of the Jacobians of the joint state, by JAX."""
    case = Case(num_layers=2, batch=(), time=40, leak=0.6)
    params, batch, h_0 = make_problem(case)
    found = spectrum(params, h_0, batch.inputs)

    def step(state, x_t):
        _, (a, b) = rnn_jax.apply_step(params, (state[:4], state[4:]), x_t)
        return jnp.concatenate([a, b])

    q, state, logs = np.linalg.qr(np.asarray(jax.random.normal(KEY, (8, 8))))[0], jnp.concatenate(h_0), []
    jacobian, step = by_numpy(jax.jacfwd(step)), by_numpy(step)
    state = np.asarray(state)
    for x_t in np.asarray(batch.inputs):
        q, r = np.linalg.qr(jacobian(state, x_t) @ q)
        state = step(state, x_t)
        logs.append(np.log(np.abs(np.diag(r))))
    np.testing.assert_allclose(found.exponents, np.mean(logs, 0), rtol=1e-9)
    blocks = np.reshape(logs, (10, 4, 8)).mean(1)
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


def in_single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


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


# Pascanu, Mikolov and Bengio (2013): γ bounds φ', 1 for tanh and relu


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("size", [0.5, 0.95])
def test_a_small_matrix_makes_gradients_vanish_at_every_step(size, activation):
    """Largest singular value s < 1/γ: `‖δ_{t-1}‖ ≤ γ s ‖δ_t‖` at every step, so `‖δ_{T-k}‖ ≤ s^k ‖δ_T‖`."""
    case = Case(activation=activation, time=12, last="one", batch=(4,))
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    w_hh = np.asarray(cell.w_hh) * (size / np.linalg.norm(cell.w_hh, 2))
    params = params._replace(cells=(rnn_jax.CellParams(cell.w_xh, w_hh, cell.b_h, activation),))
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch, h_0).layers
    norms = np.asarray(layer.d_h_norms)
    assert np.all(norms[:-1] <= size * norms[1:] * (1 + 1e-12))
    assert np.all(norms[0] <= size**11 * norms[-1] * (1 + 1e-12)) and np.any(norms[0] > 0)


def test_a_gradient_explodes_only_where_a_singular_value_is_above_one():
    """Gains on either side, without activation: 0.9 vanishes, 1.1 explodes, at the rates of the largest direction."""
    norms = {}
    for gain in (0.9, 1.1):
        params, batch, h_0 = make_problem(Case(activation="identity", time=60, last="one"))
        cell = params.cells[0]
        rotation, _ = np.linalg.qr(np.asarray(cell.w_hh))
        cell = rnn_jax.CellParams(cell.w_xh, jnp.asarray(gain * rotation), cell.b_h, "identity")
        (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params._replace(cells=(cell,)), batch, h_0).layers
        norms[gain] = np.asarray(layer.d_h_norms)
        np.testing.assert_allclose(norms[gain][0], gain**59 * norms[gain][-1], rtol=1e-10)
    assert np.all(norms[0.9][0] < norms[0.9][-1] / 100) and np.all(norms[1.1][0] > norms[1.1][-1] * 100)


def test_a_saturated_network_with_large_weights_vanishes_all_the_same():
    """s > 1/γ is needed to explode, and not enough: tanh that saturates shrinks what W_hh stretches."""
    params, batch, h_0 = make_problem(Case(time=30, last="one"))
    cell = params.cells[0]
    large = rnn_jax.CellParams(cell.w_xh, 20 * cell.w_hh, cell.b_h, "tanh")
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params._replace(cells=(large,)), batch, h_0).layers
    without = layer.d_h_norms[-1] * np.linalg.norm(large.w_hh, 2) ** 29
    assert np.all(layer.d_h_norms[0] < layer.d_h_norms[-1] / 1e6) and np.all(without > 1e30)


def test_fixed_points_that_are_known():
    """Two units that do not meet, `h = tanh(2 h)` each: nine points, four of which attract."""
    params = network(2 * np.eye(2), "tanh")
    starts = (jnp.asarray(np.random.default_rng(0).uniform(-1.5, 1.5, (100, 2)), jnp.float32),)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    found = rnn_jax.dynamics.fixed_points(params, starts)
    h = 0.9575040240772687
    points = sorted(map(tuple, np.round(found.states[0], 6) + 0.0))
    assert points == sorted((round(a, 6), round(b, 6)) for a in (-h, 0.0, h) for b in (-h, 0.0, h))
    assert np.all(found.speeds < 1e-12) and found.num_starts.sum() == 100
    slopes = 2 * (1 - found.states[0] ** 2)
    np.testing.assert_allclose(np.abs(found.eigenvalues), -np.sort(-slopes, axis=1), atol=1e-9)
    assert np.array_equal(found.stable, np.all(slopes < 1, axis=1)) and found.stable.sum() == 4


def test_an_input_moves_them_and_slow_points_are_told_apart():
    cell = rnn_jax.CellParams(jnp.ones((1, 1)), jnp.array([[1.5]]), jnp.zeros(1), "tanh", 0.5)
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((1, 1)), jnp.zeros(1)))
    starts = (jnp.linspace(-1.5, 1.5, 30)[:, None],)
    assert len(rnn_jax.dynamics.fixed_points(params, starts).speeds) == 3
    found = rnn_jax.dynamics.fixed_points(
        params, starts, jnp.array([0.4])
    )  # past the fold: one is left, and a ghost of two
    fixed = found.speeds < 1e-9
    assert fixed.sum() == 1 and found.stable[fixed].all()
    assert np.any((found.speeds > 1e-4) & (found.speeds < 0.1))
    np.testing.assert_allclose(found.states[0][0], np.tanh(1.5 * found.states[0][0] + 0.4), rtol=1e-9)


def test_what_a_trained_flip_flop_remembers_is_two_points():
    """Pulses of ±1 now and then, the last of which is to be told: two attractors, read out as -1 and 1."""
    import optax

    rng = np.random.default_rng(0)
    pulses = np.where(rng.random((40, 64, 1)) < 0.2, rng.choice([-1.0, 1.0], (40, 64, 1)), 0.0)
    pulses[0] = rng.choice([-1.0, 1.0], (64, 1))
    told = pulses.copy()
    for t in range(1, 40):
        told[t] = np.where(pulses[t] == 0, told[t - 1], pulses[t])
    params = rnn_jax.init_params(KEY, input_size=1, hidden_size=12, output_size=1, dtype=jnp.float32)
    batch = rnn_jax.Batch(jnp.asarray(pulses, jnp.float32), jnp.asarray(told, jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("blocked", loss="squared_error"), optax.adam(1e-2))
        h_0 = rnn_jax.zero_state(params, 64)

        def many(state):
            return jax.lax.scan(lambda s, _: trainer.step(s._replace(h_0=h_0), batch), state, length=400)

        state, infos = jax.jit(many)(trainer.init(params, h_0))
    assert infos.loss[-1] < 0.02
    hs = rnn_jax.unroll(state.params.cells[0], h_0[0], batch.inputs)
    found = rnn_jax.dynamics.fixed_points(state.params, (hs.reshape(-1, 12)[::20],))
    fixed = (found.speeds < 1e-8) & found.stable
    values = rnn_jax.readout(state.params.readout, jnp.asarray(found.states[0][fixed], jnp.float32))[:, 0]
    assert sorted(np.round(values).tolist()) == [-1, 1]
