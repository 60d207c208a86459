"""What most experiments are made of: networks, and trainings on a task of `TASKS`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from .. import LOSSES, Batch, Params, apply, clip_gradients, init_params, make_grad_fn, zero_state
from ..initializers import identity, normal, orthogonal
from ..tasks import Task
from ..typing import GradFn
from ._training import Metrics, Training, never

TEST_KEY = 2**31  # the randomness of what is tested on: no seed draws it
Init = Callable[[Key[Array, ""]], Params]
Sizes = Mapping[str, Any]  # by name, as `init_params` or a task takes them


def orthogonal_tanh(sizes: Sizes, input_scale: float = 1.0) -> Init:
    """`W_hh` orthogonal; `W_xh` of variance `input_scale²` / fan-in."""
    return lambda key: scale_inputs(init_params(key, **sizes, recurrent_init=orthogonal()), input_scale)


def normal_tanh(sizes: Sizes, gain: float = 1.0) -> Init:
    """`W_hh` independent and normal, of variance `gain²` / hid: its spectral radius is about the gain."""
    return lambda key: init_params(key, **sizes, recurrent_init=normal(gain / sizes["hidden_size"] ** 0.5))


def irnn(sizes: Sizes, input_deviation: float = 0.001) -> Init:
    """Rectifiers, `W_hh` the identity, small `W_xh`, biases zero: Le, Jaitly and Hinton (2015), arXiv:1504.00941."""

    def init(key: Key[Array, ""]) -> Params:
        params = init_params(key, **sizes, activation="relu", recurrent_init=identity())
        return scale_inputs(params, input_deviation * sizes["input_size"] ** 0.5)

    return init


def scale_inputs(params: Params, scale: float) -> Params:
    """The weights with `W_xh` of the first layer times `scale`."""
    first, *others = params.cells
    return params._replace(cells=(dataclasses.replace(first, w_xh=scale * first.w_xh), *others))


def adam(learning_rate: float, max_norm: float | None = None) -> optax.GradientTransformation:
    """Adam on gradients that are clipped by norm."""
    return optax.chain(clip_gradients(max_norm=max_norm), optax.adam(learning_rate))


def sizes_of(task: Task, sizes: Sizes, hidden_size: int) -> dict[str, Any]:
    """The sizes of a network for a task, as `init_params` takes them; sizes that are not given are the task's own."""
    sizes = {**task.sizes, **sizes}
    return {
        "input_size": task.input_size(**sizes),
        "hidden_size": hidden_size,
        "output_size": task.output_size(**sizes),
    }


def measures(loss: str, params: Params, batch: Batch) -> Metrics:
    """Loss and, of classes, the share of right answers; in forward mode alone, over the steps that are read."""
    ys, _ = apply(params, zero_state(params, *batch.inputs.shape[1:][:1]), batch.inputs, last=batch.targets.shape[0])
    values, _ = LOSSES[loss](ys, batch.targets)
    found = {"loss": jnp.mean(values)}
    if loss == "cross_entropy":
        found["accuracy"] = jnp.mean(jnp.argmax(ys, -1) == batch.targets)
    return found


def on_task(
    task: Task,
    sizes: Sizes,
    init: Init,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    eval_every: int,
    batch_size: int,
    grad_fn: GradFn | None = None,
    num_tested: int = 500,
    more: Callable[[Params, Batch], Metrics] = lambda params, batch: {},
    solved: Callable[[Metrics], Array] = never,
    **options: Any,
) -> Training:
    """A training on new sequences of a task at every step, tested on `num_tested` that are always the same.

    Of a task whose sequences are pieces of one text, these are not new to the network: make a `Training` of your own.
    `more` adds to what is measured of the tested sequences; `options` are those of `Training`.
    """
    sizes = {**task.sizes, **sizes}

    def evaluate(params: Params) -> Metrics:
        tested = task.make(jax.random.key(TEST_KEY), num_sequences=num_tested, **sizes)
        return measures(task.loss, params, tested) | more(params, tested)

    return Training(
        init=init,
        batch=lambda key, step: task.make(key, num_sequences=batch_size, **sizes),
        grad_fn=grad_fn or make_grad_fn("blocked", loss=task.loss),
        optimizer=optimizer,
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=eval_every,
        chance=task.chance(**sizes),
        solved=solved,
        **options,
    )
