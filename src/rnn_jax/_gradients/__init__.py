"""The gradient methods, a file each, and what they share.

`autodiff`, `stepwise`, `bptt`, `blocked`   the exact ones
`over_devices`                              any method, its batch shared out to devices
`truncation/`                               windows of fixed, adaptive and random reach; the last steps alone
`through_layers`                            back through loss, readout and layers, for every method by hand
`plan`, `budget`                            blocks and segments; what a plan costs, and which fits a budget of bytes
`methods`, `of_loss`                         their names, and `make_grad_fn`; of a loss over whole sequences
"""
