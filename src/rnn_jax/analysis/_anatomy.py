"""The anatomy of a gradient: what arrives at each step, what each step adds, what each loss sends how far back.

With `δ_t = ∂L/∂h_t`, all of it, and its local part `∂L_t/∂h_t`, that of the loss of step t alone,

    d_W_xh = Σ_t C_t,   C_t = x_tᵀ d_a_t        d_W_hh = Σ_t h_{t-1}ᵀ d_a_t        d_b_h = Σ_t d_a_t

and `δ_t` of the highest layer is `Σ_i ∂L_i/∂h_t`, the column t of the lag grid.

References: Bengio, Simard and Frasconi (1994), IEEE Transactions on Neural Networks 5(2); Pascanu, Mikolov and Bengio
(2013), ICML, arXiv:1211.5063.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._batches import check_call
from .._cells.protocol import Cell
from .._losses import make_objective
from .._mesh import promote, refuse_explicit
from .._nn.loops import Residuals
from .._nn.step import weight_gradients as products_back
from .._numerics import norms, tree_norm, unit_and_norm
from .._require import are_numbers, require_sizes
from .._types import (
    Batch,
    Gradients,
    Hiddens,
    Loss,
    Params,
    Scalar,
    States,
    accumulation_dtype,
)
from ._cut import Cut, cut_by_windows
from ._lag_grid import decay_rate, lag_grid, mean_over_steps
from ._passed import OfLayer, full_pass, steps_of

SATURATED = 0.1


class LayerAnatomy(NamedTuple):
    """One layer. Norms are over its units; a step that does not exist adds nothing.

    `d_hs`         `δ_t = ∂L/∂h_t`, and `d_hs_local` the part of it that is `∂L_t/∂h_t`.
    `d_h_norms`    `‖δ_t‖` of each step and sequence, and `local_norms` of the local part.
    `part_norms`   the norm of what each step adds to the gradient of each weight, all sequences together.
    `part_cosines` the cosine between that and the whole: `Σ_t norm_t cosine_t` is the norm of the whole.
    `d_phi`        `φ'(a_t)` of each step and unit, the mean over the sequences that have the step; 0 if none has.
    `saturated`    the share of them all with `φ'(a_t)` below 0.1; 0 if no sequence has the step.
    """

    d_hs: Hiddens
    d_hs_local: Hiddens
    d_h_norms: Float[Array, "time *batch"]
    local_norms: Float[Array, "time *batch"]
    part_norms: Cell
    part_cosines: Cell
    d_phi: Float[Array, "time hid"]
    saturated: Float[Array, " time"]


class Anatomy(NamedTuple):
    """What `anatomy` returns. `lag_norms[layer][lag, i - 1]` is `‖∂L_i/∂h_{i-lag}‖` of each sequence, i = 1..T; 0
    where `lag > i`, for there is no such state, and where a reset is between.

    `decay` is the factor by which `‖∂L_i/∂h_{i-lag}‖` falls or grows a step of lag, all layers together, and
    `decay_error` its standard error, both of a line through the log of means over what is not zero. None if `lags` is
    below 2. 0 if fewer than two lags have something that is not zero; the error is infinite if fewer than three have.
    """

    loss: Scalar
    h_T: States
    gradients: Gradients
    layers: tuple[LayerAnatomy, ...]
    lag_norms: tuple[Float[Array, "lags time *batch"], ...]
    decay: Scalar | None
    decay_error: Scalar | None
    cut: Cut | None


def anatomy(
    params: Params,
    batch: Batch,
    h_0: States,
    *,
    loss: str | Loss = "cross_entropy",
    reduction: str = "mean",
    lags: int = 0,
    k1: int | None = None,
    k2: int | None = None,
) -> Anatomy:
    """Loss and gradient, and where the gradient comes from, in one forward and one backward pass.

    The lag grid, of lags 0 to `lags` (to T, if `lags` is larger), takes as many steps back for all losses side by side,
    the memory of one more sequence of states, and `(lags + 1) T` numbers a layer and sequence. With `k1` and `k2`,
    `cut` says what the windows of `"truncated"` lose. Exported for any length, T a symbol, the grid has all `lags`,
    zero past T.
    Pure: jit it with the options bound, `jax.jit(functools.partial(anatomy, lags=20))`. Under jit, what is not used
    costs nothing.

    Raises:
        ValueError: as the functions of `make_grad_fn` do, and for lags or windows out of range.

    >>> import functools, jax, jax.numpy as jnp, rnn_jax
    >>> problem = rnn_jax.verify.make_problem(rnn_jax.verify.Case(time=30, num_layers=2), dtype=jnp.float32)
    >>> found = jax.jit(functools.partial(rnn_jax.analysis.anatomy, lags=10))(*problem)
    >>> found.layers[0].d_h_norms.shape, found.lag_norms[1].shape
    ((30, 3), (11, 30, 3))
    >>> parts = found.layers[0].part_norms.w_hh * found.layers[0].part_cosines.w_hh
    >>> bool(jnp.allclose(jnp.sum(parts), jnp.linalg.norm(found.gradients.params.cells[0].w_hh), rtol=1e-4))
    True
    """
    check_call(params, batch, h_0)
    require_sizes(least=0, lags=lags)
    if (k1 is None) != (k2 is None):
        raise ValueError(f"`k1` and `k2` must be given both, or none, got {k1} and {k2}.")
    if k1 is not None and k2 is not None:
        require_sizes(k1=k1, k2=k2)
        if k2 < k1:
            raise ValueError(f"`k2` must be at least `k1`, got {k2} and {k1}.")
    settle = make_objective(loss, reduction)
    refuse_explicit((params, batch._replace(key=None), h_0), "anatomy", "gather them")
    params, batch, h_0 = promote((params, batch._replace(key=None), h_0))

    passed = full_pass(settle(params, batch), params, batch, h_0)
    layers = tuple(map(layer_anatomy, passed.saved, passed.layers))
    time = batch.inputs.shape[0]
    grid = lag_grid(passed, batch, min(lags, time) if are_numbers(time) else lags)
    decay, error = decay_rate(mean_over_steps(grid))
    cut = None if k1 is None or k2 is None else cut_by_windows(passed, batch, k1, k2)
    gradients = jax.tree.map(lambda d, x: d.astype(x.dtype), passed.gradients.params, params)
    return Anatomy(
        passed.loss, passed.h_T, passed.gradients._replace(params=gradients), layers, grid, decay, error, cut
    )


def layer_anatomy(residuals: Residuals, layer: OfLayer) -> LayerAnatomy:
    """What a layer's part of the backward pass says of its steps."""

    def of_step(now: Any) -> tuple[Cell, Cell]:
        return norm_and_cosine(products_back(residuals.layer.cell, *now), layer.d_cell)

    part_norms, part_cosines = lax.map(of_step, steps_of(residuals, layer.deltas))
    d_phi, saturated = saturation(residuals)
    d_hs, local = layer.d_hs, layer.local
    return LayerAnatomy(d_hs, local, norms(d_hs), norms(local), part_norms, part_cosines, d_phi, saturated)


