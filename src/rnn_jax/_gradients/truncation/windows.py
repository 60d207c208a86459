"""The definition of the windows of a loss, and the way back through them, all windows of a block at once.

Steps are numbered from 1. Window i = 1..n, with n = ⌈T / k1⌉, has the losses of the steps `(i - 1) k1 < t ≤ e_i`,
where `e_i = min(i k1, T)`:

    L_i = Σ_{(i-1) k1 < t ≤ e_i} w_t ℓ(y_t, target_t)       d = Σ_i ∂L_i, where h_{s_i} is a constant, s_i = e_i - k2

for all leaves; `h_{s_i}` is constant in all layers. If s_i ≤ 0, nothing is cut, and `h_0` gets its gradient. All
windows use the same parameters and share the states of one forward pass. `k1` and `k2` count steps of the arrays,
including masked ones.

References: Williams and Peng (1990), Neural Computation 2(4): BPTT(h; h'), with h = k2 and h' = k1.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..._batches import num_read
from ..._cells.protocol import Cell, Deltas, hidden
from ..._checks import steps_shape
from ..._losses import step_weights
from ..._nn.affine import affine_d_input
from ..._nn.loops import Residuals, deltas, weight_gradients
from ..._require import are_numbers
from ..._types import (
    Batch,
    Gradients,
    Hiddens,
    Inputs,
    Params,
    Scalar,
    States,
)
from ..blocked import Block, Problem, WayBack
from ..plan import Plan
from ..through_layers import backward_readout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows(WayBack):
    """The windows of `time` steps; their reach covers at most `passes` pieces of `k1` steps."""

    k1: int
    k2: Any
    time: int
    passes: int

    def backward(self, problem: Problem, block: Block, d_h: States) -> tuple[Scalar, Gradients]:
        """Back through a block of whole windows, all at once, one piece further back in each pass.

        `d_h[layer][q]` is what the block after this one sends in pass q; it arrives here in pass q + 1. The `d_h` that
        is returned is what this block sends.
        """
        params, steps = problem.params, block.steps
        hs = hidden(params.cells[-1], block.hs)
        value, d_readout, d_hs = backward_readout(problem.objective, params.readout, steps, hs)
        pieces = Pieces(self, side_by_side(block.saved, self.k1), block.start)
        sent_back, sums = window_deltas(pieces, fold(d_hs, self.k1), d_h)
        d_cells, d_xs = of_all_passes(params, steps.inputs, block.saved, sums)
        return value, Gradients(Params(d_cells, d_readout), sent_back, d_xs)


class Pieces(NamedTuple):
    """The pieces of `k1` steps of a block, side by side on one more batch axis; the block begins at step `start`."""

    windows: Windows
    folded: list[Residuals]
    start: Any


def whole_windows(batch: Batch, k1: int, dtype: Any) -> Batch:
    """`batch` with masked steps added at its end, up to a multiple of `k1`.

    Its targets begin at the start of a window.
    """
    time, *batch_axes = steps_shape(batch.inputs)
    last = num_read(batch)
    after = -(-time // k1) * k1 - time
    unread = time - last
    before = unread - unread // k1 * k1 if are_numbers(unread) else unread  # unknown number of windows
    if after == 0 and before == 0:
        return batch
    mask = jnp.ones((time, *batch_axes), bool) if batch.mask is None and after != 0 else batch.mask
    return Batch(
        pad_steps(batch.inputs, 0, after),
        pad_steps(batch.targets, before, after),
        pad_steps(step_weights(batch, dtype), before, after),
        pad_steps(mask, 0, after),
        pad_steps(batch.reset, 0, after),
        drop=batch.drop,
    )


def pad_steps(tree: Any, before: int, after: int) -> Any:
    """Every leaf with `before` steps of zeros in front and `after` at the end."""
    return jax.tree.map(lambda x: jnp.pad(x, ((before, after), *((0, 0),) * (x.ndim - 1))), tree)


def window_plan(plan: Plan, k1: int) -> Plan:
    """`plan` with blocks of whole windows."""
    if not are_numbers(plan.block):
        return plan
    return plan._replace(block=max(round(plan.block / k1), 1) * k1)


def window_deltas(pieces: Pieces, d_hs: Hiddens, later: States) -> tuple[States, tuple[Deltas, ...]]:
    """`(sent_back, sums)` for each layer.

    `sent_back` is what leaves the block in each pass; `sums` are the `d_a_t` of all passes added up, windows side by
    side.
    """

    def again(carry: tuple[States, Any], now: Any) -> tuple[tuple[States, Any], States]:
        leaving, sums = carry
        q, later_q = now
        leaving, d_as = one_pass(pieces, q, None, neighbours(leaving, later_q))
        return (leaving, jax.tree.map(jnp.add, sums, d_as)), tuple(d_h[0] for d_h in leaving)

    nothing = tuple(jnp.zeros_like(r.ss[0]) for r in pieces.folded)
    carry = one_pass(pieces, 0, d_hs, nothing)
    first = tuple(d_h[0] for d_h in carry[0])
    passes = jnp.arange(1, pieces.windows.passes), tuple(d_h[:-1] for d_h in later)
    (_, sums), others = lax.scan(again, carry, passes)
    sent_back = tuple(jnp.concatenate([d_h[None], rest]) for d_h, rest in zip(first, others, strict=True))
    return sent_back, sums


def one_pass(pieces: Pieces, q: Any, d_hs: Hiddens | None, entering: States) -> tuple[States, tuple[Deltas, ...]]:
    """Take every window one piece further back: `(leaving, d_as)` for each layer.

    In pass 0 each window goes back over its own piece, to which the loss sends `d_hs`; in pass q it goes back over the
    piece q places before. `entering[layer][i]` is what arrives at the end of piece i; `leaving` is what leaves its
    start.
    """
    folded = pieces.folded
    sent = sent_on(pieces.windows, pieces.start, q, folded[0].ss)
    leaving, all_d_as = [], []
    for i in reversed(range(len(folded))):
        cell = folded[i].layer.cell
        d_reads = jnp.zeros_like(hidden(cell, folded[i].ss)) if d_hs is None else d_hs
        residuals = folded[i]._replace(events=folded[i].events._replace(sent=sent))
        d_h, d_as = deltas(residuals, d_reads, entering[i])
        if i:
            d_hs = folded[i - 1].layer.down(d_as.z @ cell.w_xh.T)
        leaving.append(d_h)
        all_d_as.append(d_as)
    return tuple(reversed(leaving)), tuple(reversed(all_d_as))


def neighbours(leaving: States, later: States) -> States:
    """What enters each piece in the next pass: what leaves the piece after it; `later` for the last."""
    return tuple(jnp.concatenate([d_h[1:], end[None]]) for d_h, end in zip(leaving, later, strict=True))


def of_all_passes(
    params: Params, inputs: Inputs, saved: list[Residuals], sums: tuple[Deltas, ...]
) -> tuple[tuple[Cell, ...], Array | None]:
    """`(d_cells, d_xs)` from the sum of the `d_a_t` of all passes: one product per weight."""
    d_as = [unfold(d_a) for d_a in sums]
    d_cells = tuple(weight_gradients(r, d_a) for r, d_a in zip(saved, d_as, strict=True))
    return d_cells, affine_d_input(inputs, d_as[0].z, params.cells[0].w_xh)


def side_by_side(saved: list[Residuals], k1: int) -> list[Residuals]:
    """The residuals of each layer, with the pieces of `k1` steps side by side where the loop over time reads them."""
    return [r._replace(ss=fold(r.ss, k1), kept=fold(r.kept, k1), events=fold(r.events, k1)) for r in saved]


def fold(tree: Any, k1: int) -> Any:
    """Every leaf `(pieces · k1, ...)` as `(k1, pieces, ...)`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(x.shape[0] // k1, k1, *x.shape[1:]), 0, 1), tree)


def unfold(tree: Any) -> Any:
    """The inverse of `fold`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def sent_on(windows: Windows, start: Any, q: Any, hs: Hiddens) -> Array:
    """0 at the first step of each window's reach if pass `q` contains it, otherwise 1. `(k1, pieces, 1, ...)`."""
    k1, k2, time = windows.k1, windows.k2, windows.time
    piece = jnp.arange(hs.shape[1])[None]
    t = start + piece * k1 + jnp.arange(k1)[:, None] + 1  # 1..T
    end = jnp.minimum(start + (piece + q + 1) * k1, time)
    sent: Array = (t != end - k2 + 1) | (t == 1)
    return sent.reshape(*sent.shape, *(1,) * (hs.ndim - 3)).astype(hs.dtype)
