"""Cell, parameters, a stack of layers, text: what each promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import HID, IN, Case, assert_trees_close, make_problem

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
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.initializers.identity(), activation="relu")
    np.testing.assert_array_equal(w, eye)
    for name, init in rnn_jax.initializers.RECURRENT_INITS.items():  # one meaning of the number
        radius = np.abs(np.linalg.eigvals(w_hh_of(getkey(), recurrent_init=init(0.8)))).max()
        np.testing.assert_allclose(radius, 0.8, rtol=0.3 if name == "normal" else 1e-6, err_msg=name)
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.initializers.normal(0.01))
    assert 0.009 < np.std(w) < 0.011
    w = w_hh_of(getkey(), recurrent_init=rnn_jax.initializers.spectral_radius(0.9))
    np.testing.assert_allclose(np.max(np.abs(np.linalg.eigvals(w))), 0.9, rtol=1e-10)


def test_every_weight_has_its_initialiser(getkey):
    """By name or function, for the recurrence, the inputs, the readout and the biases; names mean a gain of 1."""
    sizes = {"input_size": 50, "hidden_size": 64, "output_size": 40, "num_layers": 2}
    key = getkey()
    make = by_numpy(
        lambda key: rnn_jax.init_params(
            key,
            **sizes,
            recurrent_init="identity",
            input_init=rnn_jax.initializers.normal(0.001),
            readout_init="zeros",
            bias_init=jax.nn.initializers.constant(0.3),
        )
    )
    params = make(key)
    for cell in params.cells:
        np.testing.assert_array_equal(cell.w_hh, np.eye(64))
        assert np.std(cell.w_xh) == pytest.approx(0.001, rel=0.1) and np.all(cell.b_h == 0.3)
    assert np.all(params.readout.w_hy == 0) and np.all(params.readout.b_y == 0.3)
    drawn = by_numpy(lambda key: rnn_jax.init_params(key, **sizes, bias_init=rnn_jax.initializers.normal(1.0)))(key)
    usual = by_numpy(lambda key: rnn_jax.init_params(key, **sizes))(key)
    biases = [*(cell.b_h for cell in drawn.cells), drawn.readout.b_y]
    assert all(np.std(b) == pytest.approx(1.0, rel=0.4) for b in biases) and np.any(biases[0] != biases[1])
    np.testing.assert_array_equal(drawn.cells[1].w_hh, usual.cells[1].w_hh)  # other keys than the weights
    for name, init in rnn_jax.initializers.INITS.items():
        assert np.shape(by_numpy(lambda key, init=init: init(key, (6, 6), float))(key)) == (6, 6), name


def test_a_cell_is_tanh_without_leak_unless_given():
    w_xh, w_hh, b_h = np.array([[0.5, -1.0]]), np.array([[0.3, 0.2], [-0.7, 0.4]]), np.array([0.1, -0.2])
    cell = rnn_jax.CellParams(w_xh, w_hh, b_h)
    h_0, x_1 = np.array([0.9, -0.4]), np.array([2.0])
    h_1 = by_numpy(rnn_jax.step)(cell, h_0, x_1)
    np.testing.assert_allclose(h_1, np.tanh(x_1 @ w_xh + h_0 @ w_hh + b_h), rtol=1e-15)
    assert jax.tree.structure(cell) == jax.tree.structure(rnn_jax.CellParams(w_xh, w_hh, b_h, "tanh", 1.0))


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


def test_apply_is_the_layers_one_after_the_other():
    params, batch, h_0 = make_problem(Case(num_layers=2))
    first = by_numpy(rnn_jax.unroll)(params.cells[0], h_0[0], batch.inputs)
    second = by_numpy(rnn_jax.unroll)(params.cells[1], h_0[1], first)
    ys, h_T = by_numpy(lambda *args: rnn_jax.apply(*args, last=3))(params, h_0, batch.inputs)
    w_hy, b_y = map(np.asarray, params.readout)
    np.testing.assert_allclose(ys, second[-3:] @ w_hy + b_y, rtol=1e-13)
    chex.assert_trees_all_equal(h_T, (first[-1], second[-1]))


def test_text():
    text = "hello wörld\n🎈"
    symbols = rnn_jax.data.symbols_of(text)
    tokens = rnn_jax.data.encode(symbols, text)
    assert rnn_jax.data.decode(symbols, tokens) == text and tokens.max() == len(symbols) - 1
    streams = rnn_jax.data.make_streams(np.arange(23), 4)
    assert streams.shape == (5, 4)
    np.testing.assert_array_equal(streams[:, 1], np.arange(5, 10))
    batch = rnn_jax.data.window_batch(jnp.asarray(streams), 1, 3)
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


@pytest.mark.parametrize("name", rnn_jax.initializers.RECURRENT_INITS)
def test_initialisers_draw_in_half_precision(name):
    """In float32, and then rounded: JAX has no decompositions in half precision."""
    init, key = rnn_jax.initializers.RECURRENT_INITS[name](0.5), jax.random.key(0)
    low, wide = init(key, (6, 6), jnp.bfloat16), init(key, (6, 6), jnp.float32)
    assert low.dtype == jnp.bfloat16 and jnp.any(low != 0)
    if name != "normal":  # which JAX draws in the type itself
        np.testing.assert_array_equal(low, wide.astype(jnp.bfloat16))
