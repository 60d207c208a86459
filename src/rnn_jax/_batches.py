"""Checks of a batch: shapes and dtypes at trace time, and `check_batch` for the values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._checks import check_sequence, is_tokens, steps_shape
from ._require import (
    is_below,
    require_array,
    require_dtype,
    require_float,
    require_key,
    require_shape,
    require_storable,
    require_values,
)
from ._types import Batch, Drop, Params, ReadoutParams, States


def check_call(params: Params, batch: Batch, h_0: States) -> None:
    """Raise unless the arguments of a `GradFn` fit each other."""
    if not isinstance(batch, Batch):
        raise TypeError(f"`batch` must be a Batch, got {type(batch).__name__}.")
    check_sequence(params, h_0, batch.inputs, batch.mask, batch.reset, batch.drop, name="batch.inputs")
    if batch.key is not None:
        require_key(batch.key)
    time, *batch_axes = steps_shape(batch.inputs)
    check_targets(batch, params.readout)
    if batch.weights is not None:
        steps = (num_read(batch), *batch_axes)
        require_float("batch.weights", batch.weights)
        require_shape("batch.weights", batch.weights, "(last, *batch)", steps, "`batch.targets`")
        require_dtype("batch.weights", batch.weights, params.readout.b_y.dtype, "`params`")


def num_read(batch: Batch) -> int:
    """The number of last steps that the loss reads: the length of every leaf of the targets."""
    last: int = jax.tree.leaves(batch.targets)[0].shape[0]
    return last


def check_targets(batch: Batch, readout: ReadoutParams) -> None:
    """Raise unless all leaves of the targets have the axes `(last, *batch, ...)`, the same `last`, and known types."""
    leaves = jax.tree.leaves_with_path(batch.targets)
    if not leaves:
        raise ValueError(f"`batch.targets` must hold at least one array, got {batch.targets!r}.")
    for path, leaf in leaves:
        check_target(f"batch.targets{jax.tree_util.keystr(path)}", leaf, batch, readout)
    lasts = {leaf.shape[0] for _, leaf in leaves}
    if len(lasts) > 1:
        raise ValueError(f"`batch.targets` must have leaves of equal length, got {sorted(lasts)}.")


def check_target(name: str, targets: Array, batch: Batch, readout: ReadoutParams) -> None:
    """Raise unless `targets` have the axes `(last, *batch, ...)` and a known type."""
    time, *batch_axes = steps_shape(batch.inputs)
    require_array(name, targets)
    require_storable(name, targets)
    if targets.ndim > 1 and batch_axes and targets.shape[:2] == (batch_axes[0], time) != (time, batch_axes[0]):
        raise ValueError(
            f"`{name}` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape "
            f"{targets.shape} for `batch.inputs` of {time} steps: swap the first two axes."
        )
    places = len(batch_axes)
    if places > 1 and targets.shape[: places + 1] == (*batch_axes, time) != (time, *batch_axes):
        raise ValueError(
            f"`{name}` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape "
            f"{targets.shape} for `batch.inputs` of {time} steps: use `jnp.moveaxis({name}, {places}, 0)`."
        )
    steps = (*targets.shape[:1], *batch_axes)
    one_step = batch_axes and targets.shape[: len(batch_axes)] == tuple(batch_axes)
    if one_step and targets.shape[: len(steps)] != steps:
        raise ValueError(
            f"`{name}` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape "
            f"{targets.shape}, which is one step for the batch axes {tuple(batch_axes)}: use `{name}[None]`."
        )
    if targets.ndim < 1 or is_below("batch.inputs", time, targets.shape[0]):
        raise ValueError(f"`{name}` must cover at most the {time} steps of `batch.inputs`, got {targets.shape}.")
    if targets.shape[: len(steps)] != steps:
        what = ", whose integers are tokens, (time, *batch)" if is_tokens(batch.inputs) else ""
        raise ValueError(
            f"`{name}` must have shape (last, *batch) = {steps} or (last, *batch, ...) to match `batch.inputs`{what}, "
            f"got {targets.shape}."
        )
    if not is_tokens(targets) and targets.dtype != bool:
        require_array(name, targets, jnp.floating, "integers, booleans or floating point numbers")
        require_dtype(name, targets, readout.b_y.dtype, "`params`")


def check_batch(params: Params, batch: Batch, h_0: States) -> None:
    """Raise if a *value* of the batch is bad, which shapes cannot show. It reads values, so it cannot run under `jit`.

    Tokens must be rows of `w_xh`, and classes columns of `w_hy`. Features, vectors, weights and states must be finite.
    Steps that the mask hides, and targets of weight zero, are not read. Shapes and dtypes are checked too.

    Args:
        params: the network.
        batch: the batch to check.
        h_0: the initial states, one (*batch, hid) per layer.

    Raises:
        ValueError: for the first bad value, with its position, and for shapes that do not fit each other.
        TypeError: for dtypes that do not fit each other.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=3)
    >>> batch = rnn_jax.Batch(inputs=jnp.array([0, 1, 3]), targets=jnp.array([1, 2, 0]))
    >>> rnn_jax.check_batch(params, batch, rnn_jax.zero_state(params))
    Traceback (most recent call last):
    ...
    ValueError: `batch.inputs` must hold tokens from 0 to 2, got 3 at (2,).
    """
    require_values("check_batch", (params, batch, h_0))
    check_call(params, batch, h_0)
    mask = np.ones(steps_shape(batch.inputs), bool) if batch.mask is None else np.asarray(batch.mask)
    last = num_read(batch)
    default = mask[mask.shape[0] - last :].astype(np.float64)
    weights = default if batch.weights is None else np.asarray(batch.weights)
    _check_values("batch.weights", weights, np.ones_like(weights, bool), 0, "")
    _check_values("batch.inputs", batch.inputs, mask, params.cells[0].w_xh.shape[0], "tokens")
    for path, leaf in jax.tree.leaves_with_path(batch.targets):
        if not path:
            _check_values("batch.targets", leaf, weights != 0, params.readout.w_hy.shape[1], "classes")
        elif jnp.issubdtype(leaf.dtype, jnp.floating):  # a loss of your own may take any integers
            _check_values(f"batch.targets{jax.tree_util.keystr(path)}", leaf, weights != 0, 0, "")
    for layer, h in enumerate(h_0):
        _check_values(f"h_0[{layer}]", h, np.ones(h.shape[:-1], bool), 0, "")
    for field, units in (batch.drop or Drop())._asdict().items():
        for layer, r in enumerate(units or ()):
            _check_values(f"batch.drop.{field}[{layer}]", r, np.ones(r.shape, bool), 0, "")


def _check_values(name: str, x: Any, read: np.ndarray, count: int, noun: str) -> None:
    x = np.asarray(x)
    integer = np.issubdtype(x.dtype, np.integer)
    bad = (x < 0) | (x >= count) if integer else ~np.isfinite(x.astype(np.float64))
    bad &= read.reshape(read.shape + (1,) * (x.ndim - read.ndim))
    if bad.any():
        where = tuple(map(int, np.argwhere(bad)[0]))
        expected = f"{noun} from 0 to {count - 1}" if integer else "finite numbers"
        raise ValueError(f"`{name}` must hold {expected}, got {x[where]} at {where}.")
