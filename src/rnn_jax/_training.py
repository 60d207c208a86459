"""One optimizer step as a pure function, with the hidden state carried from batch to batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ._checks import check_params, check_states
from ._numerics import tree_norm, unit_and_norm
from ._require import POSITIVE, RATE, Number, require_callable, require_float, require_number
from ._results import require_like, require_result
from ._types import Batch, GradFn, Params, States


class TrainState(NamedTuple):
    """What one optimizer step passes to the next.

    `params`     `Params`, or the tree that your own gradient function takes.
    `opt_state`  the state of the optimizer.
    `h_0`        the hidden states that the next batch starts from.
    `num_steps`  the number of steps so far.
    """

    params: Any
    opt_state: optax.OptState
    h_0: States
    num_steps: Int[Array, ""]


class StepInfo(NamedTuple):
    """What one optimizer step reports.

    `loss`             the loss of the batch.
    `grad_norm`        the norm of the gradient before clipping, in float32 or better.
    `update_norm`      the norm of the update, in float32 or better; 0 if it was skipped.
    `num_not_carried`  the number of sequences whose last state was infinite or NaN; see `make_trainer`.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    update_norm: Float[Array, ""]
    num_not_carried: Int[Array, ""]


class Trainer(NamedTuple):
    """`init(params, h_0) -> TrainState` and `step(state, batch) -> (state, StepInfo)`, both pure."""

    init: Callable[[Any, States], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, StepInfo]]


