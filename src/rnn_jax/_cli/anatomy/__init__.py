"""`rnn-jax anatomy`: a page that shows where the gradient of a network comes from.

`command`   the subcommand
`examine`   what is measured
`page`      how it is shown; `verdict`: the results in words
"""
