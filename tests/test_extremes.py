"""Gradients of extreme numbers: saturated, huge, tiny, zero, NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from precision import evaluated
from problems import EXACT, Case, and_gated, assert_trees_close, make_problem

import rnn_jax
from rnn_jax import _numerics


def all_equal(actual, expected):
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def all_zero(tree):
    return all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(tree))


def all_finite(tree):
    return all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_the_norm_of_a_constant_under_jit(value):
    """XLA folds what it knows: (x / scale)² must not become x² / scale², which is 0 / 0 or infinite."""
    expected = np.float32(value) * np.sqrt(np.float32(3))
    for of in (_numerics.tree_norm, _numerics.norms):
        found = jax.jit(lambda of=of: of(jnp.full(3, value, jnp.float32)))()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_step_on_nothing_changes_nothing():
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=3)
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.1, max_norm=1.0), carry=True)
    nothing = rnn_jax.Batch(jnp.ones((5, 2, 3)), jnp.zeros((0, 2), int))
    state, info = jax.jit(trainer.step)(trainer.init(params, rnn_jax.zero_state(params, 2)), nothing)
    assert info.loss == info.grad_norm == info.update_norm == 0
    assert all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
    )


def with_cell(params, **changes):
    cell = params.cells[0]
    leaves = {"w_xh": cell.w_xh, "w_hh": cell.w_hh, "b_h": cell.b_h, "activation": cell.activation} | changes
    return params._replace(cells=(rnn_jax.CellParams(**leaves),))


@pytest.mark.parametrize("method", EXACT)
def test_a_saturated_tanh_passes_exactly_nothing(method):
    """Pre-activations around ±50: tanh is ±1 to the last bit, and only the readout has a gradient."""
    params, batch, h_0 = make_problem(Case(loss="squared_error"))
    params = with_cell(params, b_h=np.asarray([50.0, -50.0, 50.0, -50.0]))
    (loss, (h_T,)), gradients = evaluated(method, "squared_error")(params, batch, h_0)
    assert np.isfinite(loss) and np.array_equal(h_T, np.broadcast_to([1.0, -1.0, 1.0, -1.0], h_T.shape))
    assert all_zero((gradients.params.cells, gradients.h_0, gradients.inputs))
    y = np.asarray(h_T) @ np.asarray(params.readout.w_hy) + np.asarray(params.readout.b_y)
    d_ys = 2 * (y - np.asarray(batch.targets))
    np.testing.assert_allclose(gradients.params.readout.b_y, np.sum(d_ys, axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("nothing, reduction", [("weights", "mean"), ("mask", "sum"), ("targets", "mean")])
def test_nothing_to_learn_from(method, nothing, reduction):
    """Weights of zero, no step that exists, or no target: loss and gradients exactly zero, even for inputs of NaN."""
    params, batch, h_0 = make_problem(Case())
    steps = batch.inputs.shape[:-1]
    if nothing == "weights":
        batch = batch._replace(weights=np.zeros(steps))
    elif nothing == "mask":
        batch = batch._replace(mask=np.zeros(steps, bool), inputs=np.full(batch.inputs.shape, np.nan))
    else:
        batch = batch._replace(targets=np.asarray(batch.targets)[:0])
    (loss, h_T), gradients = evaluated(method, reduction=reduction)(params, batch, h_0)
    assert loss == 0 and all_zero(gradients)
    if nothing == "mask":
        assert all_equal(h_T, h_0)
    else:
        assert_trees_close(h_T, evaluated(method)(*make_problem(Case()))[0][1], rtol=1e-12)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_the_unit_of_the_inputs_does_not_matter(method, scale):
    """Inputs times s and `W_xh` over s: `d_W_xh` times s, `d_x` over s, all else the same."""
    params, batch, h_0 = jax.tree.map(np.asarray, make_problem(Case()))
    scaled = with_cell(params, w_xh=params.cells[0].w_xh / scale)
    first, expected = evaluated(method)(params, batch, h_0)
    second, gradients = evaluated(method)(scaled, batch._replace(inputs=batch.inputs * scale), h_0)
    d_params = with_cell(expected.params, w_xh=expected.params.cells[0].w_xh * scale)
    expected = rnn_jax.Gradients(d_params, expected.h_0, expected.inputs / scale)
    assert_trees_close((second, gradients), (first, expected), rtol=1e-12, floor=1e-300)


@pytest.mark.parametrize("method", EXACT)
def test_logits_of_ten_thousand(method):
    """`ℓ = logsumexp(y) - y[target]`, `d_b_y = Σ softmax(y) - onehot(target)`: finite, and what NumPy says."""
    params, batch, h_0 = make_problem(Case())
    b_y = 1e4 * np.array([1.0, -1.0, 1.0, -1.0, 0.0])
    params = params._replace(readout=params.readout._replace(b_y=b_y))
    (loss, _), gradients = evaluated(method)(params, batch, h_0)
    assert all_finite((loss, gradients))
    ys = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)[0]
    targets = np.asarray(batch.targets)
    highest = ys.max(-1, keepdims=True)
    log_p = ys - highest - np.log(np.sum(np.exp(ys - highest), -1, keepdims=True))
    assert set(targets.ravel()) >= {0, 1, 4}, "a winning, a losing and a middling class"
    np.testing.assert_allclose(loss, -np.sum(np.take_along_axis(log_p, targets[..., None], -1)), rtol=1e-12)
    d_ys = np.exp(log_p) - np.eye(ys.shape[-1])[targets]
    np.testing.assert_allclose(gradients.params.readout.b_y, np.sum(d_ys, axis=(0, 1)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", EXACT)
def test_a_vocabulary_of_one_teaches_nothing(method):
    params, batch, h_0 = jax.tree.map(np.asarray, make_problem(Case()))
    w_hy, b_y = params.readout
    params = params._replace(readout=rnn_jax.ReadoutParams(w_hy[:, :1], b_y[:1]))
    (loss, _), gradients = evaluated(method)(params, batch._replace(targets=np.zeros_like(batch.targets)), h_0)
    assert loss == 0 and all_zero(gradients)


@pytest.mark.parametrize("method", EXACT)
def test_one_hidden_unit(method):
    """Is one unit of the larger network, of which the others are cut off."""
    params, batch, h_0 = jax.tree.map(np.asarray, make_problem(Case()))
    alone = np.eye(h_0[0].shape[-1])[0]
    cell, w_hy = params.cells[0], params.readout.w_hy * alone[:, None]
    cut = with_cell(
        params, w_xh=cell.w_xh * alone[None], w_hh=cell.w_hh * np.outer(alone, alone), b_h=cell.b_h * alone
    )._replace(readout=params.readout._replace(w_hy=w_hy))

    def first_unit(params, h):
        cell, readout = params.cells[0], params.readout
        small = with_cell(params, w_xh=cell.w_xh[:, :1], w_hh=cell.w_hh[:1, :1], b_h=cell.b_h[:1])
        return small._replace(readout=readout._replace(w_hy=readout.w_hy[:1])), (h[0][..., :1],)

    (loss, h_T), gradients = evaluated(method)(cut, batch, (h_0[0] * alone[None],))
    expected = rnn_jax.Gradients(*first_unit(gradients.params, gradients.h_0), gradients.inputs)
    small_params, small_h_0 = first_unit(cut, h_0)
    result = evaluated(method)(small_params, batch, small_h_0)
    assert not all_zero(expected.h_0)
    assert_trees_close(result, ((loss, (h_T[0][..., :1],)), expected), rtol=1e-12)


@pytest.mark.parametrize("method, cell", and_gated(EXACT, "blocked", "bptt"))
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_of_no_sequences(method, reduction, cell):
    params, batch, (h_0,) = jax.tree.map(np.asarray, make_problem(Case(cell=cell)))
    empty = rnn_jax.Batch(batch.inputs[:, :0], batch.targets[:, :0])
    (loss, h_T), gradients = evaluated(method, reduction=reduction)(params, empty, (h_0[:0],))
    assert loss == 0 and all_zero(gradients)
    assert h_T[0].shape == gradients.h_0[0].shape == (0, 4 * params.cells[0].parts)
    assert gradients.inputs.shape == empty.inputs.shape


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_batch_names_what_is_not_finite(value):
    params, batch, h_0 = make_problem(Case())
    inputs, mask = np.array(batch.inputs), np.ones(batch.inputs.shape[:-1], bool)
    inputs[2, 1, 0], mask[2, 1] = value, False
    dirty = batch._replace(inputs=jnp.asarray(inputs))
    with pytest.raises(ValueError, match=r"`batch\.inputs` must hold finite numbers, got .* at \(2, 1, 0\)"):
        rnn_jax.check_batch(params, dirty, h_0)
    rnn_jax.check_batch(params, dirty._replace(mask=jnp.asarray(mask)), h_0)


@pytest.mark.parametrize("method", EXACT)
def test_garbage_in_padding_changes_no_bit(method):
    """NaN and infinities in inputs and targets, resets besides, where the mask is false."""
    params, batch, h_0 = make_problem(Case(loss="squared_error"))
    mask = np.random.default_rng(1).random(batch.inputs.shape[:-1]) < 0.6
    batch = batch._replace(mask=jnp.asarray(mask), reset=jnp.zeros(mask.shape, bool))
    fn = evaluated(method, "squared_error")
    expected = fn(params, batch, h_0)
    assert all_finite(expected) and all_zero(np.asarray(expected[1].inputs)[~mask])
    for value in (np.nan, np.inf, -np.inf):
        inputs, targets = (jnp.asarray(np.where(mask[..., None], x, value)) for x in (batch.inputs, batch.targets))
        dirty = batch._replace(inputs=inputs, targets=targets, reset=jnp.asarray(~mask))
        assert all_equal(fn(params, dirty, h_0), expected)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_sequence_stays_alone(method, value):
    """It poisons the loss, which is loud; what belongs to the other sequences is what it was."""
    params, batch, h_0 = make_problem(Case())
    others, inputs = np.array([0, 2]), np.array(batch.inputs)
    inputs[3, 1] = value
    dirty = batch._replace(inputs=inputs)
    (_, clean_h_T), clean = evaluated(method)(params, batch, h_0)
    (loss, h_T), gradients = evaluated(method)(params, dirty, h_0)
    assert np.isnan(loss) and np.all(np.isnan(h_T[0][1]))
    assert np.any(np.isnan(gradients.inputs[:, 1]))
    assert all_equal((h_T[0][others], gradients.h_0[0][others]), (clean_h_T[0][others], clean.h_0[0][others]))
    assert all_equal(gradients.inputs[:, others], clean.inputs[:, others])
