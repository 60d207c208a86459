"""The table of gradient methods, behind one signature."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from ._adaptive import adaptive
from ._autodiff import autodiff
from ._blocked import blocked
from ._bptt import bptt
from ._by_hand import backpropagate
from ._checks import check_call, is_tokens
from ._definitions import adaptive_windows, last_steps_only, randomised_cuts, truncated_windows
from ._losses import Objective, make_objective
from ._plan import Plan, check_plan
from ._randomised import randomised
from ._require import require_floating, require_known, require_positive, require_sizes
from ._sharded import check_devices, shard_batch
from ._sharding import promote, refuse_explicit
from ._stepwise import stepwise
from ._truncated import last_steps, truncated
from ._types import Batch, GradFn, Gradients, Loss, Params, Scalar, States


class Method(NamedTuple):
    """`make(objective, **options) -> GradFn`, and whether what it returns is the exact gradient of the loss.

    A method that is not exact has a `definition`, made with the same options: what it means, by `jax.grad` and
    `stop_gradient` of the plain scan. That is what it is checked against. `example` holds the options it needs.
    """

    make: Callable[..., GradFn]
    exact: bool
    definition: Callable[..., GradFn] | None = None
    example: Mapping[str, Any] = MappingProxyType({})


def _autodiff(objective: Objective) -> GradFn:
    return partial(autodiff, objective)


def _stepwise(objective: Objective) -> GradFn:
    return partial(backpropagate, stepwise, objective)


def _bptt(objective: Objective, unroll: int = 1) -> GradFn:
    require_sizes(unroll=unroll)
    return partial(backpropagate, bptt(unroll), objective)


def _blocked(objective: Objective, plan: Plan | None = None, unroll: int = 1) -> GradFn:
    require_sizes(unroll=unroll)
    if plan is not None:
        check_plan(plan)
    return partial(blocked, bptt(unroll), plan, objective)


def _truncated(objective: Objective, k1: int, k2: int, plan: Plan | None = None) -> GradFn:
    require_sizes(k1=k1, k2=k2)
    if k2 < k1:
        raise ValueError(
            f"`k2` must be at least `k1`, how far a window reaches at least its length, got {k2} and {k1}."
        )
    if plan is not None:
        check_plan(plan)
        for size in (plan.block, *plan.segments):
            if size % k1:
                raise ValueError(f"`plan` must be made of multiples of `k1`, got {size} with k1 = {k1}.")
    return partial(truncated, k1, k2, plan, objective)


def _last_steps(objective: Objective, k: int, plan: Plan | None = None) -> GradFn:
    require_sizes(k=k)
    if plan is not None:
        check_plan(plan)
    return partial(last_steps, k, plan, objective)


def _adaptive(objective: Objective, k1: int, bias: float | Array, k2_max: int | None = None) -> GradFn:
    require_sizes(k1=k1)
    require_positive(bias=bias)
    if k2_max is not None:
        require_sizes(least=k1, k2_max=k2_max)

    def grad_fn(params: Params, batch: Batch, h_0: States) -> tuple[tuple[Scalar, States], Gradients]:
        return adaptive(k1, bias, k2_max, objective, params, batch, h_0)[1]

    return grad_fn


def _randomised(objective: Objective, mean_reach: float | Array, plan: Plan | None = None) -> GradFn:
    require_positive(mean_reach=mean_reach)
    if not isinstance(mean_reach, jax.core.Tracer) and mean_reach <= 1:
        raise ValueError(f"`mean_reach` must be above 1 step, got {mean_reach!r}.")
    if plan is not None:
        check_plan(plan)
    return partial(randomised, mean_reach, plan, objective)


def _truncated_windows(objective: Objective, k1: int, k2: int, plan: Plan | None = None) -> GradFn:
    return partial(truncated_windows, k1, k2, objective)


def _last_steps_only(objective: Objective, k: int, plan: Plan | None = None) -> GradFn:
    return partial(last_steps_only, k, objective)


def _adaptive_windows(objective: Objective, k1: int, bias: float | Array, k2_max: int | None = None) -> GradFn:
    return partial(adaptive_windows, k1, bias, k2_max, objective)


def _randomised_cuts(objective: Objective, mean_reach: float | Array, plan: Plan | None = None) -> GradFn:
    return partial(randomised_cuts, mean_reach, objective)


GRADIENTS: dict[str, Method] = {
    "autodiff": Method(_autodiff, exact=True),  # the reference: jax.grad of the plain scan
    "stepwise": Method(_stepwise, exact=True),  # the textbook by hand: every product inside the loop
    "bptt": Method(_bptt, exact=True),  # by hand, weight gradients as products after the loop
    "blocked": Method(_blocked, exact=True),  # by hand, a block of time at a time, states kept or recomputed as planned
    # windows of k1 steps whose loss reaches back k2
    "truncated": Method(_truncated, exact=False, definition=_truncated_windows, example={"k1": 2, "k2": 5}),
    # the same, k2 as far as the batch needs it
    "adaptive": Method(_adaptive, exact=False, definition=_adaptive_windows, example={"k1": 2, "bias": 0.5}),
    # cut at random places, right on average
    "randomised": Method(_randomised, exact=False, definition=_randomised_cuts, example={"mean_reach": 3.0}),
    # the notebook's: the last k steps and their losses, no others
    "last_steps": Method(_last_steps, exact=False, definition=_last_steps_only, example={"k": 3}),
}


def make_grad_fn(
    method: str,
    *,
    loss: str | Loss,
    reduction: str = "mean",
    compute_dtype: Any = None,
    devices: Sequence[jax.Device] | None = None,
    **method_options: Any,
) -> GradFn:
    """A function `(params, batch, h_0) -> ((loss, h_T), Gradients)`, pure and stateless.

    `method` is one of `GRADIENTS`, `loss` one of `LOSSES` or a pair like `pointwise(...)`. `reduction` is
    `"mean"`, Σ w ℓ / Σ |w|; `"mean_over_steps"`, Σ w ℓ / N with N the number of steps that exist or have a weight; or
    `"sum"`, Σ w ℓ. Nothing to sum gives 0. Which is for what: `docs/sequences.md`. With `compute_dtype`, states and
    products are in that type, while the loss and the weight gradients are accumulated in float32 or better; only
    "autodiff" adds weight gradients up as JAX does, in the type itself, where long sums stall. A gradient always has
    the dtype of what it is a gradient of. Under `jit`, a gradient that is not used costs nothing.

    Options of methods: `unroll`, of "bptt" and "blocked", is the number of steps in one turn of a loop over time: more
    are fewer launches a step on a GPU, and nothing gained on a CPU. `plan`, of "blocked" and the truncated methods but
    "adaptive", is a `Plan`, like one of `plan_memory`; without it all states are kept.

    "truncated", "adaptive", "randomised" and "last_steps" are not exact: they cut the gradient, and return the loss of
    all steps. "truncated" needs `k1` and `k2`: the loss of each window of k1 steps reaches back k2 ≥ k1. "adaptive"
    needs `k1` and `bias`, and lets k2 grow by k1, at most to `k2_max`, until what is left out is estimated to be below
    `bias` of the gradient of the cells. "randomised" needs `mean_reach`, in steps, and `batch.key`: it cuts at random
    and is right on average. `bias` and `mean_reach` may be traced; their range is not checked then. "last_steps"
    needs `k`: the loss of the last k steps only, reaching back k. `Method` has the definition of each.

    With `devices`, like `jax.devices()`, the first batch axis is split over them, and loss and gradients are those of
    the whole batch; JAX refuses arrays that are committed to other devices. For the cores of one CPU, call
    `jax.config.update("jax_num_cpu_devices", 2)` before all else. Sharded arrays under `jit` give the whole batch's as
    well (on CPUs they are gathered for the weight gradients; with `devices` nothing is). Inside of a `shard_map` of
    one's own they are those of the device's part, to be summed with `lax.psum`.

    Raises:
        ValueError: for an unknown method, option, loss or reduction, the message lists the known ones; for an option
            that is needed and not given, or out of range. The function returned raises it at trace time for shapes
            that do not fit, and a `TypeError` for dtypes that do not.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=5, hidden_size=8, output_size=5)
    >>> batch = rnn_jax.Batch(inputs=jnp.array([0, 1, 2, 3]), targets=jnp.array([1, 2, 3, 4]))
    >>> grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    >>> (loss, h_T), gradients = jax.jit(grad_fn)(params, batch, rnn_jax.zero_state(params))
    >>> loss.shape, gradients.params.cells[0].w_hh.shape, gradients.inputs
    ((), (8, 8), None)
    """
    require_known("gradient method", method, GRADIENTS)
    if compute_dtype is not None:
        require_floating("compute_dtype", compute_dtype)
    objective = make_objective(loss, reduction)
    make = partial(_make_engine, method, GRADIENTS[method].make, options=method_options)
    engine = make(objective)
    if devices is not None:
        check_devices(devices)
        engine = shard_batch(make, objective, devices)
    return _at_the_door(engine, compute_dtype)


def make_reference(method: str, *, loss: str | Loss, reduction: str = "mean", **method_options: Any) -> GradFn:
    """What a method of `GRADIENTS` is checked against: autodiff, of a method that is not exact its `definition`.

    Raises:
        ValueError: as `make_grad_fn` does.
    """
    require_known("gradient method", method, GRADIENTS)
    objective, definition = make_objective(loss, reduction), GRADIENTS[method].definition
    _make_engine(method, GRADIENTS[method].make, objective, method_options)  # raises for options that it refuses
    engine = partial(autodiff, objective) if definition is None else definition(objective, **method_options)
    return _at_the_door(engine, None)


def _make_engine(method: str, make: Callable[..., GradFn], objective: Objective, options: dict[str, Any]) -> GradFn:
    known = list(inspect.signature(make).parameters)[1:]
    for option in options:
        if option not in known:
            there_are = f"there are {', '.join(map(repr, known))}" if known else "it has none"
            raise ValueError(f"No option {option!r} of the gradient method {method!r}; {there_are}.")
    needed = [
        name for name, option in list(inspect.signature(make).parameters.items())[1:] if option.default is option.empty
    ]
    missing = [name for name in needed if name not in options]
    if missing:
        raise ValueError(f"The gradient method {method!r} needs the options {', '.join(map(repr, needed))}.")
    return make(objective, **options)


def _at_the_door(engine: GradFn, compute_dtype: Any) -> GradFn:
    """`engine` with arguments checked, made alike under `shard_map`, and cast."""

    def grad_fn(params: Params, batch: Batch, h_0: States) -> tuple[tuple[Scalar, States], Gradients]:
        check_call(params, batch, h_0)
        key = batch.key
        refuse_explicit((params, batch._replace(key=None), h_0), "grad_fn", "give `make_grad_fn` the `devices`")
        params, batch, h_0 = promote((params, batch._replace(key=None), h_0))
        batch = batch._replace(key=key)
        features = None if is_tokens(batch.inputs) else batch.inputs
        arguments = Gradients(params, h_0, features)
        p, h, xs = arguments if compute_dtype is None else _cast(arguments, compute_dtype)
        cast_batch = batch if xs is None else batch._replace(inputs=xs)
        if compute_dtype is not None:
            cast_batch = cast_batch._replace(drop=_cast(batch.drop, compute_dtype))
        (loss, h_T), gradients = engine(p, cast_batch, h)
        return (loss, _cast_like(h_T, h_0)), _cast_like(gradients, arguments)

    return grad_fn


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def _cast_like(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)