def make_trainer(
    grad_fn: GradFn, optimizer: optax.GradientTransformation | optax.MultiSteps, *, carry: bool
) -> Trainer:
    """Make a trainer: `init` and `step`, two pure functions. You apply `jax.jit`, `donate_argnums` and `lax.scan`.

    `init` copies its arrays, so donating the state does not delete yours. To start from fresh states, replace
    `state.h_0`.

    With `carry=True` only finite states are carried, so a bad batch that `optax.apply_if_finite` skips does not spoil
    the next ones. A sequence whose last state is infinite or NaN keeps the state it had before the step, or zero if
    that was not finite either, and `StepInfo.num_not_carried` counts it. The other sequences are carried as usual.
    A skipped update has `StepInfo.update_norm` 0, and `num_steps` counts it.

    Args:
        grad_fn: the loss, last states and gradients, from `make_grad_fn` or your own function. Its result is checked
            when it is traced.
        optimizer: an optax optimizer or `MultiSteps`. If it asks for the loss (`value`), the gradient (`grad`) or the
            loss at other parameters (`value_fn`), as `reduce_on_plateau` and `lbfgs` do, it gets them. The loss is that
            of one batch, so the patience of `reduce_on_plateau` counts steps. To follow a validation loss instead,
            change the rate between steps: see docs/recipes.md.
        carry: if True, each step starts from the hidden states that the last step ended in, for windows of one long
            stream; no gradient crosses. If False, each step starts from the `h_0` given to `init`, for independent
            batches. There is no default, because the wrong choice trains worse without any error.

    Returns:
        `Trainer(init, step)`: `init(params, h_0)` returns a `TrainState`, and `step(state, batch)` returns the next
        state and a `StepInfo`.

    Raises:
        TypeError: if `grad_fn` cannot be called, `optimizer` is not of optax, or `carry` is not a boolean. `init` and
            `step` raise it, and a `ValueError`, for arguments and results that do not fit each other.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=4, hidden_size=8, output_size=4)
    >>> grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    >>> trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.5, max_norm=1.0), carry=True)
    >>> batches = rnn_jax.Batch(inputs=jnp.ones((20, 7, 3), int), targets=jnp.ones((20, 7, 3), int))  # 20 batches
    >>> many_steps = jax.jit(lambda state: jax.lax.scan(trainer.step, state, batches), donate_argnums=0)
    >>> state, infos = many_steps(trainer.init(params, rnn_jax.zero_state(params, 3)))
    >>> int(state.num_steps), infos.loss.shape
    (20, (20,))
    """

    require_callable(grad_fn=grad_fn)
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must be an optax GradientTransformation, got {type(optimizer).__name__}.")
    if not isinstance(carry, bool):
        raise TypeError(f"`carry` must be True or False, got {carry!r}.")
    asking = optax.with_extra_args_support(optimizer)

    def init(params: Any, h_0: States) -> TrainState:
        _check_start(params, h_0)
        params, h_0 = jax.tree.map(jnp.copy, (params, h_0))
        return TrainState(params, optimizer.init(params), h_0, jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        (loss, h_T), gradients = require_result(grad_fn(state.params, batch, state.h_0), "grad_fn")
        require_like("gradients.params", gradients.params, state.params, "params")
        require_like("h_T", h_T, state.h_0, "h_0")

        def value_fn(params: Any) -> Array:
            return grad_fn(params, batch, state.h_0)[0][0]

        told = {"value": loss, "grad": gradients.params, "value_fn": value_fn}
        updates, opt_state = asking.update(gradients.params, state.opt_state, state.params, **told)
        params = optax.apply_updates(state.params, updates)
        after, num_not_finite = carried(state.h_0, h_T)
        h_0, num_not_carried = (after, num_not_finite) if carry else (state.h_0, jnp.zeros_like(num_not_finite))
        info = StepInfo(loss, tree_norm(gradients.params), tree_norm(updates), num_not_carried)
        return TrainState(params, opt_state, h_0, state.num_steps + 1), info

    return Trainer(init, step)


def _check_start(params: Any, h_0: States) -> None:
    """Raise unless training can start here. A gradient function of your own may take other trees than `Params`."""
    if isinstance(params, Params):
        check_params(params)
        check_states(params, h_0)
        return
    if not isinstance(h_0, tuple) or isinstance(h_0, Params) or not h_0:
        raise TypeError(f"`h_0` must be a tuple of one state per layer, got {type(h_0).__name__}.")
    for layer, h in enumerate(h_0):
        require_float(f"h_0[{layer}]", h)
        if h.ndim < 1 or h.shape[:-1] != h_0[0].shape[:-1]:
            raise ValueError(f"`h_0` must hold states of one batch, (*batch, hid), got {[h.shape for h in h_0]}.")
    if not jax.tree.leaves(params):
        raise TypeError(f"`params` must hold arrays, got {type(params).__name__}.")
    for path, leaf in jax.tree.leaves_with_path(params):
        require_float(f"params{jax.tree_util.keystr(path)}", leaf)


def carried(h_0: States, h_T: States) -> tuple[States, Int[Array, ""]]:
    """The states the next step starts from, and the number of sequences whose `h_T` is not finite.

    For each sequence, the next step starts from `h_T` if that is finite, otherwise from `h_0`, otherwise from zero.
    """

    def finite(h: States) -> Array:
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(layer), -1) for layer in h]), 0)[..., None]

    there, before = finite(h_T), finite(h_0)
    h = tuple(jnp.where(there, x, jnp.where(before, y, 0)) for x, y in zip(h_T, h_0, strict=True))
    return h, jnp.sum(~there)


