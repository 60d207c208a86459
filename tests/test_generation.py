"""Sampling: each output is drawn from what the network predicts after all earlier symbols."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import and_gated
from witness import softmax

import rnn_jax
from rnn_jax._cells.kinds import CELLS
from rnn_jax._cells.protocol import own_names


def make_model(vocabulary=9, hidden=8, num_layers=2, kind=rnn_jax.CellParams):
    rng, wide = np.random.default_rng(4), kind.gates * hidden

    def normal(scale, *shape):
        return jnp.asarray(scale * rng.standard_normal(shape))

    def cell(size):
        own = {name: normal(0.5, hidden) for name in own_names(kind)}
        return kind(normal(1.0, size, wide), normal(0.5, hidden, wide), normal(0.1, wide), **own)

    cells = tuple(cell(hidden if layer else vocabulary) for layer in range(num_layers))
    return rnn_jax.Params(cells, rnn_jax.ReadoutParams(normal(1.0, hidden, vocabulary), normal(0.1, vocabulary)))


@pytest.mark.parametrize(
    "batch, call, cell",
    [
        ((), by_numpy, "vanilla"),
        ((3,), jax.jit, "vanilla"),
        ((2, 2), by_numpy, "vanilla"),
        ((3,), by_numpy, "gru"),
        ((), by_numpy, "lstm"),
    ],
)
def test_generate_is_a_loop_of_steps(batch, call, cell):
    """Every output is drawn, with its own key, from what the network says after all that stands before it."""
    params, key, draw = make_model(kind=CELLS[cell]), jax.random.key(2), rnn_jax.categorical(0.7)
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


PADDED = {  # where a prompt of so many steps may stand among six
    "at the end": ["111100", "100000", "111111", "000000"],
    "in front": ["001111", "000001", "111111", "000000"],
    "holes": ["101101", "010010", "100001", "001000"],
}


@pytest.mark.parametrize("drawn, cell", and_gated(["greedy", "categorical", "feedback"], "categorical", "feedback"))
@pytest.mark.parametrize("where", PADDED)
def test_prompts_of_different_lengths(where, drawn, cell):
    """Each goes on as from its own symbols alone; with random draws, as in a batch of that prompt alone."""
    mask = np.array([[c == "1" for c in row] for row in PADDED[where]]).T
    rng, features = np.random.default_rng(3), drawn == "feedback"
    params = make_model(3 if features else 9, kind=CELLS[cell])
    prompt = rng.standard_normal((6, 4, 3)) if features else rng.integers(0, 9, (6, 4))
    dirty = np.where(mask[..., None], prompt, np.nan) if features else np.where(mask, prompt, -7)
    draw = {"greedy": rnn_jax.greedy, "categorical": rnn_jax.categorical(1.0), "feedback": rnn_jax.feedback}[drawn]
    h_0 = tuple(jnp.asarray(rng.standard_normal((4, 8 * each.parts))) for each in params.cells)
    outputs, h_T = generated(params, dirty, 5, draw=draw, h_0=h_0, mask=jnp.asarray(mask))
    for row in range(4):
        own = prompt[mask[:, row], row]
        if len(own) == 0:  # the output of `h_0` starts it
            y = by_numpy(rnn_jax.readout)(params.readout, h_0[-1][:, :8])
            first = by_numpy(draw)(jax.random.split(jax.random.key(0), 5)[0], y)
            np.testing.assert_array_equal(outputs[0, row], first[row])
            continue
        together = np.broadcast_to(own[:, None], (len(own), 4, *own.shape[1:]))
        its_h_0 = tuple(jnp.broadcast_to(h[row], h.shape) for h in h_0)
        expected, its_h_T = generated(params, together, 5, draw=draw, h_0=its_h_0)
        np.testing.assert_allclose(outputs[:, row], expected[:, row], rtol=1e-12)
        for h, its in zip(h_T, its_h_T, strict=True):
            np.testing.assert_allclose(h[row], its[row], rtol=1e-12)
        if drawn != "categorical":
            alone, _ = generated(params, own, 5, draw=draw, h_0=tuple(h[row] for h in h_0))
            np.testing.assert_allclose(outputs[:, row], alone, rtol=1e-12)


def test_a_prompt_of_one_step_and_one_output():
    """The smallest: no step before the last of the prompt, none after the first output."""
    params, prompt, mask = make_model(), np.array([[4, -7]]), jnp.array([[True, False]])
    outputs, _ = generated(params, prompt, 1, draw=rnn_jax.greedy, mask=mask)
    expected, _ = generated(params, prompt[:, 0], 1, draw=rnn_jax.greedy)
    assert outputs.shape == (1, 2) and outputs[0, 0] == expected[0]


def generated(params, prompt, length, *, draw, **options):
    make = by_numpy(lambda key, params, prompt: rnn_jax.generate(key, params, prompt, length, draw=draw, **options))
    return make(jax.random.key(0), params, prompt)


@pytest.mark.parametrize("at, cell", [(0, "vanilla"), (2, "vanilla"), (5, "vanilla"), (2, "gru"), (5, "lstm")])
def test_a_reset_in_the_prompt(at, cell):
    """What stands before it is forgotten, at the last step of the prompt too; a step that does not exist has none."""
    params, rng = make_model(kind=CELLS[cell]), np.random.default_rng(5)
    prompt = rng.integers(0, 9, (6, 3))
    h_0 = tuple(jnp.asarray(rng.standard_normal((3, 8 * each.parts))) for each in params.cells)
    reset, mask = np.zeros((6, 3), bool), np.ones((6, 3), bool)
    reset[at, :2], mask[at, 1] = True, False

    def after(**flags):
        flags = {name: jnp.asarray(flag) for name, flag in flags.items()}
        return generated(params, prompt, 4, draw=rnn_jax.categorical(0.2), h_0=h_0, **flags)

    (outputs, h_T), (expected, its_h_T) = after(mask=mask, reset=reset), after(mask=mask)
    fresh, its_fresh = generated(params, prompt[at:], 4, draw=rnn_jax.categorical(0.2))
    np.testing.assert_array_equal(outputs[:, 0], fresh[:, 0])
    np.testing.assert_array_equal(outputs[:, 1:], expected[:, 1:])
    for h, its, alone in zip(h_T, its_h_T, its_fresh, strict=True):
        np.testing.assert_allclose(h[1:], its[1:], rtol=1e-12)
        np.testing.assert_allclose(h[0], alone[0], rtol=1e-12)
        assert np.abs(h[0] - its[0]).max() > 1e-6


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
    """χ² of 100,000 draws below its 1 - 1e-6 quantile: rare symbols get their due, equal ones are equally frequent."""
    num = 100_000
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
