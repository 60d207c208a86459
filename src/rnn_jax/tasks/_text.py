"""Pieces of a text, in which each next symbol is predicted."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .._require import require_sizes
from .._types import Batch
from ..data._text import encode, symbols_of
from ._task import CROSS_ENTROPY, Task, always, check_draw, entropy


def text_task(text: str) -> tuple[str, Task]:
    """Make a task of a text: predict each next symbol of pieces from random places.

    Each piece has `time` symbols. The chance level is the entropy, in nats, of the symbols that a step may have,
    averaged over steps. For a text much longer than its pieces, this is the entropy of the whole text.

    Args:
        text: at least two symbols.

    Returns:
        `(symbols, task)`: the vocabulary, for `encode` and `decode`, and the task, whose batches have inputs and
        targets (time, num_sequences).

    Raises:
        ValueError: for a text of less than two symbols. `make` and `chance` raise it unless `time` is below the length
            of the text.

    >>> import jax, rnn_jax
    >>> symbols, task = rnn_jax.tasks.text_task("hello world")
    >>> batch = task.make(jax.random.key(0), num_sequences=1, time=10)
    >>> rnn_jax.data.decode(symbols, batch.inputs[:, 0]), rnn_jax.data.decode(symbols, batch.targets[:, 0])
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
        check_draw(key, num_sequences)
        starts = jax.random.randint(key, (num_sequences,), 0, num_starts(time))
        pieces = jnp.asarray(tokens)[starts[None] + jnp.arange(time + 1)[:, None]]
        return Batch(pieces[:-1], pieces[1:])

    def chance(*, time: int) -> float:
        num, total = num_starts(time), 0.0
        counts = np.bincount(tokens[:num], minlength=len(symbols))  # how often each symbol is read by the first step
        for left, entered in zip(tokens[:time], tokens[num:], strict=True):  # from one step to its targets
            counts[left] -= 1
            counts[entered] += 1
            total += entropy(counts / num)
        return total / time

    size = always(len(symbols))
    return symbols, Task(make, CROSS_ENTROPY, size, size, chance, {"time": min(50, len(tokens) - 1)})
