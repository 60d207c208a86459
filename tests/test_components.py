"""Cell, parameters, losses, generation, training, text: what each promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import HID, IN, Case, assert_trees_close, make_problem, run

import rnn_jax


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_the_twins_of_a_step(activation, batch, inputs):
    """`step_backward` is the vjp of `step`; φ' comes from `h` alone."""
    params, data, h_0 = make_problem(Case(activation=activation, batch=batch, inputs=inputs))
    cell, h_tm1, x_t = params.cells[0], h_0[0], data.inputs[0]
    h_t, residuals = rnn_jax.step_forward(cell, h_tm1, x_t)
    chex.assert_trees_all_equal(h_t, rnn_jax.step(cell, h_tm1, x_t))
    d_h_t = jnp.cos(jnp.arange(h_t.size, dtype=h_t.dtype)).reshape(h_t.shape)
    d_cell, d_h_tm1, d_x_t = rnn_jax.step_backward(cell, residuals, d_h_t)
    if inputs == "tokens":
        assert d_x_t is None
        _, pullback = jax.vjp(lambda cell, h: rnn_jax.step(cell, h, x_t), cell, h_tm1)
        assert_trees_close((d_cell, d_h_tm1), pullback(d_h_t), rtol=1e-13)
    else:
        _, pullback = jax.vjp(rnn_jax.step, cell, h_tm1, x_t)
        assert_trees_close((d_cell, d_h_tm1, d_x_t), pullback(d_h_t), rtol=1e-13)


def test_initialisers(getkey):
    sizes = {"input_size": 5, "hidden_size": 64, "output_size": 3}
    eye = np.eye(64)
    w = rnn_jax.init_params(getkey(), **sizes).cells[0].w_hh
    np.testing.assert_allclose(w @ w.T, eye, atol=1e-12)
    w = rnn_jax.init_params(getkey(), recurrent_init=rnn_jax.identity(), activation="relu", **sizes).cells[0].w_hh
    np.testing.assert_array_equal(w, eye)
    w = rnn_jax.init_params(getkey(), recurrent_init=rnn_jax.normal(0.01), **sizes).cells[0].w_hh
    assert 0.009 < jnp.std(w) < 0.011
    w = rnn_jax.init_params(getkey(), recurrent_init=rnn_jax.spectral_radius(0.9), **sizes).cells[0].w_hh
    np.testing.assert_allclose(np.max(np.abs(np.linalg.eigvals(w))), 0.9, rtol=1e-10)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_fresh_parameters(dtype):
    make = jax.jit(
        lambda key: rnn_jax.init_params(key, input_size=5, hidden_size=8, output_size=3, num_layers=3, dtype=dtype)
    )
    params = make(jax.random.key(0))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))
    chex.assert_trees_all_equal(params, make(jax.random.key(0)))
    leaves = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    others = [leaf for leaf in jax.tree.leaves(make(jax.random.key(1))) if leaf.ndim == 2]
    assert all(jnp.any(x != y) for x, y in zip(leaves, others, strict=True))
    assert jnp.any(params.cells[1].w_hh != params.cells[2].w_hh)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(params) if leaf.ndim == 1)
    assert [h.shape for h in rnn_jax.zero_state(params, 2, 4)] == [(2, 4, 8)] * 3


def test_cross_entropy_is_optax_s():
    y, target = jax.random.normal(jax.random.key(0), (6, 3, 5)), jnp.arange(18).reshape(6, 3) % 5
    value, d_y = rnn_jax.cross_entropy(y, target)
    theirs = optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(value, theirs(y, target), rtol=1e-13)
    np.testing.assert_allclose(d_y, jax.grad(lambda y: jnp.sum(theirs(y, target)))(y), rtol=1e-12, atol=1e-15)


def test_cross_entropy_at_the_extremes():
    value, d_y = rnn_jax.cross_entropy(jnp.array([[1e4, -1e4], [-jnp.inf, 0.0], [0.0, 0.0]]), jnp.array([1, 1, 2]))
    np.testing.assert_allclose(value[:2], [2e4, 0.0])
    np.testing.assert_allclose(d_y[:2], [[1.0, -1.0], [0.0, 0.0]])
    assert jnp.isnan(value[2])  # there is no class 2
    assert rnn_jax.cross_entropy(jnp.zeros((1, 1)), jnp.array([0]))[0] == 0  # a vocabulary of one


def test_reductions():
    params, batch, h_0 = make_problem(Case(weights=True, loss="squared_error"))
    ys, _ = rnn_jax.apply(params, h_0, batch.inputs)
    losses = jnp.sum((ys - batch.targets) ** 2, axis=-1)
    for reduction, expected in (
        ("sum", jnp.sum(batch.weights * losses)),
        ("mean", jnp.sum(batch.weights * losses) / jnp.sum(batch.weights)),
    ):
        (loss, _), _ = run("bptt", Case(loss="squared_error", reduction=reduction), (params, batch, h_0))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)


def test_apply_is_the_layers_one_after_the_other():
    params, batch, h_0 = make_problem(Case(num_layers=2))
    first = rnn_jax.unroll(params.cells[0], h_0[0], batch.inputs)
    second = rnn_jax.unroll(params.cells[1], h_0[1], first)
    ys, h_T = rnn_jax.apply(params, h_0, batch.inputs, last=3)
    np.testing.assert_allclose(ys, second[-3:] @ params.readout.w_hy + params.readout.b_y[None, None], rtol=1e-13)
    chex.assert_trees_all_equal(h_T, (first[-1], second[-1]))


