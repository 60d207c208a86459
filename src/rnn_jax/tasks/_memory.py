"""The tasks that recurrent networks are judged by, as pure functions of a key and sizes.

Each returns a `Batch` of `num_sequences` independent sequences. `TASKS` has with each the loss it is meant for, the
sizes of inputs and outputs, and its chance level: the mean loss of the best answer that looks at no input. Such an
answer may know the step: it is the best table of one answer for each step.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from .._require import require_key, require_sizes
from .._types import Batch
from ..data._text import encode, symbols_of

COPIED, COPY_SYMBOLS = 10, 8
DISTRACTORS = 4


class Task(NamedTuple):
    """`make(key, num_sequences=..., **sizes) -> Batch`; the other functions take the same `sizes` and return a number.

    `sizes` are defaults, and all that `make` knows.
    """

    make: Callable[..., Batch]
    loss: str
    input_size: Callable[..., int]
    output_size: Callable[..., int]
    chance: Callable[..., float]
    sizes: dict[str, int]


def adding(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """Add the two marked of `time` numbers: the adding problem.

    Each step has a number, uniform on [0, 1), and a marker, 1 at one random step of the first half and at one of the
    second, else 0. The target at the last step is the sum of the marked two. Saying 1 always has an error of 1/6.

    References: Hochreiter and Schmidhuber (1997), Neural Computation 9(8), experiment 4; in this form, one mark in each
    half, Arjovsky, Shah and Bengio (2016), ICML, arXiv:1511.06464.
    """
    _check(key, num_sequences)
    require_sizes(least=2, time=time)
    vkey, fkey, skey = jax.random.split(key, 3)
    values = jax.random.uniform(vkey, (time, num_sequences))
    first = jax.random.randint(fkey, (num_sequences,), 0, time // 2)
    second = jax.random.randint(skey, (num_sequences,), time // 2, time)
    t = jnp.arange(time)[:, None]
    marked = (t == first[None]) | (t == second[None])
    total = jnp.sum(jnp.where(marked, values, 0), 0)
    return Batch(jnp.stack([values, marked.astype(values.dtype)], -1), total[None, :, None])


def copying(key: Key[Array, ""], *, num_sequences: int, delay: int) -> Batch:
    """Say ten symbols again after `delay` steps: the copying memory problem, `delay + 20` steps long.

    Tokens: ten of 0..7, `delay - 1` blanks (8), a sign (9), ten blanks. Targets: blanks, and in the last ten steps the
    symbols. Who remembers nothing says blanks and guesses at the end: 10 ln 8 / (delay + 20).

    References: Arjovsky, Shah and Bengio (2016), ICML, arXiv:1511.06464, who follow Hochreiter and Schmidhuber (1997).
    """
    _check(key, num_sequences)
    require_sizes(delay=delay)
    symbols = jax.random.randint(key, (COPIED, num_sequences), 0, COPY_SYMBOLS)
    blank, sign = COPY_SYMBOLS, COPY_SYMBOLS + 1

    def steps(count: int, token: int) -> Array:
        return jnp.full((count, num_sequences), token, symbols.dtype)

    inputs = jnp.concatenate([symbols, steps(delay - 1, blank), steps(1, sign), steps(COPIED, blank)])
    return Batch(inputs, jnp.concatenate([steps(delay + COPIED, blank), symbols]))


def delayed_xor(key: Key[Array, ""], *, num_sequences: int, time: int, delay: int) -> Batch:
    """Of random bits say `x_{t-d} XOR x_{t-d/2}`, d = `delay`, from step d + 1 on. Neither bit alone tells anything.

    References: Engelken (2023), NeurIPS, arXiv:2312.17306.
    """
    _check(key, num_sequences)
    require_sizes(least=2, delay=delay)
    if delay % 2:
        raise ValueError(f"`delay` must be even, got {delay}.")
    require_sizes(least=delay + 1, time=time)
    bits = jax.random.randint(key, (time, num_sequences), 0, 2)
    return Batch(bits, bits[: time - delay] ^ bits[delay // 2 : time - delay // 2])


def temporal_order(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """Which of four orders, XX, XY, YX, YY, two signs had among distractors.

    Tokens: 4 at the first step, 5 at the last, 6 and 7 (X and Y) at one random step of the second tenth and at one of
    the sixth, elsewhere distractors 0..3. The class at the last step is `2 [first is Y] + [second is Y]`.

    References: Hochreiter and Schmidhuber (1997), experiment 6a, its positions in tenths of the length.
    """
    _check(key, num_sequences)
    require_sizes(least=10, time=time)
    dkey, akey, bkey, ckey = jax.random.split(key, 4)
    tokens = jax.random.randint(dkey, (time, num_sequences), 0, DISTRACTORS)
    first = jax.random.randint(akey, (num_sequences,), time // 10, 2 * time // 10)
    second = jax.random.randint(bkey, (num_sequences,), 5 * time // 10, 6 * time // 10)
    signs = jax.random.randint(ckey, (2, num_sequences), 0, 2)
    t = jnp.arange(time)[:, None]
    begin, end, x = DISTRACTORS, DISTRACTORS + 1, DISTRACTORS + 2
    for where, sign in ((first, signs[0]), (second, signs[1])):
        tokens = jnp.where(t == where[None], (x + sign)[None], tokens)
    tokens = jnp.where(t == 0, begin, jnp.where(t == time - 1, end, tokens))
    return Batch(tokens, (2 * signs[0] + signs[1])[None])


def random_permutation(key: Key[Array, ""], *, num_sequences: int, time: int, num_symbols: int = 100) -> Batch:
    """Say at the last step which of two symbols, 0 or 1, the first was; after it come others, 2 and above.

    References: Hochreiter and Schmidhuber (1997), experiment 2b, with its one predictable symbol as the only target;
    the name and the 100 symbols are those of Martens and Sutskever (2011), ICML.
    """
    _check(key, num_sequences)
    require_sizes(least=2, time=time)
    require_sizes(least=3, num_symbols=num_symbols)
    fkey, rkey = jax.random.split(key)
    first = jax.random.randint(fkey, (1, num_sequences), 0, 2)
    rest = jax.random.randint(rkey, (time - 1, num_sequences), 2, num_symbols)
    return Batch(jnp.concatenate([first, rest]), first)


def parity(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """Whether the ones so far are odd in number, at every step."""
    _check(key, num_sequences)
    require_sizes(time=time)
    bits = jax.random.randint(key, (time, num_sequences), 0, 2)
    return Batch(bits, jnp.cumsum(bits, 0) % 2)


def flip_flop(key: Key[Array, ""], *, num_sequences: int, time: int, num_bits: int = 3) -> Batch:
    """Remember for each of some bits whether its last pulse was 1 or -1.

    Each bit has a pulse at the first step, and later at one step of ten on average. The targets are the last pulses.

    References: Sussillo and Barak (2013), Neural Computation 25(3).
    """
    _check(key, num_sequences)
    require_sizes(time=time, num_bits=num_bits)
    pkey, skey = jax.random.split(key)
    shape = (time, num_sequences, num_bits)
    pulse = jax.random.bernoulli(pkey, 0.1, shape).at[0].set(True)
    inputs = jnp.where(pulse, jax.random.rademacher(skey, shape, float), 0)

    def body(last: Array, x_t: Array) -> tuple[Array, Array]:
        last = jnp.where(x_t == 0, last, x_t)
        return last, last

    return Batch(inputs, lax.scan(body, inputs[0], inputs)[1])


def dyck(key: Key[Array, ""], *, num_sequences: int, time: int, num_kinds: int = 2, max_depth: int = 4) -> Batch:
    """Say which bracket is to be closed next: words of balanced brackets, `time` steps long, at most so deep.

    Tokens: k opens a bracket of kind k, `num_kinds + k` closes it. The class at each step is the kind of the innermost
    bracket that is open, `num_kinds` if none is. Where a word may open and close, both have probability one half.
    """
    _check(key, num_sequences)
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
    """The entropy of the classes of `dyck` at each step, the mean over steps: from the chances of each depth."""
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
        total += _entropy(np.append(np.full(num_kinds, (1 - at_depth[0]) / num_kinds), at_depth[0]))
    return total / time


def _entropy(shares: np.ndarray) -> float:
    """`-Σ p ln p`."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def sine(key: Key[Array, ""], *, num_sequences: int, time: int, period: int = 25) -> Batch:
    """A sine wave one step ahead, `period` steps long, from random phases."""
    _check(key, num_sequences)
    require_sizes(time=time)
    require_sizes(least=2, period=period)
    phases = jax.random.uniform(key, (num_sequences,))
    t = jnp.arange(time + 1, dtype=phases.dtype)[:, None] / period
    wave = jnp.sin(2 * jnp.pi * (t + phases[None]))[..., None]
    return Batch(wave[:-1], wave[1:])


