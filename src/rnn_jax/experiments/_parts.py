"""Parts that many experiments share: initial weights, and trainings on a task of `TASKS`."""

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

TEST_KEY = 2**31  # the seed of the test sequences; no training uses it
Init = Callable[[Key[Array, ""]], Params]
Sizes = Mapping[str, Any]  # by name, as `init_params` or a task takes them


def orthogonal_tanh(sizes: Sizes, input_scale: float = 1.0) -> Init:
    """Initial weights of a tanh network: `W_hh` orthogonal, `W_xh` of variance `input_scale²` / in.

    Args:
        sizes: `input_size`, `hidden_size` and `output_size`, from `sizes_of`.
        input_scale: what `W_xh` of the first layer is multiplied by.

    Returns:
        `init(key) -> Params`, which raises as `init_params` does.
    """
    return lambda key: scale_inputs(init_params(key, **sizes, recurrent_init=orthogonal()), input_scale)


def normal_tanh(sizes: Sizes, gain: float = 1.0) -> Init:
    """Initial weights of a tanh network: the entries of `W_hh` are normal, with variance `gain²` / hid.

    Args:
        sizes: `input_size`, `hidden_size` and `output_size`, from `sizes_of`.
        gain: about the spectral radius of `W_hh`.

    Returns:
        `init(key) -> Params`, which raises as `init_params` does.
    """
    return lambda key: init_params(key, **sizes, recurrent_init=normal(gain / sizes["hidden_size"] ** 0.5))


def irnn(sizes: Sizes, input_deviation: float = 0.001) -> Init:
    """Initial weights of an IRNN: relu units, `W_hh` the identity, small `W_xh`, biases zero.

    See Le, Jaitly and Hinton (2015), arXiv:1504.00941.

    Args:
        sizes: `input_size`, `hidden_size` and `output_size`, from `sizes_of`.
        input_deviation: the standard deviation of `W_xh`.

    Returns:
        `init(key) -> Params`, which raises as `init_params` does.
    """

    def init(key: Key[Array, ""]) -> Params:
        params = init_params(key, **sizes, activation="relu", recurrent_init=identity())
        return scale_inputs(params, input_deviation * sizes["input_size"] ** 0.5)

    return init


def scale_inputs(params: Params, scale: float) -> Params:
    """The parameters, with `W_xh` of the first layer multiplied by `scale`."""
    first, *others = params.cells
    return params._replace(cells=(dataclasses.replace(first, w_xh=scale * first.w_xh), *others))


def adam(learning_rate: float, max_norm: float | None = None) -> optax.GradientTransformation:
    """Adam on gradients that are clipped by norm."""
    return optax.chain(clip_gradients(max_norm=max_norm), optax.adam(learning_rate))


def sizes_of(task: Task, sizes: Sizes, hidden_size: int) -> dict[str, Any]:
    """The sizes of a network for a task, as `init_params` takes them.

    Args:
        task: a task, such as `TASKS["adding"]`.
        sizes: sizes of the task by name, such as `{"time": 100}`. The task's defaults are used for the others.
        hidden_size: the number of units.

    Returns:
        `{"input_size": in, "hidden_size": hid, "output_size": out}`, not checked: `init_params` does that.
    """
    sizes = {**task.sizes, **sizes}
    return {
        "input_size": task.input_size(**sizes),
        "hidden_size": hidden_size,
        "output_size": task.output_size(**sizes),
    }


def measures(loss: str, params: Params, batch: Batch) -> Metrics:
    """The loss and, for classes, the share of right answers, over the steps that have targets. Runs only forward."""
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
    """A training on new sequences of a task at every step, tested on a fixed batch of sequences.

    If the sequences of the task are pieces of one text, the tested ones are not new to the network: make a `Training`
    yourself.

    Args:
        task: a task, such as `TASKS["adding"]`.
        sizes: sizes of the task by name, such as `{"time": 100}`. The task's defaults are used for the others.
        init: `init(key) -> Params` draws the initial weights.
        optimizer: an optimizer of optax.
        num_steps: the number of updates, a multiple of `eval_every`.
        eval_every: the number of updates from one evaluation to the next.
        batch_size: the number of sequences per update.
        grad_fn: computes the loss and the gradient; None means `make_grad_fn("blocked", loss=task.loss)`.
        num_tested: the number of sequences in the tested batch.
        more: `more(params, batch) -> {name: number}` returns more metrics of the tested batch.
        solved: `solved(metrics) -> bool`, as in `Training`.
        options: other fields of `Training`: `keep_state`, `float64`, `show`, `facts`.

    Returns:
        The training. It measures the "loss" and, for classes, the "accuracy" (the share of right answers).

    Raises:
        TypeError: if an option is not a field of `Training`. The task checks the sizes later, when it makes a batch.
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
