"""Gradient flossing of initial weights, and at intervals during training: Engelken (2023), arXiv:2312.17306."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Key

from .. import Params, zero_state
from ..dynamics import flossing
from ._parts import Init

Floss = Callable[[Params, Key[Array, ""]], Params]
FLOSS_LENGTH, FLOSS_NUM, FLOSS_SKIP, FLOSS_RATE = 60, 48, 10, 3e-3  # of the experiments


def floss(
    inputs: Callable[[Key[Array, ""]], Array],
    num_steps: int,
    *,
    num: int = FLOSS_NUM,
    skip: int = FLOSS_SKIP,
    rate: float = FLOSS_RATE,
) -> Floss:
    """Make the function that brings the leading Lyapunov exponents of a network to zero.

    Args:
        inputs: `inputs(key)` draws one sequence: numbers (time, 1, in), or tokens (time, 1).
        num_steps: the number of steps of Adam, each along a new sequence.
        num: the number of exponents.
        skip: the number of time steps at the start of a sequence that are not counted.
        rate: the learning rate of Adam.

    Returns:
        `floss(params, key) -> Params`.
    """
    optimizer = optax.adam(rate)

    def penalty(params: Params, key: Key[Array, ""]) -> Array:
        qkey, xkey = jax.random.split(key)
        xs = inputs(xkey)
        return flossing(qkey, params, zero_state(params, 1), xs, num=num, skip=skip)

    def step(carry: tuple[Params, optax.OptState], key: Array) -> tuple[tuple[Params, optax.OptState], None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(penalty)(params, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    def flossed_params(params: Params, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, num_steps)
        return lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return flossed_params


def flossed(init: Init, by: Floss) -> Init:
    """A start whose leading Lyapunov exponents are brought to zero.

    Args:
        init: `init(key) -> Params`, the start before flossing.
        by: the change, from `floss`.

    Returns:
        A function of a key, as `init` is.
    """

    def start(key: Key[Array, ""]) -> Params:
        ikey, fkey = jax.random.split(key)
        return by(init(ikey), fkey)

    return start


def flossed_at_intervals(
    optimizer: optax.GradientTransformation, by: Floss, every: int
) -> optax.GradientTransformation:
    """An optimizer that also applies `by` to the weights: after its first step, and then every `every` steps.

    The keys of `by` are made from the number of the step: they are the same for all seeds.

    Args:
        optimizer: makes the update of every step.
        by: the change, from `floss`. It gets the weights after the update of `optimizer`.
        every: the number of steps from one change to the next.

    Returns:
        An optimizer of optax.
    """

    def changes(updates: Any, count: Array, params: Any) -> tuple[Any, Array]:
        def changed() -> Any:
            after = by(optax.apply_updates(params, updates), jax.random.fold_in(jax.random.key(0), count))
            return jax.tree.map(jnp.subtract, after, params)

        return lax.cond(count % every == 0, changed, lambda: updates), count + 1

    return optax.chain(optimizer, optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), changes))
