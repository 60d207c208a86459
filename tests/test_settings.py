"""The library under the settings of JAX that people have in their environment.

Not tested here, because all other tests have them: 64 bits, strict dtype promotion, no rank promotion.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import as_users_have_it, jax_configured

import rnn_jax

SETTINGS = {
    "jax_debug_nans": True,
    "jax_default_matmul_precision": "highest",
    "jax_check_tracer_leaks": True,
    "jax_disable_jit": True,
}


def calls():
    """`name -> call` of the public functions, on small arrays that are made under the settings."""
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=3, num_layers=2)
    dtype, rng = params.readout.w_hy.dtype, np.random.default_rng(0)
    cell, h_0, xs = params.cells[0], rnn_jax.zero_state(params, 2), jnp.asarray(rng.standard_normal((5, 2, 3)), dtype)
    tokens = jnp.asarray(rng.integers(0, 3, (5, 2)))
    mask = jnp.ones((5, 2), bool).at[3:, 0].set(False)
    batches = {
        "tokens": rnn_jax.Batch(tokens, tokens, key=jax.random.key(1)),
        "features": rnn_jax.Batch(xs, tokens, mask=mask, reset=~mask, key=jax.random.key(1)),
    }
    plain, flagged = batches.values()
    found = {}
    for method, its in rnn_jax.GRADIENTS.items():
        grad_fn = rnn_jax.make_grad_fn(its.example, loss="cross_entropy")
        for kind, batch in batches.items():
            found[f"{method}, {kind}"] = functools.partial(grad_fn, params, batch, h_0)
            found[f"{method}, {kind}, jit"] = functools.partial(jax.jit(grad_fn), params, batch, h_0)
    blocked = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    sgd = rnn_jax.clipped_sgd(0.1, momentum=0.9, max_norm=1.0, max_value=1.0)
    trainer = rnn_jax.make_trainer(blocked, sgd, carry=True)
    single = tuple(h[0] for h in h_0)
    return found | {
        "unroll": lambda: rnn_jax.unroll(cell, h_0[0], xs, mask=mask),
        "unroll_bptt": lambda: jax.grad(lambda c: jnp.sum(rnn_jax.unroll_bptt(c, h_0[0], xs) ** 2))(cell),
        "step": lambda: rnn_jax.step(cell, h_0[0], xs[0]),
        "apply": lambda: rnn_jax.apply(params, h_0, xs, mask=mask),
        "bidirectional": lambda: rnn_jax.bidirectional((cell, cell), (h_0[0], h_0[0]), xs, mask=mask),
        "generate": lambda: rnn_jax.generate(jax.random.key(0), params, tokens[:1], 3),
        "trainer": lambda: trainer.step(trainer.init(params, h_0), plain),
        "drop_units": lambda: blocked(params, rnn_jax.drop_units(params, flagged, between=0.3, recurrent=0.2), h_0),
        "anatomy": lambda: rnn_jax.analysis.anatomy(params, plain, h_0, lags=3, k1=2, k2=4),
        "step_gradients": lambda: rnn_jax.analysis.step_gradients(params, plain, h_0),
        "penalise_norms": lambda: rnn_jax.analysis.penalise_norms(1.0, loss="cross_entropy")(params, plain, h_0),
        "truncation_report": lambda: rnn_jax.analysis.truncation_report(params, plain, h_0, [1, 3]).rows[0].whole.error,
        "check_gradients": lambda: rnn_jax.check_gradients(blocked, params, flagged, h_0).passed,
        "fixed_points": lambda: rnn_jax.dynamics.fixed_points(params, h_0, max_steps=20).states,
        "lyapunov_exponents": lambda: rnn_jax.dynamics.lyapunov_exponents(
            jax.random.key(0), params, single, jnp.tile(tokens[:, 0], 5), num=3, skip=2
        ),
        "pack_sequences": lambda: rnn_jax.data.pack_sequences(
            [np.arange(3), np.arange(2)], [np.arange(3), np.arange(2)]
        )[0][2:],
        "initialisers": lambda: [
            init(0.9)(jax.random.key(0), (4, 4)) for init in rnn_jax.initializers.RECURRENT_INITS.values()
        ],
        "tasks": lambda: [
            task.make(jax.random.key(0), num_sequences=2, **task.sizes)[:2] for task in rnn_jax.tasks.TASKS.values()
        ],
    }


@pytest.mark.thorough
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_under_the_settings_of_the_environment(setting):
    """Every public function has the numbers that it has with JAX's own settings, within rounding of float32."""
    with as_users_have_it():
        expected = {name: jax.device_get(call()) for name, call in calls().items()}
        with jax_configured({setting: SETTINGS[setting]}):
            found = {name: jax.device_get(call()) for name, call in calls().items()}
    for name in expected:
        for x, y in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5, err_msg=name)
