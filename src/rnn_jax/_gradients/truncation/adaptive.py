"""Adaptive truncation: windows reach back until the estimated rest is less than a given share of the gradient.

Let `d_h` be what a window sends to the state before the steps it has reached so far. Each further step back adds `(x_t,
h_{t-1}, 1)ᵀ d_a_t` to the gradient of its cell, with `‖d_a_t‖ ≤ ‖d_h_t‖`, because no |φ'| is above 1. If `d_h` falls by
the factor β or faster at each step, all these terms together are at most

    r = Σ ‖d_h‖ (1 + β + β² + …) M = Σ ‖d_h‖ M / (1 - β),        M = max_t ‖(x_t, h_{t-1}, 1)‖

summed over windows, sequences and layers. β is the factor per step by which the sum fell in the last k1 steps, in the
windows that had k1 more steps before them. With `g` the gradient of the cells so far, the relative bias is at most `r /
(‖g‖ - r)`, by the triangle inequality. This bound is only an estimate in three cases: in a stack, where a lower layer
also gets what higher layers send down on the way; for cells with their own parameters per unit; and for cells with
gates, where a gate's `d_a` grows with what the gate multiplies. With `d_h` of the whole state,

    ‖d_a_t‖ ≤ √(2.1 + c² / 8) ‖d_h_t‖   in an LSTM, c the largest |c_{t-1}|
    ‖d_a_t‖ ≤ √(1 + q² / 16) ‖d_h_t‖    in a GRU, q the largest |u_n + b_n|, from states of at most 1

References: Aicher, Foti and Fox (2019), UAI, arXiv:1905.07473: the assumption of geometric decay, and the bound.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..._cells.protocol import Deltas, hidden
from ..._checks import is_tokens
from ..._nn.apply import last_states
from ..._nn.events import select
from ..._nn.loops import Residuals, states_read
from ..._numerics import norms, tree_norm
from ..._require import POSITIVE, Number, are_numbers, require_number, require_sizes
from ..._types import Batch, Gradients, Objective, Params, Result, Scalar, States
from ..blocked import Problem, WayBack, planned, there_and_back
from ..bptt import bptt
from ..through_layers import backward_readout, forward_layers
from .references import WindowsByAutodiff
from .windows import Pieces, Windows, fold, neighbours, of_all_passes, one_pass, side_by_side, whole_windows


class Reach(NamedTuple):
    """How far back the windows have gone so far, and the estimate of what is missing.

    `passes`   the number of passes so far.
    `leaving`  what the last pass sent back from each piece.
    `d_as`     the sum of the cotangents of all passes.
    `d_h_0`    the gradient of `h_0` so far.
    `parts`    `Σ ‖d_h‖ M` of each piece.
    `bias`     the estimated relative bias.
    """

    passes: Int[Array, ""]
    leaving: States
    d_as: tuple[Deltas, ...]
    d_h_0: States
    parts: Float[Array, " pieces"]
    bias: Scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """`Truncated` with a reach that grows by `k1` until the estimated rest is below a share of the gradient. Not exact.

    The rest is what a longer reach would still add to the gradient of the cells; the module docstring has its bound.
    The loss covers all steps.

    Args:
        k1: the window length, in steps; the reach is a multiple of it.
        bias: the share of the gradient of the cells that may be missing; above zero. It may be traced: then its range
            is not checked.
        k2_max: the longest reach, in steps, at least `k1`; None for no limit.

    Raises:
        TypeError: if `k1` or `k2_max` is not an integer, or `bias` is not a number.
        ValueError: if `k1` is below 1, `k2_max` is below `k1`, or `bias` is not above zero.

    References: Aicher, Foti and Fox (2019), UAI, arXiv:1905.07473.

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Adaptive(k1=10, bias=0.1, k2_max=100), loss="cross_entropy")
    """

    k1: int
    bias: Number
    k2_max: int | None = None

    def __post_init__(self) -> None:
        require_sizes(k1=self.k1)
        object.__setattr__(self, "bias", require_number("bias", self.bias, POSITIVE))
        if self.k2_max is not None:
            require_sizes(least=self.k1, k2_max=self.k2_max)

    @property
    def reference(self) -> WindowsByAutodiff:
        """Windows by `stop_gradient` in the plain scan, with the reach that the method chooses."""
        return WindowsByAutodiff(self.k1, ChosenReach(self))

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss of all steps, the last states, and the sum of the gradients of all windows."""
        return adaptive(self, objective, params, batch, h_0)[1]


