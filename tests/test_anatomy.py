"""The anatomy of a gradient: every part compared with autodiff; the parts add up to the whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from anatomies import EVERYTHING, beside_autodiff, found, it_cuts, they_add_up
from by_numpy import by_numpy
from problems import OPTIONS, Case, assert_trees_close, cast, equations, make_problem, run

import rnn_jax
from rnn_jax.analysis import _anatomy
from rnn_jax.verify._grid import covering

CASES = covering(OPTIONS | {"num_layers": [1, 2], "time": [6, 1], "batch": [(2,), (), (2, 2)]}, 2)


@pytest.mark.parametrize("case", [*CASES[::2], EVERYTHING], ids=str)
def test_every_part_beside_autodiff(case):
    beside_autodiff(case, make_problem(case))


def test_compiled_by_xla_it_is_the_same():
    options = {"loss": EVERYTHING.loss, "reduction": EVERYTHING.reduction, "lags": 4, "k1": 2, "k2": 5}
    problem = make_problem(EVERYTHING)
    compiled, mine = (
        evaluated(partial(rnn_jax.analysis.anatomy, **options))(*problem) for evaluated in (jax.jit, by_numpy)
    )
    assert_trees_close(compiled, mine, rtol=1e-10, floor=1e-3)
    whole = [(a.loss, a.h_T, a.gradients, a.cut.params) for a in (compiled, mine)]
    assert_trees_close(*whole, rtol=1e-12, floor=1e-3)
    parts = jax.jit(rnn_jax.analysis.step_gradients)(*problem)
    assert_trees_close(parts, by_numpy(rnn_jax.analysis.step_gradients)(*problem), rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("case", [*CASES[::3], EVERYTHING], ids=str)
def test_the_steps_add_up(case):
    they_add_up(case, make_problem(case))


def test_a_step_by_itself():
    """`w_hh` of one step moved alone, by central differences."""
    case = Case(time=4, num_layers=2, leak=0.5)
    params, batch, h_0 = make_problem(case)
    _, parts = by_numpy(rnn_jax.analysis.step_gradients)(params, batch, h_0)
    direction = np.cos(np.arange(16.0).reshape(4, 4))

    def loss(step, size):
        cells = list(params.cells)

        def unroll(cell, h, xs, **flags):
            hs = []
            for t in range(4):
                moved = cell
                if cell is cells[0] and t == step:
                    w_hh = cell.w_hh + size * direction
                    moved = rnn_jax.CellParams(cell.w_xh, w_hh, cell.b_h, cell.activation, cell.leak)
                h = rnn_jax.step(moved, h, xs[t])
                hs.append(h)
            return jnp.stack(hs)

        ys, _ = rnn_jax.apply(params, h_0, batch.inputs, unroll=unroll)
        return jnp.mean(rnn_jax.cross_entropy(ys, batch.targets)[0])

    for t in range(4):
        up, down = (by_numpy(partial(loss, t))(size) for size in (1e-6, -1e-6))
        np.testing.assert_allclose(np.sum(parts.cells[0].w_hh[t] * direction), (up - down) / 2e-6, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("k1, k2", [(1, 1), (2, 5), (3, 3), (4, 9), (9, 9), (20, 30)])
@pytest.mark.parametrize("last", ["all", "one"])
def test_what_truncation_cuts(last, k1, k2):
    case = EVERYTHING._replace(last=last)
    it_cuts(case, make_problem(case), k1, k2)


def test_windows_of_one_step_leave_the_local_part():
    """`d_a_t` is then `∂L_t/∂h_t ∘ φ'(a_t)`; what is cut is all the rest."""
    case = Case(time=6, batch=(2,))
    params, batch, h_0 = make_problem(case)
    result = found(case, (params, batch, h_0), k1=1, k2=1)
    hs = by_numpy(rnn_jax.unroll)(params.cells[0], h_0[0], batch.inputs)
    (layer,) = result.layers
    rest = (layer.d_hs - layer.d_hs_local) * (1 - hs**2)
    np.testing.assert_allclose(result.cut.d_a_norms[0], np.linalg.norm(rest, axis=-1), rtol=1e-10, atol=1e-14)
    assert np.all(result.cut.d_a_norms[0][:-1] > 1e-4)


def test_the_fitted_rate_and_its_error():
    """Beside least squares by NumPy; a lag of zero norm is left out."""
    norms = np.exp(-0.3 * np.arange(12) + 0.2 * np.random.default_rng(0).standard_normal(12))
    norms[5] = 0
    lag = np.delete(np.arange(1, 12), 4)
    (slope, _), covariance = np.polyfit(lag, np.log(norms[lag]), 1, cov=True)
    decay, error = by_numpy(_anatomy.decay_rate)(norms)
    assert float(decay) == pytest.approx(np.exp(slope), rel=1e-12)
    assert float(error) == pytest.approx(np.exp(slope) * covariance[0, 0] ** 0.5, rel=1e-10)
    decay, error = by_numpy(_anatomy.decay_rate)(np.array([3.0, 2.0, 1.0]))
    assert float(decay) == pytest.approx(0.5) and error == np.inf  # two points leave nothing to tell an error from
    decay, error = by_numpy(_anatomy.decay_rate)(np.array([3.0, 2.0, 0.0, 0.0]))
    assert decay == 0 and error == np.inf  # gone after one step back
    assert _anatomy.decay_rate(jnp.ones(2)) == (None, None)


def test_the_decay_where_resets_cut():
    """A rotation that shrinks by 0.9 does so between resets too."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    cell = rnn_jax.CellParams(jnp.ones((2, 6)), jnp.asarray(0.9 * rotation), jnp.zeros(6), "identity")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((6, 1)), jnp.zeros(1)))
    reset = jnp.arange(40) % 10 == 0
    sign = rnn_jax.pointwise(lambda y, target: jnp.sum(y))  # every loss sends the same
    batch = rnn_jax.Batch(jnp.ones((40, 2)), jnp.zeros((40, 1)), reset=reset)
    result = by_numpy(partial(rnn_jax.analysis.anatomy, loss=sign, lags=20))(params, batch, (jnp.zeros(6),))
    assert float(result.decay) == pytest.approx(0.9, rel=1e-9)


