"""How many steps a block has: their products are computed together."""

import math
from collections.abc import Sequence

from .._require import are_numbers

ROWS = 1024  # steps × sequences of a block: enough for fast products, but not too many for the cache
SEQUENCES = 16  # assumed for a batch whose size is a symbol


def rows_block(time: int, batch_axes: Sequence[int]) -> int:
    """The number of steps of a block of about `ROWS` rows; all steps if their number is a symbol."""
    return even(time, ROWS // num_sequences(batch_axes)) if are_numbers(time) else time


def num_sequences(batch_axes: Sequence[int]) -> int:
    """The number of sequences of a batch; a guess if it is a symbol."""
    return max(math.prod(batch_axes), 1) if are_numbers(*batch_axes) else SEQUENCES


def even(time: int, block: int) -> int:
    """About `block` steps, from 1 to `time`: a divisor of `time` if one is near, to save compiling a remainder."""
    block = max(1, min(block, time))
    near = [size for size in range(max(1, 2 * block // 3), block * 3 // 2 + 1) if time % size == 0]
    return min(near, key=lambda size: abs(math.log(size / block)), default=block)
