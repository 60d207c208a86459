"""Lyapunov exponents: how fast two neighbouring trajectories of the states part, on average over a long one.

With `J_t = ∂h_t/∂h_{t-1}` of the states of all layers together, and orthonormal columns `Q_0`,

    J_t Q_{t-1} = Q_t R_t        λ_i = lim 1/T Σ_t log |R_t[i, i]|        in nats a step

A gradient that goes back through the same steps grows or vanishes with them, for `δ_{t-1} = δ_t J_t`.

References: Benettin, Galgani, Giorgilli and Strelcyn (1980), Meccanica 15; Engelken, Wolf and Abbott (2023), Physical
Review Research 5, arXiv:2006.02427; Vogt et al. (2022), Frontiers in Applied Mathematics and Statistics 8.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from ._activations import ACTIVATIONS
from ._cell import integrate, step_forward
from ._checks import check_params, check_sequence, check_states, require_array, require_key, require_sizes
from ._types import Inputs, Params, Scalar, States, Step, accumulation_dtype

NUM_BLOCKS = 10


class LyapunovSpectrum(NamedTuple):
    """The largest first, in nats a step; `errors` are standard errors, from the means of ten parts of the way."""

    exponents: Float[Array, "*batch num"]
    errors: Float[Array, "*batch num"]


def lyapunov_exponents(
    key: Key[Array, ""],
    params: Params,
    h_0: States,
    xs: Inputs | None = None,
    *,
    num: int | None = None,
    num_steps: int | None = None,
    skip: int = 0,
    every: int = 1,
) -> LyapunovSpectrum:
    """The `num` largest Lyapunov exponents along the trajectory from `h_0`, all of them unless given.

    The network is driven by `xs`, of T steps, or runs by itself, with inputs of zero, for `num_steps`. The first `skip`
    steps let the states settle and the directions, drawn with `key`, turn; they do not count. A QR decomposition is
    made `every` so many steps. Of each sequence of the batch its own. -inf is a direction that dies, at units that are
    dead, say; NaN says that the states grew out of their range. Half precision is computed in float32. Differentiable,
    see `flossing`.

    Raises:
        ValueError: if the arguments do not fit each other, or fewer than ten times `every` steps count.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> sizes = {"input_size": 2, "hidden_size": 8, "output_size": 1}
    >>> params = rnn_jax.init_params(jax.random.key(0), activation="identity", **sizes)
    >>> found = rnn_jax.lyapunov_exponents(jax.random.key(1), params, rnn_jax.zero_state(params), num_steps=100)
    >>> bool(jnp.allclose(found.exponents, 0, atol=1e-5))  # an orthogonal matrix neither stretches nor shrinks
    True
    """
    steps, num = _check(key, params, h_0, xs, num, num_steps, skip, every)
    local = local_exponents(key, params, h_0, xs, num, steps, skip, every)
    turns = local.shape[0] // NUM_BLOCKS * NUM_BLOCKS
    means = jnp.mean(local[local.shape[0] - turns :].reshape(NUM_BLOCKS, -1, *local.shape[1:]), 1)
    return LyapunovSpectrum(jnp.mean(local, 0), jnp.std(means, 0, ddof=1) / NUM_BLOCKS**0.5)


def flossing(
    key: Key[Array, ""],
    params: Params,
    h_0: States,
    xs: Inputs | None = None,
    *,
    num: int,
    num_steps: int | None = None,
    skip: int = 0,
    every: int = 1,
) -> Scalar:
    """`Σ_i λ_i²` of the `num` largest Lyapunov exponents, the mean over sequences: gradient flossing.

    A gradient that neither vanishes nor explodes along `num` directions is one whose leading exponents are zero.
    Differentiate it with respect to `params`, before training or now and then during it. Where a direction dies (a
    singular `W_hh`, units that are dead) an exponent is -inf and the penalty infinite: ask for fewer.

    Raises:
        ValueError: as `lyapunov_exponents` does.

    References: Engelken (2023), NeurIPS, arXiv:2312.17306.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=8, output_size=1,
    ...     recurrent_init=rnn_jax.orthogonal(0.5))
    >>> penalty = lambda params: rnn_jax.flossing(
    ...     jax.random.key(1), params, rnn_jax.zero_state(params), num=4, num_steps=20)
    >>> value, d_params = jax.value_and_grad(penalty)(params)
    >>> round(float(value), 2)  # 4 log² 0.5
    1.92
    """
    steps, num = _check(key, params, h_0, xs, num, num_steps, skip, every, least=1)
    exponents = jnp.mean(local_exponents(key, params, h_0, xs, num, steps, skip, every), 0)
    return jnp.mean(jnp.sum(jnp.square(exponents), -1))


def kaplan_yorke(exponents: Float[Array, " num"]) -> Scalar:
    """The Kaplan–Yorke dimension `j + Σ_{i≤j} λ_i / |λ_{j+1}|`, j the most exponents whose sum is not negative.

    It needs as many exponents as it takes for the sum to become negative; if it never does, the dimension is at least
    their number, and that is returned. NaN if one of them is.

    Raises:
        ValueError: unless `exponents` are those of one trajectory, the largest first.

    References: Kaplan and Yorke (1979), Lecture Notes in Mathematics 730.

    >>> import jax.numpy as jnp, rnn_jax
    >>> round(float(rnn_jax.kaplan_yorke(jnp.array([0.906, 0.0, -14.572]))), 3)  # the Lorenz system
    2.062
    """
    require_array("exponents", exponents, jnp.floating, "floating point numbers")
    if exponents.ndim != 1 or not len(exponents):
        raise ValueError(f"`exponents` must be those of one trajectory, (num,), got shape {exponents.shape}.")
    sums = jnp.cumsum(exponents)
    j = jnp.sum(jnp.cumprod((sums >= 0).astype(int)))
    before = jnp.where(j > 0, sums[jnp.maximum(j - 1, 0)], 0)
    after = jnp.abs(exponents[jnp.minimum(j, len(exponents) - 1)])
    part = jnp.where(j < len(exponents), before / jnp.where(after > 0, after, 1), 0)
    return jnp.where(jnp.any(jnp.isnan(exponents)), jnp.nan, j.astype(exponents.dtype) + part)


def local_exponents(
    key: Array, params: Params, h_0: States, xs: Inputs | None, num: int, steps: int, skip: int, every: int
) -> Float[Array, "turns *batch num"]:
    """`log |R[i, i]| / every` of each turn of `every` steps after the first `skip`."""
    params, h_0, xs = _single(params), _single(h_0), _single(xs)
    size = sum(h.shape[-1] for h in h_0)
    batch, dtype = h_0[0].shape[:-1], h_0[0].dtype
    start = jnp.linalg.qr(jax.random.normal(key, (size, num), dtype))[0]
    q = tuple(jnp.broadcast_to(part.T, (*batch, num, part.shape[0])) for part in _split(start, h_0))
    if xs is None:
        xs = jnp.zeros((steps, *batch, params.cells[0].w_xh.shape[0]), dtype)

    def turn(carry: tuple[States, States], x_ts: Any) -> tuple[tuple[States, States], Array]:
        (h, v), _ = lax.scan(lambda c, x_t: (tangent_step(params, *c, x_t), None), carry, x_ts)
        together = jnp.swapaxes(jnp.concatenate(v, -1), -1, -2)
        q, r = jnp.linalg.qr(together)
        v = tuple(jnp.swapaxes(part, -1, -2) for part in _split(q, h))
        finite = jnp.all(jnp.isfinite(jnp.concatenate(h, -1)), -1, keepdims=True)
        return (h, v), jnp.where(finite, jnp.log(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))), jnp.nan)

    def turns(carry: Any, xs: Any, length: int) -> Any:
        return lax.scan(turn, carry, jax.tree.map(lambda x: x.reshape(-1, length, *x.shape[1:]), xs))

    carry, _ = turns((h_0, q), xs[:skip], 1)
    whole = (steps - skip) // every * every
    _, logs = turns(carry, xs[steps - whole :], every)
    return logs / every


def tangent_step(params: Params, h_tm1: States, v: States, x_t: Step) -> tuple[States, States]:
    """One step of all layers, and `J_t` of the rows of `v`, `(*batch, num, hid)` a layer: forward mode by hand."""
    h_t, v_t = [], []
    above: Any = None
    for cell, h, v_l in zip(params.cells, h_tm1, v, strict=True):
        h_new, residuals = step_forward(cell, h, x_t)
        a_dot = v_l @ cell.w_hh if above is None else v_l @ cell.w_hh + above @ cell.w_xh
        f_dot = ACTIVATIONS[cell.activation].d_phi(residuals.f_t)[..., None, :] * a_dot
        above = integrate(cell, f_dot, v_l)
        x_t = h_new
        h_t.append(h_new)
        v_t.append(above)
    return tuple(h_t), tuple(v_t)


def _single(tree: Any) -> Any:
    """`tree` with half precision in float32, for there are no decompositions of it."""

    def cast(x: Any) -> Any:
        return x.astype(accumulation_dtype(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


def _split(x: Array, h_0: States) -> list[Array]:
    """The rows of each layer, of a matrix with those of all of them."""
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
    every: int,
    least: int = NUM_BLOCKS,
) -> tuple[int, int]:
    """`(steps, num)`, checked."""
    require_key(key)
    check_params(params)
    require_sizes(least=0, skip=skip)
    require_sizes(every=every)
    if (xs is None) == (num_steps is None):
        raise ValueError("Either `xs`, the inputs that drive the network, or `num_steps` must be given, not both.")
    if xs is None:
        require_sizes(num_steps=num_steps)
        check_states(params, h_0)
    else:
        check_sequence(params, h_0, xs, None, None, name="xs")
    steps = int(num_steps) if xs is None else xs.shape[0]  # type: ignore[arg-type]
    if (steps - skip) // every < least:
        raise ValueError(
            f"At least {least * every} steps must be left after `skip`, got {steps} steps and skip = {skip}."
        )
    size = sum(cell.w_hh.shape[0] for cell in params.cells)
    num = size if num is None else num
    require_sizes(num=num)
    if num > size:
        raise ValueError(f"`num` must be at most the {size} units of all layers, got {num}.")
    return steps, num