def test_saturation():
    params, batch, h_0 = make_problem(Case(mask=True, time=5, activation="relu"))
    mask = batch.mask.at[2].set(False)
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch._replace(mask=mask), h_0).layers
    hs = by_numpy(partial(rnn_jax.unroll, mask=mask))(params.cells[0], h_0[0], batch.inputs)
    for t in range(5):
        on = np.asarray(hs[t] > 0)[np.asarray(mask[t])]
        if t == 2:
            assert np.all(layer.d_phi[t] == 0) and layer.saturated[t] == 0
        else:
            np.testing.assert_allclose(layer.d_phi[t], on.mean(0))
            np.testing.assert_allclose(layer.saturated[t], 1 - on.mean())


@pytest.mark.parametrize("rho", [0.5, 1.0, 1.2])
def test_the_decay_of_a_rotation(rho):
    """A scaled rotation without activation: each norm is `rho` times the one before, and the line fits exactly."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    cell = rnn_jax.CellParams(jnp.ones((2, 6)), jnp.asarray(rho * rotation), jnp.zeros(6), "identity")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((6, 3)), jnp.zeros(3)))
    batch = rnn_jax.Batch(jnp.ones((30, 2)), jnp.zeros((1,), int))
    result = found(Case(), (params, batch, (jnp.zeros(6),)), lags=20)
    assert float(result.decay) == pytest.approx(rho, rel=1e-9)
    assert float(result.decay_error) < 1e-9


def test_norms_too_small_and_too_large_to_be_squared():
    """In float32, where 1e-25 squared is zero and 1e25 squared is infinite."""
    compiled = jax.jit(partial(rnn_jax.analysis.anatomy, loss="squared_error", lags=24))
    for rho in (0.05, 20.0):
        cell = rnn_jax.CellParams(np.ones((1, 2)), rho * np.eye(2), np.zeros(2), "identity")
        params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(np.ones((2, 1)), np.zeros(1)))
        batch = rnn_jax.Batch(np.zeros((25, 1)), np.ones((1, 1)))
        result = compiled(*cast((params, batch, (np.zeros(2),)), jnp.float32))
        norms = result.layers[0].d_h_norms
        np.testing.assert_allclose(norms[0] / norms[-1], rho**24, rtol=1e-4)
        assert float(result.decay) == pytest.approx(rho, rel=1e-4)


def test_resets_cut_the_grid():
    params, batch, h_0 = make_problem(Case(time=6))
    reset = jnp.zeros((6, 3), bool).at[3, 1].set(True)
    (grid,) = found(Case(), (params, batch._replace(reset=reset), h_0), lags=6).lag_norms
    for i in range(6):
        for lag in range(i + 2):
            assert np.all(grid[lag, i, 0] > 0)
            assert (grid[lag, i, 1] == 0) == (i >= 3 and i - lag < 3)


def test_one_pass():
    """One way there and one way back, lag grid or not, truncation or not; and what is not used is not computed."""
    case = Case(time=8)
    problem = make_problem(case)

    def loops(**options):
        jaxpr = jax.make_jaxpr(partial(rnn_jax.analysis.anatomy, **options))(*problem).jaxpr
        return sum(eqn.primitive.name == "tanh" for eqn in equations(jaxpr))

    assert loops() == loops(lags=4, k1=2, k2=4) == 1
    all_of_it = (
        jax.jit(lambda *a: rnn_jax.analysis.anatomy(*a, lags=8)).lower(*problem).compile().cost_analysis()["flops"]
    )
    loss = (
        jax.jit(lambda *a: rnn_jax.analysis.anatomy(*a, lags=8).loss).lower(*problem).compile().cost_analysis()["flops"]
    )
    assert loss < all_of_it / 2


def test_no_steps_are_cut_by_windows():
    """T = 0: what `"truncated"` gives there."""
    case = Case(num_layers=2)
    params, batch, h_0 = make_problem(case)
    problem = params, rnn_jax.Batch(batch.inputs[:0], batch.targets[:0]), h_0
    for k1, k2 in ((1, 2), (3, 3)):
        cut = found(case, problem, k1=k1, k2=k2).cut
        assert_trees_close(cut.params, run("truncated", case, problem, k1=k1, k2=k2)[1].params, rtol=0)
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves((cut.params, cut.lost)))
        assert [norms.shape for norms in cut.d_a_norms] == [(0, 3), (0, 3)]


def test_nothing_is_filled_with_nan():
    """So that it runs where JAX looks for NaN, steps that no sequence has among them; eager as well as compiled."""
    params, batch, h_0 = cast(make_problem(Case(time=4, batch=(2,))), jnp.float32)
    masked = batch._replace(mask=jnp.ones((4, 2), bool).at[2:].set(False))
    gone = batch._replace(mask=jnp.zeros((4, 2), bool))
    everything = partial(rnn_jax.analysis.anatomy, lags=3, k1=1, k2=2)
    with jax.debug_nans(True):
        plain = jax.jit(rnn_jax.analysis.anatomy)(params, batch, h_0)
        assert plain.decay is None and plain.decay_error is None
        results = [jax.jit(everything)(params, now, h_0) for now in (masked, gone)]
        results += [everything(params, gone, h_0)]
        assert rnn_jax.dynamics.kaplan_yorke(jnp.array([0.1, -0.2, -jnp.inf], jnp.float32)) == 1.5
    assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(results))
    assert results[1].decay == 0 == np.sum(results[1].layers[0].d_phi)


@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_corners(inputs):
    case = Case(mask=True, reset=True, inputs=inputs, num_layers=2)
    params, batch, h_0 = make_problem(case)
    empty = rnn_jax.Batch(batch.inputs[:0], batch.targets[:0])
    result = found(case, (params, empty, h_0), lags=3)
    assert result.loss == 0 and result.layers[0].d_hs.shape[0] == 0 and result.decay is None
    nothing = batch._replace(mask=jnp.zeros_like(batch.mask))
    result = found(case, (params, nothing, h_0), lags=7)
    assert result.loss == 0 and result.decay == 0
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves((result.gradients, result.lag_norms)))
    low = cast((params, batch, h_0), jnp.float32)
    exact = cast(found(case, (params, batch, h_0), lags=3).gradients, jnp.float32)
    for evaluated in (by_numpy, jax.jit) if inputs == "features" else (by_numpy,):
        single = evaluated(partial(rnn_jax.analysis.anatomy, loss=case.loss, lags=3))(*low)
        assert_trees_close(single.gradients, exact, rtol=2e-5)
    half = jax.eval_shape(
        partial(rnn_jax.analysis.anatomy, loss=case.loss, lags=3), *cast((params, batch, h_0), jnp.bfloat16)
    )
    assert half.gradients.params.cells[0].w_hh.dtype == jnp.bfloat16 and half.lag_norms[0].dtype == jnp.float32