def clipped_sgd(
    learning_rate: Number | optax.Schedule,
    *,
    momentum: Number | None = None,
    max_norm: Number | None = None,
    max_value: Number | None = None,
) -> optax.GradientTransformation:
    """Gradient descent on gradients clipped by `clip_gradients`: by value, then by global norm.

    min-char-rnn clips by value (at 5); Pascanu et al. proposed to clip by norm. Each number may be traced, for a sweep
    under `jax.vmap`; then its range is not checked. It is converted to the dtype of each gradient.

    Args:
        learning_rate: a number above zero, or a schedule of optax.
        momentum: the factor of the sum of the past gradients, from 0 to below 1; None keeps no sum.
        max_norm: the largest global norm of the gradient, above zero; not clipped if None.
        max_value: the largest absolute value of an entry of the gradient, above zero; not clipped if None.

    Returns:
        An optimizer of optax.

    Raises:
        ValueError: for a known number out of range.
        TypeError: for an argument that is not a real number.

    References: Pascanu, Mikolov and Bengio (2013), ICML, arXiv:1211.5063.
    """
    if callable(learning_rate):
        descent = optax.scale_by_learning_rate(learning_rate)
    else:
        rate = require_number("learning_rate", learning_rate, POSITIVE)
        descent = optax.stateless(
            lambda updates, params: jax.tree.map(lambda d: -jnp.asarray(rate, d.dtype) * d, updates)
        )
    first = optax.identity() if momentum is None else _with_momentum(require_number("momentum", momentum, RATE))
    sgd = optax.chain(first, descent)  # its state has the structure of that of `optax.sgd`
    return optax.chain(clip_gradients(max_norm=max_norm, max_value=max_value), sgd)


def clip_gradients(*, max_norm: Number | None = None, max_value: Number | None = None) -> optax.GradientTransformation:
    """Clip each entry of the gradient to ±`max_value`, then the whole gradient to the global norm `max_norm`.

    Args:
        max_norm: the largest global norm of the gradient, above zero; not clipped if None. The norm is computed in
            float32 or better.
        max_value: the largest absolute value of an entry of the gradient, above zero; not clipped if None.

    Returns:
        A transformation of optax, for `optax.chain`.

    Raises:
        ValueError: for a known number that is not above zero.
        TypeError: for an argument that is not a real number.

    >>> import jax.numpy as jnp, optax, rnn_jax
    >>> optimizer = optax.chain(rnn_jax.clip_gradients(max_norm=1.0), optax.sgd(1.0))
    >>> d = {"w": jnp.array([3.0, 4.0])}
    >>> updates, _ = optimizer.update(d, optimizer.init(d))
    >>> [round(float(x), 3) for x in updates["w"]]
    [-0.6, -0.8]
    """
    clips = []
    if max_value is not None:
        limit = require_number("max_value", max_value, POSITIVE)
        clips.append(optax.stateless(lambda updates, params: _clip_by_value(updates, limit)))
    if max_norm is not None:
        most = require_number("max_norm", max_norm, POSITIVE)
        clips.append(optax.stateless(lambda updates, params: _clip_by_norm(updates, most)))
    return optax.chain(*clips) if clips else optax.identity()


def _with_momentum(decay: Number) -> optax.GradientTransformation:
    """`m ← decay m + d`, like `optax.trace`, which requires a traced decay to have the dtype of the gradients."""

    def update(updates: optax.Updates, state: optax.TraceState, params: Any = None) -> tuple[Any, optax.TraceState]:
        del params
        trace = jax.tree.map(lambda d, m: d + jnp.asarray(decay, d.dtype) * m, updates, state.trace)
        return trace, optax.TraceState(trace)

    return optax.GradientTransformation(optax.trace(0.0).init, update)


def _clip_by_value(updates: optax.Updates, max_value: Number) -> optax.Updates:
    """Each entry to ±`max_value`, in its own dtype."""

    def clip(d: Array) -> Array:
        limit = jnp.asarray(max_value, d.dtype)
        return jnp.clip(d, -limit, limit)

    return jax.tree.map(clip, updates)


def _clip_by_norm(updates: optax.Updates, max_norm: Number) -> optax.Updates:
    """`updates · min(1, max_norm / ‖updates‖)`, the norm in float32 or better: in float16, 256² overflows."""
    unit, length = unit_and_norm(updates)
    limit = jnp.asarray(max_norm, length.dtype)
    return jax.tree.map(lambda d, u: jnp.where(length < limit, d, (u * limit).astype(d.dtype)), updates, unit)
