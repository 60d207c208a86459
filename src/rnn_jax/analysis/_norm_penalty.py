"""The regulariser of Pascanu, Mikolov and Bengio (2013) by hand: it keeps the norm of a gradient on its way back.

With `δ_t = ∂L/∂a_t`, one step back takes `δ_t` to `v_t = (δ_t W_hhᵀ) ∘ φ'(a_{t-1})`, and

    r_t = ‖v_t‖ / ‖δ_t‖        Ω = mean over t = 2..T and all sequences of (r_t - 1)²

is zero if every step keeps its norm. Only the immediate derivative of Ω is taken: `δ_t` and `φ'` are held constant.

    ∂Ω/∂W_hh = mean of 2 (r_t - 1) / (‖v_t‖ ‖δ_t‖) · (v_t ∘ φ'(a_{t-1}))ᵀ δ_t

This is one product over all steps. In a stack, Ω is the sum over layers.

The paper writes a sum over steps. We take the mean, as the program of its authors does: then one weight fits all
lengths.

References: Pascanu, Mikolov and Bengio (2013), ICML, equations 9 and 10; there `x_t` is what `a_t` is here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._batches import check_call
from .._cells.vanilla import plain
from .._losses import make_objective
from .._nn.loops import Residuals
from .._numerics import norms
from .._require import POSITIVE, Number, require_number
from .._types import (
    Batch,
    GradFn,
    Hiddens,
    Loss,
    Objective,
    Params,
    Result,
    Scalar,
    States,
    accumulation_dtype,
)
from ._passed import full_pass


def penalise_norms(weight: Number, *, loss: str | Loss, reduction: str = "mean") -> GradFn:
    """Make a gradient function of `L + weight Ω`, where Ω penalises steps that change the norm of the gradient.

    Ω is the mean of `(‖v_t‖ / ‖δ_t‖ - 1)²` over the steps and sequences where `δ_t = ∂L/∂a_t` is not zero, with `v_t =
    (δ_t W_hhᵀ) ∘ φ'(a_{t-1})`, one step back. Only its immediate derivative is taken, with respect to `W_hh`. The loss
    that is returned is L. Clip the gradients: the regulariser works against gradients that vanish, and lets them
    explode.

    Args:
        weight: the factor of Ω, above zero; it may be traced.
        loss: the loss, as in `make_grad_fn`.
        reduction: how the losses of the steps are added up, as in `make_grad_fn`.

    Returns:
        A `GradFn`, as `make_grad_fn` returns it.

    Raises:
        TypeError: if `weight` is not a number. The returned function raises it for cells other than `CellParams`.
        ValueError: if `weight` is not above zero. The returned function raises it for a batch with mask, resets or
            dropout, and for cells that leak, because Ω is not defined for them.

    References: Pascanu, Mikolov and Bengio (2013), ICML, arXiv:1211.5063.

    >>> import jax, rnn_jax
    >>> grad_fn = rnn_jax.analysis.penalise_norms(4.0, loss="cross_entropy")
    >>> problem = rnn_jax.verify.make_problem(rnn_jax.verify.Case(), dtype=jax.numpy.float32)
    >>> (loss, h_T), gradients = jax.jit(grad_fn)(*problem)
    """
    return partial(_penalised, require_number("weight", weight, POSITIVE), make_objective(loss, reduction))


def _penalised(
    weight: Number, settle: Callable[[Params, Batch], Objective], params: Params, batch: Batch, h_0: States
) -> Result:
    check_call(params, batch, h_0)
    for name in ("mask", "reset", "drop"):
        if getattr(batch, name) is not None:
            raise ValueError(f"`batch.{name}` must be None for `penalise_norms`, got one.")
    for cell in plain(params.cells, "`penalise_norms`"):
        if cell.leak != 1:
            raise ValueError(f"`params` must have cells without leak for `penalise_norms`, got {cell.leak}.")
    dtype = accumulation_dtype(params.readout.b_y.dtype)
    passed = full_pass(settle(params, batch), params, batch._replace(key=None), h_0)
    d_cells = tuple(
        replace(
            layer.d_cell,
            w_hh=layer.d_cell.w_hh + jnp.asarray(weight, dtype) * norm_penalty(residuals, layer.deltas.z)[1],
        )  # type: ignore[type-var]
        for residuals, layer in zip(passed.saved, passed.layers, strict=True)
    )
    gradients = passed.gradients._replace(params=passed.gradients.params._replace(cells=d_cells))
    d_params = jax.tree.map(lambda d, w: d.astype(w.dtype), gradients.params, params)
    return (passed.loss, passed.h_T), gradients._replace(params=d_params)


def norm_penalty(residuals: Residuals, d_as: Hiddens) -> tuple[Scalar, Float[Array, "hid hid"]]:
    """Ω of a layer and its immediate derivative in `W_hh`, from the `d_as` of the backward pass."""
    cell: Any = residuals.layer.cell
    d_phi = cell.d_phi(residuals.kept[:-1])
    exact = accumulation_dtype(d_phi.dtype)
    w_hh, d_phi, d_as = (x.astype(exact) for x in (cell.w_hh, d_phi, d_as))
    sizes = norms(d_as[1:])[..., None]
    unit = d_as[1:] / jnp.where(sizes > 0, sizes, 1)  # δ_t / ‖δ_t‖: no norm over- or underflows
    v = (unit @ w_hh.T) * d_phi
    r = norms(v)[..., None]
    there = (sizes > 0).astype(exact)
    share = there / jnp.maximum(jnp.sum(there), 1)
    slope = 2 * share * (r - 1) / jnp.where(r > 0, r, 1)
    d_w_hh = jnp.einsum("t...i,t...j->ij", slope * v * d_phi, unit)
    return jnp.sum(share * (r - 1) ** 2), d_w_hh
