"""The trainer and its optimizer: clipping, momentum, the state that is carried."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from problems import Case, assert_trees_close, make_problem

import rnn_jax
from rnn_jax import _numerics


def test_a_step_of_the_trainer():
    """By the textbook: clip by value, then by norm, then momentum; the state carried; the count."""
    params, batch, h_0 = make_problem(Case())
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    trainer = rnn_jax.make_trainer(
        grad_fn, rnn_jax.clipped_sgd(0.5, momentum=0.9, max_norm=0.05, max_value=0.02), carry=True
    )
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
    assert jax.tree.leaves(rnn_jax.clipped_sgd(0.5).init(np.ones(2))) == []  # nothing is remembered
    structures = [jax.tree.structure(rnn_jax.clipped_sgd(0.5, momentum=m).init(jnp.ones(2))) for m in (0.0, 0.5)]
    assert structures[0] == structures[1]  # whatever the number is: `optax.inject_hyperparams` makes it a traced one
    injected = optax.inject_hyperparams(rnn_jax.clipped_sgd)(learning_rate=0.5, momentum=0.0)
    state = jax.jit(lambda state: injected.update(jnp.ones(2), state)[1])(injected.init(jnp.ones(2)))
    np.testing.assert_array_equal(injected.update(jnp.ones(2), state)[0], [-0.5, -0.5])

    def step(momentum):
        optimizer = rnn_jax.clipped_sgd(0.5, momentum=momentum)
        state = optimizer.init(jnp.ones(2))
        _, state = optimizer.update(jnp.ones(2), state)
        return optimizer.update(jnp.ones(2), state)[0]

    np.testing.assert_array_equal(jax.vmap(step)(jnp.array([0.0, 0.5])), [[-0.5, -0.5], [-0.75, -0.75]])


def test_many_steps_a_dispatch_with_donation():
    """Scanned and donated equals one by one, and the caller's arrays live on."""
    params, batch, h_0 = make_problem(Case())
    trainer = rnn_jax.make_trainer(
        rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), rnn_jax.clipped_sgd(0.1), carry=True
    )
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


def test_independent_batches_start_from_the_state_of_init():
    """Each of them; the same step carried starts where the last one ended."""
    params, batch, h_0 = make_problem(Case())
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    apart, carried = (rnn_jax.make_trainer(grad_fn, optax.sgd(0.1), carry=carry) for carry in (False, True))
    state = apart.init(params, h_0)
    after, info = by_numpy(apart.step)(state, batch)
    assert_trees_close(after.h_0, h_0, rtol=0)
    assert info.num_not_carried == 0
    (_, h_T), _ = by_numpy(grad_fn)(params, batch, h_0)
    assert_trees_close(by_numpy(carried.step)(state, batch)[0].h_0, h_T, rtol=1e-12)
    assert_trees_close(after.params, by_numpy(carried.step)(state, batch)[0].params, rtol=0)


def test_optimizers_that_ask_for_more_than_the_gradient():
    """For the loss, and for the loss at other parameters; several batches to an update."""
    params, batch, h_0 = make_problem(Case())
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")

    def losses(optimizer, count):
        trainer = rnn_jax.make_trainer(grad_fn, optimizer, carry=False)
        many = jax.jit(lambda state: jax.lax.scan(lambda s, _: trainer.step(s, batch), state, length=count))
        return many(trainer.init(params, h_0))

    patient = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state, _ = losses(patient, 12)
        assert state.opt_state[1].scale < 0.1  # with a rate of zero the loss never falls
        _, by_lbfgs = losses(optax.lbfgs(), 30)
        _, by_sgd = losses(optax.sgd(0.1), 30)
        asking = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
        losses(optax.MultiSteps(asking, 3), 6)  # which hands on what they ask for
        state, infos = losses(optax.MultiSteps(optax.sgd(0.1), 3), 6)
    assert by_lbfgs.loss[-1] < 0.2 * by_sgd.loss[-1]
    np.testing.assert_array_equal(infos.update_norm > 0, [False, False, True] * 2)


