"""The command `rnn-jax`: needs the extra `app`.

`main`, `before_jax`                    the entry point: arguments, errors, exit status; checks before jax starts
`settings/`, `jax_settings`             options, their ranges, `settings.json`; the settings of JAX while a command runs
`run_folder`, `metrics`                 what a run leaves behind
`training/`, `anatomy/`, `trained/`     `rnn-jax train`; `rnn-jax anatomy`; `rnn-jax sample` and `rnn-jax export`
`comparison/`, `sweep/`                 `rnn-jax compare`; `rnn-jax sweep`
`gradcheck`, `truncation`, `experiment`, `plots`   the other subcommands, and their pictures
"""
