"""Plausible faults in a hand-written backward pass, each one change in our own source, or around the finished gradient.

They are what bug reports and teaching material are full of; `leaves` are those whose gradient each makes wrong.
"""

import contextlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

import rnn_jax
from rnn_jax import Case, _activations, _affine, _blocked, _bptt, _by_hand, _losses, _methods, _truncated

CELLS, STATES, READOUT = {"params.cells*"}, {"h_0*"}, {"params.readout*"}
RECURRENT = CELLS | STATES | {"inputs"}
PLAIN = Case(weights=True)
FLAGGED = Case(weights=True, mask=True, reset=True)
STACK = Case(weights=True, mask=True, num_layers=2)
DROP = Case(num_layers=2, drop=True, leak=0.3)
FLAGGED_STACK = Case(num_layers=2, weights=True, mask=True, reset=True, time=13, last="some")


class Mutant(NamedTuple):
    """`old` stands once in the source of `module`; with `new` in its place the gradient of `leaves` is wrong."""

    name: str
    module: ModuleType | None
    old: str
    new: str
    leaves: set[str]  # glob patterns
    case: Case = PLAIN
    words: str = ""  # what the report should say of it
    around: Callable | None = None  # instead of a change in the source: what is done to the finished GradFn


def clip_each_step(grad_fn):
    """Every step's contribution clipped before it is added up, as if that were clipping the gradient."""

    def clipped(params, batch, h_0):
        (loss, h_T), gradients = grad_fn(params, batch, h_0)
        total = jnp.sum(batch.weights)

        def of_step(t):
            only = jnp.zeros_like(batch.weights).at[t].set(batch.weights[t])
            share = jnp.sum(only) / total
            return jax.tree.map(
                lambda d: jnp.clip(share * d, -0.01, 0.01), grad_fn(params, batch._replace(weights=only), h_0)[1].params
            )

        parts = jax.lax.map(of_step, jnp.arange(batch.inputs.shape[0]))
        return (loss, h_T), gradients._replace(params=jax.tree.map(lambda d: jnp.sum(d, 0), parts))

    return clipped


def accumulate_windows(grad_fn):
    """Windows of three steps that leave their gradients behind: the first steps are counted with each."""

    def accumulated(params, batch, h_0):
        (loss, h_T), gradients = grad_fn(params, batch, h_0)
        first = [None if x is None else x[:3] for x in batch]
        share = jnp.sum(batch.weights[:3]) / jnp.sum(batch.weights)
        again = grad_fn(params, rnn_jax.Batch(*first), h_0)[1]
        return (loss, h_T), gradients._replace(
            params=jax.tree.map(lambda d, e: d + share * e, gradients.params, again.params)
        )

    return accumulated


