"""Cell, parameters, losses, generation, training, text: what each promises."""

import copy
import io
import pickle
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from problems import EXACT, HID, IN, OUT, Case, assert_trees_close, make_problem, run
from witness import softmax

import rnn_jax
from rnn_jax import _numerics, _serialization


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_the_twins_of_a_step(activation, batch, inputs):
    """`step_backward` is the vjp of `step`; φ' comes from `h` alone."""
    params, data, h_0 = make_problem(Case(activation=activation, batch=batch, inputs=inputs))
    cell, h_tm1, x_t = params.cells[0], h_0[0], data.inputs[0]
    d_h_t = np.cos(np.arange(h_tm1.size, dtype=h_tm1.dtype)).reshape(h_tm1.shape)
    primals = (cell, h_tm1) if inputs == "tokens" else (cell, h_tm1, x_t)

    def twins(d_h_t, *primals):
        h_t, residuals = rnn_jax.step_forward(*(*primals, x_t)[:3])
        return h_t, rnn_jax.step_backward(cell, residuals, d_h_t)

    def by_autodiff(d_h_t, *primals):
        h_t, pullback = jax.vjp(lambda *primals: rnn_jax.step(*(*primals, x_t)[:3]), *primals)
        return h_t, pullback(d_h_t)

    h_t, (*d_primals, d_x_t) = by_numpy(twins)(d_h_t, *primals)
    expected_h_t, expected = by_numpy(by_autodiff)(d_h_t, *primals)
    np.testing.assert_array_equal(h_t, expected_h_t)
    assert (d_x_t is None) == (inputs == "tokens")
    assert_trees_close((*d_primals, d_x_t)[: len(primals)], expected, rtol=1e-13)


def test_a_step_uncompiled():
    """Operation by operation, as in an eager call."""
    params, data, h_0 = make_problem(Case())
    args = params.cells[0], h_0[0], data.inputs[0]
    h_t, residuals = rnn_jax.step_forward(*args)
    _, pullback = jax.vjp(rnn_jax.step, *args)
    np.testing.assert_array_equal(h_t, rnn_jax.step(*args))
    assert_trees_close(rnn_jax.step_backward(args[0], residuals, h_t), pullback(h_t), rtol=1e-13)


def w_hh_of(key, **options):
    make = by_numpy(lambda key: rnn_jax.init_params(key, input_size=5, hidden_size=64, output_size=3, **options))
    return make(key).cells[0].w_hh


def test_initialisers(getkey):
    eye = np.eye(64)
    w = w_hh_of(getkey())
    np.testing.assert_allclose(w @ w.T, eye, atol=1e-12)
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.identity(), activation="relu")
    np.testing.assert_array_equal(w, eye)
    for name, init in rnn_jax.RECURRENT_INITS.items():  # one meaning of the number
        radius = np.abs(np.linalg.eigvals(w_hh_of(getkey(), recurrent_init=init(0.8)))).max()
        np.testing.assert_allclose(radius, 0.8, rtol=0.3 if name == "normal" else 1e-6, err_msg=name)
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.normal(0.01))
    assert 0.009 < np.std(w) < 0.011
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.spectral_radius(0.9))
    np.testing.assert_allclose(np.max(np.abs(np.linalg.eigvals(w))), 0.9, rtol=1e-10)


def test_a_cell_is_tanh_without_leak_unless_given():
    w_xh, w_hh, b_h = np.array([[0.5, -1.0]]), np.array([[0.3, 0.2], [-0.7, 0.4]]), np.array([0.1, -0.2])
    cell = rnn_jax.CellParams(w_xh, w_hh, b_h)
    h_0, x_1 = np.array([0.9, -0.4]), np.array([2.0])
    h_1 = by_numpy(rnn_jax.step)(cell, h_0, x_1)
    np.testing.assert_allclose(h_1, np.tanh(x_1 @ w_xh + h_0 @ w_hh + b_h), rtol=1e-15)
    assert jax.tree.structure(cell) == jax.tree.structure(rnn_jax.CellParams(w_xh, w_hh, b_h, "tanh", 1.0))


def by_pickle(state, folder):
    return pickle.loads(pickle.dumps(state))


def by_deepcopy(state, folder):
    return copy.deepcopy(state)


