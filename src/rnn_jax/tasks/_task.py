"""What a task is.

`make` returns a `Batch` of `num_sequences` independent sequences. With it come the loss it is meant for, the sizes of
inputs and outputs, and its chance level: the mean loss of the best answer that looks at no input. Such an answer may
know the step: it is the best table of one answer for each step.
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
    """`make(key, num_sequences=..., **sizes) -> Batch`; the other functions take the same `sizes` and return a number.

    `sizes` are all that `make` knows, with values to begin with; none has a default: pass `**task.sizes`, or your own.
    """

    make: Callable[..., Batch]
    loss: str
    input_size: Callable[..., int]
    output_size: Callable[..., int]
    chance: Callable[..., float]
    sizes: dict[str, int]


def entropy(shares: np.ndarray) -> float:
    """`-Σ p ln p`."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def check_draw(key: Key[Array, ""], num_sequences: int) -> None:
    """Raise unless a task can be drawn from these."""
    require_key(key)
    require_sizes(num_sequences=num_sequences)


def always(number: Any) -> Callable[..., Any]:
    """What is the same for all sizes."""
    return lambda **sizes: number
