"""Losses as pairs `(value, d_y)`, and the sum over steps that a method differentiates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ._batches import num_read
from ._checks import is_tokens, steps_shape
from ._require import require_array, require_callable, require_known, require_storable
from ._types import Batch, Loss, Objective, Params, Scalar, accumulation_dtype


def cross_entropy(y_t: Float[Array, "*steps out"], target_t: Any) -> tuple[Array, Array]:
    """Softmax cross-entropy, `ℓ = -log softmax(y_t)[target_t]` and `d_y_t = softmax(y_t) - onehot(target_t)`.

    Args:
        y_t: outputs (*steps, out), the logits.
        target_t: integer classes (*steps) from 0 to out - 1. Any other class gives a loss of NaN.

    Returns:
        `(value, d_y_t)`: the loss of each step in nats, (*steps), and its derivative, (*steps, out).

    Raises:
        TypeError: if `target_t` does not hold integers.
        ValueError: if `target_t` does not hold one class for each vector of `y_t`.
    """
    require_array("y_t", y_t)
    require_array("targets", target_t)
    if not is_tokens(target_t):
        raise TypeError(
            f"`targets` must hold integer classes for cross-entropy, got dtype {target_t.dtype}: for vectors use "
            f'another `loss`, like "squared_error".'
        )
    if target_t.shape != y_t.shape[:-1]:
        raise ValueError(f"`targets` must have shape {y_t.shape[:-1]} to match the outputs, got {target_t.shape}.")
    require_storable("targets", target_t)
    if target_t.dtype.itemsize < 4:
        target_t = target_t.astype(jnp.int32)  # `num_classes` may not fit in 8 or 16 bits
    num_classes = y_t.shape[-1]
    known = (target_t >= 0) & (target_t < num_classes)
    target_t = jnp.where(known, target_t, num_classes).astype(jnp.int32)  # an unknown class becomes `num_classes`
    is_target = jax.nn.one_hot(target_t, y_t.shape[-1], dtype=bool)
    y_max = lax.stop_gradient(jnp.max(y_t, axis=-1, keepdims=True))
    e = jnp.exp(y_t - y_max)  # the only exponential: log softmax would need a second
    total = jnp.sum(e, axis=-1, keepdims=True)
    y_target = jnp.take_along_axis(y_t, target_t[..., None], -1, mode="fill")
    value = jnp.log(total) - (y_target - y_max)
    return value[..., 0], e / total - is_target.astype(y_t.dtype)


def squared_error(
    y_t: Float[Array, "*steps out"], target_t: Any
) -> tuple[Float[Array, "*steps"], Float[Array, "*steps out"]]:
    """Squared error summed over features, `ℓ = |y_t - target_t|²` and `d_y_t = 2 (y_t - target_t)`.

    Args:
        y_t: outputs (*steps, out).
        target_t: targets of the same shape and dtype.

    Returns:
        `(value, d_y_t)`: the loss of each step, (*steps), and its derivative, (*steps, out).

    Raises:
        TypeError: if the dtype of `target_t` is not that of `y_t`.
        ValueError: if the shape of `target_t` is not that of `y_t`.
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


def pointwise(value_fn: Callable[[Array, Any], Array]) -> Loss:
    """Turn your own loss into a pair `(value, d_y_t)`. JAX differentiates it, one step at a time.

    Args:
        value_fn: `(y, target) -> scalar`, the loss of one step. `y` is one output vector (out,), and `target` is its
            target: a class (), a vector, or a tree of what the loss needs at this step, for example actions and
            advantages. Targets get no gradient.

    Returns:
        A loss for `make_grad_fn`: a function of outputs (*steps, out) and targets whose leaves begin with the axes
        (*steps). It returns the loss of each step, (*steps), and its derivative, (*steps, out).

    Raises:
        TypeError: if `value_fn` cannot be called; when the loss is called, if `value_fn` does not return a real scalar.

    >>> import jax.numpy as jnp, rnn_jax
    >>> huber = rnn_jax.pointwise(lambda y, target: jnp.sum(jnp.sqrt(1 + (y - target) ** 2) - 1))
    >>> value, d_y = huber(jnp.zeros((7, 2)), jnp.ones((7, 2)))
    >>> value.shape, d_y.shape
    ((7,), (7, 2))
    """
    require_callable(value_fn=value_fn)

    def loss(y_t: Array, target_t: Any) -> tuple[Array, Array]:
        steps = y_t.ndim - 1
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[steps:], x.dtype), (y_t, target_t))
        value = jax.eval_shape(value_fn, *one)
        if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"`value_fn` of one output and its target must return a real scalar, got {value}.")
        fn = jax.value_and_grad(value_fn)
        for _ in y_t.shape[:-1]:
            fn = jax.vmap(fn)
        return fn(y_t, target_t)

    return loss