MUTANTS = [
    Mutant("Jacobians in forward time order", _bptt, "(d_hs, fs, mask, reset, sent), reverse=True,", "(d_hs, fs, mask, reset, sent),", RECURRENT, STACK),
    Mutant("h_t used for h_{t-1}", _bptt, "jnp.concatenate([h_0[None], hs])[:-1]", "hs", {"*.w_hh"}, words="where h_(t-1)"),
    Mutant("h_0 forgotten in d_W_hh", _bptt, "[h_0[None], hs]", "[jnp.zeros_like(h_0)[None], hs]", {"*.w_hh"}, words="wrong at t = 1 only"),
    Mutant("first step forgotten in d_W_hh", _bptt, "affine_d_weights(states_read(residuals), d_as,", "affine_d_weights(states_read(residuals)[1:], d_as[1:],", {"*.w_hh"}, words="wrong at t = 1 only"),
    Mutant("input gradient shrinks as T grows", _bptt, "affine_d_input(residuals.xs, d_as, residuals.cell.w_xh)", "affine_d_input(residuals.xs, d_as, residuals.cell.w_xh) / len(d_as)", {"params.cells[[]0]*", "h_0[[]0]", "inputs"}, STACK, words="0.1428571 times"),
    Mutant("upstream cotangent overwritten", _bptt, "d_h_t = d_h_read + d_h_next", "d_h_t = d_h_read", RECURRENT, STACK),
    Mutant("only the upstream cotangent of the last step", _bptt, "d_h_t = d_h_read + d_h_next", "d_h_t = jnp.where(jnp.any(d_h_next != 0), d_h_next, d_h_read)", RECURRENT),
    Mutant("state gradient not passed on", _bptt, "return d_h_tm1 if sent_t", "return d_h_next if sent_t", RECURRENT),
    Mutant("bias gradient dropped", _bptt, "b_h=d_b_h)", "b_h=0 * d_b_h)", {"*.b_h"}, words="is zero, it was dropped"),
    Mutant("bias gradient twice", _bptt, "b_h=d_b_h)", "b_h=2 * d_b_h)", {"*.b_h"}, words="2 times"),
    Mutant("φ' forgotten", _bptt, "d_f_t * d_phi(f_t)", "d_f_t", RECURRENT),
    Mutant("φ' twice", _bptt, "d_f_t * d_phi(f_t)", "d_f_t * d_phi(f_t) * d_phi(f_t)", RECURRENT),
    Mutant("tanh' = 1 - h", _bptt, "d_f_t * d_phi(f_t)", "d_f_t * (1 - f_t)", RECURRENT),
    Mutant("tanh' off by 0.1 %", _bptt, "d_f_t * d_phi(f_t)", "d_f_t * d_phi(f_t) * 1.001", RECURRENT),
    Mutant("relu' = 1 everywhere", _activations, "(h > 0)", "(h >= 0)", RECURRENT, Case(activation="relu")),
    Mutant("mask off by one", _bptt, "(d_hs, fs, mask, reset, sent), reverse", "(d_hs, fs, jnp.roll(mask, 1, 0), reset, sent), reverse", RECURRENT, FLAGGED),
    Mutant("mask stops the gradient", _bptt, "reset_t), d_h_t, mask_t)\n        return", "reset_t), 0 * d_h_t, mask_t)\n        return", RECURRENT, FLAGGED, words="Without mask and reset"),
    Mutant("reset off by one", _bptt, "(d_hs, fs, mask, reset, sent), reverse", "(d_hs, fs, mask, jnp.roll(reset, 1, 0), sent), reverse", RECURRENT, FLAGGED, words="Without mask and reset"),
    Mutant("reset lets the gradient through", _bptt, "leave(enter(d_h_met, reset_t), d_h_t", "leave(d_h_met, d_h_t", RECURRENT, FLAGGED),
    Mutant("gradient of h_0 dropped", _bptt, "d_as), d_h_0, affine", "d_as), 0 * d_h_0, affine", STATES, words="is zero, it was dropped"),
    Mutant("W_hh not transposed", _bptt, "w_hh_t = cell.w_hh.T", "w_hh_t = cell.w_hh", RECURRENT),
    Mutant("d_W_hh transposed", _bptt, "w_hh=d_w_hh,", "w_hh=d_w_hh.T,", {"*.w_hh"}, words="is transposed"),
    Mutant("gradient stops every three steps", _bptt, "(d_hs, fs, mask, reset, sent), reverse", "(d_hs, fs, mask, jnp.broadcast_to(jnp.arange(len(fs))[:, None] % 3 == 0, fs.shape[:-1]), sent), reverse", RECURRENT),
    Mutant("1 % off in one weight", _bptt, "w_hh=d_w_hh,", "w_hh=d_w_hh.at[1, 2].multiply(1.01),", {"*.w_hh"}, words="most at (1, 2)"),
    Mutant("bias averaged over the batch", _affine, "jnp.sum(d_y, steps, dtype=dtype)", "jnp.mean(d_y, steps, dtype=dtype)", {"*.b_h", "*.b_y"}, words="times what it should be"),
    Mutant("a token's row overwritten, not added to", _affine, "rows.add(", "rows.set(", {"*.w_xh"}, Case(inputs="tokens")),
    Mutant("factor 2 of the squared error", _losses, "2 * error", "error", RECURRENT | READOUT, Case(loss="squared_error"), words="0.5 times"),
    Mutant("one-hot not subtracted", _losses, "e / total - is_target.astype(y_t.dtype)", "e / total", RECURRENT | READOUT),
    Mutant("weights of the steps forgotten", _losses, "(w[..., None] * d_ys)", "(d_ys / w.size)", RECURRENT | READOUT),
    Mutant("loss sent to the first steps, not the last", _by_hand, "[jnp.zeros_like(hs[:first_read]), d_hs_read]", "[d_hs_read, jnp.zeros_like(hs[:first_read])]", RECURRENT, Case(last="some")),
    Mutant("b_y never updated", _by_hand, "ReadoutParams(d_w_hy, d_b_y)", "ReadoutParams(d_w_hy, 0 * d_b_y)", {"params.readout.b_y"}, words="is zero, it was dropped"),
    Mutant("W_hy updated before it is used", _by_hand, "d_ys @ params.w_hy.T", "d_ys @ (params.w_hy - 0.1 * d_w_hy).T", RECURRENT),
    Mutant("steps clipped before they are added up", None, "", "", CELLS | READOUT, around=clip_each_step),
    Mutant("windows that accumulate", None, "", "", CELLS | READOUT, around=accumulate_windows),
]  # fmt: skip