@dataclasses.dataclass(frozen=True)
class ChosenReach:
    """The k2 that a method chooses for a batch."""

    method: Adaptive

    def __call__(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Int[Array, ""]:
        """The k2, a multiple of k1."""
        return adaptive(self.method, objective, params, batch, h_0)[0]


def adaptive(
    method: Adaptive, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[Int[Array, ""], Result]:
    """`k2`, a multiple of `k1`, and what `Truncated` returns with it."""
    k1, k2_max = method.k1, method.k2_max
    time = batch.inputs.shape[0]
    if are_numbers(time) and k1 >= time:  # one window, of all steps
        problem = Problem(WayBack(), objective, params, batch)
        return jnp.asarray(k1), there_and_back(problem, planned(None, problem), h_0)
    dtype = objective.scale.dtype
    batch = whole_windows(batch, k1, dtype)
    padded = batch.inputs.shape[0]
    pieces = padded // k1
    most = pieces if k2_max is None else jnp.maximum(jnp.minimum(k2_max // k1, pieces), 1)

    hs, saved = forward_layers(bptt(), params, batch, h_0)
    value, d_readout, d_hs = backward_readout(objective, params.readout, batch, hidden(params.cells[-1], hs[-1]))
    folded = side_by_side(saved, k1)
    sizes = [jnp.max(norm_of_read(r), 0) for r in saved]
    endless = Windows(k1=k1, k2=time + padded, time=time, passes=pieces)  # no limit to the reach
    side = Pieces(endless, folded, 0)

    def bias_of(rest: Scalar, d_as: tuple[Deltas, ...]) -> Scalar:
        d_cells, _ = of_all_passes(params, batch.inputs, saved, d_as)
        return relative_bias(rest, tree_norm(d_cells))

    def too_short(reach: Reach) -> Array:
        return (reach.bias > jnp.asarray(method.bias, dtype)) & (reach.passes < most)

    def further(reach: Reach) -> Reach:
        leaving, d_as = one_pass(side, reach.passes, None, neighbours(reach.leaving, no_more))
        sums = jax.tree.map(jnp.add, reach.d_as, d_as)
        d_h_0 = tuple(d + d_h[0] for d, d_h in zip(reach.d_h_0, leaving, strict=True))
        parts = sent_back(leaving, sizes)
        bias = bias_of(what_is_left(parts, reach.parts, k1), sums)
        return Reach(reach.passes + 1, leaving, sums, d_h_0, parts, bias)

    nothing = tuple(jnp.zeros_like(r.ss[0]) for r in folded)
    no_more = tuple(jnp.zeros_like(h) for h in h_0)  # after the last piece
    leaving, d_as = one_pass(side, 0, fold(d_hs, k1), nothing)
    parts = sent_back(leaving, sizes)
    unknown = jnp.where(jnp.sum(parts[1:]) == 0, 0, jnp.inf).astype(dtype)  # the decay is not known yet
    start = Reach(jnp.ones((), int), leaving, d_as, tuple(d_h[0] for d_h in leaving), parts, bias_of(unknown, d_as))
    reach = lax.while_loop(too_short, further, start)
    k2 = reach.passes * k1
    if padded != time:  # the last window is shorter, and has not gone back k2 steps yet
        own = (jnp.arange(pieces) == pieces - 1 - reach.passes) & (jnp.asarray(padded - time) > 0)
        entering = neighbours(reach.leaving, no_more)
        entering = tuple(select(own, d_h, jnp.zeros_like(d_h)) for d_h in entering)
        ending = dataclasses.replace(endless, k2=k2)
        leaving, d_as = one_pass(side._replace(windows=ending), reach.passes, None, entering)
        d_h_0 = tuple(d + d_h[0] for d, d_h in zip(reach.d_h_0, leaving, strict=True))
        reach = reach._replace(d_as=jax.tree.map(jnp.add, reach.d_as, d_as), d_h_0=d_h_0)
    d_cells, d_xs = of_all_passes(params, batch.inputs, saved, reach.d_as)
    d_xs = None if d_xs is None else d_xs[:time]
    return k2, ((value, last_states(h_0, hs)), Gradients(Params(d_cells, d_readout), reach.d_h_0, d_xs))


def sent_back(leaving: States, sizes: list[Array]) -> Float[Array, " pieces"]:
    """`Σ ‖d_h‖ M` of what leaves each piece, over layers and sequences."""
    of_layers = [norms(d_h) * size[None] for d_h, size in zip(leaving, sizes, strict=True)]
    return jnp.sum(jnp.stack([jnp.sum(x, tuple(range(1, x.ndim))) for x in of_layers]), 0)


def relative_bias(rest: Scalar, norm: Scalar) -> Scalar:
    """`rest / (norm - rest)`: a bound on the missing part, relative to the full gradient; infinite if `rest ≥ norm`."""
    small = rest < norm
    return jnp.where(rest == 0, 0, jnp.where(small, rest / jnp.where(small, norm - rest, 1), jnp.inf))


def what_is_left(parts: Array, before: Array, k1: int) -> Scalar:
    """`Σ ‖d_h‖ M / (1 - β)` of the windows that have steps before them; `before` is `parts` k1 steps earlier."""
    now, then = jnp.sum(parts[1:]), jnp.sum(before[2:])
    beta = jnp.where(then > 0, now / jnp.where(then > 0, then, 1), 0) ** (1 / k1)
    return jnp.where(now == 0, 0, jnp.where(beta < 1, now / jnp.where(beta < 1, 1 - beta, 1), jnp.inf))


def norm_of_read(residuals: Residuals) -> Array:
    """`‖(x_t, h_{t-1}, 1)‖` of each step and sequence, as the weights read them."""
    xs, read = residuals.xs, states_read(residuals)
    of_xs = 1.0 if is_tokens(xs) else jnp.square(norms(xs))
    return jnp.sqrt(of_xs + jnp.square(norms(read)) + 1)
