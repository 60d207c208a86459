"""What the windows of a truncated gradient lose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._gradients.truncation.windows import Pieces, Windows, fold, pad_steps, side_by_side, unfold, window_deltas
from .._nn.loops import Residuals, weight_gradients
from .._numerics import norms, tree_norm
from .._require import are_numbers
from .._types import Batch, Params
from ._passed import Passed


class Cut(NamedTuple):
    """What truncation makes of the gradient.

    `params`     the truncated gradient.
    `lost`       for each leaf, the distance from the full gradient, relative to its norm; infinite if only the full
                 gradient is zero.
    `d_a_norms`  for each layer, `‖d_a_t - truncated d_a_t‖` of each step and sequence; with gates, all of them in one
                 norm, and of `z_t = x_t W_xh + b_h` where it is not the same as that of `h_{t-1} W_hh`.
    """

    params: Params
    lost: Params
    d_a_norms: tuple[Float[Array, "time *batch"], ...]


def cut_by_windows(passed: Passed, batch: Batch, k1: int, k2: int) -> Cut:
    """What the windows of `Truncated` send back, from the states of a full pass."""
    time = batch.inputs.shape[0]
    after = -(-time // k1) * k1 - time if time != 0 else k1  # at least one window, even if none of its steps exists
    if are_numbers(time):
        k2 = min(k2, max(time, 1))
        passes = max(-(-(k2 + after) // k1), 1)
    else:
        passes = -(-(k2 + k1 - 1) // k1)  # enough for any number of steps
    windows = Windows(k1=k1, k2=k2, time=time, passes=passes)

    def longer(r: Residuals) -> Residuals:
        events = r.events
        if events.mask is None and after != 0:
            events = events._replace(mask=jnp.ones(r.ss.shape[:-1], bool))
        ss, kept, events = pad_steps((r.ss, r.kept, events), 0, after)
        return r._replace(ss=ss, kept=kept, events=events)

    later = tuple(jnp.zeros((windows.passes, *r.s_0.shape), r.s_0.dtype) for r in passed.saved)
    d_hs = fold(pad_steps(passed.layers[-1].local, 0, after), k1)
    pieces = Pieces(windows, side_by_side([longer(r) for r in passed.saved], k1), 0)
    _, sums = window_deltas(pieces, d_hs, later)
    d_as = [jax.tree.map(lambda x: x[:time], unfold(d_a)) for d_a in sums]
    d_cells = tuple(weight_gradients(r, d_a) for r, d_a in zip(passed.saved, d_as, strict=True))
    full = passed.gradients.params
    params = Params(d_cells, full.readout)

    def distance(x: Array, y: Array) -> Array:
        apart, whole = tree_norm(x - y), tree_norm(y)
        relative = jnp.where(whole > 0, apart / jnp.where(whole > 0, whole, 1), jnp.inf)
        return jnp.where(apart > 0, relative, 0)

    pairs = zip(d_as, passed.layers, strict=True)
    d_a_norms = tuple(norms(mine.z - layer.deltas.z) for mine, layer in pairs)
    lost = jax.tree.map(distance, params, full)
    return Cut(jax.tree.map(lambda d, w: d.astype(w.dtype), params, full), lost, d_a_norms)
