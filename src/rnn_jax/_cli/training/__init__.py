"""`rnn-jax train`.

`train`, `loop`       the subcommand, new or resumed; steps, metrics, samples, pictures until the end
`model`               parameters, gradient and trainer from the options
`checkpoint`          saved states, each with its checksum
`watch`, `advice`     the anatomy of a run while it trains; what to try when it fails
"""
