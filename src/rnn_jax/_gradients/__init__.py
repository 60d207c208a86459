"""The gradient methods, a file each, and what they share.

`autodiff`, `stepwise`, `bptt`, `blocked`   the exact ones
`over_devices`                              any method, its batch shared out to devices
`truncation/`                               windows of fixed, adaptive and random reach; the last steps alone
`by_hand`, `plan`, `memory`                 back through loss and layers; blocks and segments; which plan fits a budget
`methods`                                   their names, and `make_grad_fn`
"""
