"""The command `rnn-jax`: needs the extra `app`.

`main`, `before_jax`, `outcome`         the entry point; checks before jax starts; errors, exit status
`settings/`, `jax_settings`             options, their ranges, `settings.json`; the settings of JAX while a command runs
`run_folder`, `metrics`                 what a run leaves behind
`training/`, `processes/`               `rnn-jax train`, in one process or several
`anatomy/`, `trained/`                  `rnn-jax anatomy`; `rnn-jax sample` and `rnn-jax export`
`comparison/`, `sweep/`                 `rnn-jax compare`; `rnn-jax sweep`
`gradcheck`, `truncation`, `experiment`, `plots`   the other subcommands, and their pictures
"""