def by_numpy_leaves(state, folder):
    """The leaves in their order, as `jax.tree.leaves` gives them."""
    np.savez(folder / "leaves.npz", *jax.tree.leaves(state))
    with np.load(folder / "leaves.npz") as arrays:
        return jax.tree.structure(state).unflatten([arrays[name] for name in arrays.files])


def by_numpy_names(state, folder):
    """The leaves by their names, like `.params.cells[0].w_hh`."""
    name = jax.tree_util.keystr
    np.savez(folder / "names.npz", **{name(path): leaf for path, leaf in jax.tree.leaves_with_path(state)})
    with np.load(folder / "names.npz") as arrays:
        return jax.tree.map_with_path(lambda path, _: arrays[name(path)], state)


def by_numpy_object(state, folder):
    """A whole tree as one entry of an array of objects."""
    held, file = np.empty(1, object), io.BytesIO()
    held[0] = state
    np.save(file, held)
    return np.load(io.BytesIO(file.getvalue()), allow_pickle=True)[0]


def by_orbax(state, folder):
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "orbax", jax.eval_shape(lambda: state))


def by_flax(state, folder):
    serialization = pytest.importorskip("flax.serialization")
    return serialization.from_bytes(jax.tree.map(jnp.zeros_like, state), serialization.to_bytes(state))


def by_equinox(state, folder):
    equinox = pytest.importorskip("equinox")
    equinox.tree_serialise_leaves(folder / "equinox", state)
    return equinox.tree_deserialise_leaves(folder / "equinox", jax.eval_shape(lambda: state))


SAVERS = [by_pickle, by_deepcopy, by_numpy_leaves, by_numpy_names, by_numpy_object, by_orbax, by_flax, by_equinox]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_tree_that_was_saved_is_the_same(saver, tmp_path):
    """Structure, static fields, dtypes and values, of parameters and of all that a trainer carries."""
    params, _, h_0 = make_problem(Case(num_layers=2, activation="relu", leak=0.3))
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optax.adam(0.1))
    state = trainer.init(params, h_0)
    again = saver(state, tmp_path)
    assert_trees_close(again, state, rtol=0)
    assert again.params.cells[1].activation == "relu" and again.params.cells[1].leak == 0.3


def test_flax_refuses_a_state_of_other_leaves():
    serialization = pytest.importorskip("flax.serialization")
    cell = make_model().cells[0]
    with pytest.raises(ValueError, match="A CellParams must be saved as"):
        serialization.from_state_dict(cell, {"w_xh": cell.w_xh})


@pytest.mark.parametrize("imported_before", [False, True])
def test_a_library_is_told_of_our_types_whenever_it_is_imported(imported_before, tmp_path, monkeypatch):
    """As `flax.serialization` is, which the core must not import by itself."""
    name, told, finders = f"library_{imported_before}", [], list(sys.meta_path)
    (tmp_path / f"{name}.py").write_text("value = 3")
    monkeypatch.syspath_prepend(tmp_path)
    if imported_before:
        __import__(name)
    _serialization.when_imported(name, lambda module: told.append(module.value))
    assert told == [3] * imported_before
    __import__(name)
    assert told == [3] and sys.meta_path == finders
    assert sys.modules.pop(name).__spec__.name == name


def test_a_program_with_our_trees_is_saved():
    """`jax.export` writes the structure of arguments and results, static fields too."""
    pytest.importorskip("flatbuffers")
    params, batch, h_0 = make_problem(Case(num_layers=2, activation="relu", leak=0.3, drop=True, mask=True))
    shapes = jax.eval_shape(lambda: (params, batch, h_0))
    exported = jax.export.export(jax.jit(rnn_jax.make_grad_fn("stepwise", loss="cross_entropy")))(*shapes)
    again = jax.export.deserialize(exported.serialize())
    assert (again.in_tree, again.out_tree) == (exported.in_tree, exported.out_tree)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_fresh_parameters(dtype):
    make = jax.jit(
        lambda key: rnn_jax.init_params(key, input_size=5, hidden_size=8, output_size=3, num_layers=2, dtype=dtype)
    )
    assert [h.shape for h in rnn_jax.zero_state(make(jax.random.key(0)), 2, 4)] == [(2, 4, 8)] * 2
    params, again, other = (jax.tree.map(np.asarray, make(jax.random.key(seed))) for seed in (0, 0, 1))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))
    chex.assert_trees_all_equal(params, again)
    leaves, others = ([leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 2] for tree in (params, other))
    assert all(np.any(x != y) for x, y in zip(leaves, others, strict=True))
    assert np.any(params.cells[0].w_hh != params.cells[1].w_hh)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(params) if leaf.ndim == 1)


