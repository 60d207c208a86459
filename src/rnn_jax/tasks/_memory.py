"""Tasks that need memory: the targets depend on inputs of many steps ago."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from .._require import require_sizes
from .._types import Batch
from ._task import check_draw

COPIED, COPY_SYMBOLS = 10, 8
DISTRACTORS = 4


def adding(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """The adding problem: add the two marked numbers of a sequence.

    Each step has a number, uniform on [0, 1), and a marker. The marker is 1 at one random step of the first half and at
    one of the second, otherwise 0. The target is the sum of the two marked numbers. An answer of 1 has a mean squared
    error of 1/6.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 2.

    Returns:
        Inputs (time, N, 2), number and marker, and targets (1, N, 1).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Hochreiter and Schmidhuber (1997), Neural Computation 9(8), experiment 4; in this form, one mark in each
    half, Arjovsky, Shah and Bengio (2016), ICML, arXiv:1511.06464.
    """
    check_draw(key, num_sequences)
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
    """The copying memory problem: repeat ten symbols after `delay` steps.

    The inputs are ten symbols of 0..7, `delay - 1` blanks (8), a sign (9) and ten blanks. The targets are blanks, and
    in the last ten steps the symbols. Without memory, the best answer is blanks and a guess in the last ten steps: a
    loss of 10 ln 8 / (delay + 20).

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        delay: the number of steps between the symbols and their repetition, at least 1.

    Returns:
        Inputs and targets, tokens and classes (delay + 20, N).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Arjovsky, Shah and Bengio (2016), ICML, arXiv:1511.06464, who follow Hochreiter and Schmidhuber (1997).
    """
    check_draw(key, num_sequences)
    require_sizes(delay=delay)
    symbols = jax.random.randint(key, (COPIED, num_sequences), 0, COPY_SYMBOLS)
    blank, sign = COPY_SYMBOLS, COPY_SYMBOLS + 1

    def steps(count: int, token: int) -> Array:
        return jnp.full((count, num_sequences), token, symbols.dtype)

    inputs = jnp.concatenate([symbols, steps(delay - 1, blank), steps(1, sign), steps(COPIED, blank)])
    return Batch(inputs, jnp.concatenate([steps(delay + COPIED, blank), symbols]))


def delayed_xor(key: Key[Array, ""], *, num_sequences: int, time: int, delay: int) -> Batch:
    """The XOR of two earlier bits, `x_{t-d} XOR x_{t-d/2}` with d = `delay`. One bit alone tells nothing about it.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least `delay + 1`.
        delay: the lag d of the earlier bit, even and at least 2.

    Returns:
        Inputs, random bits as tokens (time, N), and targets, classes (time - delay, N), from step d + 1 on.

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Engelken (2023), NeurIPS, arXiv:2312.17306.
    """
    check_draw(key, num_sequences)
    require_sizes(least=2, delay=delay)
    if delay % 2:
        raise ValueError(f"`delay` must be even, got {delay}.")
    require_sizes(least=delay + 1, time=time)
    bits = jax.random.randint(key, (time, num_sequences), 0, 2)
    return Batch(bits, bits[: time - delay] ^ bits[delay // 2 : time - delay // 2])


def temporal_order(key: Key[Array, ""], *, num_sequences: int, time: int) -> Batch:
    """The order of two signs among distractors: XX, XY, YX or YY.

    The tokens are 4 at the first step, 5 at the last, 6 or 7 (X or Y) at one random step of the second tenth and at one
    of the sixth, and distractors 0..3 elsewhere. The class is `2 [first is Y] + [second is Y]`.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 10.

    Returns:
        Inputs, tokens (time, N), and targets, classes (1, N).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Hochreiter and Schmidhuber (1997), experiment 6a, its positions in tenths of the length.
    """
    check_draw(key, num_sequences)
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
    """Remember the first symbol, 0 or 1, to the last step. All other symbols are 2 or above.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 2.
        num_symbols: the number of different symbols, at least 3.

    Returns:
        Inputs, tokens (time, N), and targets, classes (1, N).

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Hochreiter and Schmidhuber (1997), experiment 2b, with its one predictable symbol as the only target;
    the name and the 100 symbols are those of Martens and Sutskever (2011), ICML.
    """
    check_draw(key, num_sequences)
    require_sizes(least=2, time=time)
    require_sizes(least=3, num_symbols=num_symbols)
    fkey, rkey = jax.random.split(key)
    first = jax.random.randint(fkey, (1, num_sequences), 0, 2)
    rest = jax.random.randint(rkey, (time - 1, num_sequences), 2, num_symbols)
    return Batch(jnp.concatenate([first, rest]), first)


def flip_flop(key: Key[Array, ""], *, num_sequences: int, time: int, num_bits: int = 3) -> Batch:
    """Remember the last pulse of each bit, 1 or -1.

    Each bit has a pulse at the first step, and later at one step of ten on average. Without a pulse its input is 0.

    Args:
        key: the randomness of the draw.
        num_sequences: the number of sequences, N.
        time: the number of steps, at least 1.
        num_bits: the number of bits, at least 1.

    Returns:
        Inputs and targets, both (time, N, num_bits). The targets are the last pulses.

    Raises:
        ValueError: for a size out of range.
        TypeError: for a size that is not an integer, or a `key` that is not a key of JAX.

    References: Sussillo and Barak (2013), Neural Computation 25(3).
    """
    check_draw(key, num_sequences)
    require_sizes(time=time, num_bits=num_bits)
    pkey, skey = jax.random.split(key)
    shape = (time, num_sequences, num_bits)
    pulse = jax.random.bernoulli(pkey, 0.1, shape).at[0].set(True)
    inputs = jnp.where(pulse, jax.random.rademacher(skey, shape, float), 0)

    def body(last: Array, x_t: Array) -> tuple[Array, Array]:
        last = jnp.where(x_t == 0, last, x_t)
        return last, last

    return Batch(inputs, lax.scan(body, inputs[0], inputs)[1])