def make_model(vocabulary=9):
    return rnn_jax.init_params(
        jax.random.key(4), input_size=vocabulary, hidden_size=8, output_size=vocabulary, num_layers=2
    )


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_generate_is_a_loop_of_steps(batch):
    """Every output is drawn, with its own key, from what the network says after all that stands before it."""
    params = make_model()
    prompt = jax.random.randint(jax.random.key(1), (4, *batch), 0, 9)
    key, draw = jax.random.key(2), rnn_jax.categorical(0.7)
    outputs, h_T = rnn_jax.generate(key, params, prompt, 6, draw=draw)
    assert outputs.shape == (6, *batch) and outputs.dtype == prompt.dtype
    before = jnp.concatenate([prompt, outputs[:-1]])
    ys, expected_h_T = rnn_jax.apply(params, rnn_jax.zero_state(params, *batch), before, last=6)
    np.testing.assert_array_equal(outputs, jax.vmap(draw)(jax.random.split(key, 6), ys))
    chex.assert_trees_all_close(h_T, expected_h_T, rtol=1e-12)


def test_generate_goes_on_where_it_ended():
    params, prompt = make_model(), jnp.array([1, 2, 3])
    whole, _ = rnn_jax.generate(jax.random.key(0), params, prompt, 9, draw=rnn_jax.greedy)
    first, h_T = rnn_jax.generate(jax.random.key(0), params, prompt, 4, draw=rnn_jax.greedy)
    rest, _ = rnn_jax.generate(jax.random.key(0), params, first[-1:], 5, draw=rnn_jax.greedy, h_0=h_T)
    np.testing.assert_array_equal(whole, jnp.concatenate([first, rest]))


def test_categorical_draws_the_softmax():
    """100,000 draws at two temperatures: every frequency within five standard deviations of its probability."""
    y = jnp.array([0.0, 1.0, 2.0, -1.0])
    for temperature in (1.0, 0.5):
        draws = rnn_jax.categorical(temperature)(jax.random.key(0), jnp.broadcast_to(y, (100_000, 4)))
        p = jax.nn.softmax(y / temperature)
        frequency = jnp.bincount(draws, length=4) / 100_000
        assert jnp.all(jnp.abs(frequency - p) < 5 * jnp.sqrt(p * (1 - p) / 100_000))


def test_feedback_feeds_back():
    params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=5, output_size=2)
    outputs, _ = rnn_jax.generate(jax.random.key(0), params, jnp.ones((1, 2)), 3, draw=rnn_jax.feedback)
    ys, _ = rnn_jax.apply(params, rnn_jax.zero_state(params), jnp.concatenate([jnp.ones((1, 2)), outputs[:2]]))
    np.testing.assert_allclose(outputs, ys, rtol=1e-12)


def test_a_step_of_the_trainer():
    """By the textbook: clip by value, then by norm, then momentum; the state carried; the count."""
    params, batch, h_0 = make_problem(Case())
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.5, momentum=0.9, max_norm=0.05, max_value=0.02))
    state = trainer.init(params, h_0)
    velocity, w, h = jax.tree.map(jnp.zeros_like, params), params, h_0
    for n in range(3):
        (loss, h), gradients = grad_fn(w, batch, h)
        raw = gradients.params
        clipped = jax.tree.map(lambda d: jnp.clip(d, -0.02, 0.02), raw)
        norm = jnp.sqrt(sum(jnp.sum(d**2) for d in jax.tree.leaves(clipped)))
        assert norm > 0.05  # both clips are active
        velocity = jax.tree.map(lambda v, d, norm=norm: 0.9 * v + d * 0.05 / norm, velocity, clipped)
        w = jax.tree.map(lambda w, v: w - 0.5 * v, w, velocity)
        state, info = jax.jit(trainer.step)(state, batch)
        assert_trees_close(state.params, w, rtol=1e-12)
        assert_trees_close(state.h_0, h, rtol=1e-12)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
        raw_norm = jnp.sqrt(sum(jnp.sum(d**2) for d in jax.tree.leaves(raw)))
        np.testing.assert_allclose(info.grad_norm, raw_norm, rtol=1e-12)
        step_norm = jnp.sqrt(sum(jnp.sum((0.5 * v) ** 2) for v in jax.tree.leaves(velocity)))
        np.testing.assert_allclose(info.update_norm, step_norm, rtol=1e-12)
        assert state.num_steps == n + 1


def test_many_steps_a_dispatch_with_donation():
    """Scanned and donated equals one by one, and the caller's arrays live on."""
    params, batch, h_0 = make_problem(Case())
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), rnn_jax.clipped_sgd(0.1))
    batches = jax.tree.map(lambda x: jnp.stack([x, x[::-1], x]), batch)
    many = jax.jit(lambda state, batches: jax.lax.scan(trainer.step, state, batches), donate_argnums=0)
    first = trainer.init(params, h_0)
    scanned, infos = many(first, batches)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))
    state = trainer.init(params, h_0)  # the caller's arrays were not donated
    for i in range(3):
        state, info = trainer.step(state, jax.tree.map(lambda x, i=i: x[i], batches))
        np.testing.assert_allclose(info.loss, infos.loss[i], rtol=1e-12)
    assert_trees_close(scanned, state, rtol=1e-12)


def test_min_char_rnn_clipping_is_by_value():
    params = make_model()
    clip = rnn_jax.clip_gradients(max_value=5.0)
    huge = jax.tree.map(lambda w: jnp.full_like(w, 7.0), params)
    clipped, _ = clip.update(huge, clip.init(params))
    assert all(jnp.all(leaf == 5) for leaf in jax.tree.leaves(clipped))


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
