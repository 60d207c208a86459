"""Truncated backpropagation through time: gradients that go back only a given number of steps.

`truncated`    windows of k1 steps that reach back k2 steps
`last_steps`   the loss of the last k steps only
`adaptive`     the reach is chosen from the gradients
`randomised`   the reach is random, and the gradient has no bias
`burn_in`      any method, after steps that only determine the state it starts from
`windows`      the way back through overlapping windows, which the others share
`references`   the definition of each by `stop_gradient`, to check it against
"""
