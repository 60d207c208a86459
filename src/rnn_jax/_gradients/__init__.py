"""The gradient methods, one file each, and what they share.

`autodiff`, `stepwise`, `bptt`, `blocked`   the exact methods
`over_devices`                              any method, with its batch split over devices
`truncation/`                               windows of fixed, adaptive and random reach; the last steps only
`through_layers`                            back through loss, readout and layers, for every method by hand
`plan`, `stretches`, `budget`               blocks and segments; a plan applied; what it costs, which one fits a budget
`methods`, `of_loss`, `reparametrised`      their names and `make_grad_fn`; losses over whole sequences; free weights
"""
