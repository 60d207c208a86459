"""A sine wave: the network predicts one step ahead, then continues from its own outputs."""

import jax
import jax.numpy as jnp

import rnn_jax


def main() -> tuple[float, float]:
    wave = jnp.sin(2 * jnp.pi / 25 * jnp.arange(151.0))[:, None]  # 25 steps per period
    batch = rnn_jax.Batch(inputs=wave[:100], targets=wave[1:101])
    params = rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=32, output_size=1)
    zeros = rnn_jax.zero_state(params)
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="squared_error")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.02, momentum=0.9, max_norm=1.0), carry=False)

    def step(state, _):
        return trainer.step(state, batch)

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=4000))(trainer.init(params, zeros))
    ys, _ = rnn_jax.apply(state.params, zeros, wave[:100])
    one_step = jnp.sqrt(jnp.mean((ys[10:] - wave[11:101]) ** 2))
    free, _ = rnn_jax.generate(jax.random.key(1), state.params, wave[:101], 50, draw=rnn_jax.feedback)
    free_running = jnp.sqrt(jnp.mean((free - wave[101:]) ** 2))
    print(f"RMSE one step ahead {one_step:.4f}, running free for two periods {free_running:.4f}")
    return float(one_step), float(free_running)


if __name__ == "__main__":
    main()