def test_cross_entropy_is_optax_s():
    y, target = np.random.default_rng(0).standard_normal((6, 3, 5)), np.arange(18).reshape(6, 3) % 5
    value, d_y = by_numpy(rnn_jax.cross_entropy)(y, target)
    theirs = optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(value, by_numpy(theirs)(y, target), rtol=1e-13)
    expected = by_numpy(jax.grad(lambda y, target: jnp.sum(theirs(y, target))))(y, target)
    np.testing.assert_allclose(d_y, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("call", [by_numpy, jax.jit])
def test_cross_entropy_at_the_extremes(call):
    ys, targets = np.array([[1e4, -1e4], [-np.inf, 0.0], [0.0, 0.0]]), np.array([1, 1, 2])
    value, d_y = call(rnn_jax.cross_entropy)(ys, targets)
    np.testing.assert_allclose(value[:2], [2e4, 0.0])
    np.testing.assert_allclose(d_y[:2], [[1.0, -1.0], [0.0, 0.0]])
    assert np.isnan(value[2])  # there is no class 2
    for beyond in (np.array([2**32 - 1], np.uint32), np.array([2**31], np.uint32), np.array([200], np.uint8)):
        value, d_y = call(rnn_jax.cross_entropy)(np.zeros((1, 3)), beyond)
        assert np.isnan(value[0]) and np.allclose(d_y, 1 / 3)
    assert call(rnn_jax.cross_entropy)(np.zeros((1, 1)), np.array([0]))[0] == 0  # a vocabulary of one


def test_reductions():
    params, batch, h_0 = make_problem(Case(weights=True, loss="squared_error"))
    ys, _ = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)
    losses, weights = np.sum((ys - np.asarray(batch.targets)) ** 2, axis=-1), np.asarray(batch.weights)
    for reduction, expected in (
        ("sum", np.sum(weights * losses)),
        ("mean", np.sum(weights * losses) / np.sum(np.abs(weights))),
        ("mean_over_steps", np.mean(weights * losses)),
    ):
        (loss, _), _ = run("bptt", Case(loss="squared_error", reduction=reduction), (params, batch, h_0))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)


def test_a_mean_over_steps_counts_what_exists_or_has_a_weight():
    """The first step has weight 0, the second does not exist, the third does not and has a weight: three count."""
    params, batch, h_0 = make_problem(Case(time=4, batch=(), loss="squared_error"))
    mask, weights = jnp.array([True, False, False, True]), jnp.array([0.0, 0.0, -2.0, 3.0])
    batch = batch._replace(mask=mask, weights=weights)
    (total, _), _ = run("bptt", Case(loss="squared_error", reduction="sum"), (params, batch, h_0))
    for method in EXACT:
        case = Case(loss="squared_error", reduction="mean_over_steps")
        (loss, _), _ = run(method, case, (params, batch, h_0))
        np.testing.assert_allclose(loss, total / 3, rtol=1e-13)
        (loss, _), _ = run(method, case, (params, batch._replace(mask=jnp.zeros(4, bool)), h_0))
        assert np.isfinite(loss) and loss != 0


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "mean_over_steps"])
def test_a_mean_keeps_the_sign_of_the_weights(method, reduction):
    """Minus the weights is minus the loss and minus the gradient; weights that cancel divide by nothing small."""
    params, batch, h_0 = make_problem(Case(weights=True, mask=True))
    case = Case(reduction=reduction)
    (loss, _), gradients = run(method, case, (params, batch, h_0))
    (minus, _), opposite = run(method, case, (params, batch._replace(weights=-batch.weights), h_0))
    assert minus == -loss and abs(loss) > 0.01
    assert_trees_close(opposite, jax.tree.map(np.negative, gradients), rtol=1e-13)
    centred = batch.weights - jnp.mean(batch.weights)
    (loss, _), gradients = run(method, case, (params, batch._replace(weights=centred), h_0))
    largest = max(np.max(np.abs(d)) for d in jax.tree.leaves(gradients.params))
    assert abs(loss) < np.log(OUT) and 1e-3 < largest < 10


