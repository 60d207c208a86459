"""From settings to the network, its optimizer and its trainer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ... import (
    GRADIENTS,
    Adaptive,
    Batch,
    Params,
    Plan,
    Sharded,
    Truncated,
    clip_gradients,
    clipped_sgd,
    init_params,
    make_grad_fn,
    make_trainer,
    plan_cost,
    plan_memory,
    zero_state,
)
from ..._reporting.errors import InputError
from ...initializers import RECURRENT_INITS
from ...typing import GradFn, Method, PlanCost, Trainer, TrainState
from ..settings.limits import bytes_of
from ..settings.training import TrainConfig, default_rate, default_scale


def make_character_trainer(
    config: TrainConfig, num_symbols: int, devices: Sequence[jax.Device] = (), num_parts: int | None = None
) -> Trainer:
    """The trainer of a run: mean cross-entropy over a window, the optimizer of the settings."""
    return make_trainer(make_gradient(config, num_symbols, devices, num_parts), make_optimizer(config), carry=True)


def make_gradient(
    config: TrainConfig, num_symbols: int, devices: Sequence[jax.Device] = (), num_parts: int | None = None
) -> GradFn:
    """The gradient of a run, in the memory of its settings; several `devices` share the streams.

    The memory is for one of `num_parts` of a batch, by default as many as there are devices.

    Raises:
        InputError: if the memory is too little for every plan.
    """
    method = method_of(config)
    if config.memory is not None:
        plan, _ = make_plan(config, num_symbols, num_parts or max(1, len(devices)))
        method = dataclasses.replace(method, plan=plan)  # type: ignore[type-var]
    if len(devices) > 1:
        method = Sharded(method, tuple(devices))
    return make_grad_fn(method, loss="cross_entropy", compute_dtype=compute_dtype_of(config))


def compute_dtype_of(config: TrainConfig) -> Any:
    """The type of states and products if it is not that of the weights, otherwise None."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else None


def method_of(config: TrainConfig) -> Method:
    """The gradient method of a run, without plan and devices."""
    if config.adaptive_bias is not None and config.k1 is not None:
        return Adaptive(k1=config.k1, bias=config.adaptive_bias)
    if config.k2 is not None:
        return Truncated(k1=config.k1 or config.k2, k2=config.k2)
    method: Method = GRADIENTS[config.method].kind()
    return method


def make_plan(config: TrainConfig, num_symbols: int, num_devices: int) -> tuple[Plan, PlanCost]:
    """The plan that fits `config.memory`, for the part of a batch on one of `num_devices`, and what it costs.

    Raises:
        InputError: if the memory is too little for every plan.
    """
    steps: Any = jax.ShapeDtypeStruct((config.window, config.streams // num_devices), jnp.int32)
    params = jax.eval_shape(lambda: initial_params(config, num_symbols))
    shapes = params, Batch(steps, steps), jax.eval_shape(lambda: zero_state(params, steps.shape[1]))
    try:
        plan = plan_memory(shapes, bytes_of(config.memory or "") or 0)
    except ValueError as error:
        told = str(error).replace("`budget_bytes`", "it")
        raise InputError(f"--memory {config.memory} is too little: {told}") from None
    return plan, plan_cost(shapes, plan)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then SGD or Adam, the learning rate after its warm-up on its schedule to the end of `config.steps`."""
    peak = default_rate(config) if config.learning_rate is None else config.learning_rate
    falling = config.steps - config.warmup
    rate = {
        "cosine": optax.cosine_decay_schedule(peak, falling),
        "linear": optax.linear_schedule(peak, 0.0, falling),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if config.warmup:
        rate = optax.join_schedules([optax.linear_schedule(0.0, peak, config.warmup), rate], [config.warmup])
    if config.optimizer == "sgd":
        return clipped_sgd(rate, momentum=config.momentum or None, max_norm=config.max_norm, max_value=config.max_value)
    return optax.chain(clip_gradients(max_norm=config.max_norm, max_value=config.max_value), optax.adam(rate))


def initial_state(config: TrainConfig, trainer: Trainer, num_symbols: int) -> TrainState:
    """The state before the first step; it depends only on the seed."""
    params = initial_params(config, num_symbols)
    return trainer.init(params, zero_state(params, config.streams))


def initial_params(config: TrainConfig, num_symbols: int) -> Params:
    """The weights before the first step."""
    scale = default_scale(config) if config.recurrent_scale is None else config.recurrent_scale
    return init_params(
        jax.random.key(config.seed),
        input_size=num_symbols,
        hidden_size=config.hidden_size,
        output_size=num_symbols,
        num_layers=config.num_layers,
        cell=config.cell,
        activation=config.activation,
        leak=config.leak,
        recurrent_init=RECURRENT_INITS[config.recurrent_init](scale),
        dtype=jnp.float64 if config.dtype == "float64" else jnp.float32,
    )
