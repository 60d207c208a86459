"""Fixed and slow points of a network that runs by itself or with a constant input: the states that attract or repel it.

With F one step of all layers and the speed `q(h) = ½ ‖F(h) - h‖²`, a fixed point is a zero of q, and a slow point a
small local minimum. Around it, the Jacobian of F says how the states move: the point attracts if all eigenvalues are
inside the unit circle, and holds a memory along the eigenvectors of those near the circle.

References: Sussillo and Barak (2013), Neural Computation 25(3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .._cells.protocol import hidden
from .._checks import check_inputs, check_params, check_states
from .._nn.step import step
from .._require import POSITIVE, Number, require_known_number, require_sizes, require_values
from .._types import Params, States, Step
from ..verify._subject import in_float64


class FixedPoints(NamedTuple):
    """What `fixed_points` found, the slowest point first; layers together, axes `(point, ...)`.

    `states`      one array `(point, hid)` per layer; `(point, 2 hid)` for an LSTM, whose state is `(h, c)`.
    `speeds`      `‖F(h) - h‖`: how far one step moves the state. If it is not near zero, the search has ended at a slow
                  point or nowhere special.
    `eigenvalues` of the Jacobian of F there, largest first, complex.
    `stable`      whether all of them are inside the unit circle; this only means something if the speed is near zero.
    `num_starts`  how many of the starts came to this point.
    """

    states: tuple[np.ndarray, ...]
    speeds: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    num_starts: np.ndarray


def fixed_points(
    params: Params,
    starts: States,
    x: Step | None = None,
    *,
    max_steps: int = 1000,
    tolerance: Number = 1e-14,
    apart: Number = 1e-2,
) -> FixedPoints:
    """Search for fixed and slow points: minimise the speed `q(h) = ½ ‖F(h) - h‖²` by L-BFGS from each of `starts`.

    It computes in float64, whatever the session's default. It reads values, so it cannot run under `jit`.

    Args:
        params: the network.
        starts: states to start from, `(num, hid)` per layer. States from a run of the network, with some noise added,
            are good ones.
        x: the constant input, `(in,)`, or a token, `()`; None for zero.
        max_steps: the most L-BFGS steps of one search.
        tolerance: a search ends when the norm of the gradient of q is below this.
        apart: points closer than this are one point.

    Returns:
        A `FixedPoints`.

    Raises:
        TypeError: under `jit`, `grad` or `vmap`.
        ValueError: if `starts` do not fit `params` or are not finite, or a number is not above zero.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> cell = rnn_jax.CellParams(jnp.zeros((1, 1)), jnp.array([[2.0]]), jnp.zeros(1), "tanh")
    >>> params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((1, 1)), jnp.zeros(1)))
    >>> found = rnn_jax.dynamics.fixed_points(params, (jnp.linspace(-1.5, 1.5, 20)[:, None],))  # h = tanh(2 h)
    >>> order = found.states[0][:, 0].argsort()
    >>> [round(float(h), 3) for h in found.states[0][order, 0]], found.stable[order].tolist()
    ([-0.958, 0.0, 0.958], [True, False, True])
    """
    require_values("fixed_points", (params, starts, x))
    check_params(params)
    require_sizes(max_steps=max_steps)
    tolerance, apart = (
        require_known_number(*number, POSITIVE, "call `fixed_points` outside")
        for number in (("tolerance", tolerance), ("apart", apart))
    )
    check_states(params, starts, name="starts")
    if starts[0].ndim != 2:
        raise ValueError(f"`starts[0]` must have the axes (num, hid), got shape {starts[0].shape}.")
    if not len(starts[0]) or not all(np.all(np.isfinite(h)) for h in starts):
        raise ValueError(
            "`starts` must hold at least one state, and only finite numbers: leave out those that diverged."
        )
    if x is not None and check_inputs(params.cells[0], x, (), "x", "params.cells[0]"):
        raise ValueError(f"`x` must be one constant input, (in,) or a token (), without a batch, got shape {x.shape}.")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, starts = jax.tree.map(in_float64, (params, starts))
        x_t = jnp.zeros(params.cells[0].w_xh.shape[0]) if x is None else in_float64(x)
        return _found(params, starts, x_t, max_steps, tolerance, apart)


def _found(params: Params, starts: States, x_t: Step, max_steps: int, tolerance: float, apart: float) -> FixedPoints:
    _, unravel = ravel_pytree(tuple(h[0] for h in starts))

    def velocity(h: Array) -> Array:
        below, h_t = x_t, []
        for cell, h_l in zip(params.cells, unravel(h), strict=True):
            h_t.append(step(cell, h_l, below))
            below = hidden(cell, h_t[-1])
        return ravel_pytree(tuple(h_t))[0] - h

    @jax.jit
    @jax.vmap
    def search(h: Array) -> tuple[Array, Array]:
        end = descend(lambda h: 0.5 * jnp.sum(velocity(h) ** 2), h, max_steps, tolerance)
        return end, jnp.linalg.norm(velocity(end))

    ends, speeds = map(np.asarray, search(jnp.concatenate(starts, -1)))
    kept, num_starts = distinct(ends, speeds, apart)
    points = jnp.asarray(ends[kept])
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda h: velocity(h) + h)))(points)
    eigenvalues = np.linalg.eigvals(np.asarray(jacobians))
    eigenvalues = np.take_along_axis(eigenvalues, np.argsort(-np.abs(eigenvalues), axis=1), 1)
    states = jax.tree.map(np.asarray, jax.vmap(unravel)(points))
    return FixedPoints(states, speeds[kept], eigenvalues, np.abs(eigenvalues[:, 0]) < 1, np.asarray(num_starts))


def descend(value_fn: Callable[[Array], Array], h: Array, max_steps: int, tolerance: float) -> Array:
    """The point at which L-BFGS ends if it starts from `h`."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(value_fn)

    def go_on(carry: tuple[Array, Any, Array]) -> Array:
        _, state, last = carry
        moves: Array = (last > tolerance) & (optax.tree.get(state, "count") < max_steps)
        return moves

    def body(carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
        h, state, _ = carry
        value, d_h = value_and_grad(h, state=state)
        updates, state = optimizer.update(d_h, state, h, value=value, grad=d_h, value_fn=value_fn)
        return optax.apply_updates(h, updates), state, jnp.linalg.norm(d_h)

    return lax.while_loop(go_on, body, (h, optimizer.init(h), jnp.asarray(jnp.inf, h.dtype)))[0]


def distinct(points: np.ndarray, speeds: np.ndarray, apart: float) -> tuple[list[int], list[int]]:
    """The points that are further than `apart` from each slower point, and how many points are near each."""
    kept: list[int] = []
    near: list[int] = []
    for i in np.argsort(speeds, kind="stable"):
        distances = np.linalg.norm(points[kept] - points[i], axis=1) if kept else np.empty(0)
        if len(distances) and distances.min() <= apart:
            near[int(distances.argmin())] += 1
        else:
            kept.append(int(i))
            near.append(1)
    return kept, near
