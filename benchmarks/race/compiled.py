"""How a model in JAX becomes a contender: compiled once, called blocked."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import rnn_jax

from .contenders import Raced

OPTIMIZER = rnn_jax.clipped_sgd(0.1, momentum=0.9, max_norm=1.0)


class Model(NamedTuple):
    """A network in a contender's own terms, over `data`: `loss(params, *data)`, and the way back to our five leaves.

    `value_and_grad(params, *data)` is autodiff's unless given, `init` and `step` are optax around it unless given.
    """

    params: Any
    data: tuple[Any, ...]
    loss: Callable[..., Any]
    leaves: Callable[[Any], dict[str, Any]]
    value_and_grad: Callable[..., Any] | None = None
    init: Callable[[Any], Any] | None = None
    step: Callable[..., Any] | None = None
    params_of: Callable[[Any], Any] | None = None


def by_optax(value_and_grad: Callable[..., Any]) -> Callable[..., Any]:
    """A training step of clipped gradient descent around a gradient."""

    def step(state, *data):
        params, opt_state = state
        loss, gradient = value_and_grad(params, *data)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def race(model: Model, what: str) -> Raced:
    """The forward pass, gradient or training step of a model, compiled; its data is on the device already."""
    params, data = jax.block_until_ready((model.params, model.data))
    value_and_grad = model.value_and_grad or jax.value_and_grad(model.loss)
    if what == "step":
        return _trained(model, value_and_grad)
    compiled, seconds = _compile(jax.jit(value_and_grad if what == "gradient" else model.loss), params, *data)

    def result():
        out = compiled(params, *data)
        return {"loss": out} if what == "forward" else {"loss": out[0], **model.leaves(out[1])}

    return Raced(
        lambda: jax.block_until_ready(compiled(params, *data)),
        lambda: as_numpy(result()),
        seconds,
        temporaries(compiled),
    )


def _trained(model: Model, value_and_grad: Callable[..., Any]) -> Raced:
    """A step after the other, each from the state the last one left; the state is donated."""
    init = model.init or (lambda params: (params, OPTIMIZER.init(params)))
    params_of = model.params_of or (lambda state: state[0])
    before = as_numpy(model.leaves(model.params))
    state = jax.block_until_ready(init(jax.tree.map(jax.numpy.copy, model.params)))
    where = jax.tree.map(lambda x: x.sharding, state), None  # a step leaves its state where it found it
    step = jax.jit(model.step or by_optax(value_and_grad), donate_argnums=0, out_shardings=where)
    compiled, seconds = _compile(step, state, *model.data)
    held = [state]

    def call():
        held[0], loss = jax.block_until_ready(compiled(held[0], *model.data))
        return loss

    def result():  # the first call's: what the weights moved by
        loss = as_numpy({"loss": call()})
        after = as_numpy(model.leaves(params_of(held[0])))
        return loss | {name: after[name] - before[name] for name in after}

    return Raced(call, result, seconds, temporaries(compiled))


def _compile(jitted: Any, *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = jitted.lower(*args).compile()
    return compiled, time.perf_counter() - start


def temporaries(compiled: Any) -> int | None:
    """What XLA reserves beside arguments and results, on all devices of the program together."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    devices = {device for s in jax.tree.leaves(compiled.input_shardings) for device in s.device_set}
    return analysis.temp_size_in_bytes * max(len(devices), 1)


def as_numpy(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same in float64, for differences that do not round."""
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}
