"""The experiments that `rnn-jax experiment` knows, a module each; `names` lists them."""
