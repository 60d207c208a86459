"""Fixed points: known ones, ones that an input moves, and those of a trained network."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from networks import KEY, network
from problems import Case

import rnn_jax
from test_cells import problem_of


def test_fixed_points_that_are_known():
    """Two units that do not meet, `h = tanh(2 h)` each: nine points, four of which attract."""
    params = network(2 * np.eye(2), "tanh")
    starts = (jnp.asarray(np.random.default_rng(0).uniform(-1.5, 1.5, (100, 2)), jnp.float32),)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    found = rnn_jax.dynamics.fixed_points(params, starts)
    h = 0.9575040240772687
    points = sorted(map(tuple, np.round(found.states[0], 6) + 0.0))
    assert points == sorted((round(a, 6), round(b, 6)) for a in (-h, 0.0, h) for b in (-h, 0.0, h))
    assert np.all(found.speeds < 1e-12) and found.num_starts.sum() == 100
    slopes = 2 * (1 - found.states[0] ** 2)
    np.testing.assert_allclose(np.abs(found.eigenvalues), -np.sort(-slopes, axis=1), atol=1e-9)
    assert np.array_equal(found.stable, np.all(slopes < 1, axis=1)) and found.stable.sum() == 4


def test_an_input_moves_them_and_slow_points_are_told_apart():
    cell = rnn_jax.CellParams(jnp.ones((1, 1)), jnp.array([[1.5]]), jnp.zeros(1), "tanh", 0.5)
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((1, 1)), jnp.zeros(1)))
    starts = (jnp.linspace(-1.5, 1.5, 30)[:, None],)
    assert len(rnn_jax.dynamics.fixed_points(params, starts).speeds) == 3
    found = rnn_jax.dynamics.fixed_points(
        params, starts, jnp.array([0.4])
    )  # past the fold: one is left, and a ghost of two
    fixed = found.speeds < 1e-9
    assert fixed.sum() == 1 and found.stable[fixed].all()
    assert np.any((found.speeds > 1e-4) & (found.speeds < 0.1))
    np.testing.assert_allclose(found.states[0][0], np.tanh(1.5 * found.states[0][0] + 0.4), rtol=1e-9)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_stack_of_gated_cells(cell):
    """One step of all layers leaves the state where it is, and its eigenvalues are those of JAX's Jacobian."""
    params, _, h_0 = problem_of(cell, Case(num_layers=2, batch=(3,)))
    found = rnn_jax.dynamics.fixed_points(params, h_0, jnp.ones(3))
    at = [s[0] for s in found.states]
    assert [len(s) for s in at] == [h.shape[1] for h in h_0] and found.speeds[0] < 1e-6
    flat, unravel = jax.flatten_util.ravel_pytree(tuple(map(jnp.asarray, at)))

    def step(s):
        return jax.flatten_util.ravel_pytree(rnn_jax.apply_step(params, unravel(s), jnp.ones(3))[1])[0]

    np.testing.assert_allclose(step(flat), flat, atol=1e-6)
    values = np.linalg.eigvals(jax.jacobian(step)(flat))
    np.testing.assert_allclose(np.abs(found.eigenvalues[0]), -np.sort(-np.abs(values)), rtol=1e-9, atol=1e-12)


def test_what_a_trained_flip_flop_remembers_is_two_points():
    """Pulses of ±1 now and then, the last of which is to be told: two attractors, read out as -1 and 1."""
    import optax

    rng = np.random.default_rng(0)
    pulses = np.where(rng.random((40, 64, 1)) < 0.2, rng.choice([-1.0, 1.0], (40, 64, 1)), 0.0)
    pulses[0] = rng.choice([-1.0, 1.0], (64, 1))
    told = pulses.copy()
    for t in range(1, 40):
        told[t] = np.where(pulses[t] == 0, told[t - 1], pulses[t])
    params = rnn_jax.init_params(KEY, input_size=1, hidden_size=12, output_size=1, dtype=jnp.float32)
    batch = rnn_jax.Batch(jnp.asarray(pulses, jnp.float32), jnp.asarray(told, jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        trainer = rnn_jax.make_trainer(
            rnn_jax.make_grad_fn("blocked", loss="squared_error"), optax.adam(1e-2), carry=True
        )
        h_0 = rnn_jax.zero_state(params, 64)

        def many(state):
            return jax.lax.scan(lambda s, _: trainer.step(s._replace(h_0=h_0), batch), state, length=400)

        state, infos = jax.jit(many)(trainer.init(params, h_0))
    assert infos.loss[-1] < 0.02
    hs = rnn_jax.unroll(state.params.cells[0], h_0[0], batch.inputs)
    found = rnn_jax.dynamics.fixed_points(state.params, (hs.reshape(-1, 12)[::20],))
    fixed = (found.speeds < 1e-8) & found.stable
    values = rnn_jax.readout(state.params.readout, jnp.asarray(found.states[0][fixed], jnp.float32))[:, 0]
    assert sorted(np.round(values).tolist()) == [-1, 1]
