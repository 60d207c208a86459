"""One optimizer step as a pure function, the hidden state carried from batch to batch."""

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
    """Carried into the next step. `params` are `Params`, or the tree that your gradient function takes. `h_0` is the
    state the next batch starts from.
    """

    params: Any
    opt_state: optax.OptState
    h_0: States
    num_steps: Int[Array, ""]


class StepInfo(NamedTuple):
    """Reported, then dropped. The gradient's norm is the one before clipping; norms are in float32 or better.

    `num_not_carried` counts the sequences whose last state was infinite or NaN: see `make_trainer`.
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
    """Training by `optimizer` on the gradients of `grad_fn`. The caller jits, donates and scans.

    Args:
        grad_fn: loss, last states and gradients; may be your own: it is traced, and its result is checked then.
        optimizer: of optax, a `MultiSteps` too. One that asks for the loss (`value`), the gradient (`grad`) or the loss
            at other parameters (`value_fn`), as `reduce_on_plateau` and `lbfgs` do, gets it. The loss is that of the
            step's batch, so the patience of `reduce_on_plateau` counts steps: to follow a validation, change the rate
            between steps, see docs/recipes.md.
        carry: if True, each step starts from the hidden state that the last one ended in, for windows of one long
            stream; no gradient crosses. If False, each starts from the `h_0` given to `init`, for independent batches.
            There is no default, for the wrong one trains, and worse, without a word.

    `init` copies its arrays, so that donating the state deletes nothing of the caller's. For a fresh start replace
    `state.h_0`.

    Only finite states are carried: a bad batch which `optax.apply_if_finite` skips does not spoil the next ones. A
    sequence whose last state is infinite or NaN keeps the state it had before the step (zero, if that was not finite
    either), and `StepInfo.num_not_carried` counts it. The other sequences go on. A skipped update has
    `StepInfo.update_norm` 0; `num_steps` counts it.

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
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)  # type: ignore[arg-type]
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
        raise TypeError(f"`h_0` must be a tuple of one state a layer, got {type(h_0).__name__}.")
    for layer, h in enumerate(h_0):
        require_float(f"h_0[{layer}]", h)
        if h.ndim < 1 or h.shape[:-1] != h_0[0].shape[:-1]:
            raise ValueError(f"`h_0` must hold states of one batch, (*batch, hid), got {[h.shape for h in h_0]}.")
    if not jax.tree.leaves(params):
        raise TypeError(f"`params` must hold arrays, got {type(params).__name__}.")
    for path, leaf in jax.tree.leaves_with_path(params):
        require_float(f"params{jax.tree_util.keystr(path)}", leaf)


def carried(h_0: States, h_T: States) -> tuple[States, Int[Array, ""]]:
    """The states the next step starts from; the number of sequences whose `h_T` is not finite.

    Of each sequence it is the first of `h_T`, `h_0` and zero that is finite.
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
    """Gradient descent on clipped gradients: each entry to ±`max_value`, then all to the global norm `max_norm`.

    Clipping by value is what min-char-rnn does (at 5), by norm what Pascanu et al. proposed. Each number may be traced,
    for a sweep under `jax.vmap`: then its range is not checked. It is taken in the dtype of each gradient.

    Raises:
        ValueError: unless 0 <= momentum < 1 and each of the others that is given is above zero.

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
    return optax.chain(clip_gradients(max_norm=max_norm, max_value=max_value), optax.chain(first, descent))


def clip_gradients(*, max_norm: Number | None = None, max_value: Number | None = None) -> optax.GradientTransformation:
    """Each entry to ±`max_value`, then all to the global norm `max_norm`; None leaves that out."""
    clips = []
    if max_value is not None:
        limit = require_number("max_value", max_value, POSITIVE)
        clips.append(optax.stateless(lambda updates, params: _clip_by_value(updates, limit)))
    if max_norm is not None:
        most = require_number("max_norm", max_norm, POSITIVE)
        clips.append(optax.stateless(lambda updates, params: _clip_by_norm(updates, most)))
    return optax.chain(*clips) if clips else optax.identity()


def _with_momentum(decay: Number) -> optax.GradientTransformation:
    """`m ← decay m + d`, as `optax.trace`, whose number must have the dtype of the gradients where it is traced."""

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
    """`updates · min(1, max_norm / ‖updates‖)`, the norm in float32 or better: in float16 a square overflows at 256."""
    unit, length = unit_and_norm(updates)
    limit = jnp.asarray(max_norm, length.dtype)
    return jax.tree.map(lambda d, u: jnp.where(length < limit, d, (u * limit).astype(d.dtype)), updates, unit)