def test_parts_of_a_batch_add_up():
    """Sums over parts of unequal masks, divided once, are the mean of the whole; the mean of their means is not."""
    params, batch, h_0 = make_problem(Case(mask=True, batch=(4,)))
    whole = run("bptt", Case(), (params, batch, h_0))
    parts = [jax.tree.map(lambda x, i=i: x[:, i : i + 2], batch) for i in (0, 2)]
    states = [tuple(h[i : i + 2] for h in h_0) for i in (0, 2)]
    existing = [int(np.sum(part.mask)) for part in parts]
    assert existing[0] != existing[1]

    def mean_of(reduction, divisor):
        found = [run("bptt", Case(reduction=reduction), (params, p, h)) for p, h in zip(parts, states, strict=True)]
        pairs = [(loss, gradients.params) for (loss, _), gradients in found]
        return jax.tree.map(lambda x, y: (x + y) / divisor, *pairs)

    expected = whole[0][0], whole[1].params
    assert_trees_close(mean_of("sum", sum(existing)), expected, rtol=1e-12)
    assert abs(mean_of("mean", 2)[0] / expected[0] - 1) > 1e-3


def poisoned(value):
    """A problem whose targets and outputs are such that `value(y, target)` is not finite at steps that do not exist."""
    case = Case(loss="squared_error", mask=True, time=7)
    params, batch, h_0 = make_problem(case)
    targets = jnp.where(batch.mask[..., None], 2 + jnp.abs(batch.targets), 0.0)
    return params, batch._replace(targets=targets), h_0, rnn_jax.pointwise(value)


LOSSES_WITH_POLES = {
    "relative": lambda y, target: jnp.mean(jnp.abs(y - target) / target),
    "logarithm": lambda y, target: jnp.mean((jnp.log1p(jnp.exp(y)) - jnp.log(target)) ** 2),
    "poisson": lambda y, target: jnp.sum(jnp.exp(y) - target * y + target * jnp.log(target)),
    "root": lambda y, target: jnp.sum(jnp.sqrt(target - 1 + y**2)),  # NaN at the padded target, near y = 0
    "of both": lambda y, target: jnp.sum(jnp.log((y**2 + 1) * target)),  # ∂/∂y is 0 / 0
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES_WITH_POLES)
def test_a_loss_that_is_not_finite_at_steps_that_do_not_exist(name, reduction):
    """Equal to the same batch whose padded targets are harmless, in value, gradients and second derivatives."""
    params, batch, h_0, loss = poisoned(LOSSES_WITH_POLES[name])
    harmless = batch._replace(targets=jnp.where(batch.mask[..., None], batch.targets, 3.0))
    for method in EXACT:
        grad_fn = by_numpy(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction))
        expected = grad_fn(params, harmless, h_0)
        assert np.isfinite(expected[0][0]) and abs(expected[0][0]) > 0.1
        assert_trees_close(grad_fn(params, batch, h_0), expected, rtol=1e-12)


def test_second_derivatives_beside_a_loss_that_is_not_finite():
    params, batch, h_0, loss = poisoned(LOSSES_WITH_POLES["relative"])
    smooth = rnn_jax.pointwise(lambda y, target: jnp.mean((y - target) ** 2 / target))
    grad_fn = rnn_jax.make_grad_fn("autodiff", loss=smooth)
    direction = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size)).reshape(w.shape), params)

    def product(params, batch):
        return jax.jvp(lambda p: grad_fn(p, batch, h_0)[1].params, (params,), (direction,))[1]

    harmless = batch._replace(targets=jnp.where(batch.mask[..., None], batch.targets, 3.0))
    assert_trees_close(by_numpy(product)(params, batch), by_numpy(product)(params, harmless), rtol=1e-12)


def test_apply_is_the_layers_one_after_the_other():
    params, batch, h_0 = make_problem(Case(num_layers=2))
    first = by_numpy(rnn_jax.unroll)(params.cells[0], h_0[0], batch.inputs)
    second = by_numpy(rnn_jax.unroll)(params.cells[1], h_0[1], first)
    ys, h_T = by_numpy(lambda *args: rnn_jax.apply(*args, last=3))(params, h_0, batch.inputs)
    w_hy, b_y = map(np.asarray, params.readout)
    np.testing.assert_allclose(ys, second[-3:] @ w_hy + b_y, rtol=1e-13)
    chex.assert_trees_all_equal(h_T, (first[-1], second[-1]))


