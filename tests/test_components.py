"""Cell, parameters, losses, generation, training, text: what each promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from problems import HID, IN, Case, assert_trees_close, make_problem, run
from witness import softmax

import rnn_jax


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
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.normal(0.01))
    assert 0.009 < np.std(w) < 0.011
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.spectral_radius(0.9))
    np.testing.assert_allclose(np.max(np.abs(np.linalg.eigvals(w))), 0.9, rtol=1e-10)


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
    assert call(rnn_jax.cross_entropy)(np.zeros((1, 1)), np.array([0]))[0] == 0  # a vocabulary of one


def test_reductions():
    params, batch, h_0 = make_problem(Case(weights=True, loss="squared_error"))
    ys, _ = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)
    losses, weights = np.sum((ys - np.asarray(batch.targets)) ** 2, axis=-1), np.asarray(batch.weights)
    for reduction, expected in (
        ("sum", np.sum(weights * losses)),
        ("mean", np.sum(weights * losses) / np.sum(weights)),
    ):
        (loss, _), _ = run("bptt", Case(loss="squared_error", reduction=reduction), (params, batch, h_0))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)


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
