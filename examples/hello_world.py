"""Question 5 of the notebooks: from "h" the network spells "hello world"."""

import jax
import jax.numpy as jnp

import rnn_jax


def main() -> str:
    text = "hello world"
    symbols = rnn_jax.data.symbols_of(text)
    tokens = jnp.asarray(rnn_jax.data.encode(symbols, text))
    batch = rnn_jax.Batch(inputs=tokens[:-1], targets=tokens[1:])
    params = rnn_jax.init_params(jax.random.key(0), input_size=len(symbols), hidden_size=16, output_size=len(symbols))
    zeros = rnn_jax.zero_state(params)
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.5, max_value=5.0), carry=False)

    def step(state, _):
        return trainer.step(state, batch)

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=300))(trainer.init(params, zeros))
    outputs, _ = rnn_jax.generate(jax.random.key(1), state.params, tokens[:1], 10, draw=rnn_jax.greedy)
    spelled = "h" + rnn_jax.data.decode(symbols, outputs)
    print(spelled)
    return spelled


if __name__ == "__main__":
    main()