REDUCTIONS = {
    "mean": "Σ w ℓ / Σ |w| over the whole batch; 0 if there is nothing to sum",
    "mean_over_steps": "Σ w ℓ / N, N the number of steps that exist or have a weight; 0 if there is nothing to sum",
    "sum": "Σ w ℓ",
}


def make_objective(loss: str | Loss, reduction: str) -> Callable[[Params, Batch], Objective]:
    """`settle(params, batch) -> Objective` for a loss pair, or for one named in `LOSSES`."""
    if not callable(loss):
        require_known("loss", loss, LOSSES)
        loss = LOSSES[loss]
    require_known("reduction", reduction, REDUCTIONS)
    pair = loss

    def settle(params: Params, batch: Batch) -> Objective:
        return Objective(pair, loss_scale(reduction, batch, accumulation_dtype(params.readout.b_y.dtype)))

    return settle


def step_weights(batch: Batch, dtype: Any) -> Float[Array, "last *batch"]:
    """How much the loss of each step counts: `weights`; without them the mask on those steps; without a mask, one."""
    last = num_read(batch)
    steps = steps_shape(batch.inputs)
    if batch.weights is not None:
        return batch.weights.astype(dtype)
    if batch.mask is not None:
        return batch.mask[steps[0] - last :].astype(dtype)
    return jnp.ones((last, *steps[1:]), dtype)


def loss_scale(reduction: str, batch: Batch, dtype: Any) -> Scalar:
    """The factor of every step: 1 for `"sum"`; otherwise one over a divisor, or 0 if there is nothing to sum.

    The divisor is Σ |w| for `"mean"`, so that weights of both signs do not cancel, and N for `"mean_over_steps"`.
    """
    if reduction == "sum":
        return jnp.ones((), dtype)
    counted = jnp.abs(step_weights(batch, dtype))
    if reduction == "mean_over_steps":
        counted = jnp.maximum(step_weights(batch._replace(weights=None), dtype), (counted > 0).astype(dtype))
    total = jnp.sum(counted)
    return (total != 0).astype(dtype) / jnp.where(total == 0, jnp.ones_like(total), total)


def _checked_pair(pair: object, ys: Array) -> tuple[Array, Array]:
    """Raise unless the loss, which may be the caller's own, returned a value per step and the cotangent of `ys`."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(
            f"`loss` must return a pair (value, d_y), got {type(pair).__name__}: to make the pair from the loss of one "
            f"step, use `pointwise`."
        )
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
    """`L = scale Σ_t w_t ℓ(y_t, target_t)` and `d_y_t = scale w_t ∂ℓ/∂y_t`.

    Everything is computed in float32 or better; only the returned `d_ys` have the dtype of `ys`. Outputs and targets of
    weight zero are never read: value and derivatives are 0 there, even if their loss is infinite or NaN.
    """
    exact_ys = ys.astype(accumulation_dtype(ys.dtype))
    targets = jax.tree.map(partial(_as_exact, exact_ys.dtype), batch.targets)
    w = step_weights(batch, exact_ys.dtype)
    read = None if batch.weights is None and batch.mask is None else w != 0  # None: every step
    seen = jax.tree.map(partial(_some_read, read), (exact_ys, targets))
    values, d_ys = _checked_pair(objective.loss(*seen), exact_ys)
    w = objective.scale * w
    return jnp.sum(_where_read(read, w * values)), _where_read(read, w[..., None] * d_ys).astype(ys.dtype)


def _as_exact(dtype: Any, x: Array) -> Array:
    """Floating point numbers in `dtype`; tokens and booleans as they are."""
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _some_read(read: Bool[Array, "last *batch"] | None, x: Array) -> Array:
    """`x`, where each step that is not read is replaced by the first that is read, so that its loss has a value."""
    if read is None or read.size == 0:
        return x
    rows = lax.stop_gradient(x).reshape(read.size, *x.shape[read.ndim :])
    return jnp.where(_over_features(read, x), x, rows[jnp.argmax(read)])


def _where_read(read: Bool[Array, "last *batch"] | None, x: Array) -> Array:
    return x if read is None else jnp.where(_over_features(read, x), x, 0)


def _over_features(read: Bool[Array, "last *batch"], x: Array) -> Array:
    return read.reshape(*read.shape, *(1 for _ in x.shape[read.ndim :]))
