"""The settings of each command: their defaults, ranges, and how they are read from a file. Nothing here imports jax.

`training`, `commands`     the options of `rnn-jax train`, and of the other commands
`paths`, `limits`, `file`  how an option reads a path; the range of each option; `settings.json`
"""
