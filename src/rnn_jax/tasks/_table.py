"""All tasks by name."""

import math

from ._memory import (
    COPIED,
    COPY_SYMBOLS,
    DISTRACTORS,
    adding,
    copying,
    delayed_xor,
    flip_flop,
    random_permutation,
    temporal_order,
)
from ._sequence import counting, dyck, dyck_chance, parity, sine
from ._task import CROSS_ENTROPY, LN_2, LN_4, SQUARED_ERROR, Task, always

TASKS: dict[str, Task] = {
    "adding": Task(adding, SQUARED_ERROR, always(2), always(1), always(1 / 6), {"time": 50}),
    "copying": Task(
        copying,
        CROSS_ENTROPY,
        always(COPY_SYMBOLS + 2),
        always(COPY_SYMBOLS + 1),
        lambda *, delay: COPIED * math.log(COPY_SYMBOLS) / (delay + 2 * COPIED),
        {"delay": 50},
    ),
    "delayed_xor": Task(delayed_xor, CROSS_ENTROPY, always(2), always(2), always(LN_2), {"time": 20, "delay": 10}),
    "temporal_order": Task(
        temporal_order, CROSS_ENTROPY, always(DISTRACTORS + 4), always(4), always(LN_4), {"time": 50}
    ),
    "random_permutation": Task(
        random_permutation,
        CROSS_ENTROPY,
        lambda *, num_symbols, **sizes: num_symbols,
        always(2),
        always(LN_2),
        {"time": 50, "num_symbols": 100},
    ),
    "parity": Task(parity, CROSS_ENTROPY, always(2), always(2), always(LN_2), {"time": 20}),
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
        always(1),
        always(1),
        lambda *, most, **sizes: (most**2 - 1) / 12,
        {"time": 10, "most": 10},
    ),
    "sine": Task(sine, SQUARED_ERROR, always(1), always(1), always(0.5), {"time": 50, "period": 25}),
}
