"""The gradient methods by name, and `make_grad_fn`, which makes a gradient function from a method."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .._batches import check_call
from .._checks import is_tokens
from .._losses import make_objective
from .._mesh import promote, refuse_explicit
from .._require import require_floating, require_known
from .._results import require_gradient, require_method
from .._types import Batch, GradFn, Gradients, Loss, Method, Objective, Params, Result, States, state_dtype
from .autodiff import Autodiff
from .blocked import Blocked
from .bptt import BPTT
from .stepwise import Stepwise
from .truncation.adaptive import Adaptive
from .truncation.last_steps import LastSteps
from .truncation.randomised import Randomised
from .truncation.truncated import Truncated


class Named(NamedTuple):
    """A method with a name: its class, and an `example` of it. The name alone stands for `default`."""

    kind: type
    example: Method

    @property
    def exact(self) -> bool:
        """Whether it returns the gradient of the loss, as autodiff does."""
        return isinstance(self.example.reference, Autodiff)

    @property
    def default(self) -> Method | None:
        """The method without options; None if an option is required."""
        needed = [field.name for field in dataclasses.fields(self.kind) if field.default is dataclasses.MISSING]
        return None if needed else self.kind()


GRADIENTS: dict[str, Named] = {
    "autodiff": Named(Autodiff, Autodiff()),
    "stepwise": Named(Stepwise, Stepwise()),
    "bptt": Named(BPTT, BPTT()),
    "blocked": Named(Blocked, Blocked()),
    "truncated": Named(Truncated, Truncated(k1=2, k2=5)),
    "adaptive": Named(Adaptive, Adaptive(k1=2, bias=0.5)),
    "randomised": Named(Randomised, Randomised(mean_reach=3.0)),
    "last_steps": Named(LastSteps, LastSteps(k=3)),
}


def make_method(method: str | Method) -> Method:
    """The method itself, or the default of the method with this name.

    Raises:
        ValueError: for an unknown name, or the name of a method that has no defaults.
        TypeError: for anything that is neither a name nor a method.
    """
    if not isinstance(method, str):
        require_method(method, "a name or a method")
        return method
    require_known("gradient method", method, GRADIENTS)
    default = GRADIENTS[method].default
    if default is None:
        example = GRADIENTS[method].example
        raise ValueError(f"The gradient method {method!r} has no defaults: give the method itself, like {example!r}.")
    return default


def make_grad_fn(
    method: str | Method, *, loss: str | Loss, reduction: str = "mean", compute_dtype: Any = None
) -> GradFn:
    """Make a gradient function `(params, batch, h_0) -> ((loss, h_T), Gradients)`, pure and stateless.

    Let `ℓ_t` be the loss of step t and `w_t` its weight. The loss is `Σ w ℓ / Σ |w|` (`"mean"`), `Σ w ℓ / N` with N the
    number of steps that exist or have a weight (`"mean_over_steps"`), or `Σ w ℓ` (`"sum"`). If there is nothing to sum,
    it is 0. `docs/sequences.md` says which reduction to use when.

    Under `jit`, gradients that are not used cost nothing. Sharded arrays under `jit` give the gradients of the whole
    batch; on CPUs the arrays are gathered for the weight gradients, which `Sharded` avoids. Inside your own
    `shard_map`, the gradients are those of the device's part: sum them with `lax.psum`.

    Args:
        method: an exact method: `Autodiff()`, `Stepwise()`, `BPTT()` or `Blocked()`; one that is not exact, but
            returns the loss of all steps: `Truncated(k1=…, k2=…)`, `Adaptive(k1=…, bias=…)`,
            `Randomised(mean_reach=…)` or `LastSteps(k=…)`; or your own, see `rnn_jax.typing.Method`.
            `Sharded(method, devices)` runs any of them on several devices, and `BurnIn(method, steps)` runs it after a
            burn-in. A name in `GRADIENTS` stands for the method with its defaults.
        loss: the loss of a step: a name in `LOSSES`, or a pair, like `pointwise(...)`.
        reduction: how the losses of the steps are added up: `"mean"`, `"mean_over_steps"` or `"sum"`.
        compute_dtype: the dtype of states and products; None for that of the arguments. The states of leaky units and
            of cells with gates stay in float32 or better; otherwise a long memory would be rounded away. The loss and
            the weight gradients are accumulated in float32 or better. The exception is `Autodiff`: it adds weight
            gradients up as JAX does, in `compute_dtype` itself, where long sums lose small terms.

    Returns:
        A `GradFn`. It returns the loss, `()`; `h_T`, with the shapes of `h_0`; and `Gradients` for the parameters,
        `h_0` and the inputs (None for tokens), each with the shapes and dtypes of its argument.

    Raises:
        TypeError: if `method` is neither a name nor a method, or `compute_dtype` is not a floating point type. The
            returned function raises it for dtypes that do not fit.
        ValueError: for an unknown method, loss or reduction; the message lists the known ones. The returned function
            raises it, when it is traced, for shapes that do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=5, hidden_size=8, output_size=5)
    >>> batch = rnn_jax.Batch(inputs=jnp.array([0, 1, 2, 3]), targets=jnp.array([1, 2, 3, 4]))
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Truncated(k1=1, k2=3), loss="cross_entropy")
    >>> (loss, h_T), gradients = jax.jit(grad_fn)(params, batch, rnn_jax.zero_state(params))
    >>> loss.shape, gradients.params.cells[0].w_hh.shape, gradients.inputs
    ((), (8, 8), None)
    """
    method = make_method(method)
    if compute_dtype is not None:
        require_floating("compute_dtype", compute_dtype)
    return _at_the_door(method, make_objective(loss, reduction), compute_dtype)


def _at_the_door(method: Method, settle: Callable[[Params, Batch], Objective], compute_dtype: Any) -> GradFn:
    """`method` behind its checks: arguments are checked, cast and promoted, and the objective is computed."""

    def grad_fn(params: Params, batch: Batch, h_0: States) -> Result:
        check_call(params, batch, h_0)
        key = batch.key
        refuse_explicit((params, batch._replace(key=None), h_0), "grad_fn", "take `Sharded(method, devices)`")
        params, batch, h_0 = promote((params, batch._replace(key=None), h_0))
        batch = batch._replace(key=key)
        features = None if is_tokens(batch.inputs) else batch.inputs
        arguments = Gradients(params, h_0, features)
        p, h, xs = arguments if compute_dtype is None else _cast(arguments, compute_dtype)
        if compute_dtype is not None:
            h = tuple(s.astype(state_dtype(cell)) for cell, s in zip(p.cells, h_0, strict=True))
        cast_batch = batch if xs is None else batch._replace(inputs=xs)
        if compute_dtype is not None:
            cast_batch = cast_batch._replace(drop=_cast(batch.drop, compute_dtype))
        result = method.gradient(settle(p, cast_batch), p, cast_batch, h)
        (loss, h_T), gradients = require_gradient(result, arguments, f"{type(method).__name__}.gradient")
        return (loss, _cast_like(h_T, h_0)), _cast_like(gradients, arguments)

    return grad_fn


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def _cast_like(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)
