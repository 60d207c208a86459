"""The Jacobians of the recurrence, one per step, and the singular values of their products of any length."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Cell, Deltas
from .._cells.tangents import has_one_delta, linearised, push
from .._nn.events import Events, select
from .._nn.layer import Layer
from .._nn.loops import forward, pre_activations, states_met
from .._nn.unroll import check_unroll
from .._require import is_below, require_array, require_sizes
from .._types import Flags, Hidden, Inputs, State, accumulation_dtype

RESOLVED = 1e-4  # the relative error allowed for a singular value from one SVD, where rounding hides the small ones
SWEEPS = 16


def step_jacobians(
    cell: Cell,
    h_0: State,
    xs: Inputs,
    *,
    mask: Flags | None = None,
    reset: Flags | None = None,
    r: Hidden | None = None,
) -> Float[Array, "time *batch state state"]:
    """Compute `J_t[i, j] = ∂h_t[i] / ∂h_{t-1}[j]` along the states of `unroll`: `J_t = diag(φ'(a_t)) W_hhᵀ`.

    A tangent, as a column, goes forward as `J_t ḣ_{t-1}`; a cotangent, as a row, goes back as `δ_t J_t`. With a leak α,
    `J_t = (1 - α) I + α diag(φ'(a_t)) W_hhᵀ`. With a dropout mask r, `W_hhᵀ` becomes `W_hhᵀ diag(r)`. Where the step
    does not exist, J is the identity; at a reset it is zero. φ' is computed from `a_t`, so a saturated unit keeps
    its small slope.

    For other cells, `J_t` is the derivative of their own step, of the whole state: for an LSTM, `h_t` stands for
    `(h_t, c_t)`, and `J_t` is (2 hid, 2 hid). A GRU or LSTM computes the slopes of its gates from their values, which
    are zero where a gate is closed, or open, to the precision of the dtype.

    Args:
        cell: the cell of one layer.
        h_0: the first state, `(*batch, hid)`; `(*batch, 2 hid)` for an LSTM.
        xs: the inputs, `(time, *batch, in)`, or tokens, `(time, *batch)`.
        mask: which steps exist, `(time, *batch)`; None for all.
        reset: before which steps the state is set to zero, `(time, *batch)`; None for none.
        r: the recurrent dropout mask, `(*batch, hid)`; None for none.

    Returns:
        The Jacobians, `(time, *batch, hid, hid)`; `(time, *batch, 2 hid, 2 hid)` for an LSTM.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> jacobians = rnn_jax.dynamics.step_jacobians(cell, jnp.zeros(3), jnp.ones((7, 2)))
    >>> by_jax = jax.jacobian(rnn_jax.step, argnums=1)(cell, jnp.zeros(3), jnp.ones(2))
    >>> bool(jnp.allclose(jacobians[0], by_jax, atol=1e-6))
    True
    """
    check_unroll(cell, h_0, xs, mask, reset, r)
    _, residuals = forward(Layer(cell, r), h_0, xs, Events(mask, reset))
    z, u = pre_activations(residuals)
    eye = jnp.broadcast_to(jnp.eye(h_0.shape[-1], dtype=h_0.dtype), (*residuals.ss.shape, h_0.shape[-1]))
    w = jnp.broadcast_to(cell.w_hh, (*u.shape[:-1], *cell.w_hh.shape))
    w = w if r is None else w * jnp.broadcast_to(r[..., None], w.shape)
    unread = jnp.zeros((*w.shape[:-2], eye.shape[-1] - w.shape[-2], w.shape[-1]), w.dtype)  # parts other than h
    point = z, u, states_met(residuals), residuals.ss
    jacobians = jnp.swapaxes(tangents(cell, point, (None, jnp.concatenate([w, unread], -2)), eye), -1, -2)
    if reset is not None:
        jacobians = select(reset, jnp.zeros_like(jacobians), jacobians)
    return jacobians if mask is None else select(mask, jacobians, eye)


def tangents(cell: Cell, point: tuple[Array, ...], dots: tuple[Array | None, Array], s_dots: Array) -> Array:
    """The tangents of `s_t` at `point = (z, u, s_before, s)`, for many tangents of its arguments.

    `dots` are the tangents of `(z, u)`, `s_dots` those of `s_before`. None stands for a tangent of zero.
    """
    pull = linearised(cell, *(x[..., None, :] for x in point))
    z_dots, u_dots = dots
    if has_one_delta(pull, s_dots):
        return push(pull, Deltas(u_dots if z_dots is None else u_dots + z_dots), s_dots)
    return push(pull, Deltas(jnp.zeros_like(u_dots) if z_dots is None else z_dots, u_dots), s_dots)


class Product(NamedTuple):
    """`P Q_0 = Q diag(exp(logs)) upper`, with `upper` triangular.

    Its rows have size one, so no entry can over- or underflow. `Q_0` is a rotation; it changes no singular value.
    """

    q: Float[Array, "hid hid"]
    logs: Float[Array, " hid"]
    upper: Float[Array, "hid hid"]


def log_singular_values(jacobians: Float[Array, "time *batch hid hid"], lags: Any) -> Float[Array, "lags *batch hid"]:
    """Compute the logs of the singular values of `J_T J_{T-1} ⋯ J_{T-lag+1}`, largest first, for each of `lags`.

    They say by which factors a gradient can grow or shrink while it goes back `lag` steps from the last one.

    The product is kept as `Q D R`, with two QR decompositions per step and `D` in logs. So the singular values may be
    hundreds of orders of magnitude away from each other, or from one. Values that are too small for one SVD, compared
    with the largest, come from 16 sweeps of QR, which converge faster the further apart the values are. The sizes of
    the rows of each Jacobian are taken out first, so a saturated unit keeps full precision, and a dead unit, which
    passes nothing, gives -inf. For a matrix that is singular for another reason, the result is what rounding leaves:
    about the machine epsilon for each factor.

    Half precision is computed in float32. Jacobians that are not finite give NaN. For each sequence, it takes the
    memory of twice as many matrices as the largest lag.

    Args:
        jacobians: what `step_jacobians` returns, `(time, *batch, hid, hid)`.
        lags: a list of numbers of steps, each from 1 to T.

    Returns:
        Natural logs, `(lags, *batch, hid)`. Each sequence of a batch has its own products.

    Raises:
        TypeError: if `jacobians` is not an array of floating point numbers, or `lags` not a list of integers.
        ValueError: if `jacobians` are not square matrices, or a lag is not in 1..T.

    References: Oliveira and Stewart (2000), Linear Algebra and its Applications 309: products of many matrices.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> jacobians = rnn_jax.dynamics.step_jacobians(cell, jnp.zeros((5, 3)), jnp.ones((7, 5, 2)))
    >>> rnn_jax.dynamics.log_singular_values(jacobians, [1, 7]).shape
    (2, 5, 3)
    """
    require_array("jacobians", jacobians, jnp.floating, "floating point numbers")
    if not isinstance(lags, (Sequence, np.ndarray)):
        raise TypeError(f"`lags` must be a list of numbers of steps, got {lags!r}.")
    lags = [lag.item() if isinstance(lag, np.generic) else lag for lag in lags]
    if jacobians.ndim < 3 or jacobians.shape[-2] != jacobians.shape[-1]:
        raise ValueError(f"`jacobians` must have the axes (time, *batch, hid, hid), got shape {jacobians.shape}.")
    require_sizes(**{f"lags[{i}]": lag for i, lag in enumerate(lags)})
    jacobians = jacobians.astype(accumulation_dtype(jacobians.dtype))
    time, *batch, _, hid = jacobians.shape
    if lags and is_below("jacobians", time, max(lags)):
        raise ValueError(f"`lags` must be from 1 to the {time} steps of `jacobians`, got {max(lags)}.")
    if not lags:
        return jnp.zeros((0, *batch, hid), jacobians.dtype)
    of_one = partial(_log_singular_values, lags=lags)
    for _ in batch:
        of_one = jax.vmap(of_one, in_axes=1, out_axes=1)
    return of_one(jacobians)


def _log_singular_values(jacobians: Float[Array, "time hid hid"], lags: list[int]) -> Float[Array, "lags hid"]:
    """The logs for one sequence."""
    back = jnp.swapaxes(jacobians, 1, 2)[::-1][: max(lags)]  # the transposed product, built from its left end
    hid, eye = jacobians.shape[-1], jnp.eye(jacobians.shape[-1], dtype=jacobians.dtype)

    def body(product: Product, jacobian: Array) -> tuple[Product, Product]:
        sizes = jnp.max(jnp.abs(jacobian), axis=0)  # J_tᵀ = (J_tᵀ diag(1 / sizes)) diag(sizes); small where φ' is small
        q, upper = qr_by_rows(sizes[:, None] * product.q)
        logs, rows = rescaled(upper, product.logs, product.upper)
        q, upper = jnp.linalg.qr(jacobian / jnp.where(sizes > 0, sizes, 1)[None] @ q)
        product = Product(q, *rescaled(upper, logs, rows))
        return product, product

    turned = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (hid, hid), eye.dtype))[0]  # no direction is special
    _, products = lax.scan(body, Product(turned, jnp.zeros(hid, eye.dtype), eye), back)
    spectra: Array = lax.map(spectrum, jax.tree.map(lambda x: x[np.asarray(lags) - 1], products))
    return spectra


def qr_by_rows(x: Float[Array, "*batch rows columns"]) -> tuple[Array, Array]:
    """`x = Q R`, computed with the largest rows first, so that small rows keep full relative precision.

    References: Cox and Higham (1998), BIT 38: stability of Householder QR for rows of different sizes.
    """
    order = jnp.argsort(-jnp.max(jnp.abs(x), axis=-1), axis=-1)[..., None]
    q, r = jnp.linalg.qr(jnp.take_along_axis(x, order, axis=-2))
    return jnp.take_along_axis(q, jnp.argsort(order, axis=-2), axis=-2), r


def rescaled(upper: Array, logs: Array, rows: Array) -> tuple[Array, Array]:
    """`upper diag(exp(logs)) rows` as `diag(exp(new)) new_rows`: new rows have factors of at most one."""
    sizes = jnp.log(jnp.abs(upper)) + logs[None]
    new = jnp.max(sizes, axis=1)
    there = jnp.isfinite(new)
    factors = jnp.sign(upper) * jnp.where(there[:, None], jnp.exp(sizes - jnp.where(there, new, 0)[:, None]), 0)
    return new, factors @ rows


def spectrum(product: Product) -> Float[Array, " hid"]:
    """The logs of the singular values of a product."""
    _, logs, upper = product
    top = jnp.max(logs)
    scale = jnp.where(jnp.isfinite(top), top, 0)
    near = jnp.log(jnp.linalg.svd(jnp.exp(logs - scale)[:, None] * upper, compute_uv=False)) + scale

    def sweep(carry: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], None]:
        logs, upper = carry
        _, other = jnp.linalg.qr(upper.T)  # (D U)ᵀ = Uᵀ D = Q (R D): the same singular values
        return rescaled(other, logs, jnp.eye(len(logs), dtype=logs.dtype)), None

    (logs, upper), _ = lax.scan(sweep, (logs, upper), length=SWEEPS)
    far = -jnp.sort(-(logs + jnp.log(jnp.abs(jnp.diagonal(upper)))))
    within = math.log(RESOLVED / float(jnp.finfo(near.dtype).eps))
    return jnp.where(near > jnp.max(near) - within, near, jnp.minimum(far, near[0]))
