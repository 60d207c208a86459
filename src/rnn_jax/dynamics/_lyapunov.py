"""Lyapunov exponents: how fast two neighbouring trajectories of the states move apart, on average over a long time.

With `J_t = ∂h_t/∂h_{t-1}` of the states of all layers together, and orthonormal columns `Q_0`,

    J_t Q_{t-1} = Q_t R_t        λ_i = lim 1/T Σ_t log |R_t[i, i]|        in nats per step

A gradient that goes back through the same steps grows or vanishes at these rates, because `δ_{t-1} = δ_t J_t`.

References: Benettin, Galgani, Giorgilli and Strelcyn (1980), Meccanica 15; Engelken, Wolf and Abbott (2023), Physical
Review Research 5, arXiv:2006.02427; Vogt et al. (2022), Frontiers in Applied Mathematics and Statistics 8.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from .._cells.leaky import LeakyParams
from .._cells.protocol import Cell, hidden, num_units
from .._cells.vanilla import CellParams
from .._checks import check_params, check_sequence, check_states
from .._nn.step import products
from .._require import is_below, require_array, require_key, require_sizes
from .._types import Inputs, Params, Scalar, States, Step, accumulation_dtype
from ._jacobians import qr_by_rows, tangents

NUM_BLOCKS = 10
NUM_EPSILONS = 4  # times the root of the number of units: a QR decomposition turns a zero into less than this


class LyapunovSpectrum(NamedTuple):
    """The Lyapunov exponents, largest first, in nats per step, each `(*batch, num)`.

    `exponents` -inf: nothing is left in this direction. NaN: the trajectory grew out of range.
    `errors`    standard errors, from the means of ten parts of the trajectory; infinite if the exponent is not finite.
    `rounding`  how far rounding may have moved each exponent: trust one whose `rounding` is small. For -inf, 0 means
                that the direction is certainly dead: all its units are relus that are off. For -inf, infinite means
                that the rest was not above rounding at some step: `W_hh` is singular, or nearly so for its dtype, or a
                φ' is below the smallest number of the dtype. For NaN it is infinite.
    """

    exponents: Float[Array, "*batch num"]
    errors: Float[Array, "*batch num"]
    rounding: Float[Array, "*batch num"]


def lyapunov_exponents(
    key: Key[Array, ""],
    params: Params,
    h_0: States,
    xs: Inputs | None = None,
    *,
    num: int | None = None,
    num_steps: int | None = None,
    skip: int = 0,
) -> LyapunovSpectrum:
    """Compute the `num` largest Lyapunov exponents along the trajectory from `h_0`.

    `xs` drives the network; without it, the network runs by itself for `num_steps`, with inputs of zero. Each step has
    its own QR decomposition, because over several steps all directions turn to the first one, and rounding hides the
    last ones. The result is differentiable, see `flossing`. Half precision is computed in float32.

    A saturated unit is not dead: φ' is computed from `a_t`, and keeps full precision until it is below the smallest
    number of the dtype, for tanh from |a_t| = 44 on in float32 and 354 in float64. An exponent of -inf has one of two
    reasons. If its `rounding` is 0, relus are off. If it is infinite, `W_hh` is singular, a φ' is that small, or
    rounding has lost the exponent: a recurrence that moves the state of a saturated unit to another and back mixes
    slopes of very different sizes. float64 has more room.

    Args:
        key: draws the first directions.
        params: the network.
        h_0: the states from which the trajectory starts, one array per layer.
        xs: the inputs, `(time, *batch, in)`, or tokens, `(time, *batch)`.
        num: how many exponents; None for all, one per unit, or two per unit of an LSTM, whose state is `(h, c)`.
        num_steps: the number of steps, if there is no `xs`.
        skip: how many of the first steps do not count: the states settle in them, and the directions turn.

    Returns:
        A `LyapunovSpectrum`: exponents, standard errors and the effect of rounding, for each sequence of the batch.

    Raises:
        TypeError: if `key` is not a key, or dtypes do not fit.
        ValueError: if the arguments do not fit each other, or fewer than ten steps count.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> sizes = {"input_size": 2, "hidden_size": 8, "output_size": 1}
    >>> params = rnn_jax.init_params(jax.random.key(0), activation="identity", **sizes)
    >>> start = rnn_jax.zero_state(params)
    >>> found = rnn_jax.dynamics.lyapunov_exponents(jax.random.key(1), params, start, num_steps=100)
    >>> bool(jnp.allclose(found.exponents, 0, atol=1e-5))  # an orthogonal matrix neither stretches nor shrinks
    True
    """
    steps, num = _check(key, params, h_0, xs, num, num_steps, skip)
    local, rounding = local_exponents(key, params, h_0, xs, num, steps, skip)
    exponents, block = jnp.mean(local, 0), local.shape[0] // NUM_BLOCKS
    parts = local[local.shape[0] - NUM_BLOCKS * block :].reshape(NUM_BLOCKS, block, *local.shape[1:])
    finite = jnp.isfinite(exponents)
    spread = jnp.std(jnp.mean(jnp.where(finite, parts, 0), 1), 0, ddof=1)
    found = LyapunovSpectrum(exponents, jnp.where(finite, spread / NUM_BLOCKS**0.5, jnp.inf), jnp.mean(rounding, 0))
    order = jnp.argsort(-exponents, axis=-1)
    return LyapunovSpectrum(*(jnp.take_along_axis(x, order, -1) for x in found))


def flossing(
    key: Key[Array, ""],
    params: Params,
    h_0: States,
    xs: Inputs | None = None,
    *,
    num: int,
    num_steps: int | None = None,
    skip: int = 0,
) -> Scalar:
    """Compute `Σ_i λ_i²` of the `num` largest Lyapunov exponents: gradient flossing.

    A gradient neither vanishes nor explodes along `num` directions if their exponents are zero. Differentiate the
    penalty with respect to `params`, before training or now and then during it. If a direction dies (`W_hh` is
    singular, units are dead), its exponent is -inf and the penalty infinite: ask for fewer.

    Args:
        key, params, h_0, xs, num_steps, skip: as in `lyapunov_exponents`; one step that counts is enough.
        num: how many exponents.

    Returns:
        The penalty, `()`, in nats² per step²: the mean over the sequences, 0 if there are none.

    Raises:
        TypeError, ValueError: as `lyapunov_exponents` does.

    References: Engelken (2023), NeurIPS, arXiv:2312.17306.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=8, output_size=1,
    ...     recurrent_init=rnn_jax.initializers.orthogonal(0.5))
    >>> penalty = lambda params: rnn_jax.dynamics.flossing(
    ...     jax.random.key(1), params, rnn_jax.zero_state(params), num=4, num_steps=20)
    >>> value, d_params = jax.value_and_grad(penalty)(params)
    >>> round(float(value), 2)  # 4 log² 0.5
    1.92
    """
    steps, num = _check(key, params, h_0, xs, num, num_steps, skip, least=1)
    exponents = jnp.mean(local_exponents(key, params, h_0, xs, num, steps, skip)[0], 0)
    penalties = jnp.sum(jnp.square(exponents), -1)
    return jnp.sum(penalties) / max(penalties.size, 1)


def kaplan_yorke(exponents: Float[Array, "*batch num"]) -> Float[Array, "*batch"]:
    """Compute the Kaplan–Yorke dimension, `j + Σ_{i≤j} λ_i / |λ_{j+1}|` with j the largest number whose sum is ≥ 0.

    Args:
        exponents: `(*batch, num)`, largest first, as in `LyapunovSpectrum`. There must be enough of them for the sum to
            become negative; otherwise their number is returned, a lower bound.

    Returns:
        The dimension of each trajectory, `(*batch,)`; NaN if one of its exponents is.

    Raises:
        TypeError: if `exponents` is not an array of floating point numbers.
        ValueError: if there is no exponent.

    References: Kaplan and Yorke (1979), Lecture Notes in Mathematics 730.

    >>> import jax.numpy as jnp, rnn_jax
    >>> round(float(rnn_jax.dynamics.kaplan_yorke(jnp.array([0.906, 0.0, -14.572]))), 3)  # the Lorenz system
    2.062
    """
    require_array("exponents", exponents, jnp.floating, "floating point numbers")
    if exponents.ndim < 1 or exponents.shape[-1] == 0:
        raise ValueError(f"`exponents` must have the axes (*batch, num), num at least 1, got shape {exponents.shape}.")
    sums = jnp.cumsum(exponents, -1)
    j = jnp.sum(jnp.cumprod((sums >= 0).astype(int), -1), -1)
    before = jnp.where(j > 0, _at(sums, jnp.maximum(j - 1, 0)), 0)
    num = exponents.shape[-1]
    after = jnp.abs(_at(exponents, jnp.minimum(j, num - 1)))
    part = jnp.where(j < num, before / jnp.where(after > 0, after, 1), 0)
    largest = jnp.max(exponents, -1)  # NaN if one of them is
    return jnp.where(jnp.isnan(largest), largest, j.astype(exponents.dtype) + part)


def _at(x: Array, i: Array) -> Array:
    """`x[..., i]`, one place for each of the leading axes."""
    return jnp.take_along_axis(x, i[..., None], -1)[..., 0]


def local_exponents(
    key: Array, params: Params, h_0: States, xs: Inputs | None, num: int, steps: int, skip: int
) -> tuple[Float[Array, "steps *batch num"], Float[Array, "steps *batch num"]]:
    """`log |R[i, i]|` of each step after the first `skip`, and what rounding may have done to it."""
    params, h_0, xs = _single(params), _single(h_0), _single(xs)
    size = sum(h.shape[-1] for h in h_0)
    batch, dtype = h_0[0].shape[:-1], h_0[0].dtype
    start = jnp.linalg.qr(jax.random.normal(key, (size, num), dtype))[0]
    q = tuple(jnp.broadcast_to(part.T, (*batch, num, part.shape[0])) for part in _split(start, h_0))
    if xs is None:
        xs = jnp.zeros((steps, *batch, params.cells[0].w_xh.shape[0]), dtype)

    def body(carry: tuple[States, States], x_t: Any) -> tuple[tuple[States, States], tuple[Array, Array]]:
        h, v, off = tangent_step(params, *carry, x_t)
        turned = jnp.swapaxes(jnp.concatenate(v, -1), -1, -2)
        q, r = qr_by_rows(turned)
        v = tuple(jnp.swapaxes(part, -1, -2) for part in _split(q, h))
        finite = jnp.all(jnp.isfinite(jnp.concatenate(h, -1)), -1, keepdims=True)
        diagonal = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
        logs, rounding = logs_of_diagonal(turned, q, diagonal, jnp.concatenate(off, -1))
        return (h, v), (jnp.where(finite, logs, jnp.nan), jnp.where(finite, rounding, jnp.inf))

    carry, _ = lax.scan(body, (h_0, q), xs[:skip])
    return lax.scan(body, carry, xs[skip:])[1]


def logs_of_diagonal(x: Array, q: Array, diagonal: Array, off: Array) -> tuple[Array, Array]:
    """The logs of the diagonal of R in `x = Q R`, and what rounding may have done to them.

    Rounding moves each row of x by some epsilons of its own largest entry. So it moves `R[i, i] = Q[:, i] · x[:, i]` by
    the errors of the rows in which `Q[:, i]` is not zero. An `R[i, i]` that is not larger than this may be zero, and
    counts as zero. It is certainly zero if all of these rows belong to units that are `off`.
    """
    x, q, size = lax.stop_gradient(x), jnp.abs(lax.stop_gradient(q)), lax.stop_gradient(diagonal)
    epsilons = NUM_EPSILONS * x.shape[-2] ** 0.5 * jnp.finfo(x.dtype).eps
    noise = epsilons * jnp.sum(q * jnp.max(jnp.abs(x), axis=-1, keepdims=True), axis=-2)
    lost = size <= noise
    dead = (size == 0) & (jnp.sum(jnp.where(off[..., None], 0, q), axis=-2) <= epsilons)
    rounding = jnp.where(lost | ~jnp.isfinite(size), jnp.inf, noise / jnp.where(lost, 1, size))
    return jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1, diagonal))), jnp.where(dead, 0, rounding)


def tangent_step(params: Params, h_tm1: States, v: States, x_t: Step) -> tuple[States, States, States]:
    """One step of all layers, `J_t` times the rows of `v`, `(*batch, num, hid)` each, and which units are `off`."""
    h_t, v_t, off = [], [], []
    above: Any = None
    for cell, h, v_l in zip(params.cells, h_tm1, v, strict=True):
        z_t, u_t = products(cell, h, x_t)
        h_new = cell.forward(z_t, u_t, h)
        u_dot = hidden(cell, v_l) @ cell.w_hh
        z_dot = None if above is None else above @ cell.w_xh
        v_new = tangents(cell, (z_t, u_t, h, h_new), (z_dot, u_dot), v_l)
        x_t, above = hidden(cell, h_new), hidden(cell, v_new)
        h_t.append(h_new)
        v_t.append(v_new)
        off.append(is_off(cell, z_t, u_t, h_new))
    return tuple(h_t), tuple(v_t), tuple(off)


def is_off(cell: Cell, z_t: Array, u_t: Array, h_t: Array) -> Array:
    """Which units have a slope of exactly zero: relus that are off. Other slopes of zero may have underflowed."""
    if isinstance(cell, CellParams | LeakyParams) and cell.activation == "relu":
        return cell.slope(z_t, u_t) == 0
    return jnp.zeros_like(h_t, dtype=bool)


def _single(tree: Any) -> Any:
    """`tree` with half precision cast to float32, because there are no decompositions in half precision."""

    def cast(x: Any) -> Any:
        return x.astype(accumulation_dtype(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


def _split(x: Array, h_0: States) -> list[Array]:
    """A matrix with the rows of all layers, as one matrix per layer."""
    sizes = [h.shape[-1] for h in h_0]
    return jnp.split(x, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)], axis=-2)


def _check(
    key: Any,
    params: Params,
    h_0: States,
    xs: Inputs | None,
    num: int | None,
    num_steps: int | None,
    skip: int,
    least: int = NUM_BLOCKS,
) -> tuple[int, int]:
    """`(steps, num)`, checked."""
    require_key(key)
    check_params(params)
    require_sizes(least=0, skip=skip)
    if (xs is None) == (num_steps is None):
        raise ValueError("Either `xs`, the inputs that drive the network, or `num_steps` must be given, not both.")
    if xs is None:
        require_sizes(num_steps=num_steps)
        check_states(params, h_0)
    else:
        check_sequence(params, h_0, xs, None, None, name="xs")
    steps = int(num_steps) if xs is None else xs.shape[0]  # type: ignore[arg-type]
    if is_below("xs", steps, skip + least):
        raise ValueError(f"At least {least} steps must be left after `skip`, got {steps} steps and skip = {skip}.")
    size = sum(cell.parts * num_units(cell) for cell in params.cells)
    num = size if num is None else num
    require_sizes(num=num)
    if num > size:
        raise ValueError(f"`num` must be at most {size}, the size of the states of all layers, got {num}.")
    return steps, num
