"""`rnn-jax sweep`: every combination of some settings, from several seeds, and which is best.

`grid`      the cells: what --over says, checked before anything is written
`folder`    what is on disk: the settings of the sweep, which cells are finished
`running`   the cells as processes of `rnn-jax train`; progress; Ctrl-C
`results`   the runs as trials of an experiment; the table and the verdict
`command`   the subcommand, and the report, by the framework of the experiments
"""
