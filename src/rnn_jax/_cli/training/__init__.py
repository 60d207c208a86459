"""`rnn-jax train`.

`train`, `loop`       the subcommand, for new and resumed runs; the loop over the steps
`outputs`             what the loop leaves behind, if its process is the one that writes
`model`               parameters, gradient and trainer from the options
`steps`, `diagnosis`  many steps in one call; what is not finite where a run cannot go on
`checkpoint`          saved states, each with its checksum
`watch`, `advice`     the anatomy of a run while it trains; what to try when it does not learn
`board`               the metrics for TensorBoard
"""