def make_model(vocabulary=9, hidden=8, num_layers=2):
    rng = np.random.default_rng(4)

    def normal(scale, *shape):
        return jnp.asarray(scale * rng.standard_normal(shape))

    def cell(size):
        return rnn_jax.CellParams(normal(1.0, size, hidden), normal(0.5, hidden, hidden), normal(0.1, hidden), "tanh")

    cells = tuple(cell(hidden if layer else vocabulary) for layer in range(num_layers))
    return rnn_jax.Params(cells, rnn_jax.ReadoutParams(normal(1.0, hidden, vocabulary), normal(0.1, vocabulary)))


@pytest.mark.parametrize("batch, call", [((), by_numpy), ((3,), jax.jit), ((2, 2), by_numpy)])
def test_generate_is_a_loop_of_steps(batch, call):
    """Every output is drawn, with its own key, from what the network says after all that stands before it."""
    params, key, draw = make_model(), jax.random.key(2), rnn_jax.categorical(0.7)
    prompt = np.random.default_rng(1).integers(0, 9, (4, *batch))
    outputs, h_T = call(lambda *args: rnn_jax.generate(*args, 6, draw=draw))(key, params, prompt)
    assert outputs.shape == (6, *batch) and outputs.dtype == prompt.dtype
    before = np.concatenate([prompt, outputs[:-1]])

    def expected(key, params, before):
        ys, h_T = rnn_jax.apply(params, rnn_jax.zero_state(params, *batch), before, last=6)
        keys = jax.random.split(key, 6)
        return [draw(keys[t], ys[t]) for t in range(6)], h_T

    drawn, expected_h_T = by_numpy(expected)(key, params, before)
    np.testing.assert_array_equal(outputs, drawn)
    chex.assert_trees_all_close(h_T, expected_h_T, rtol=1e-12)


def generated(params, prompt, length, *, draw, **options):
    make = by_numpy(lambda key, params, prompt: rnn_jax.generate(key, params, prompt, length, draw=draw, **options))
    return make(jax.random.key(0), params, prompt)


def test_generate_step_by_step_without_jit():
    """After a prompt of one step there is no scan of zero steps, which JAX refuses without jit."""
    params, prompt = make_model(num_layers=1), jnp.array([1])
    with jax.disable_jit():
        outputs, _ = rnn_jax.generate(jax.random.key(0), params, prompt, 3)
    np.testing.assert_array_equal(outputs, generated(params, prompt, 3, draw=rnn_jax.categorical(1.0))[0])


def test_generate_goes_on_where_it_ended():
    params, prompt = make_model(), np.array([1, 2, 3])
    whole, _ = generated(params, prompt, 9, draw=rnn_jax.greedy)
    assert len(set(whole)) > 2
    first, h_T = generated(params, prompt, 4, draw=rnn_jax.greedy)
    rest, _ = generated(params, first[-1:], 5, draw=rnn_jax.greedy, h_0=tuple(map(jnp.asarray, h_T)))
    np.testing.assert_array_equal(whole, np.concatenate([first, rest]))


def test_categorical_draws_the_softmax():
    """100,000 draws at two temperatures: every frequency within five standard deviations of its probability."""
    y = np.array([0.0, 1.0, 2.0, -1.0])
    for temperature in (1.0, 0.5):
        draw = by_numpy(rnn_jax.categorical(temperature))
        draws = draw(jax.random.key(0), np.broadcast_to(y, (100_000, 4)))
        p = softmax(y / temperature)
        frequency = np.bincount(draws, minlength=4) / 100_000
        assert np.all(np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / 100_000))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_categorical_draws_the_softmax_in_every_type(dtype):
    """χ² of 400,000 draws below its 1 - 1e-6 quantile: rare symbols get their due, equal ones are equally frequent."""
    num = 400_000
    for y in (np.log([0.989, 0.001, 0.004, 0.006]), np.zeros(200)):
        logits = np.asarray(jnp.asarray(y, dtype))
        p = softmax(logits.astype(np.float64))  # of the logits as they are rounded
        draws = rnn_jax.categorical(1.0)(jax.random.key(0), jnp.broadcast_to(jnp.asarray(logits), (num, len(y))))
        frequency = np.bincount(draws, minlength=len(y))
        chi_squared = np.sum((frequency - num * p) ** 2 / (num * p))
        freedom = len(y) - 1
        assert chi_squared < freedom + 2 * np.sqrt(freedom * 13.8) + 2 * 13.8  # Laurent and Massart (2000), lemma 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("temperature", [1e-38, 1e-45, 1e-300])
