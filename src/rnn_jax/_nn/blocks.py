"""How many steps a block has whose products are made at once."""

import math
from collections.abc import Sequence

from .._require import are_numbers

ROWS = 1024  # steps times sequences in the products of a block: enough for their speed, few enough for the cache
SEQUENCES = 16  # of a batch whose size is a symbol


def rows_block(time: int, batch_axes: Sequence[int]) -> int:
    """Steps in a block of about `ROWS` rows; all, if their number is a symbol."""
    return even(time, ROWS // num_sequences(batch_axes)) if are_numbers(time) else time


def num_sequences(batch_axes: Sequence[int]) -> int:
    """How many sequences a batch has; a guess if that is a symbol."""
    return max(math.prod(batch_axes), 1) if are_numbers(*batch_axes) else SEQUENCES


def even(time: int, block: int) -> int:
    """About `block` steps, from one to `time`; a divisor of `time` if one is near, for a rest is compiled once more."""
    block = max(1, min(block, time))
    near = [size for size in range(max(1, 2 * block // 3), block * 3 // 2 + 1) if time % size == 0]
    return min(near, key=lambda size: abs(math.log(size / block)), default=block)
