"""Tasks that ask for memory: what was seen long ago is needed now."""

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
    """Add the two marked of `time` numbers: the adding problem.

    Each step has a number, uniform on [0, 1), and a marker, 1 at one random step of the first half and at one of the
    second, else 0. The target at the last step is the sum of the marked two. Saying 1 always has an error of 1/6.

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
    """Say ten symbols again after `delay` steps: the copying memory problem, `delay + 20` steps long.

    Tokens: ten of 0..7, `delay - 1` blanks (8), a sign (9), ten blanks. Targets: blanks, and in the last ten steps the
    symbols. Who remembers nothing says blanks and guesses at the end: 10 ln 8 / (delay + 20).

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
    """Of random bits say `x_{t-d} XOR x_{t-d/2}`, d = `delay`, from step d + 1 on. Neither bit alone tells anything.

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
    """Which of four orders, XX, XY, YX, YY, two signs had among distractors.

    Tokens: 4 at the first step, 5 at the last, 6 and 7 (X and Y) at one random step of the second tenth and at one of
    the sixth, elsewhere distractors 0..3. The class at the last step is `2 [first is Y] + [second is Y]`.

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
    """Say at the last step which of two symbols, 0 or 1, the first was; after it come others, 2 and above.

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
    """Remember for each of some bits whether its last pulse was 1 or -1.

    Each bit has a pulse at the first step, and later at one step of ten on average. The targets are the last pulses.

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