def test_the_limit_of_low_temperatures_is_greedy(dtype, temperature):
    y = jnp.asarray([[0.5, 2.0, 1.9], [3.0, -1.0, 2.0], [-9.0, -9.5, -8.0], [0.0, jnp.inf, 1.0]], dtype)
    for seed in range(5):
        draws = rnn_jax.categorical(temperature)(jax.random.key(seed), y)
        np.testing.assert_array_equal(draws, rnn_jax.greedy(jax.random.key(seed), y))


def test_feedback_feeds_back():
    params, prompt = make_model(2, num_layers=1), np.ones((1, 2))
    outputs, _ = generated(params, prompt, 3, draw=rnn_jax.feedback)
    inputs, zeros = np.concatenate([prompt, outputs[:2]]), rnn_jax.zero_state(params)
    ys, _ = by_numpy(rnn_jax.apply)(params, zeros, inputs)
    np.testing.assert_allclose(outputs, ys, rtol=1e-12)


def test_a_step_of_the_trainer():
    """By the textbook: clip by value, then by norm, then momentum; the state carried; the count."""
    params, batch, h_0 = make_problem(Case())
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.5, momentum=0.9, max_norm=0.05, max_value=0.02))
    state = trainer.init(params, h_0)
    velocity, w, h = jax.tree.map(np.zeros_like, params), jax.tree.map(np.asarray, params), h_0
    step = jax.jit(trainer.step)
    for n in range(3):
        (loss, h), gradients = by_numpy(grad_fn)(w, batch, h)
        raw = gradients.params
        clipped = jax.tree.map(lambda d: np.clip(d, -0.02, 0.02), raw)
        norm = np.sqrt(sum(np.sum(d**2) for d in jax.tree.leaves(clipped)))
        assert norm > 0.05  # both clips are active
        velocity = jax.tree.map(lambda v, d, norm=norm: 0.9 * v + d * 0.05 / norm, velocity, clipped)
        w = jax.tree.map(lambda w, v: w - 0.5 * v, w, velocity)
        state, info = step(state, batch)
        assert_trees_close(state.params, w, rtol=1e-12)
        assert_trees_close(state.h_0, h, rtol=1e-12)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
        raw_norm = np.sqrt(sum(np.sum(d**2) for d in jax.tree.leaves(raw)))
        np.testing.assert_allclose(info.grad_norm, raw_norm, rtol=1e-12)
        step_norm = np.sqrt(sum(np.sum((0.5 * v) ** 2) for v in jax.tree.leaves(velocity)))
        np.testing.assert_allclose(info.update_norm, step_norm, rtol=1e-12)
        assert state.num_steps == n + 1


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "max_norm", "max_value"])
def test_a_sweep_over_the_numbers_of_sgd(name):
    """Under `vmap` and `jit` they are what they are one at a time."""
    w, d = np.array([1.0, -2.0]), np.array([3.0, 0.5])

    def after_three_steps(number):
        numbers = {"learning_rate": 0.5, "momentum": 0.5, "max_norm": 1.0, "max_value": 2.0} | {name: number}
        optimizer = rnn_jax.clipped_sgd(numbers.pop("learning_rate"), **numbers)
        end, state = jnp.asarray(w), optimizer.init(w)
        for _ in range(3):
            updates, state = optimizer.update(jnp.asarray(d), state)
            end = end + updates
        return end

    sweep = [0.1, 0.6, 0.9]
    one_by_one = np.stack([after_three_steps(number) for number in sweep])
    assert len(np.unique(one_by_one[:, 1])) == 3
    np.testing.assert_allclose(jax.vmap(after_three_steps)(jnp.array(sweep)), one_by_one, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(after_three_steps)(0.6), one_by_one[1], rtol=1e-12)


