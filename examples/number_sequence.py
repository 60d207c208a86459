"""Question 4 of the notebooks: after 1, 2, 3 comes 4."""

import jax
import jax.numpy as jnp

import rnn_jax


def main() -> float:
    numbers = jnp.arange(1.0, 12.0)[:, None]  # 1..11, one feature, no batch axis
    batch = rnn_jax.Batch(inputs=numbers[:-1], targets=numbers[1:])
    params = rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=10, output_size=1)
    zeros = rnn_jax.zero_state(params)

    grad_fn = rnn_jax.make_grad_fn("bptt", loss="squared_error")
    sgd = rnn_jax.clipped_sgd(0.01, momentum=0.9, max_norm=1.0)
    trainer = rnn_jax.make_trainer(grad_fn, sgd, carry=False)  # every epoch starts at 1

    def step(state, _):
        return trainer.step(state, batch)

    train = jax.jit(lambda state: jax.lax.scan(step, state, length=5000))
    state, infos = train(trainer.init(params, zeros))
    ys, _ = rnn_jax.apply(state.params, zeros, numbers[:3])
    print(f"loss {infos.loss[0]:.2f} -> {infos.loss[-1]:.5f}; after 1, 2, 3 comes {ys[-1, 0]:.3f}")
    return float(ys[-1, 0])


if __name__ == "__main__":
    main()