def test_a_state_that_never_was_finite_becomes_zero():
    params, batch, h_0 = make_problem(Case())
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optax.set_to_zero(), carry=True)
    spoilt = (h_0[0].at[1, 0].set(jnp.nan),)
    state, info = by_numpy(trainer.step)(trainer.init(params, spoilt), batch)
    assert info.num_not_carried == 1 and np.all(state.h_0[0][1] == 0) and np.all(np.isfinite(state.h_0[0]))


def test_a_skipped_update_leaves_no_poison():
    """One NaN in one sequence: parameters skip the batch, that sequence keeps its state, the others go on."""
    params, batch, h_0 = make_problem(Case(num_layers=2))
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 5)
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optimizer, carry=True)
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
        rnn_jax.make_trainer(fn, optax.sgd(0.1), carry=True)
        for fn in (own, rnn_jax.make_grad_fn("bptt", loss="cross_entropy"))
    ]
    mine, theirs = (by_numpy(trainer.step)(trainer.init(params, h_0), batch) for trainer in trainers)
    assert_trees_close(mine, theirs, rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")
def test_parameters_may_be_a_tree_of_your_own():
    """With heads of their own each step is that of the same network as `Params`, and states are carried."""
    case = Case(loss="squared_error", reset=True)
    params, batch, h_0 = make_problem(case)
    tree = {"cell": params.cells[0], "heads": {"w": params.readout.w_hy, "b": params.readout.b_y}}

    def squared(cell, readout, batch, h_0):
        hs = rnn_jax.unroll_bptt(cell, h_0[0], batch.inputs, reset=batch.reset)
        return jnp.sum((rnn_jax.readout(readout, hs) - batch.targets) ** 2), (hs[-1],)

    def of_tree(tree, batch, h_0):
        return squared(tree["cell"], rnn_jax.ReadoutParams(tree["heads"]["w"], tree["heads"]["b"]), batch, h_0)

    def of_params(params, batch, h_0):
        return squared(params.cells[0], params.readout, batch, h_0)

    def trained(loss, params):
        trainer = rnn_jax.make_trainer(rnn_jax.grad_fn_of(loss), rnn_jax.clipped_sgd(0.01, momentum=0.5), carry=True)
        state, _ = jax.lax.scan(lambda state, _: trainer.step(state, batch), trainer.init(params, h_0), length=3)
        return state

    mine, plain = (
        jax.jit(trained, static_argnums=0)(of_tree, tree),
        jax.jit(trained, static_argnums=0)(of_params, params),
    )
    assert_trees_close(jax.tree.leaves(mine.params["cell"]), jax.tree.leaves(plain.params.cells[0]), rtol=1e-12)
    assert_trees_close(mine.params["heads"]["w"], plain.params.readout.w_hy, rtol=1e-12)
    assert_trees_close(mine.h_0, plain.h_0, rtol=1e-12)
    assert np.abs(mine.params["heads"]["w"] - tree["heads"]["w"]).max() > 1e-3
    init = rnn_jax.make_trainer(rnn_jax.grad_fn_of(of_tree), rnn_jax.clipped_sgd(0.01), carry=True).init
    with pytest.raises(TypeError, match="`params.'a'.` must hold floating point numbers, got dtype int64. Cast it"):
        init({"a": jnp.arange(3)}, h_0)
    with pytest.raises(TypeError, match="`params` must hold arrays, got dict"):
        init({}, h_0)
    for wrong in (h_0[0], list(h_0), params, ()):
        with pytest.raises(TypeError, match="`h_0` must be a tuple of one state per layer, got "):
            init(tree, wrong)
    with pytest.raises(ValueError, match="`h_0` must hold states of one batch"):
        init(tree, (h_0[0], h_0[0][:1]))
    with pytest.raises(TypeError, match="`h_0.0.` must be an array, got tuple"):
        init(tree, ((h_0[0], h_0[0]),))


def test_min_char_rnn_clipping_is_by_value():
    params, _, _ = make_problem(Case())
    clip = rnn_jax.clip_gradients(max_value=5.0)
    huge = jax.tree.map(lambda w: np.full_like(w, 7.0), params)
    clipped, _ = by_numpy(clip.update)(huge, clip.init(params))
    assert all(np.all(leaf == 5) for leaf in jax.tree.leaves(clipped))
