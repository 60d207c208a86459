"""How an experiment trains: every seed starts from its own key, and trains as it would alone."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from jax import lax
from small_experiments import of_rate, program_of, small

import rnn_jax
from rnn_jax import experiments
from rnn_jax.experiments import _training as training
from rnn_jax.experiments._flossing import floss, flossed, flossed_at_intervals
from rnn_jax.experiments._training import make_program, train


def finished(of, seeds):
    with jax.enable_x64(of.float64):
        chunks = list(train(of, program_of(of, tuple(seeds)), len(seeds)))
    return chunks


def test_a_seed_trains_as_in_a_plain_loop():
    """The keys, the fresh state, the evaluations: beside a loop in Python without any compiled program."""
    of = of_rate(0.1)
    chunks = finished(of, [3])
    init_key, data_key = jax.random.split(jax.random.key(3))
    params = by_numpy(of.init)(init_key)
    state = of.optimizer.init(params)
    grad_fn = rnn_jax.make_grad_fn("autodiff", loss="cross_entropy")

    def moved(params, state, batch):
        _, gradients = grad_fn(params, batch, rnn_jax.zero_state(params, 3))
        updates, state = of.optimizer.update(gradients.params, state, params)
        return optax.apply_updates(params, updates), state

    moved, evaluate, seen = by_numpy(moved), by_numpy(of.evaluate), []
    for step in range(7):
        if step % 2 == 0:
            seen.append(evaluate(params)["loss"])
        batch = of.batch(jax.random.fold_in(data_key, step), jnp.asarray(step))
        params, state = moved(params, state, batch)
    assert [chunk.step for chunk, _ in chunks] == [0, 2, 4, 6]
    np.testing.assert_allclose([chunk.metrics["loss"][0] for chunk, _ in chunks], np.stack(seen), rtol=1e-12)


CROWDS = [(True, [3, 4, 5]), (False, [5, 3])]
MORE = [(False, [3, 4, 5]), (True, [5, 3]), (True, [9, 8, 7, 3]), (False, [9, 8, 7, 3])]


@pytest.mark.parametrize(
    "together, seeds", [*CROWDS, *(pytest.param(*more, marks=pytest.mark.thorough) for more in MORE)]
)
def test_a_seed_does_not_depend_on_the_others(seeds, together, monkeypatch):
    """On two devices, seeds that do not come out even, one after the other and side by side."""
    alone = finished(of_rate(0.1), [3])
    monkeypatch.setattr(training, "SMALL", math.inf if together else 0)
    chunks = finished(small(0.1), seeds)  # a new one: programs are kept by training
    at = seeds.index(3)
    for (mine, _), (theirs, _) in zip(alone, chunks, strict=True):
        for name, values in mine.metrics.items():
            assert theirs.metrics[name].shape == (len(seeds),)
            np.testing.assert_allclose(theirs.metrics[name][at], values[0], rtol=1e-10, err_msg=name)
    losses = chunks[-1][0].metrics["loss"]
    assert len(set(losses.round(8))) == len(seeds)


def test_the_state_is_carried_only_when_asked_for():
    kept, fresh = (finished(of, [3])[-1][0].metrics["loss"][0] for of in (small(keep_state=True), of_rate(0.1)))
    assert kept != fresh


def test_it_ends_when_all_seeds_are_solved():
    """Without a criterion at the last step, as in the plain loop."""
    of = small(num_steps=20, solved=lambda m: m["step"] >= 4)
    ticking = of._replace(
        evaluate=lambda params: {"loss": jnp.ones(()), "step": jnp.where(params.readout.b_y[0] == 0, 0, 4)}
    )
    assert [chunk.step for chunk, _ in finished(ticking, [0, 1])] == [0, 2]


def test_it_ends_when_all_seeds_are_lost_and_says_so():
    of = small(math.inf, num_steps=20)
    chunks = finished(of, [0, 1])
    assert [chunk.step for chunk, _ in chunks] == [0, 2] and not chunks[-1][0].metrics["finite"].any()


def summed(data, params):
    return {"loss": jnp.sum(data)}


def test_the_digest_is_of_every_number():
    digests = {
        name: program_of(of, (0, 1)).digest
        for name, of in {
            "this": of_rate(0.1),
            "rate": of_rate(0.2),
            "batch": small(batch_size=4),
            "grid": small(num_steps=6, eval_every=3),
            "criterion": small(solved=lambda m: m["loss"] < 0.1),
            "data": small()._replace(evaluate=partial(summed, jnp.arange(9.0))),
            "other data": small()._replace(evaluate=partial(summed, jnp.arange(9.0).at[8].set(3.0))),
        }.items()
    }
    assert len(set(digests.values())) == len(digests)
    assert make_program(small(), [0, 1]).digest == digests["this"]


@pytest.mark.parametrize(
    "of, error, message",
    [
        (small(num_steps=7), ValueError, "`num_steps` must be a multiple of `eval_every`, got 7 and 2."),
        (small(num_steps=0), ValueError, "`num_steps` must be at least 1, got 0."),
        (small()._replace(evaluate=lambda params: {"loss": 0.0, "solved": 1.0}), ValueError, r"got \['solved'\]"),
        (small()._replace(evaluate=lambda params: {"accuracy": 1.0}), ValueError, 'must return a dict .* "loss"'),
        (small()._replace(evaluate=lambda params: {"loss": jnp.ones(3)}), ValueError, r"got 'loss' of shape \(3,\)"),
    ],
)
def test_a_training_that_does_not_fit_together(of, error, message):
    with pytest.raises(error, match=message):
        make_program(of, [0])


def test_starts():
    key, sizes = jax.random.key(0), {"input_size": 3, "hidden_size": 400, "output_size": 2}
    normal = experiments.normal_tanh(sizes, 1.5)(key).cells[0].w_hh
    assert np.abs(np.linalg.eigvals(normal)).max() == pytest.approx(1.5, rel=0.1)
    cell = experiments.irnn(sizes)(key).cells[0]
    assert cell.activation == "relu" and float(jnp.std(cell.w_xh)) == pytest.approx(0.001, rel=0.1)
    np.testing.assert_array_equal(cell.w_hh, np.eye(400))
    few = sizes | {"hidden_size": 5}
    whole, tenth = (experiments.orthogonal_tanh(few, scale)(key) for scale in (1.0, 0.1))
    np.testing.assert_allclose(tenth.cells[0].w_xh, 0.1 * whole.cells[0].w_xh, rtol=1e-12)


def floss_of(task, num_steps, **sizes):
    """Flossing of four exponents along sequences of a task."""
    return floss(lambda key: rnn_jax.tasks.TASKS[task].make(key, num_sequences=1, **sizes).inputs, num_steps, num=4)


def exponents_of(params, xs):
    h_0 = rnn_jax.zero_state(params, 1)
    return rnn_jax.dynamics.lyapunov_exponents(jax.random.key(1), params, h_0, xs, num=4).exponents


def test_flossing_brings_exponents_to_zero():
    sizes = experiments.sizes_of(rnn_jax.tasks.TASKS["adding"], {"time": 20}, 8)
    plain = experiments.normal_tanh(sizes, 0.5)
    xs = rnn_jax.tasks.adding(jax.random.key(5), num_sequences=1, time=60).inputs
    with jax.numpy_dtype_promotion("standard"):  # optax adds a counter to a real number
        after = jax.jit(flossed(plain, floss_of("adding", 40, time=20)))(jax.random.key(2))
    before = plain(jax.random.split(jax.random.key(2))[0])
    assert float(jnp.sum(exponents_of(after, xs) ** 2)) < 0.5 * float(jnp.sum(exponents_of(before, xs) ** 2))


def test_flossing_at_intervals_changes_the_weights_at_these_steps_only():
    """By a change that only adds: 7 to all weights at the steps 0, 3 and 6; other keys each time."""
    keys = []

    def add_7(params, key):
        jax.debug.callback(lambda data: keys.append(tuple(data.tolist())), jax.random.key_data(key))
        return jax.tree.map(lambda x: x + 7, params)

    optimizer = flossed_at_intervals(optax.sgd(0.5), add_7, 3)
    params, seen = {"w": jnp.zeros(2)}, []
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(7):
        updates, state = update({"w": jnp.ones(2)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(float(params["w"][0]))
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [6.5, 6.0, 5.5, 12.0, 11.5, 11.0, 17.5])
    assert len(keys) == len(set(keys)) == 3


def test_who_is_flossed_and_when(monkeypatch):
    """With a change that adds the number of its steps to all weights; the optimizer gets gradients of zero."""
    from rnn_jax.experiments.catalogue import flossing

    def adding(inputs, num_steps):
        return lambda params, key: jax.tree.map(lambda x: x + num_steps, params)

    monkeypatch.setattr(flossing, "floss", adding)
    sizes, found = {"input_size": 1, "hidden_size": 5, "output_size": 2}, {}
    for name, start in flossing.STARTS.items():
        before = start.init(sizes)(jax.random.key(0)).cells[0].w_hh
        optimizer = flossing.optimizer_of(start, 20)

        def step(state, _, optimizer=optimizer):
            update, state = optimizer.update(jnp.zeros(()), state, jnp.zeros(()))
            return state, update

        with jax.numpy_dtype_promotion("standard"):  # optax adds a counter to a real number
            during = lax.scan(step, optimizer.init(jnp.zeros(())), length=20)[1]
        found[name] = bool(jnp.all(before > 250)), [step for step, moved in enumerate(during) if moved == 50]
    normal, flossed_before, flossed_during, orthogonal, both = found.values()
    assert normal == orthogonal == (False, []) and flossed_before == both == (True, [])
    assert flossed_during == (True, [0, 5, 10, 15])


def test_the_flossing_task_is_delayed_xor_on_numbers():
    from rnn_jax.experiments.catalogue import flossing

    sizes = {"num_sequences": 3, "time": 8, "delay": 4}
    mine, tokens = flossing.bits(jax.random.key(0), **sizes), rnn_jax.tasks.delayed_xor(jax.random.key(0), **sizes)
    np.testing.assert_array_equal(mine.inputs, tokens.inputs[..., None].astype(float))
    np.testing.assert_array_equal(mine.targets, tokens.targets)
