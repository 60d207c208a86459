"""The readout by ridge regression, and gradients in free weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Case, assert_trees_close, make_problem

import rnn_jax

CASES = {
    "plain": Case(loss="squared_error", num_layers=2, time=30),
    "mask, reset, weights": Case(loss="squared_error", mask=True, reset=True, weights=True, time=30),
    "last steps, LSTM": Case(loss="squared_error", cell="lstm", time=30, last="some"),
}


def positive(batch):
    return batch if batch.weights is None else batch._replace(weights=jnp.abs(batch.weights))


def rows_of(params, batch, h_0):
    """`(hs, targets, weights)` of all steps that the loss reads, as rows."""
    last = batch.targets.shape[0]
    hs, below = [], batch.inputs
    for cell, h in zip(params.cells, h_0, strict=True):
        below = rnn_jax.hidden(cell, rnn_jax.unroll(cell, h, below, mask=batch.mask, reset=batch.reset))
        hs.append(below)
    weights = batch.weights
    if weights is None:
        weights = jnp.ones(batch.targets.shape[:-1]) if batch.mask is None else batch.mask[-last:].astype(float)
    return (
        np.asarray(hs[-1][-last:]).reshape(-1, hs[-1].shape[-1]),
        np.asarray(batch.targets).reshape(-1, batch.targets.shape[-1]),
        np.asarray(weights).ravel(),
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("penalty", [1e-8, 0.3])
def test_it_equals_that_of_scikit_learn(case, penalty):
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    params, batch, h_0 = make_problem(case)
    batch = positive(batch)
    fitted = jax.jit(rnn_jax.ridge_readout)(params, batch, h_0, penalty)
    hs, targets, weights = rows_of(params, batch, h_0)
    read = weights > 0
    expected = ridge(penalty, solver="svd").fit(hs[read], targets[read], sample_weight=weights[read])
    np.testing.assert_allclose(fitted.readout.w_hy, expected.coef_.T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(fitted.readout.b_y, expected.intercept_, rtol=1e-7, atol=1e-9)
    assert_trees_close(fitted.cells, params.cells, rtol=0)


def test_the_gradient_of_what_it_minimises_is_zero():
    params, batch, h_0 = make_problem(CASES["plain"])
    penalty = 0.2
    fitted = rnn_jax.ridge_readout(params, batch, h_0, penalty)

    def objective(readout):
        ys, _ = rnn_jax.apply(fitted._replace(readout=readout), h_0, batch.inputs)
        return jnp.sum((ys - batch.targets) ** 2) + penalty * jnp.sum(readout.w_hy**2)

    scale = max(float(jnp.max(jnp.abs(d))) for d in jax.grad(objective)(params.readout))
    assert all(jnp.max(jnp.abs(d)) < 1e-10 * scale for d in jax.grad(objective)(fitted.readout))


def test_steps_that_do_not_count_are_not_read():
    params, batch, h_0 = make_problem(CASES["mask, reset, weights"])
    batch = positive(batch)
    gone = batch.targets + jnp.where(batch.weights == 0, jnp.nan, 0)[..., None]
    assert jnp.isnan(gone).any()
    expected = rnn_jax.ridge_readout(params, batch, h_0, 0.1)
    assert_trees_close(rnn_jax.ridge_readout(params, batch._replace(targets=gone), h_0, 0.1), expected, rtol=0)


def test_states_that_are_nearly_collinear():
    """In float32, the difference of two units with almost the same weights: the normal equations lose it."""
    params, batch, h_0 = make_problem(Case(loss="squared_error", time=60), dtype=jnp.float32)
    (cell,) = params.cells
    twin = cell.replace(
        w_xh=cell.w_xh.at[:, 1].set(cell.w_xh[:, 0] * (1 + 1e-4)),
        w_hh=cell.w_hh.at[:, 1].set(cell.w_hh[:, 0]),
        b_h=cell.b_h.at[1].set(cell.b_h[0]),
    )
    params = params._replace(cells=(twin,))
    hs = rnn_jax.unroll(twin, h_0[0], batch.inputs)
    apart = jnp.repeat((hs[..., :1] - hs[..., 1:2]) * 1e4, params.readout.b_y.size, -1)
    fitted = rnn_jax.ridge_readout(params, batch._replace(targets=apart), h_0, 1e-12)
    ys, _ = rnn_jax.apply(fitted, h_0, batch.inputs)
    assert jnp.sum((ys - apart) ** 2) < 1e-2 * jnp.sum((apart - apart.mean()) ** 2)


def test_classes_are_refused():
    params, batch, h_0 = make_problem(Case())
    with pytest.raises(TypeError, match=r"^`batch.targets` must be real numbers .* got int32: use one-hot classes.$"):
        rnn_jax.ridge_readout(params, batch._replace(targets=batch.targets.astype(jnp.int32)), h_0)


def masked(params):
    connected = jnp.asarray(np.random.default_rng(0).random(params.cells[0].w_hh.shape) < 0.5)
    leak = jnp.linspace(0.1, 0.9, connected.shape[0])

    def make(free):
        cell = free.cells[0]
        w_hh = jnp.where(connected, jnp.exp(cell.w_hh), jnp.zeros_like(cell.w_hh))
        made = rnn_jax.LeakyParams(cell.w_xh, w_hh, cell.b_h, leak.astype(cell.w_hh.dtype), cell.activation)
        return free._replace(cells=(made,))

    return make


@pytest.mark.parametrize("method", ["blocked", "bptt", "stepwise"])
def test_free_weights_get_the_gradient_of_autodiff(method):
    case = Case(mask=True, reset=True)
    params, batch, h_0 = make_problem(case)
    make = masked(params)
    by_hand, autodiff = (
        rnn_jax.reparametrised(rnn_jax.make_grad_fn(name, loss=case.loss), make) for name in (method, "autodiff")
    )
    assert_trees_close(jax.jit(by_hand)(params, batch, h_0), autodiff(params, batch, h_0), rtol=1e-12)
    report = rnn_jax.check_gradients(jax.jit(by_hand), params, batch, h_0)
    assert report.passed, report


def test_free_weights_may_be_any_tree():
    params, batch, h_0 = make_problem(Case())
    cell, hid = params.cells[0], params.cells[0].w_hh.shape[0]
    free = {"left": jnp.ones((hid, 2)), "right": jnp.arange(2.0 * hid).reshape(hid, 2), "readout": params.readout}
    make = lambda free: rnn_jax.Params((cell.replace(w_hh=free["left"] @ free["right"].T),), free["readout"])  # noqa: E731
    grad_fn = rnn_jax.reparametrised(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"), make)
    _, gradients = grad_fn(free, batch, h_0)
    _, whole = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")(make(free), batch, h_0)
    assert_trees_close(gradients.params["left"], whole.params.cells[0].w_hh @ free["right"], rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_is_no_function_is_refused():
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    with pytest.raises(TypeError, match="^`make` must be "):
        rnn_jax.reparametrised(grad_fn, None)
    with pytest.raises(TypeError, match="^`grad_fn` must be "):
        rnn_jax.reparametrised("blocked", lambda free: free)


@pytest.mark.parametrize("shape", [(9, 5), (9, 1), (9, 2, 1), (18,), (10, 2)])
def test_targets_of_another_shape_are_refused(annotations_unchecked, shape):
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
    batch = rnn_jax.Batch(jnp.ones((9, 3), params.readout.w_hy.dtype), jnp.ones(shape))
    with pytest.raises(ValueError, match="targets"):
        rnn_jax.ridge_readout(params, batch, rnn_jax.zero_state(params))
