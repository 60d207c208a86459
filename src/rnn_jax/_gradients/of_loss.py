"""A gradient function from a loss over whole sequences, which is not a sum over steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._checks import is_tokens
from .._require import require_array, require_callable
from .._results import same_structure
from .._types import Batch, GradFn, Gradients, Params, Result, States


def grad_fn_of(loss: Callable[[Params, Batch, States], tuple[Array, States]]) -> GradFn:
    """Make a gradient function from your own `loss(params, batch, h_0) -> (value, h_T)`.

    It fits the trainer and `check_gradients`. Use it for losses that are not a sum over steps: contrastive losses,
    alignments, penalties on the states. With `unroll_bptt` inside, the derivative through time is hand-written;
    otherwise it is JAX's. Only your loss reads `Batch.targets`.

    Args:
        loss: returns a real number, `()`, and the last states, one array per layer. `params` may be any tree, for
            example with your own heads. It returns no metrics: call `apply` once more for them.

    Returns:
        A `GradFn`: `((value, h_T), gradients)`, with gradients for the parameters, `h_0`, and the inputs (None for
        tokens).

    Raises:
        TypeError: if `loss` is not a function; when it is traced, if it does not return a pair `(value, h_T)`.

    >>> import functools, jax, jax.numpy as jnp, rnn_jax
    >>> def smooth(params, batch, h_0):  # a squared error, and a penalty on how fast the outputs change
    ...     ys, h_T = rnn_jax.apply(params, h_0, batch.inputs, unroll=rnn_jax.unroll_bptt)
    ...     return jnp.mean((ys - batch.targets) ** 2) + 0.1 * jnp.mean((ys[1:] - ys[:-1]) ** 2), h_T
    >>> grad_fn = rnn_jax.grad_fn_of(smooth)
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=5, output_size=1)
    >>> batch = rnn_jax.Batch(jnp.ones((7, 3, 2)), jnp.ones((7, 3, 1)))
    >>> rnn_jax.check_gradients(jax.jit(grad_fn), params, batch, rnn_jax.zero_state(params, 3)).passed
    True
    >>> trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.1), carry=False)
    """
    require_callable(loss=loss)

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Result:
        def value(params: Params, h_0: States, inputs: Array) -> tuple[Array, States]:
            returned: Any = loss(params, batch._replace(inputs=inputs), h_0)
            if not isinstance(returned, tuple) or len(returned) != 2:
                came = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
                raise TypeError(f"`loss` must return a pair (value, h_T), got {came}.")
            if not same_structure(returned[1], h_0):
                came = str(jax.tree.structure(returned[1]))
                raise TypeError(f"`loss` must return an h_T with the tree structure of `h_0`, got {came}.")
            require_array("the value of loss", returned[0], jnp.floating, "a floating point number")
            if jnp.shape(returned[0]) != ():
                raise TypeError(f"`loss` must return a value of shape (), got {jnp.shape(returned[0])}.")
            return returned

        tokens = is_tokens(batch.inputs)
        with_respect_to = (0, 1) if tokens else (0, 1, 2)
        result, parts = jax.value_and_grad(value, with_respect_to, has_aux=True)(params, h_0, batch.inputs)
        return result, Gradients(parts[0], parts[1], None if tokens else parts[2])

    return grad_fn
