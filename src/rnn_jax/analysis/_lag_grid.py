"""The norm of the gradient of each loss at each lag."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Deltas, add_to_hidden
from .._gradients.truncation.windows import Pieces, Windows, fold, neighbours, one_pass, side_by_side
from .._numerics import norms
from .._types import Batch, Scalar, States
from ._passed import Passed


def lag_grid(passed: Passed, batch: Batch, lags: int) -> tuple[Float[Array, "lags time *batch"], ...]:
    """`‖∂L_i/∂h_{i-lag}‖` of each layer and sequence, lag = 0..lags: windows of one step, side by side.

    In pass q, the window of loss i is at step i - q. The gradient that arrives at that state is the sum of two parts:
    from the next step, and from the layer above.
    """
    time = batch.inputs.shape[0]
    first = tuple(norms(local)[None] for local in (layer.local for layer in passed.layers))
    if not lags:
        return first
    folded = side_by_side(list(passed.saved), 1)
    pieces = Pieces(Windows(k1=1, k2=2 * time, time=time, passes=lags), folded, 0)  # no limit to the reach

    def arrived(entering: States, d_as: tuple[Deltas, ...]) -> States:
        """`∂L_i/∂h_{i-q}` of each layer."""
        from_above = (
            below.layer.down(d_a.z[0] @ above.layer.cell.w_xh.T)
            for d_a, below, above in zip(d_as[1:], passed.saved, passed.saved[1:], strict=False)
        )
        below = zip(passed.saved, entering, from_above, strict=False)
        return (*(add_to_hidden(r.layer.cell, d_s, d_h) for r, d_s, d_h in below), entering[-1])

    def of_losses(d_hs: States, left: States, q: Any) -> tuple[Array, ...]:
        """Move `d_hs[i]` from step i to the step of its loss, q steps later. Before the first step is `h_0`."""
        number = jnp.arange(time)

        def moved(d_h: Array, d_h_0: Array) -> Array:
            at_loss = jnp.roll(norms(d_h), q, 0)
            place = number.reshape(time, *(1,) * (at_loss.ndim - 1))
            at_loss = jnp.where(place >= q, at_loss, 0)
            return jnp.where(place == q - 1, norms(d_h_0)[None], at_loss)

        return tuple(map(moved, d_hs, left))

    def again(leaving: States, q: Any) -> tuple[States, tuple[Array, ...]]:
        entering = neighbours(leaving, tuple(jnp.zeros_like(d_h[0]) for d_h in leaving))
        left = tuple(d_h[0] for d_h in leaving)
        leaving, d_as = one_pass(pieces, q, None, entering)
        return leaving, of_losses(arrived(entering, d_as), left, q)

    nothing = tuple(jnp.zeros_like(r.ss[0]) for r in folded)
    leaving, _ = one_pass(pieces, 0, fold(passed.layers[-1].local, 1), nothing)
    _, others = lax.scan(again, leaving, jnp.arange(1, lags + 1))
    return tuple(map(lambda *parts: jnp.concatenate(parts), first, others))


def mean_over_steps(grid: tuple[Float[Array, "lags time *batch"], ...]) -> Float[Array, " lags"]:
    """For each lag, the mean over the losses of the norm over all layers.

    A loss does not count at lags where nothing of it arrives, for example because of a reset.
    """
    whole = norms(jnp.stack(grid, -1))
    lags, time = whole.shape[:2]
    lag, place = jnp.arange(lags)[:, None], jnp.arange(time)[None]
    there = (lag <= place + 1).reshape(lags, time, *(1,) * (whole.ndim - 2)) & (whole > 0)
    axes = tuple(range(1, whole.ndim))
    num_losses = jnp.sum(there, axes, dtype=whole.dtype)
    return jnp.sum(jnp.where(there, whole, 0), axes) / jnp.maximum(num_losses, 1)


def decay_rate(norms: Float[Array, " lags"]) -> tuple[Scalar | None, Scalar | None]:
    """The factor per step, and its standard error, of the line through the log of `norms` from lag 1 on.

    None if there are fewer than two lags from 1 on. If fewer than two norms are above zero, the factor is 0; if fewer
    than three are, the error cannot be estimated and is infinite.
    """
    if len(norms) < 3:
        return None, None
    lag = jnp.arange(len(norms))
    seen = (norms > 0) & (lag > 0)
    weight = seen.astype(norms.dtype)
    num = jnp.sum(weight)
    logs = jnp.log(jnp.where(seen, norms, 1))
    lag = lag.astype(norms.dtype)

    def centred(x: Array) -> Array:
        return weight * (x - jnp.sum(weight * x) / jnp.maximum(num, 1))

    x, y = centred(lag), centred(logs)
    enough = num >= 2
    spread = jnp.where(enough, jnp.sum(x * x), 1)
    slope = jnp.sum(x * y) / spread
    rest = y - slope * x
    error = jnp.sqrt(jnp.sum(rest * rest) / jnp.maximum(num - 2, 1) / spread)
    decay = jnp.where(enough, jnp.exp(slope), 0)
    return decay, jnp.where(num >= 3, decay * error, jnp.inf)
