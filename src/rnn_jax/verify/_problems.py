"""Small problems in which a mistake in a gradient would show."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._cells.activations import Phi
from .._cells.kinds import require_kind, require_plain
from .._cells.leaky import LeakyParams
from .._cells.protocol import own_names
from .._cells.vanilla import CellParams, Leak
from .._types import Batch, Drop, Params, ReadoutParams, States

IN, HID, OUT = 3, 4, 5
GAIN = {"tanh": 1.5, "relu": 1.5, "identity": 1.0}


class Case(NamedTuple):
    """The options of a small problem.

    `activation` a name or your own function; `num_layers` the number of layers.
    `batch`      the batch axes, `()` for none; `time` the number of steps.
    `loss`, `reduction` as in `make_grad_fn`; they decide the kind of targets.
    `weights`, `mask`, `reset` whether the batch has them.
    `last`       how many of the last steps have targets: "all", "some" or "one".
    `inputs`     "features" or "tokens".
    `leak`       the leak of every unit; 1 for none.
    `drop`       whether the batch has dropout masks.
    `cell`       "vanilla", "leaky" (a leak per unit), "gru", "lstm", or a class of cells. `activation` and `leak` are
                 for "vanilla" only.
    """

    activation: Phi = "tanh"
    num_layers: int = 1
    batch: tuple[int, ...] = (3,)
    loss: str = "cross_entropy"
    reduction: str = "mean"
    weights: bool = False
    mask: bool = False
    reset: bool = False
    time: int = 7
    last: str = "all"  # all, some, one
    inputs: str = "features"  # features, tokens
    leak: Leak = 1.0
    drop: bool = False
    cell: str | type[Any] = "vanilla"


def make_problem(case: Case, seed: int = 0, dtype: Any = float) -> tuple[Params, Batch, States]:
    """Make a small random problem in which a mistake in a gradient shows.

    The first states and the biases are not zero, and the recurrence does not forget its first step. Where the mask
    hides a step, the input is NaN, or a token without a row in `w_xh`. NumPy draws the numbers, so nothing is compiled.

    Args:
        case: the options.
        seed: the seed of the numbers.
        dtype: the dtype of all floating point arrays.

    Returns:
        `(params, batch, h_0)`, with 3 inputs, 4 hidden units per layer and 5 outputs.

    Raises:
        ValueError: for an unknown cell, or if another cell than "vanilla" gets an activation or a leak.

    >>> import rnn_jax
    >>> params, batch, h_0 = rnn_jax.verify.make_problem(rnn_jax.verify.Case(time=9, num_layers=2, mask=True))
    >>> batch.inputs.shape, [h.shape for h in h_0]
    ((9, 3, 3), [(3, 4), (3, 4)])
    """
    kind: type[Any] = LeakyParams if case.cell == "leaky" else require_kind(case.cell)
    rng = np.random.default_rng(seed)
    if kind is not CellParams:
        require_plain(kind, case.activation, case.leak)

    def normal(scale: float, *shape: int) -> Array:
        return jnp.asarray(scale * rng.standard_normal(shape), dtype)

    def cell(in_size: int) -> Any:
        wide = kind.gates * HID
        rotations = [np.linalg.qr(rng.standard_normal((HID, HID)))[0] for _ in range(kind.gates)]
        gain = GAIN[case.activation] if isinstance(case.activation, str) else 1.5
        w_hh = jnp.asarray(gain * np.hstack(rotations) + 0.1 * rng.standard_normal((HID, wide)), dtype)
        weights = normal(in_size**-0.5, in_size, wide), w_hh, normal(0.1, wide)
        if kind is CellParams:
            return CellParams(*weights, case.activation, case.leak)
        return kind(*weights, **{name: jnp.asarray(rng.uniform(0.1, 1, HID), dtype) for name in own_names(kind)})

    cells = tuple(cell(HID if layer else IN) for layer in range(case.num_layers))
    params = Params(cells, ReadoutParams(normal(HID**-0.5, HID, OUT), normal(0.1, OUT)))
    last = {"all": case.time, "some": max(1, case.time // 2), "one": 1}[case.last]
    time_batch, steps = (case.time, *case.batch), (last, *case.batch)

    mask: Any = None
    reset: Any = None
    weights: Any = None
    if case.mask:
        mask = rng.random(time_batch) < 0.7
        mask[(-1, *(0,) * len(case.batch))] = True  # something to sum
    if case.reset:
        reset = rng.random(time_batch) < 0.3
        reset[(case.time // 2, *(0,) * len(case.batch))] = True
    if case.weights:
        weights = 0.3 + rng.random(steps)
        weights.reshape(-1)[1::2] *= -1  # advantages and corrections have both signs
        if weights.size > 1:
            weights[(0,) * weights.ndim] = 0.0
    if case.inputs == "tokens":
        tokens = rng.integers(0, IN, time_batch)
        inputs = jnp.asarray(tokens if mask is None else np.where(mask, tokens, -7))
    else:
        features = 0.7 * rng.standard_normal((*time_batch, IN))
        inputs = jnp.asarray(features if mask is None else np.where(mask[..., None], features, np.nan), dtype)
    classes = case.loss == "cross_entropy"
    targets = jnp.asarray(rng.integers(0, OUT, steps)) if classes else normal(1.0, *steps, OUT)
    h_0 = tuple(normal(0.5, *case.batch, kind.parts * HID) for _ in cells)
    weights = None if weights is None else jnp.asarray(weights, dtype)
    mask, reset = (None if flags is None else jnp.asarray(flags) for flags in (mask, reset))
    drop = None
    if case.drop:
        between, recurrent = (
            tuple(jnp.asarray((rng.random((*case.batch, HID)) < keep) / keep, dtype) for _ in cells)
            for keep in (0.75, 0.8)
        )
        drop = Drop(between, recurrent)
    return params, Batch(inputs, targets, weights, mask, reset, drop=drop), h_0
