"""Tasks that follow a rule: parity, brackets, counting, a sine wave."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from .._require import require_sizes
from .._types import Batch
from ._task import check_draw, entropy


def parity(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """Whether the number of ones so far is odd, at every step.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 1.

    Returns:
        Inputs, random bits as tokens (time, N), and targets, classes (time, N).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.
    """
    check_draw(key, num_sequences)
    require_sizes(time=time)
    bits = jax.random.randint(key, (time, num_sequences), 0, 2)
    return Batch(bits, jnp.cumsum(bits, 0) % 2)


def dyck(key: Key[Array, ""], *, num_sequences: int, time: int, num_kinds: int = 2, max_depth: int = 4) -> Batch:
    """Which bracket must be closed next, in words of balanced brackets.

    Token k opens a bracket of kind k, token `num_kinds + k` closes it. The class at each step is the kind of the
    innermost open bracket, or `num_kinds` if none is open. Where a word may both open and close a bracket, each has
    probability one half.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the length of a word, even and at least 2.
        num_kinds: the number of kinds of brackets, at least 1.
        max_depth: the largest number of brackets open at the same time, at least 1.

    Returns:
        Inputs and targets, tokens and classes (time, N).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.
    """
    check_draw(key, num_sequences)
    require_sizes(least=2, time=time)
    require_sizes(num_kinds=num_kinds, max_depth=max_depth)
    if time % 2:
        raise ValueError(f"`time` must be even, got {time}.")
    okey, kkey = jax.random.split(key)
    coins = jax.random.bernoulli(okey, 0.5, (time, num_sequences))
    kinds = jax.random.randint(kkey, (time, num_sequences), 0, num_kinds)
    level = jnp.arange(max_depth)[:, None]

    def body(carry: tuple[Array, Array], now: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        depth, stack = carry
        coin, kind, left = now
        opens = (depth == 0) | (coin & (depth < max_depth) & (depth < left))
        top = jnp.sum(jnp.where(level == depth[None] - 1, stack, 0), 0)
        token = jnp.where(opens, kind, num_kinds + top)
        stack = jnp.where((level == depth[None]) & opens[None], kind[None], stack)
        depth = jnp.where(opens, depth + 1, depth - 1)
        top = jnp.sum(jnp.where(level == depth[None] - 1, stack, 0), 0)
        return (depth, stack), (token, jnp.where(depth == 0, num_kinds, top))

    start = jnp.zeros(num_sequences, kinds.dtype), jnp.zeros((max_depth, num_sequences), kinds.dtype)
    left = jnp.arange(time, 0, -1, dtype=kinds.dtype)
    _, (tokens, targets) = lax.scan(body, start, (coins, kinds, left))
    return Batch(tokens, targets)


def dyck_chance(*, time: int, num_kinds: int = 2, max_depth: int = 4) -> float:
    """The chance level of `dyck`: the entropy of its classes, in nats, averaged over steps.

    It follows from the probability of each depth at each step.
    """
    at_depth = np.zeros(max_depth + 1)
    at_depth[0], total = 1.0, 0.0
    for step in range(time):
        after = np.zeros(max_depth + 1)
        for depth, chance in enumerate(at_depth):
            opens = 1.0 if depth == 0 else 0.5 * (depth < max_depth and depth < time - step)
            if depth < max_depth:
                after[depth + 1] += chance * opens
            if depth > 0:
                after[depth - 1] += chance * (1 - opens)
        at_depth = after
        total += entropy(np.append(np.full(num_kinds, (1 - at_depth[0]) / num_kinds), at_depth[0]))
    return total / time


def sine(key: Key[Array, ""], *, num_sequences: int, time: int, period: int = 25) -> Batch:
    """Predict the next step of a sine wave, from a random phase.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 1.
        period: the period of the wave in steps, at least 2.

    Returns:
        Inputs and targets, both (time, N, 1). The targets are one step ahead.

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.
    """
    check_draw(key, num_sequences)
    require_sizes(time=time)
    require_sizes(least=2, period=period)
    phases = jax.random.uniform(key, (num_sequences,))
    t = jnp.arange(time + 1, dtype=phases.dtype)[:, None] / period
    wave = jnp.sin(2 * jnp.pi * (t + phases[None]))[..., None]
    return Batch(wave[:-1], wave[1:])


def counting(key: Key[Array, ""], *, num_sequences: int, time: int, most: int = 1) -> Batch:
    """Continue to count: predict the next number of `s, s + 1, …`, with a random start s.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 1.
        most: the largest start: s is uniform on 1..`most`. With 1, all sequences are 1, 2, 3, …

    Returns:
        Inputs and targets, both (time, N, 1). The targets are one step ahead.

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.
    """
    check_draw(key, num_sequences)
    require_sizes(time=time, most=most)
    starts = jax.random.randint(key, (num_sequences,), 1, most + 1).astype(float)
    numbers = starts[None, :, None] + jnp.arange(time + 1, dtype=starts.dtype)[:, None, None]
    return Batch(numbers[:-1], numbers[1:])