def counting(key: Key[Array, ""], *, num_sequences: int, time: int, most: int = 1) -> Batch:
    """Count on: `s, s + 1, …` and each next number, s uniform on 1..`most`; with 1, the notebooks' 1, 2, 3, …"""
    _check(key, num_sequences)
    require_sizes(time=time, most=most)
    starts = jax.random.randint(key, (num_sequences,), 1, most + 1).astype(float)
    numbers = starts[None, :, None] + jnp.arange(time + 1, dtype=starts.dtype)[:, None, None]
    return Batch(numbers[:-1], numbers[1:])


def text_task(text: str) -> tuple[str, Task]:
    """`(symbols, task)`: pieces of a text from random places, `time` symbols long, each next symbol to be predicted.

    The chance level is the entropy of the symbols that a step may have, the mean over steps: for a text much longer
    than its pieces that of the whole text. `encode` and `decode` go with `symbols`.

    Raises:
        ValueError: for a text of less than two symbols; from `make` and `chance`, unless `time` is below the length of
            the text.

    >>> import jax, rnn_jax
    >>> symbols, task = rnn_jax.text_task("hello world")
    >>> batch = task.make(jax.random.key(0), num_sequences=1, time=10)
    >>> rnn_jax.decode(symbols, batch.inputs[:, 0]), rnn_jax.decode(symbols, batch.targets[:, 0])
    ('hello worl', 'ello world')
    """
    if len(text) < 2:
        raise ValueError(f"`text` must have at least 2 symbols, got {len(text)}.")
    symbols = symbols_of(text)
    tokens = encode(symbols, text)

    def num_starts(time: int) -> int:
        require_sizes(time=time)
        if time >= len(tokens):
            raise ValueError(f"`time` must be below the {len(tokens)} symbols of the text, got {time}.")
        return len(tokens) - time

    def make(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
        _check(key, num_sequences)
        starts = jax.random.randint(key, (num_sequences,), 0, num_starts(time))
        pieces = jnp.asarray(tokens)[starts[None] + jnp.arange(time + 1)[:, None]]
        return Batch(pieces[:-1], pieces[1:])

    def chance(*, time: int) -> float:
        num, total = num_starts(time), 0.0
        counts = np.bincount(tokens[:num], minlength=len(symbols))  # of what the first step reads
        for left, entered in zip(tokens[:time], tokens[num:], strict=True):  # the targets of a step are one further
            counts[left] -= 1
            counts[entered] += 1
            total += _entropy(counts / num)
        return total / time

    size = _always(len(symbols))
    return symbols, Task(make, CROSS_ENTROPY, size, size, chance, {"time": min(50, len(tokens) - 1)})


def _check(key: Key[Array, ""], num_sequences: int) -> None:
    require_key(key)
    require_sizes(num_sequences=num_sequences)


def _always(number: Any) -> Callable[..., Any]:
    return lambda **sizes: number


LN_2, LN_4 = math.log(2), math.log(4)
CROSS_ENTROPY, SQUARED_ERROR = "cross_entropy", "squared_error"
TASKS: dict[str, Task] = {
    "adding": Task(adding, SQUARED_ERROR, _always(2), _always(1), _always(1 / 6), {"time": 50}),
    "copying": Task(
        copying,
        CROSS_ENTROPY,
        _always(COPY_SYMBOLS + 2),
        _always(COPY_SYMBOLS + 1),
        lambda *, delay: COPIED * math.log(COPY_SYMBOLS) / (delay + 2 * COPIED),
        {"delay": 50},
    ),
    "delayed_xor": Task(delayed_xor, CROSS_ENTROPY, _always(2), _always(2), _always(LN_2), {"time": 20, "delay": 10}),
    "temporal_order": Task(
        temporal_order, CROSS_ENTROPY, _always(DISTRACTORS + 4), _always(4), _always(LN_4), {"time": 50}
    ),
    "random_permutation": Task(
        random_permutation,
        CROSS_ENTROPY,
        lambda *, num_symbols, **sizes: num_symbols,
        _always(2),
        _always(LN_2),
        {"time": 50, "num_symbols": 100},
    ),
    "parity": Task(parity, CROSS_ENTROPY, _always(2), _always(2), _always(LN_2), {"time": 20}),
    "flip_flop": Task(
        flip_flop,
        SQUARED_ERROR,
        lambda *, num_bits, **sizes: num_bits,
        lambda *, num_bits, **sizes: num_bits,
        lambda *, num_bits, **sizes: float(num_bits),
        {"time": 50, "num_bits": 3},
    ),
    "dyck": Task(
        dyck,
        CROSS_ENTROPY,
        lambda *, num_kinds, **sizes: 2 * num_kinds,
        lambda *, num_kinds, **sizes: num_kinds + 1,
        dyck_chance,
        {"time": 20, "num_kinds": 2, "max_depth": 4},
    ),
    "counting": Task(
        counting,
        SQUARED_ERROR,
        _always(1),
        _always(1),
        lambda *, most, **sizes: (most**2 - 1) / 12,
        {"time": 10, "most": 10},
    ),
    "sine": Task(sine, SQUARED_ERROR, _always(1), _always(1), _always(0.5), {"time": 50, "period": 25}),
}