DROPPED = [
    Mutant("units dropped on the way there only", _bptt, "dropped(d_a_t @ w_hh_t, r)", "d_a_t @ w_hh_t", RECURRENT, DROP),
    Mutant("dropped units read by d_W_hh", _bptt, "affine_d_weights(states_read(residuals),", "affine_d_weights(states_read(residuals._replace(r=None)),", {"*.w_hh"}, DROP),
    Mutant("the leak dropped too", _bptt, "d_h_met = d_h_read_t if d_h_kept is None else d_h_read_t + d_h_kept", "d_h_met = d_h_read_t if d_h_kept is None else d_h_read_t + dropped(d_h_kept, r)", RECURRENT, DROP),
    Mutant("φ(a_t) of a leaky cell without the mask", _bptt, "+ states_read(residuals) @ cell.w_hh\n    return", "+ states_read(residuals._replace(r=None)) @ cell.w_hh\n    return", RECURRENT, DROP),
    Mutant("the layer below not dropped on the way back", _by_hand, "d_hs = dropped(d_xs, between_of(batch.drop, i - 1))", "d_hs = d_xs", RECURRENT, DROP),
    Mutant("the mask of the wrong layer", _by_hand, "between_of(batch.drop, i - 1)", "between_of(batch.drop, i)", RECURRENT, DROP),
    Mutant("the readout not dropped on the way back", _by_hand, "dropped(d_ys @ params.w_hy.T, units)", "d_ys @ params.w_hy.T", RECURRENT, DROP),
]  # fmt: skip


class BlockedMutant(NamedTuple):
    """`old` stands once in the source of "blocked"; with `new` in its place something it returns is wrong under `plan`."""

    name: str
    old: str
    new: str
    plan: rnn_jax.Plan = rnn_jax.Plan(2)
    case: Case = FLAGGED_STACK
    module: ModuleType = _blocked


SEGMENTED = rnn_jax.Plan(2, (3,), 2)
BLOCKED = [
    BlockedMutant("a block starts where it ends", "jnp.maximum(i - 1, 0)", "i"),
    BlockedMutant("a block starts where the one before does", "keepdims=False)[-1]", "keepdims=False)[0]"),
    BlockedMutant("every block starts from the first", "jnp.where(i == 0, h, h_before)", "h"),
    BlockedMutant("d_h stays in its block", "carry.loss + loss, d_h,", "carry.loss + loss, jax.tree.map(jnp.zeros_like, carry.d_h),"),
    BlockedMutant("d_h of the last block only", "carry.loss + loss, d_h,", "carry.loss + loss, carry.d_h,"),
    BlockedMutant("the loss of one block only", "carry.loss + loss", "loss"),
    BlockedMutant("weight gradients of one block only", "jax.tree.map(jnp.add, carry.d_params, d_params)", "jax.tree.map(lambda d, w: d.astype(w.dtype), d_params, carry.d_params)"),
    BlockedMutant("targets of the block after", "part(targets, first_read,", "part(targets, first_read + run.size,"),
    BlockedMutant("weights of the first block", "part(weights, first_read,", "part(weights, 0,"),
    BlockedMutant("mask of the first block", "part(mask, start,", "part(mask, 0,"),
    BlockedMutant("reset of the first block", "part(reset, start,", "part(reset, 0,"),
    BlockedMutant("burn-in read out", "run.size if run.read else 0", "min(run.size, targets.shape[0])"),
    BlockedMutant("scale of the mean from a block", "objective.loss, scale, params, steps", "objective.loss, loss_scale(objective, steps, scale.dtype), params, steps"),
    BlockedMutant("blocks forward in time", "numbered, reverse=True)", "numbered)"),
    BlockedMutant("input gradients of a block where the first one's are", "carry.d_xs, d_xs, start, 0)", "carry.d_xs, d_xs, 0, 0)"),
    BlockedMutant("segment run again from the first one's inputs", "advance(problem, run.inner, start, piece)", "advance(problem, run.inner, offset + run.start, piece)", SEGMENTED),
    BlockedMutant("segment's end kept, not its start", "return reach(problem, run, start, h), h", "return (reach(problem, run, start, h),) * 2", SEGMENTED),
    BlockedMutant("inner segment without its offset", "return retreat(problem, run.inner, start, kept, carry)", "return retreat(problem, run.inner, run.start + i * run.size, kept, carry)", rnn_jax.Plan(1, (4, 2))),
    BlockedMutant("segment's rest not run", "0, segment.size, 0, read=False)", "0, segment.size // block.size * block.size, 0, read=False)", SEGMENTED),
]  # fmt: skip


