"""Sequences of different lengths as one batch: padded, with a mask, or packed into rows, with resets."""

import bisect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._require import are_numbers, require_floating, require_sizes, require_storable, require_values
from .._types import Batch


def lengths_to_mask(lengths: Any, time: int) -> Bool[Array, "time *batch"]:
    """The mask of sequences that start at the first step and have the given lengths.

    Args:
        lengths: integers (*batch,), the number of steps of each sequence. A sequence of length 0 has no step, so its
            last state is its initial state.
        time: the number of steps of the mask, T.

    Returns:
        Booleans (time, *batch): step t = 1..T exists if `t <= length`.

    Raises:
        TypeError: unless the lengths are integers.
        ValueError: if a length is known and not in 0..T.

    >>> import jax.numpy as jnp, rnn_jax
    >>> rnn_jax.data.lengths_to_mask(jnp.array([3, 0, 1]), 3).astype(int).tolist()
    [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    """
    if are_numbers(time):  # it is a symbol in a program exported for any length
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
    """Where a packed sequence is: the steps `start .. start + length - 1` of a row, counted from 0."""

    row: int
    start: int
    length: int


def pad_sequences(
    inputs: Iterable[Any],
    targets: Iterable[Any] | None = None,
    *,
    weights: Iterable[Any] | None = None,
    mask: Iterable[Any] | None = None,
    time: int | None = None,
    dtype: Any = None,
) -> tuple[Batch, list[Place]]:
    """Put each sequence into its own row, from the first step on. The mask is false after its end.

    Each sequence starts from its own row of `h_0`; there are no resets.

    Args:
        inputs, targets, weights, mask, time, dtype: as in `pack_sequences`.

    Returns:
        `(batch, places)` as in `pack_sequences`: sequence `i` is in row `i`.

    Raises:
        ValueError: if the sequences do not fit each other or `time`.
        TypeError: for weights that are not real numbers, or a mask that is not booleans.

    >>> import numpy as np, rnn_jax
    >>> tokens = [np.arange(n) for n in (3, 2)]
    >>> batch, places = rnn_jax.data.pad_sequences(tokens, [t[-1:] for t in tokens])
    >>> batch.inputs.T.tolist(), batch.mask.astype(int).T.tolist()
    ([[0, 1, 2], [0, 1, 0]], [[1, 1, 1], [1, 1, 0]])
    """
    return _batch_of((inputs, targets, weights, mask), time, dtype, apart=True)


