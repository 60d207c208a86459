"""The command `rnn-jax`: needs the extra `app`.

`main`                                        the entry point: arguments, errors, exit status
`config`, `limits`, `jax_settings`            options; their ranges; the settings of JAX while a command runs
`run_folder`, `settings_file`, `metrics`      what a run leaves behind
`training/`, `anatomy/`, `trained/`           `rnn-jax train`; `rnn-jax anatomy`; `rnn-jax sample` and `rnn-jax export`
`gradcheck`, `truncation`, `experiment`, `plots`   the other subcommands, and their pictures
"""