def norm_and_cosine(part: Cell, whole: Cell) -> tuple[Cell, Cell]:
    """Leaf by leaf the norm of a part, and its cosine with the whole; 0 where one of them is zero."""
    cosines = jax.tree.map(lambda p, w: jnp.sum(unit_and_norm(p)[0] * unit_and_norm(w)[0]), part, whole)
    return jax.tree.map(tree_norm, part), cosines


def saturation(residuals: Residuals) -> tuple[Float[Array, "time hid"], Float[Array, " time"]]:
    """`φ'` of each step and unit, the mean over sequences; the share of them below `SATURATED`."""
    cell: Any = residuals.layer.cell
    d_phi = cell.d_phi(residuals.kept)
    time, *batch_axes, hid = d_phi.shape
    d_phi = d_phi.astype(accumulation_dtype(d_phi.dtype)).reshape(time, math.prod(batch_axes), hid)
    mask = residuals.events.mask
    exists = jnp.ones(d_phi.shape[:2], bool) if mask is None else mask.reshape(d_phi.shape[:2])
    num = jnp.maximum(jnp.sum(exists, 1, dtype=d_phi.dtype), 1)
    weights = exists.astype(d_phi.dtype)[..., None] / num[:, None, None]
    low = (d_phi < SATURATED).astype(d_phi.dtype)
    return jnp.sum(weights * d_phi, 1), jnp.mean(jnp.sum(weights * low, 1), 1)
