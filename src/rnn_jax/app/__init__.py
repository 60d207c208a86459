"""The command `rnn-jax`: the only place with files, plots and progress bars. Needs the extra `app`."""