def test_a_momentum_of_zero_in_a_sweep_is_none():
    ends = [rnn_jax.clipped_sgd(0.5, momentum=0.0), rnn_jax.clipped_sgd(0.5, momentum=jnp.zeros(()))]
    assert jax.tree.leaves([optimizer.init(np.ones(2)) for optimizer in ends]) == []  # nothing is remembered

    def step(momentum):
        optimizer = rnn_jax.clipped_sgd(0.5, momentum=momentum)
        state = optimizer.init(jnp.ones(2))
        _, state = optimizer.update(jnp.ones(2), state)
        return optimizer.update(jnp.ones(2), state)[0]

    np.testing.assert_array_equal(jax.vmap(step)(jnp.array([0.0, 0.5])), [[-0.5, -0.5], [-0.75, -0.75]])


def test_many_steps_a_dispatch_with_donation():
    """Scanned and donated equals one by one, and the caller's arrays live on."""
    params, batch, h_0 = make_problem(Case())
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), rnn_jax.clipped_sgd(0.1))
    batches = jax.tree.map(lambda x: np.stack([x, x[::-1], x]), jax.tree.map(np.asarray, batch))
    many = jax.jit(lambda state, batches: jax.lax.scan(trainer.step, state, batches), donate_argnums=0)
    first = trainer.init(params, h_0)
    scanned, infos = many(first, batches)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))
    state = trainer.init(params, h_0)  # the caller's arrays were not donated
    for i in range(3):
        state, info = by_numpy(trainer.step)(state, jax.tree.map(lambda x, i=i: x[i], batches))
        np.testing.assert_allclose(info.loss, infos.loss[i], rtol=1e-12)
    assert_trees_close(scanned, state, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_clipping_by_norm_in_a_low_type(dtype, factor):
    """In float16 a square overflows at 256 and underflows at 2e-4; the norm is that of float64 all the same."""
    rng = np.random.default_rng(0)
    d = {
        name: jnp.asarray(10 * factor * rng.standard_normal(shape), dtype) for name, shape in (("w", (80, 5)), ("b", 9))
    }
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), d)
    norm = np.sqrt(sum(np.sum(x**2) for x in exact.values()))
    clip = rnn_jax.clip_gradients(max_norm=2.0)
    clipped, _ = clip.update(d, clip.init(d))
    expected = jax.tree.map(lambda x: x * min(1, 2 / norm), exact)
    for name, leaf in clipped.items():
        assert leaf.dtype == dtype
        largest = np.max(np.abs(expected[name]))
        np.testing.assert_allclose(
            np.asarray(leaf, np.float64), expected[name], atol=float(jnp.finfo(dtype).eps) * largest, rtol=0
        )


@pytest.mark.parametrize("largest", [1e-37, 1e-30, 1.0, 8e37, 1e38, 3e38])
def test_clipping_by_norm_over_the_whole_range_of_float32(largest):
    """Also where the inverse of the largest entry is subnormal, and where the norm itself is beyond float32."""
    d = {"w": jnp.full(7, largest, jnp.float32), "b": jnp.asarray([largest / 2, 0], jnp.float32)}
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), d)
    norm = np.sqrt(sum(np.sum(x**2) for x in exact.values()))
    clip = rnn_jax.clip_gradients(max_norm=1e-3)
    clipped, _ = jax.jit(clip.update)(d, clip.init(d))
    for name, leaf in clipped.items():
        np.testing.assert_allclose(leaf, exact[name] * min(1, 1e-3 / norm), rtol=1e-6)
    if norm < 3e38:
        np.testing.assert_allclose(jax.jit(_numerics.tree_norm)(d), norm, rtol=1e-6)


def test_clipping_by_norm_has_derivatives_where_a_leaf_is_zero():
    """d/ds of the clipped update of (s w, 0): constant in s where it is clipped, linear where it is not."""
    w, zero = jnp.array([3.0, 4.0]), jnp.zeros(2)

    def clipped(s, max_norm):
        d = {"w": s * w, "b": s * zero}
        clip = rnn_jax.clip_gradients(max_norm=max_norm)
        return jnp.sum(clip.update(d, clip.init(d))[0]["w"])

    np.testing.assert_allclose(jax.grad(clipped)(1.0, 0.1), 0, atol=1e-15)
    np.testing.assert_allclose(jax.grad(clipped)(1.0, 100.0), 7, rtol=1e-15)


