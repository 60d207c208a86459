"""The anatomy of a gradient: every part compared with autodiff; the parts add up to the whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import OPTIONS, Case, assert_trees_close, cast, equations, make_problem, run

import rnn_jax
from rnn_jax._cells.protocol import own_names
from rnn_jax._losses import make_objective, step_weights
from rnn_jax.analysis import _anatomy
from rnn_jax.verify._grid import covering
from test_cells import problem_of

CASES = covering(OPTIONS | {"num_layers": [1, 2], "time": [6, 1], "batch": [(2,), (), (2, 2)]}, 2)
EVERYTHING = Case(num_layers=2, weights=True, mask=True, reset=True, leak=0.3, drop=True, time=9)


def found(case, problem, **options):
    return by_numpy(partial(rnn_jax.analysis.anatomy, loss=case.loss, reduction=case.reduction, **options))(*problem)


def step_losses(case, problem):
    """`L_1..L_T` as a function of what is added to each `h_t` and to `h_0`, by the plain scan."""
    params, batch, h_0 = problem
    objective = make_objective(case.loss, case.reduction)(params, batch)
    last, time = batch.targets.shape[0], batch.inputs.shape[0]

    def losses(added, added_h_0):
        weights = objective.scale * step_weights(batch, jnp.float64)
        read = (weights != 0).reshape(weights.shape + (1,) * (batch.targets.ndim - weights.ndim))
        targets = jnp.where(read, batch.targets, jnp.zeros_like(batch.targets))
        layers = iter(added)

        def unroll(cell, h, xs, *, mask, reset, r=None):
            def body(h_tm1, now):
                x_t, mask_t, reset_t, added_t = now
                one = jax.tree.map(lambda x: x[None], (x_t, mask_t, reset_t))
                h_t = rnn_jax.unroll(cell, h_tm1, one[0], mask=one[1], reset=one[2], r=r)[0] + added_t
                return h_t, h_t

            return jax.lax.scan(body, h, (xs, mask, reset, next(layers)))[1]

        start = jax.tree.map(jnp.add, h_0, added_h_0)
        flags = {"mask": batch.mask, "reset": batch.reset, "drop": batch.drop}
        ys, _ = rnn_jax.apply(params, start, batch.inputs, last=last, **flags, unroll=unroll)
        values = weights * objective.loss(ys, targets)[0]
        return jnp.concatenate([jnp.zeros(time - last), jnp.sum(values.reshape(last, -1), 1)])

    nothing = tuple(np.zeros((time, *h.shape)) for h in h_0)
    return losses, nothing, jax.tree.map(np.zeros_like, h_0)


@pytest.mark.parametrize("case", [*CASES[::2], EVERYTHING], ids=str)
def test_every_part_beside_autodiff(case):
    beside_autodiff(case, make_problem(case))


@pytest.mark.parametrize("case", [Case(time=5, num_layers=2), EVERYTHING._replace(leak=1.0, time=6)], ids=str)
@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole"])
def test_every_part_of_a_gated_cell_beside_autodiff(cell, case):
    beside_autodiff(case, problem_of(cell, case))
    they_add_up(case, problem_of(cell, case))


def beside_autodiff(case, problem):
    time = problem[1].inputs.shape[0]
    result = found(case, problem, lags=time)
    assert_trees_close(
        ((result.loss, result.h_T), result.gradients), run("autodiff", case, problem), rtol=1e-12, floor=1e-3
    )
    losses, nothing, nothing_0 = step_losses(case, problem)
    jacobians = by_numpy(jax.jacrev(losses, argnums=(0, 1)))(nothing, nothing_0)
    jacobian, jacobian_0 = jacobians  # [layer][i, j, *batch, hid]
    for layer, (d_hs, d_h_0) in enumerate(zip(jacobian, jacobian_0, strict=True)):
        mine = result.layers[layer]
        assert_trees_close(mine.d_hs, np.sum(d_hs, 0), rtol=1e-12, floor=1e-3)
        local = np.stack([d_hs[i, i] for i in range(time)])
        assert mine.d_hs.shape == mine.d_hs_local.shape
        assert_trees_close(mine.d_hs_local, local, rtol=1e-12, floor=1e-3)
        np.testing.assert_allclose(mine.d_h_norms, np.linalg.norm(mine.d_hs, axis=-1), rtol=1e-12)
        np.testing.assert_allclose(mine.local_norms, np.linalg.norm(mine.d_hs_local, axis=-1), rtol=1e-12)
        grid = np.zeros(result.lag_norms[layer].shape)
        for i in range(time):
            for lag in range(i + 2):
                row = d_h_0[i] if lag == i + 1 else d_hs[i, i - lag]
                grid[lag, i] = np.linalg.norm(row, axis=-1)
        np.testing.assert_allclose(result.lag_norms[layer], grid, rtol=1e-10, atol=1e-14)


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


def they_add_up(case, problem):
    result = found(case, problem)
    loss, parts = by_numpy(partial(rnn_jax.analysis.step_gradients, loss=case.loss, reduction=case.reduction))(*problem)
    whole = result.gradients.params
    assert_trees_close(
        (loss, jax.tree.map(lambda d: np.sum(d, 0), parts)), (result.loss, whole), rtol=1e-12, floor=1e-3
    )
    for layer, cell, of_steps in zip(result.layers, whole.cells, parts.cells, strict=True):
        for name in ("w_xh", "w_hh", "b_h", *own_names(cell)):
            norms, cosines = getattr(layer.part_norms, name), getattr(layer.part_cosines, name)
            part, total = np.asarray(getattr(of_steps, name)), np.asarray(getattr(cell, name))
            size = np.linalg.norm(total)
            np.testing.assert_allclose(norms, np.linalg.norm(part.reshape(len(part), -1), axis=1), rtol=1e-12)
            assert abs(np.sum(norms * cosines) - size) <= 1e-12 * max(size, 1e-3)


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


@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole"])
def test_what_truncation_cuts_of_a_gated_cell(cell):
    case = EVERYTHING._replace(leak=1.0)
    it_cuts(case, problem_of(cell, case), 1, 2)  # gates forget: 5 steps back little is left to cut


def it_cuts(case, problem, k1, k2):
    result = found(case, problem, k1=k1, k2=k2)
    windows = run("truncated", case, problem, k1=k1, k2=k2)[1].params
    assert_trees_close(result.cut.params, windows, rtol=1e-12, floor=1e-3)
    full = result.gradients.params
    for lost, mine, theirs in zip(*map(jax.tree.leaves, (result.cut.lost, windows, full)), strict=True):
        size = np.linalg.norm(theirs)
        np.testing.assert_allclose(lost, np.linalg.norm(mine - theirs) / size if size else 0, atol=1e-12)
    for norms in result.cut.d_a_norms:
        assert np.all(norms <= 1e-13) if k2 >= 9 else np.any(norms > 1e-6) or case.last == "one"


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


GATES = {"gru": "rkn", "lstm": "ifgo"}


@pytest.mark.parametrize("name", GATES)
def test_saturation_of_each_gate(name):
    """Each slope by autodiff of the activation, from a product step by step, where the sequence has the step."""
    case = Case(mask=True, time=5)
    params, batch, h_0 = problem_of(name, case)
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch, h_0).layers
    assert set(layer.gates) == set(GATES[name]) and layer.d_phi is None and layer.saturated is None
    cell, s, sigmoid = params.cells[0], h_0[0], jax.nn.sigmoid
    weights = jax.tree.map(np.asarray, cell)
    for t in range(5):
        exists = np.asarray(batch.mask[t])
        x_t = np.where(exists[:, None], batch.inputs[t], 0)
        u = np.split(np.asarray(s)[:, :4] @ weights.w_hh, weights.gates, 1)
        z = np.split(x_t @ weights.w_xh + weights.b_h, weights.gates, 1)
        if weights.gates == 3:
            u[2] = sigmoid(z[0] + u[0]) * (u[2] + weights.b_n)
        for gate, z_t, u_t in zip(GATES[name], z, u, strict=True):
            phi, most = (jnp.tanh, 1) if gate in "ng" else (sigmoid, 1 / 4)
            slope = np.asarray(jnp.vectorize(jax.grad(phi))(z_t + u_t) / most)[exists]
            np.testing.assert_allclose(layer.gates[gate].slope[t], slope.mean(0) if len(slope) else 0, rtol=1e-10)
            np.testing.assert_allclose(layer.gates[gate].saturated[t], (slope < 0.1).mean() if len(slope) else 0)
        s = np.where(exists[:, None], rnn_jax.step(cell, jnp.asarray(s), jnp.asarray(x_t)), s)


def test_a_cell_that_does_not_know_its_slopes():
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(*problem_of("peephole", Case())).layers
    assert layer.gates == {} and layer.d_phi is None and layer.saturated is None


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
