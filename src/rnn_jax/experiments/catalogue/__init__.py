"""The experiments of `rnn-jax experiment`, one module each. `names` lists them."""