def test_a_state_that_never_was_finite_becomes_zero():
    params, batch, h_0 = make_problem(Case())
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optax.set_to_zero())
    spoilt = (h_0[0].at[1, 0].set(jnp.nan),)
    state, info = by_numpy(trainer.step)(trainer.init(params, spoilt), batch)
    assert info.num_not_carried == 1 and np.all(state.h_0[0][1] == 0) and np.all(np.isfinite(state.h_0[0]))


def test_a_skipped_update_leaves_no_poison():
    """One NaN in one sequence: parameters skip the batch, that sequence keeps its state, the others go on."""
    params, batch, h_0 = make_problem(Case(num_layers=2))
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 5)
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optimizer)
    step = by_numpy(trainer.step)
    state, info = step(trainer.init(params, h_0), batch)
    assert info.num_not_carried == 0
    spoilt = batch._replace(inputs=batch.inputs.at[2, 1, 0].set(jnp.nan))
    after, info = step(state, spoilt)
    assert np.isnan(info.loss) and info.num_not_carried == 1
    assert_trees_close(after.params, state.params, rtol=0)
    healthy, _ = step(state, batch)
    for h, before, unspoilt in zip(after.h_0, state.h_0, healthy.h_0, strict=True):
        np.testing.assert_array_equal(h[1], before[1])
        np.testing.assert_allclose(h[[0, 2]], unspoilt[[0, 2]], rtol=1e-12)
    last, info = step(after, batch)
    assert np.isfinite(info.loss) and info.num_not_carried == 0 and last.num_steps == 3


def test_a_gradient_function_of_your_own_trains():
    params, batch, h_0 = make_problem(Case())

    def value(params):
        ys, h_T = rnn_jax.apply(params, h_0, batch.inputs)
        return jnp.mean(rnn_jax.cross_entropy(ys, batch.targets)[0]), h_T

    def own(params, batch, h_0):
        (loss, h_T), d_params = jax.value_and_grad(value, has_aux=True)(params)
        return (loss, h_T), rnn_jax.Gradients(d_params, h_0, None)

    trainers = [
        rnn_jax.make_trainer(fn, optax.sgd(0.1)) for fn in (own, rnn_jax.make_grad_fn("bptt", loss="cross_entropy"))
    ]
    mine, theirs = (by_numpy(trainer.step)(trainer.init(params, h_0), batch) for trainer in trainers)
    assert_trees_close(mine, theirs, rtol=1e-12)


def test_min_char_rnn_clipping_is_by_value():
    params = make_model()
    clip = rnn_jax.clip_gradients(max_value=5.0)
    huge = jax.tree.map(lambda w: np.full_like(w, 7.0), params)
    clipped, _ = by_numpy(clip.update)(huge, clip.init(params))
    assert all(np.all(leaf == 5) for leaf in jax.tree.leaves(clipped))


def test_text():
    text = "hello wörld\n🎈"
    symbols = rnn_jax.symbols_of(text)
    tokens = rnn_jax.encode(symbols, text)
    assert rnn_jax.decode(symbols, tokens) == text and tokens.max() == len(symbols) - 1
    streams = rnn_jax.make_streams(np.arange(23), 4)
    assert streams.shape == (5, 4)
    np.testing.assert_array_equal(streams[:, 1], np.arange(5, 10))
    batch = rnn_jax.window_batch(jnp.asarray(streams), 1, 3)
    np.testing.assert_array_equal(batch.inputs, streams[1:4])
    np.testing.assert_array_equal(batch.targets, streams[2:5])


def test_what_is_not_used_costs_nothing():
    """Under `jit`, the compiled loss alone has no reverse loop: the operations of a forward pass."""
    problem = make_problem(Case(batch=(8,), time=50))
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")

    def flops(fn):
        return jax.jit(fn).lower(*problem).compile().cost_analysis()["flops"]

    def whiles(fn):
        return jax.jit(fn).lower(*problem).compile().as_text().count(" while(")

    assert whiles(lambda *args: grad_fn(*args)) == 2
    assert whiles(lambda *args: grad_fn(*args)[0]) == 1
    without_inputs = flops(lambda *args: grad_fn(*args)[1].params)
    assert flops(lambda *args: grad_fn(*args)[1]) - without_inputs >= 2 * 50 * 8 * HID * IN
