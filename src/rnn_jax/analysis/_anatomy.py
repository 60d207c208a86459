"""The anatomy of a gradient: what arrives at each step, what each step adds, and how far back each loss reaches.

Let `δ_t = ∂L/∂h_t` be the whole gradient at step t, and `∂L_t/∂h_t` its local part, from the loss of step t only. Then

    d_W_xh = Σ_t C_t,   C_t = x_tᵀ d_a_t        d_W_hh = Σ_t h_{t-1}ᵀ d_a_t        d_b_h = Σ_t d_a_t

and `δ_t` of the highest layer is `Σ_i ∂L_i/∂h_t`, the column t of the lag grid. In a GRU, `d_a_t` is `d_z_t` for `W_xh`
and `b_h`, and `d_u_t` for `W_hh`.

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
from .._cells.protocol import Cell, only_hidden
from .._losses import make_objective
from .._mesh import promote, refuse_explicit
from .._nn.loops import Residuals, pre_activations
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


class GateAnatomy(NamedTuple):
    """The derivative of the activation of one gate, divided by its largest value: `4 σ (1 - σ)`, `1 - tanh²`, `φ'`.

    `slope`        of each step and unit, the mean over the sequences that have the step; 0 if none has it.
    `saturated`    the share of units and sequences where it is below 0.1 at each step; 0 if no sequence has the step.
    """

    slope: Float[Array, "time hid"]
    saturated: Float[Array, " time"]


class LayerAnatomy(NamedTuple):
    """One layer. Norms are over its units; a step that does not exist adds nothing.

    In an LSTM, and in each cell whose state has more parts than h, `h_t` is the whole state here, `(h_t, c_t)`: `d_hs`
    has the axes (time, *batch, 2 hid), its first half is what arrives at `h_t` from the readout, the layer above and
    the gates of the next step, and its second half what arrives at `c_t` from `c_{t+1}`. What `c_t` gets through `h_t`
    is in the first half only.

    `d_hs`         `δ_t = ∂L/∂h_t`.
    `d_hs_local`   the local part of it, `∂L_t/∂h_t`: from the loss of step t only; zero for parts other than h.
    `d_h_norms`    `‖δ_t‖` of each step and sequence.
    `local_norms`  the norm of the local part of each step and sequence.
    `part_norms`   the norm of what each step adds to the gradient of each weight, summed over the sequences.
    `part_cosines` the cosine between that and the whole gradient: `Σ_t norm_t cosine_t` is the norm of the whole.
    `gates`        a `GateAnatomy` for each gate, by its name: "r", "k" and "n" of a GRU, "i", "f", "g" and "o" of an
                   LSTM. A vanilla layer has one, "a". Empty for a class of cells without `slopes`, like those that
                   `elementwise` makes.
    `d_phi`, `saturated` of the only gate; None if the layer does not have exactly one.
    """

    d_hs: Hiddens
    d_hs_local: Hiddens
    d_h_norms: Float[Array, "time *batch"]
    local_norms: Float[Array, "time *batch"]
    part_norms: Cell
    part_cosines: Cell
    gates: dict[str, GateAnatomy]

    @property
    def d_phi(self) -> Any:
        """`φ'(a_t)` of each step and unit of a vanilla layer, (time, hid)."""
        return next(iter(self.gates.values())).slope if len(self.gates) == 1 else None

    @property
    def saturated(self) -> Any:
        """The share of saturated units of a vanilla layer at each step, (time,)."""
        return next(iter(self.gates.values())).saturated if len(self.gates) == 1 else None


class Anatomy(NamedTuple):
    """What `anatomy` returns.

    `loss`, `h_T`, `gradients` as `make_grad_fn("bptt")` returns them.
    `layers`      a `LayerAnatomy` for each layer.
    `lag_norms`   the lag grid, one for each layer: `lag_norms[layer][lag, i - 1]` is `‖∂L_i/∂h_{i-lag}‖` of each
                  sequence, i = 1..T, where h is the whole state as in `LayerAnatomy`. It is 0 where there is no such
                  state (`lag > i`), and where a reset lies between.
    `decay`       the factor by which `‖∂L_i/∂h_{i-lag}‖` falls or grows per step of lag, all layers together, from a
                  line through the log of the mean norms; norms of zero do not count. None if `lags` is below 2; 0 if
                  fewer than two lags have a norm above zero.
    `decay_error` its standard error; None if `decay` is None; infinite if fewer than three lags have a norm above zero.
    `cut`         what windows of `k1` steps that reach back `k2` lose; None unless they are given.
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
    """Compute loss and gradient, and where the gradient comes from, in one forward and one backward pass.

    It is pure. To jit it, bind the options: `jax.jit(functools.partial(anatomy, lags=20))`. Under jit, results that are
    not used cost nothing.

    Args:
        params: the network.
        batch: the batch, as for a `GradFn`.
        h_0: the first states, one array per layer.
        loss: the loss, as in `make_grad_fn`.
        reduction: how the losses of the steps are added up, as in `make_grad_fn`.
        lags: the largest lag of the lag grid, in steps; T if it is larger than T. The grid takes `lags` steps back for
            all losses at once, the memory of one more sequence of states, and `(lags + 1) T` numbers per layer and
            sequence. Under `jax.export` with a symbolic T, the grid has all `lags`, which are zero past T.
        k1: a window length, in steps; with `k2`, `cut` says what `Truncated(k1=k1, k2=k2)` loses.
        k2: the reach of the windows, in steps, at least `k1`.

    Returns:
        An `Anatomy`.

    Raises:
        TypeError: for dtypes that do not fit, as the functions of `make_grad_fn` do.
        ValueError: for shapes that do not fit, and for lags or windows out of range.

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
        raise ValueError(f"`k1` and `k2` must be given together or not at all, got {k1} and {k2}.")
    if k1 is not None and k2 is not None:
        require_sizes(k1=k1, k2=k2)
        if k2 < k1:
            raise ValueError(f"`k2` (reach) must be at least `k1` (window length), got {k2} and {k1}.")
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
    """What the part of the backward pass in one layer says about its steps."""

    def of_step(now: Any) -> tuple[Cell, Cell]:
        return norm_and_cosine(products_back(residuals.layer.cell, *now), layer.d_cell)

    part_norms, part_cosines = lax.map(of_step, steps_of(residuals, layer.deltas))
    d_hs, local = layer.d_hs, only_hidden(residuals.layer.cell, layer.local)
    return LayerAnatomy(d_hs, local, norms(d_hs), norms(local), part_norms, part_cosines, saturation(residuals))


def norm_and_cosine(part: Cell, whole: Cell) -> tuple[Cell, Cell]:
    """For each leaf, the norm of a part, and its cosine with the whole; 0 where one of them is zero."""
    cosines = jax.tree.map(lambda p, w: jnp.sum(unit_and_norm(p)[0] * unit_and_norm(w)[0]), part, whole)
    return jax.tree.map(tree_norm, part), cosines


def saturation(residuals: Residuals) -> dict[str, GateAnatomy]:
    """The slopes of each gate of the layer, by its name; nothing for a cell that does not know them."""
    cell: Any = residuals.layer.cell
    if not hasattr(cell, "slopes"):
        return {}
    slopes = cell.slopes(residuals.kept, *pre_activations(residuals))
    return {name: of_gate(residuals, slope) for name, slope in zip(cell.gate_names, slopes, strict=True)}


def of_gate(residuals: Residuals, d_phi: Float[Array, "time *batch hid"]) -> GateAnatomy:
    """The mean of the slopes over sequences; the share of them below `SATURATED`."""
    time, *batch_axes, hid = d_phi.shape
    d_phi = d_phi.astype(accumulation_dtype(d_phi.dtype)).reshape(time, math.prod(batch_axes), hid)
    mask = residuals.events.mask
    exists = jnp.ones(d_phi.shape[:2], bool) if mask is None else mask.reshape(d_phi.shape[:2])
    num = jnp.maximum(jnp.sum(exists, 1, dtype=d_phi.dtype), 1)
    weights = exists.astype(d_phi.dtype)[..., None] / num[:, None, None]
    low = (d_phi < SATURATED).astype(d_phi.dtype)
    return GateAnatomy(jnp.sum(weights * d_phi, 1), jnp.mean(jnp.sum(weights * low, 1), 1))
