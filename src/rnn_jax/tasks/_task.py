"""What a task is.

A task has a function that draws a `Batch` of independent sequences, the loss it is meant for, the sizes of inputs and
outputs, and its chance level: the mean loss of the best answer that reads no input. That answer may depend on the
step.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from .._require import require_key, require_sizes
from .._types import Batch

CROSS_ENTROPY, SQUARED_ERROR = "cross_entropy", "squared_error"
LN_2, LN_4 = math.log(2), math.log(4)


class Task(NamedTuple):
    """A task: a function that draws a batch, and what a network needs for it.

    `make`         `make(key, num_sequences=..., **sizes) -> Batch`.
    `loss`         the name of the loss it is meant for.
    `input_size`   `input_size(**sizes)`: the number of features of an input, or of different tokens.
    `output_size`  `output_size(**sizes)`: the number of outputs, or of classes.
    `chance`       `chance(**sizes)`: the mean loss of the best answer that reads no input.
    `sizes`        all sizes that these functions take, with a value to begin with. Always pass all of them:
                   `**task.sizes`, or your own values.
    """

    make: Callable[..., Batch]
    loss: str
    input_size: Callable[..., int]
    output_size: Callable[..., int]
    chance: Callable[..., float]
    sizes: dict[str, int]


def entropy(shares: np.ndarray) -> float:
    """The entropy `-Σ p ln p`, in nats."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def check_draw(key: Key[Array, ""], num_sequences: int) -> None:
    """Raise unless a task can be drawn from these."""
    require_key(key)
    require_sizes(num_sequences=num_sequences)


def always(number: Any) -> Callable[..., Any]:
    """A function that returns `number` for all sizes."""
    return lambda **sizes: number
