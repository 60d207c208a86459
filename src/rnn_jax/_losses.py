"""Losses as pairs `(value, d_y)`, and the sum over steps that an engine differentiates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._checks import is_tokens, require_array, require_callable, require_known
from ._types import Batch, Loss, Scalar, accumulation_dtype


def cross_entropy(y_t: Float[Array, "*steps out"], target_t: Array) -> tuple[Array, Array]:
    """Softmax cross-entropy, `ℓ = -log softmax(y_t)[target_t]` and `d_y_t = softmax(y_t) - onehot(target_t)`.

    In nats. A class outside 0..out-1 gives a loss of NaN.

    Raises:
        TypeError: if `target_t` does not hold integers.
        ValueError: if `target_t` does not hold one class for each vector of `y_t`.
    """
    require_array("y_t", y_t)
    require_array("targets", target_t)
    if not is_tokens(target_t):
        raise TypeError(f"`targets` must hold integer classes for cross-entropy, got dtype {target_t.dtype}.")
    if target_t.shape != y_t.shape[:-1]:
        raise ValueError(f"`targets` must have shape {y_t.shape[:-1]} to match the outputs, got {target_t.shape}.")
    out = y_t.shape[-1]
    log_p = jax.nn.log_softmax(y_t)
    is_target = jax.nn.one_hot(target_t, out, dtype=bool)
    value = -jnp.sum(jnp.where(is_target, log_p, 0), axis=-1)
    value = jnp.where(jnp.any(is_target, axis=-1), value, jnp.nan)
    return value, jnp.exp(log_p) - is_target.astype(log_p.dtype)


def squared_error(
    y_t: Float[Array, "*steps out"], target_t: Array
) -> tuple[Float[Array, "*steps"], Float[Array, "*steps out"]]:
    """Squared error summed over features, `ℓ = |y_t - target_t|²` and `d_y_t = 2 (y_t - target_t)`.

    Raises:
        TypeError: if `target_t` has another dtype than `y_t`.
        ValueError: if `target_t` has another shape than `y_t`.
    """
    require_array("y_t", y_t)
    require_array("targets", target_t)
    if target_t.dtype != y_t.dtype:
        raise TypeError(f"`targets` must have dtype {y_t.dtype} for squared error, got {target_t.dtype}.")
    if target_t.shape != y_t.shape:
        raise ValueError(f"`targets` must have shape {y_t.shape} to match the outputs, got {target_t.shape}.")
    error = y_t - target_t
    return jnp.sum(error * error, axis=-1), 2 * error


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def pointwise(value_fn: Callable[[Array, Array], Array]) -> Loss:
    """The pair of a loss of one's own, its `d_y_t` by a vjp of one step.

    `value_fn(y, target) -> scalar` sees one output vector `(out,)` and its target, a class `()` or a vector `(out,)`.

    >>> import jax.numpy as jnp, rnn_jax
    >>> huber = rnn_jax.pointwise(lambda y, target: jnp.sum(jnp.sqrt(1 + (y - target) ** 2) - 1))
    >>> value, d_y = huber(jnp.zeros((7, 2)), jnp.ones((7, 2)))
    >>> value.shape, d_y.shape
    ((7,), (7, 2))
    """
    require_callable(value_fn=value_fn)

    def loss(y_t: Array, target_t: Array) -> tuple[Array, Array]:
        fn = jax.value_and_grad(value_fn)
        for _ in y_t.shape[:-1]:
            fn = jax.vmap(fn)
        return fn(y_t, target_t)

    return loss


REDUCTIONS = {
    "mean": "Σ w ℓ / Σ w over the whole batch; nothing to sum gives 0",
    "sum": "Σ w ℓ",
}


class Objective(NamedTuple):
    """`L = Σ_t w_t ℓ(y_t, target_t)`: what an engine differentiates."""

    loss: Loss
    reduction: str


def make_objective(loss: str | Loss, reduction: str) -> Objective:
    """The objective of a loss pair, or of one named in `LOSSES`."""
    if not callable(loss):
        require_known("loss", loss, LOSSES)
        loss = LOSSES[loss]
    require_known("reduction", reduction, REDUCTIONS)
    return Objective(loss, reduction)


def _step_weights(objective: Objective, batch: Batch, ys: Array) -> Float[Array, "last *batch"]:
    """The factors `w_t`, with the normalisation of `"mean"` in them."""
    steps = ys.shape[:-1]
    if batch.weights is not None:
        w = batch.weights.astype(ys.dtype)
    elif batch.mask is not None:
        w = batch.mask[batch.mask.shape[0] - steps[0] :].astype(ys.dtype)
    else:
        w = jnp.ones(steps, ys.dtype)
    if objective.reduction == "sum":
        return w
    total = jnp.sum(w)
    return w / jnp.where(total == 0, jnp.ones_like(total), total) * (total != 0).astype(ys.dtype)


def _checked_pair(pair: object, ys: Array) -> tuple[Array, Array]:
    """Raise unless a loss, which may be the caller's own, returned a value a step and the cotangent of `ys`."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"`loss` must return a pair (value, d_y), got {type(pair).__name__}: see `pointwise`.")
    shapes = tuple(jnp.shape(x) for x in pair)
    if shapes != (ys.shape[:-1], ys.shape):
        raise ValueError(
            f"`loss` must return a value for each step and d_y of the outputs' shape, {ys.shape[:-1]} and {ys.shape}, "
            f"got {shapes[0]} and {shapes[1]}."
        )
    return pair


def weighted_loss(
    objective: Objective, batch: Batch, ys: Float[Array, "last *batch out"]
) -> tuple[Scalar, Float[Array, "last *batch out"]]:
    """`L = Σ_t w_t ℓ(y_t, target_t)` and `d_y_t = w_t ∂ℓ/∂y_t`, in float32 or better until `d_ys` is returned.

    A target of weight zero is never read.
    """
    exact_ys = ys.astype(accumulation_dtype(ys.dtype))
    w = _step_weights(objective, batch, exact_ys)
    read = (w != 0).reshape(w.shape + (1,) * (batch.targets.ndim - w.ndim))
    targets = jnp.where(read, batch.targets, jnp.zeros_like(batch.targets))
    if not is_tokens(targets):
        targets = targets.astype(exact_ys.dtype)
    values, d_ys = _checked_pair(objective.loss(exact_ys, targets), exact_ys)
    return jnp.sum(w * values), (w[..., None] * d_ys).astype(ys.dtype)