def pack_sequences(
    inputs: Iterable[Any],
    targets: Iterable[Any] | None = None,
    *,
    weights: Iterable[Any] | None = None,
    mask: Iterable[Any] | None = None,
    time: int | None = None,
    dtype: Any = None,
) -> tuple[Batch, list[Place]]:
    """Put sequences one after the other into few rows of `time` steps, with a reset where each begins.

    Loss and gradients are those of the sequences run separately from a state of zero: `h_0` is never read in a row
    that holds a sequence. Sequences are placed from the longest to the shortest, each into the fullest row that has
    room for it.

    Args:
        inputs: for each sequence, features (length, in) or tokens (length,).
        targets: for each sequence, classes (last,) or vectors (last, out) for its last `last` steps; `last` may differ
            between sequences. For a loss of your own: a dict or NamedTuple of such arrays, of equal length. Without
            targets, for predictions, all weights are zero unless given.
        weights: for each sequence, numbers or booleans (last,), one for each target; by default the mask on the steps
            that have a target.
        mask: for each sequence, booleans (length,), false at steps that do not exist; by default all steps exist. The
            reset is at the first step that exists.
        time: the number of steps of a row; by default the length of the longest sequence.
        dtype: the dtype of features, vectors and weights, which must be that of `params`; by default that of the
            features, or JAX's default for tokens.

    Returns:
        `(batch, places)`: a batch (time, rows, ...), and the `Place` of each sequence in it.

    Raises:
        ValueError: if the sequences do not fit each other or `time`, or if a step before the first one that exists has
            a weight, because it would read the last state of the sequence before.
        TypeError: for weights that are not real numbers, or a mask that is not booleans.

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
    return _batch_of((inputs, targets, weights, mask), time, dtype, apart=False)


def _batch_of(parts: tuple[Any, ...], time: int | None, dtype: Any, *, apart: bool) -> tuple[Batch, list[Place]]:
    """The batch of sequences whose targets are arrays, trees of arrays, or left out."""
    names = ("inputs", "targets", "weights", "mask")
    inputs, targets, weights, mask = (_one_each(name, part) for name, part in zip(names, parts, strict=True))
    require_values("pad_sequences" if apart else "pack_sequences", [inputs, targets, weights, mask])
    if targets is None:
        targets = [np.zeros(len(x)) for x in inputs]
        weights = targets if weights is None else weights
    in_rows = partial(_in_rows, inputs=inputs, weights=weights, mask=mask, time=time, dtype=dtype, apart=apart)
    if not targets or not _is_tree(targets[0]):
        return in_rows(targets)
    leaves, tree = _leaves_of_each(targets)
    batches, places = zip(*map(in_rows, leaves), strict=True)
    return batches[0]._replace(targets=tree.unflatten([batch.targets for batch in batches])), places[0]


def _is_tree(target: Any) -> bool:
    return isinstance(target, dict) or hasattr(target, "_fields")


def _in_rows(
    targets: list[Any], *, inputs: list[Any], weights: Any, mask: Any, time: int | None, dtype: Any, apart: bool
) -> tuple[Batch, list[Place]]:
    for i, target in enumerate(targets):
        if isinstance(target, (dict, tuple)) and any(map(np.ndim, jax.tree.leaves(target))):
            kind = type(target).__name__
            raise TypeError(f"`targets[{i}]` must be an array, or in all sequences a dict or NamedTuple, got a {kind}.")
    xs, ys, weights, masks = _as_arrays(inputs, targets, weights, mask)
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
    existing, reset, read = np.zeros(steps, bool), np.zeros(steps, bool), np.zeros(steps)
    for i, (x, y, w, exists) in enumerate(zip(xs, ys, weights, masks, strict=True)):
        row, start, length = places[i]
        end, first_read = start + length, start + length - len(y)
        rows_x[start:end, row] = x
        rows_y[first_read:end, row] = y
        existing[start:end, row] = exists
        read[first_read:end, row] = w
        if not apart:
            before = start + int(np.argmax(exists)) if exists.any() else end  # the first step that exists
            reset[before : min(before + 1, end), row] = True
            if read[start:before, row].any():
                raise ValueError(f"`weights[{i}]` must be zero before the first step that exists, got {w.tolist()}.")
    xs_in_rows, ys_in_rows, weights_in_rows = (_numbers(x, dtype) for x in (rows_x, rows_y, read))
    restarts = None if apart else jnp.asarray(reset)
    return Batch(xs_in_rows, ys_in_rows, weights_in_rows, jnp.asarray(existing), restarts), places


def _one_each(name: str, part: Any) -> Any:
    """`part` as a list with one entry for each sequence."""
    if _is_tree(part):
        raise TypeError(f"`{name}` must be a list with one entry for each sequence, got {type(part).__name__}.")
    return None if part is None else list(part)


def _leaves_of_each(targets: Sequence[Any]) -> tuple[list[list[Any]], Any]:
    """For each leaf of the targets, a list of this leaf in all sequences; and the tree of the targets."""
    targets = [jax.tree.map(np.asarray, target, is_leaf=lambda x: isinstance(x, list)) for target in targets]
    tree: Any = jax.tree.structure(targets[0])
    for i, target in enumerate(targets):
        if jax.tree.structure(target) != tree:
            raise ValueError(
                f"`targets` must be trees of the same structure, {tree}, got {jax.tree.structure(target)} at {i}."
            )
        lengths = [np.shape(leaf)[:1] for leaf in jax.tree.leaves(target)]
        if len(set(lengths)) != 1:
            shapes = [*map(np.shape, jax.tree.leaves(target))]
            raise ValueError(f"`targets[{i}]` must have leaves of equal length, got shapes {shapes}.")
    return [list(leaf) for leaf in zip(*map(jax.tree.leaves, targets), strict=True)], tree


def _numbers(x: np.ndarray, dtype: Any) -> Array:
    """Integers unchanged, real numbers in `dtype`."""
    return jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None)


def _packed(lengths: list[int], time: int) -> list[Place]:
    """Places by best fit, the longest sequence first."""
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


def _as_arrays(
    inputs: Sequence[Any], targets: Sequence[Any], weights: Sequence[Any] | None, mask: Sequence[Any] | None
) -> tuple[list[np.ndarray], ...]:
    """The parts of each sequence as checked arrays of NumPy, with the defaults where weights or mask are None."""
    xs, ys = [np.asarray(x) for x in inputs], [np.asarray(y) for y in targets]
    _check_ragged(xs, ys)
    masks = [np.ones(len(x), bool) for x in xs] if mask is None else [np.asarray(m) for m in mask]
    _check_each("mask", masks, "inputs", xs)
    if weights is None:
        weights = [exists[len(exists) - len(y) :] for exists, y in zip(masks, ys, strict=True)]
    ws = [np.asarray(w) for w in weights]
    _check_each("weights", ws, "targets", ys)
    return xs, ys, ws, masks


def _check_ragged(xs: list[np.ndarray], ys: list[np.ndarray]) -> None:
    if not xs or len(xs) != len(ys):
        raise ValueError(f"`inputs` and `targets` must be non-empty and equally long, got {len(xs)} and {len(ys)}.")
    for name, arrays in (("inputs", xs), ("targets", ys)):
        for i, x in enumerate(arrays):
            if x.ndim == 0 or x.shape[1:] != arrays[0].shape[1:] or x.dtype != arrays[0].dtype:
                raise ValueError(
                    f"`{name}` must have the same dtype and, except for their lengths, the same shape, got "
                    f"{arrays[0].dtype}{arrays[0].shape} at 0 and {x.dtype}{x.shape} at {i}."
                )
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        require_storable(f"inputs[{i}]", x)
        require_storable(f"targets[{i}]", y)
        if len(y) > len(x):
            raise ValueError(
                f"`targets` must not be longer than their sequence, got {len(y)} for {len(x)} steps at {i}."
            )


def _check_each(name: str, arrays: list[np.ndarray], of_name: str, of: list[np.ndarray]) -> None:
    """Raise unless each array of `of` has one of `arrays`, with a real number (a boolean for a mask) per step."""
    if len(arrays) != len(of):
        raise ValueError(f"`{name}` must be as long as `{of_name}`, got {len(arrays)} and {len(of)}.")
    for i, (x, other) in enumerate(zip(arrays, of, strict=True)):
        kinds = (np.bool_,) if name == "mask" else (np.bool_, np.integer, np.floating)
        if not any(jnp.issubdtype(x.dtype, kind) for kind in kinds):
            wanted = "booleans" if name == "mask" else "real numbers or booleans"
            raise TypeError(f"`{name}[{i}]` must hold {wanted}, got dtype {x.dtype}.")
        if x.shape != other.shape[:1]:
            raise ValueError(
                f"`{name}[{i}]` must have shape {other.shape[:1]} to match `{of_name}[{i}]`, got {x.shape}."
            )
