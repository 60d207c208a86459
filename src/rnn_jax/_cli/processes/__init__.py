"""Several processes that train one network.

`launcher`   whether a launcher has started this process, and a launcher for one machine; imports no jax
`group`      joining the others, and leaving
`alive`      whether all others are alive; the reason of one that has failed
`messages`   what the processes tell each other
`reading`    the settings and the text of a run, read by the first process and told to the others
`placement`  which part of a batch each device has
"""
