"""How far rounding takes a gradient from the truth, and what extreme numbers do to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import EXACT, Case, assert_trees_close, cast, make_problem

import rnn_jax
from rnn_jax import _numerics

F32_EPS, BF16_EPS = 2.0**-23, 2.0**-8
IN, HID, OUT = 5, 16, 7


@functools.cache
def compiled(method, loss="cross_entropy", reduction="sum", compute_dtype=None):
    return jax.jit(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction, compute_dtype=compute_dtype))


@functools.cache
def evaluated(method, loss="cross_entropy", reduction="sum"):
    """By NumPy, but for "blocked", which stays compiled: what is not about rounding."""
    return (jax.jit if method == "blocked" else by_numpy)(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction))


@functools.cache
def long_problem(loss, time, seed, dtype=jnp.float32):
    """A rotation under tanh, in float32: errors do not grow from step to step, and no step is soon forgotten."""
    rng = np.random.default_rng(seed)

    def normal(scale, *shape):
        return scale * rng.standard_normal(shape)

    rotation, _ = np.linalg.qr(normal(1, HID, HID))
    cell = rnn_jax.CellParams(normal(IN**-0.5, IN, HID), rotation, normal(0.1, HID), "tanh")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(normal(HID**-0.5, HID, OUT), normal(0.1, OUT)))
    inputs = normal(0.7, time, 2, IN)
    targets = rng.integers(0, OUT, (time, 2)) if loss == "cross_entropy" else normal(1, time, 2, OUT)
    return cast((params, rnn_jax.Batch(inputs, targets), (normal(0.5, 2, HID),)), dtype)


def leaf_errors(actual, truth):
    """The largest error of each leaf, relative to the largest entry of that leaf, by name."""
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(truth), strict=True)
    return {
        jax.tree_util.keystr(path): float(np.max(np.abs(np.float64(x) - np.float64(y))) / np.max(np.abs(np.float64(y))))
        for (path, x), y in pairs
    }


def all_equal(actual, expected):
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def all_zero(tree):
    return all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(tree))


def all_finite(tree):
    return all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(tree))


TIMES = (10, 100, 1000, 10000)
SEEDS = (0, 1)
LONGEST = ("squared_error", TIMES[-1], SEEDS[0])
FLOOR, SLOPE = 8.0, 0.9  # in eps of float32: the error of T steps is below FLOOR + SLOPE √T
GROWTH = 3.0  # from 100 to 10 000 steps the error grows by at most this times √100; one that is linear grows by 100


@functools.cache
def float64_truth(loss, reduction, time, seed):
    method = evaluated if time <= 100 else compiled
    return method("bptt", loss, reduction)(*cast(long_problem(loss, time, seed), jnp.float64))


@pytest.mark.parametrize(
    "method, loss, reduction, times",
    [
        ("bptt", "squared_error", "sum", TIMES),
        ("bptt", "cross_entropy", "mean", TIMES[1::2]),
        ("stepwise", "squared_error", "sum", TIMES),
        ("autodiff", "cross_entropy", "mean", TIMES[1::2]),
    ],
)
def test_float32_error_grows_as_the_root_of_the_steps(method, loss, reduction, times):
    """Measured, worst leaf, in eps: at most 3.9, 4.3, 10.5, 31.6 for 10, 100, 1000, 10 000 steps, bptt at most 4.4.

    A running sum (stepwise, autodiff) comes to 0.31 √T; one product after the loop (bptt) stays level. The growth from
    100 to 10 000 steps was at most 1.1 √100.
    """
    worst = {}
    for time in times:
        for seed in SEEDS:
            problem = long_problem(loss, time, seed)
            errors = leaf_errors(
                compiled(method, loss, reduction)(*problem), float64_truth(loss, reduction, time, seed)
            )
            for leaf, error in errors.items():
                assert error <= (FLOOR + SLOPE * time**0.5) * F32_EPS, f"{leaf}, T = {time}: {error / F32_EPS:.1f} eps"
            worst[time] = max(worst.get(time, 0), *errors.values())
    assert worst[10000] <= GROWTH * 10 * worst[100]


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
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.1, max_norm=1.0))
    nothing = rnn_jax.Batch(jnp.ones((5, 2, 3)), jnp.zeros((0, 2), int))
    state, info = jax.jit(trainer.step)(trainer.init(params, rnn_jax.zero_state(params, 2)), nothing)
    assert info.loss == info.grad_norm == info.update_norm == 0
    assert all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
    )


def test_one_product_after_the_loop_rounds_less_than_a_running_sum():
    """Measured for `w_hh` at 10 000 steps: bptt 0.8 eps, stepwise 31 eps."""
    problem, truth = long_problem(*LONGEST), float64_truth("squared_error", "sum", *LONGEST[1:])
    by_product, by_sum = (leaf_errors(compiled(m, LONGEST[0])(*problem), truth) for m in ("bptt", "stepwise"))
    w_hh = "[1].params.cells[0].w_hh"
    assert by_product[w_hh] < by_sum[w_hh] / 4


BF16_BOUND = {"bptt": 11.0, "blocked": 11.0, "stepwise": 11.0, "autodiff": 16.0}  # in eps of bfloat16
BF16_LOSS_BOUND = 0.25
HALF = [(method, "squared_error", "compute") for method in EXACT]  # which numbers are bfloat16


def bfloat16_errors(method, loss, problem, compute_dtype):
    """Errors, in eps of bfloat16, against the truth for the values that the problem holds."""
    result = compiled(method, loss, "sum", compute_dtype)(*problem)
    truth = evaluated("stepwise", loss)(*cast(problem, jnp.float64))
    return {leaf: error / BF16_EPS for leaf, error in leaf_errors(result, truth).items()}


@pytest.mark.parametrize("method, loss, kind", [*HALF, ("bptt", "cross_entropy", "parameters")])
def test_bfloat16_error(method, loss, kind):
    """64 steps. Measured, worst leaf, in eps of bfloat16: 3.5 by hand, 5.4 autodiff; the loss, 0.08."""
    params, batch, h_0 = long_problem(loss, 64, 0, jnp.float32 if kind == "compute" else jnp.bfloat16)
    compute_dtype = jnp.bfloat16 if kind == "compute" else None
    for leaf, error in bfloat16_errors(method, loss, (params, batch, h_0), compute_dtype).items():
        assert error <= (BF16_LOSS_BOUND if leaf == "[0][0]" else BF16_BOUND[method]), f"{leaf}: {error:.1f} eps"


@pytest.mark.parametrize(
    "method, loss, kind", [case for case in HALF if case[0] != "autodiff"] + [("bptt", "squared_error", "parameters")]
)
def test_bfloat16_sums_do_not_stall(method, loss, kind):
    """512 steps of 8 sequences with equal terms, of which a running sum in bfloat16 takes in 256: an error of 128 eps.

    Measured by hand: 1.5 eps for the sums, 5.1 for `d_x`. Autodiff, which adds up in bfloat16 itself, stalls.
    """
    params, batch, h_0 = make_problem(Case(loss=loss, batch=(8,), time=512))
    cell = params.cells[0]
    params = params._replace(cells=(rnn_jax.CellParams(cell.w_xh, 0.3 * cell.w_hh, cell.b_h, cell.activation),))
    constant = batch._replace(
        inputs=jnp.broadcast_to(batch.inputs[:1, :1], batch.inputs.shape), targets=jnp.full_like(batch.targets, 3.0)
    )
    problem = cast((params, constant, h_0), jnp.float32 if kind == "compute" else jnp.bfloat16)
    errors = bfloat16_errors(method, loss, problem, jnp.bfloat16 if kind == "compute" else None)
    stalled = {leaf: round(error, 1) for leaf, error in errors.items() if error > BF16_BOUND[method]}
    assert not stalled, f"in eps of bfloat16: {stalled}"


def test_compiled_equals_interpreted_in_float32():
    """Under `disable_jit` even the loops are Python's. Within 4 eps; measured 1.1."""
    problem = make_problem(Case(time=2, mask=True, reset=True), dtype=jnp.float32)
    with jax.disable_jit():
        result = rnn_jax.make_grad_fn("bptt", loss="cross_entropy", reduction="sum")(*problem)
    assert_trees_close(result, compiled("bptt")(*problem), rtol=4 * F32_EPS)


def test_two_devices_equal_one_in_float32():
    """Within 11 eps; measured 3.5."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params, batch, h_0 = long_problem("cross_entropy", 100, 0)
    expected = compiled("bptt", reduction="mean")(params, batch, h_0)

    def put(tree, *axes):
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))

    result = compiled("bptt", reduction="mean")(put(params), put(batch, None, "data"), put(h_0, "data"))
    assert len(result[1].inputs.sharding.device_set) == 2
    assert_trees_close(result, expected, rtol=11 * F32_EPS)


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


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_of_no_sequences(method, reduction):
    params, batch, _ = jax.tree.map(np.asarray, make_problem(Case()))
    empty = rnn_jax.Batch(batch.inputs[:, :0], batch.targets[:, :0])
    (loss, h_T), gradients = evaluated(method, reduction=reduction)(params, empty, (np.zeros((0, 4)),))
    assert loss == 0 and all_zero(gradients)
    assert h_T[0].shape == gradients.h_0[0].shape == (0, params.cells[0].b_h.size)
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
