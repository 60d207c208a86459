"""Gradient functions for `check_gradients`, right ones and wrong ones."""

from by_numpy import by_numpy_unless_traced

import rnn_jax


def grad_fn_of(case, **options):
    return by_numpy_unless_traced(rnn_jax.make_grad_fn("bptt", loss=case.loss, reduction=case.reduction, **options))


def with_wrong(grad_fn, change):
    """`grad_fn` with `change(gradients)` for its gradients."""
    return by_numpy_unless_traced(lambda *args: (lambda out: (out[0], change(out[1])))(grad_fn(*args)))


def change_inputs(change):
    return lambda gradients: gradients._replace(inputs=change(gradients.inputs))
