"""Sequences of different lengths as one batch: padded, with a mask, or packed into rows, with resets."""

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._require import are_numbers, require_floating, require_sizes, require_storable, require_values
from .._types import Batch


def lengths_to_mask(lengths: Any, time: int) -> Bool[Array, "time *batch"]:
    """The mask of sequences that start at the first of `time` steps and are so long: `t <= length`, t = 1..T.

    `lengths` are integers `(*batch,)`, the mask is `(time, *batch)`. A sequence of length 0 has no step at all: its
    last state is its first.

    Raises:
        TypeError: unless the lengths are integers.
        ValueError: if one is known and not in 0..T.

    >>> import jax.numpy as jnp, rnn_jax
    >>> rnn_jax.data.lengths_to_mask(jnp.array([3, 0, 1]), 3).astype(int).tolist()
    [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    """
    if are_numbers(time):  # in a program exported for any length it is a symbol
        require_sizes(least=0, time=time)
    if not isinstance(lengths, jax.Array):
        lengths = np.asarray(lengths, None if np.size(lengths) else int)
        require_storable("lengths", lengths)
    lengths = jnp.asarray(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"`lengths` must be integers, got {lengths.dtype}.")
    if (
        not isinstance(lengths, jax.core.Tracer)
        and lengths.size
        and are_numbers(time)
        and not 0 <= int(lengths.min()) <= int(lengths.max()) <= time
    ):
        raise ValueError(f"`lengths` must be from 0 to the {time} steps, got {np.asarray(lengths).tolist()}.")
    mask: Array = jnp.arange(time).reshape(time, *(1,) * lengths.ndim) < lengths[None]
    return mask


class Place(NamedTuple):
    """Where a packed sequence is: steps `start .. start + length - 1`, counted from 0, of a row."""

    row: int
    start: int
    length: int


def pad_sequences(
    inputs: Sequence[Any], targets: Sequence[Any], *, time: int | None = None, dtype: Any = None
) -> tuple[Batch, list[Place]]:
    """Each sequence in a row of its own, from the first step on; the mask ends where it does.

    Arguments, result and errors are those of `pack_sequences`; `h_0` is the state each sequence starts from.
    """
    return _in_rows(inputs, targets, time, dtype, apart=True)


def pack_sequences(
    inputs: Sequence[Any], targets: Sequence[Any], *, time: int | None = None, dtype: Any = None
) -> tuple[Batch, list[Place]]:
    """Sequences one after the other in as few rows of `time` steps as are found, each behind a reset; and their places.

    `inputs[i]` are features `(length, in)` or tokens `(length,)`, `targets[i]` vectors or classes for the last steps of
    the sequence: all of them, some, or one. Loss and gradients are those of the sequences run apart from a state of
    zero: `h_0` is never read where a row holds a sequence. Rows are filled longest first, each sequence into the row
    with the least room that is enough. `time` is by default the longest length; `dtype`, that of
    `params`, is the type of features, vectors and weights: by default that of the features, of tokens JAX's default.

    Raises:
        ValueError: if the sequences do not fit each other or `time`.

    >>> import numpy as np, rnn_jax
    >>> tokens = [np.arange(n) for n in (5, 2, 3)]
    >>> batch, places = rnn_jax.data.pack_sequences(tokens, [t[-1:] for t in tokens])
    >>> batch.inputs.T.tolist()
    [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    >>> batch.reset.astype(int).T.tolist()
    [[1, 0, 0, 0, 0], [1, 0, 0, 1, 0]]
    >>> places[1]
    Place(row=1, start=3, length=2)
    """
    return _in_rows(inputs, targets, time, dtype, apart=False)


def _in_rows(
    inputs: Sequence[Any], targets: Sequence[Any], time: int | None, dtype: Any, *, apart: bool
) -> tuple[Batch, list[Place]]:
    require_values("pad_sequences" if apart else "pack_sequences", (list(inputs), list(targets)))
    xs, ys = [np.asarray(x) for x in inputs], [np.asarray(y) for y in targets]
    _check_ragged(xs, ys)
    longest = max(len(x) for x in xs)
    time = longest if time is None else time
    require_sizes(least=longest, time=time)

    if dtype is None:
        dtype = xs[0].dtype if jnp.issubdtype(xs[0].dtype, jnp.floating) else jnp.zeros(()).dtype
    require_floating("dtype", dtype)
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # float64 is float32 without `jax_enable_x64`, here without a warning
    lengths = [len(x) for x in xs]
    places = [Place(i, 0, length) for i, length in enumerate(lengths)] if apart else _packed(lengths, time)

    steps = time, 1 + max(place.row for place in places)
    rows_x = np.zeros((*steps, *xs[0].shape[1:]), xs[0].dtype)
    rows_y = np.zeros((*steps, *ys[0].shape[1:]), ys[0].dtype)
    mask, reset, read = np.zeros(steps, bool), np.zeros(steps, bool), np.zeros(steps)
    for x, y, (row, start, length) in zip(xs, ys, places, strict=True):
        end = start + length
        rows_x[start:end, row] = x
        rows_y[end - len(y) : end, row] = y
        mask[start:end, row] = True
        reset[start : min(start + 1, end), row] = True
        read[end - len(y) : end, row] = 1
    xs_in_rows, ys_in_rows, weights_in_rows = (_numbers(x, dtype) for x in (rows_x, rows_y, read))
    exists, restarts = jnp.asarray(mask), None if apart else jnp.asarray(reset)
    return Batch(xs_in_rows, ys_in_rows, weights_in_rows, exists, restarts), places


def _numbers(x: np.ndarray, dtype: Any) -> Array:
    """Integers as they are, real numbers in `dtype`."""
    return jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None)


def _packed(lengths: list[int], time: int) -> list[Place]:
    """Best fit, the longest first."""
    places = [Place(0, 0, 0)] * len(lengths)
    rooms: list[tuple[int, int]] = []  # (room, row), sorted
    num_rows = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect.bisect_left(rooms, (lengths[i], 0))
        if at == len(rooms):
            room, row, num_rows = time, num_rows, num_rows + 1
        else:
            room, row = rooms.pop(at)
        places[i] = Place(row, time - room, lengths[i])
        bisect.insort(rooms, (room - lengths[i], row))
    return places


def _check_ragged(xs: list[np.ndarray], ys: list[np.ndarray]) -> None:
    if not xs or len(xs) != len(ys):
        raise ValueError(f"`inputs` and `targets` must be as many, and at least one, got {len(xs)} and {len(ys)}.")
    for name, arrays in (("inputs", xs), ("targets", ys)):
        for i, x in enumerate(arrays):
            if x.ndim == 0 or x.shape[1:] != arrays[0].shape[1:] or x.dtype != arrays[0].dtype:
                raise ValueError(
                    f"`{name}` must be of one dtype and shape but for their lengths, got {arrays[0].dtype}"
                    f"{arrays[0].shape} and, at {i}, {x.dtype}{x.shape}."
                )
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        require_storable(f"inputs[{i}]", x)
        require_storable(f"targets[{i}]", y)
        if len(y) > len(x):
            raise ValueError(
                f"`targets` must be at most as long as their sequence, got {len(y)} for {len(x)} steps at {i}."
            )