class TruncatedMutant(NamedTuple):
    """`old` stands once in the source of "truncated"; with `new` in its place something it returns is wrong."""

    name: str
    old: str
    new: str
    k1: int = 2
    k2: int = 5
    case: Case = FLAGGED_STACK
    module: ModuleType = _truncated


TRUNCATED = [
    TruncatedMutant("a window reaches one step too far", "(t != end - k2 + 1)", "(t != end - k2)"),
    TruncatedMutant("the last window counted from the end of its piece", "jnp.minimum(start + (piece + q + 1) * k1, time)", "start + (piece + q + 1) * k1"),
    TruncatedMutant("h_0 cut off", "(t == 1)", "(t == 0)", k2=12),
    TruncatedMutant("windows go on from their own place", "jnp.concatenate([d_h[1:], end[None]])", "d_h"),
    TruncatedMutant("nothing comes from later blocks", "tuple(d_h[:-1] for d_h in later)", "tuple(0 * d_h[:-1] for d_h in later)", k2=7),
    TruncatedMutant("the loss sent in every pass", "one_pass(windows, folded, drop, start, q, None, neighbours", "one_pass(windows, folded, drop, start, q, fold(d_hs, windows.k1), neighbours"),
    TruncatedMutant("the last pass only", "jax.tree.map(jnp.add, sums, d_as)", "d_as"),
    TruncatedMutant("windows that are no neighbours", "jnp.swapaxes(x.reshape(x.shape[0] // k1, k1, *x.shape[1:]), 0, 1)", "x.reshape(k1, x.shape[0] // k1, *x.shape[1:])"),
]  # fmt: skip


def mutated(mutant: Mutant | BlockedMutant | TruncatedMutant) -> dict[str, Any]:
    """The names of a module whose source was changed."""
    source = inspect.getsource(mutant.module)
    assert source.count(mutant.old) == 1, f"{mutant.name}: {mutant.old!r} stands {source.count(mutant.old)} times"
    names = dict(vars(mutant.module))
    exec(compile(source.replace(mutant.old, mutant.new), f"<{mutant.name}>", "exec"), names)
    return names


@contextlib.contextmanager
def planted(mutant: Mutant):
    """The gradient function of "bptt" with the fault in it, as long as the context lasts."""
    patches = []
    if mutant.module is not None:
        names = mutated(mutant)
        if mutant.module is _bptt:
            patches = [(_methods, "bptt", names["bptt"])]
        elif mutant.module is _by_hand:
            patches = [(_methods, "backpropagate", names["backpropagate"])]
        elif mutant.module is _affine:
            patches = [(m, "affine_d_weights", names["affine_d_weights"]) for m in (_bptt, _by_hand)]
        elif mutant.module is _losses:
            patches = [(_by_hand, "weighted_loss", names["weighted_loss"]), (_losses, "LOSSES", names["LOSSES"])]
        else:
            patches = [(_bptt, "ACTIVATIONS", names["ACTIVATIONS"])]
    with contextlib.ExitStack() as stack:
        for module, name, value in patches:
            stack.enter_context(mock.patch.object(module, name, value))
        grad_fn = rnn_jax.make_grad_fn("bptt", loss=mutant.case.loss)
        yield grad_fn if mutant.around is None else mutant.around(grad_fn)
