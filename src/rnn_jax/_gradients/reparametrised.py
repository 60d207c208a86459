"""The gradient in free weights, from which the weights of the network are computed."""

from collections.abc import Callable
from typing import Any

import jax

from .._require import require_callable
from .._types import Batch, GradFn, Params, Result, States


def reparametrised(grad_fn: GradFn, make: Callable[[Any], Params]) -> GradFn:
    """Make a gradient function of free weights θ, from which `make` computes the network.

        params = make(θ)        d_θ = (∂make/∂θ)ᵀ d_params

    Constraints on weights are such functions: signs by Dale's law, masks of connections, a low rank, leaks between 0
    and 1. The gradient through time is that of `grad_fn`; only `make` is differentiated by JAX.

    Args:
        grad_fn: a gradient function of `Params`, from `make_grad_fn` or `grad_fn_of`.
        make: a pure function from free weights, any tree, to a network. Cast arrays that it holds to the dtype of its
            argument: `check_gradients` computes in float64.

    Returns:
        A `GradFn` whose first argument, and the `params` of its gradients, are free weights. It fits the trainer and
        `check_gradients`.

    Raises:
        TypeError: if an argument is not a function. The returned function raises what `make` and `grad_fn` raise.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=6, output_size=2)
    >>> def excitatory(free):  # no unit inhibits another
    ...     (cell,) = free.cells
    ...     return free._replace(cells=(cell.replace(w_hh=jax.nn.softplus(cell.w_hh)),))
    >>> grad_fn = rnn_jax.reparametrised(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"), excitatory)
    >>> batch = rnn_jax.Batch(jnp.ones((7, 3)), jnp.ones(7, int))
    >>> rnn_jax.check_gradients(grad_fn, params, batch, rnn_jax.zero_state(params)).passed
    True
    """
    require_callable(grad_fn=grad_fn, make=make)

    def of_free(params: Any, batch: Batch, h_0: States) -> Result:
        network, pull = jax.vjp(make, params)
        result, gradients = grad_fn(network, batch, h_0)
        (d_free,) = pull(gradients.params)
        return result, gradients._replace(params=d_free)

    return of_free
