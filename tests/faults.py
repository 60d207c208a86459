"""Plausible faults in a gradient, each one expression of our own source changed.

They are common in bug reports and teaching material. `more_faults.py` has faults in the rest of the package, and
`test_faults.py` finds them.
"""

import functools
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy, by_numpy_unless_traced
from plant import Change, plant

import rnn_jax
from rnn_jax import Plan
from rnn_jax.verify import Case

NUMBERS = re.compile(r", \S+ where \S+ is right")  # of the worst entry: where it is says enough
PLAIN = Case(weights=True)
FLAGGED = Case(weights=True, mask=True, reset=True)
STACK = Case(weights=True, mask=True, num_layers=2)
DROP = Case(num_layers=2, drop=True, leak=0.3)
FLAGGED_STACK = Case(num_layers=2, weights=True, mask=True, reset=True, time=13, last="some")


class Found(NamedTuple):
    """What a fault does: the leaves that it makes wrong, and the findings about them."""

    leaves: list[str]
    finding: str


class Fault(NamedTuple):
    name: str
    change: Change | None
    find: Callable[[ModuleType], Found]  # of the package with the fault in it
    killed_by: str = ""  # a test that fails with the fault in the package itself


def planted(fault: Fault) -> ModuleType:
    """The package with the fault in it."""
    return rnn_jax if fault.change is None else plant(fault.change)


# How they are found


class Checked(NamedTuple):
    """Found by `check_gradients` of "bptt", or of `around(bptt)`, which names the leaves.

    A `witness` also finds what is wrong forward, where the loss and its gradient agree.
    """

    case: Case
    around: Callable = lambda grad_fn: grad_fn
    witness: str | None = None

    def __call__(self, package: ModuleType) -> Found:
        grad_fn = self.around(package.make_grad_fn("bptt", loss=self.case.loss))
        witness = self.witness and package.verify.WITNESSES[self.witness].make(self.case.loss, self.case.reduction)
        with jax.enable_x64(True):
            problem = package.verify.make_problem(package.verify.Case(*self.case))
            report = package.check_gradients(by_numpy_unless_traced(grad_fn), *problem, witness=witness)
        return Found(list(report.failing), NUMBERS.sub("", " ".join(report.findings)))


def beside(method: str, case: Case, **options: Any) -> Callable[[ModuleType], Found]:
    """Found by comparing the method with its reference, autodiff or a definition by `stop_gradient`, at 1e-12."""

    def find(package: ModuleType) -> Found:
        mine = {name: package.Plan(*option) if isinstance(option, Plan) else option for name, option in options.items()}
        value = package.GRADIENTS[method].kind(**mine)
        grad_fn = package.make_grad_fn(value, loss=case.loss, reduction=case.reduction)
        actual = by_numpy(grad_fn)(*package.verify.make_problem(package.verify.Case(*case)))
        expected = jax.tree.leaves(_reference(method, case, tuple(options.items())))
        pairs = zip(jax.tree.leaves_with_path(actual), expected, strict=True)
        wrong = [leaf_name(path) for (path, x), y in pairs if not np.allclose(x, y, 1e-12, 1e-12 * _largest(y))]
        return Found(wrong, f"{len(wrong)} of {len(expected)} leaves differ from the reference" if wrong else "")

    return find


@functools.cache
def _reference(method: str, case: Case, options: tuple) -> Any:
    reference = rnn_jax.GRADIENTS[method].kind(**dict(options)).reference
    grad_fn = rnn_jax.make_grad_fn(reference, loss=case.loss, reduction=case.reduction)
    return by_numpy(grad_fn)(*rnn_jax.verify.make_problem(case))


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=1e-3))


def leaf_name(path: Any) -> str:
    """`[0][1][0]` of a result is `h_T[0]`, `[1].params` is `params`."""
    name = jax.tree_util.keystr(path)
    return name.replace("[0][0]", "loss", 1).replace("[0][1]", "h_T", 1).removeprefix("[1].")


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
    """Windows of three steps whose gradients are not reset, so that the first steps are counted in each."""

    def accumulated(params, batch, h_0):
        (loss, h_T), gradients = grad_fn(params, batch, h_0)
        first = [None if x is None else x[:3] for x in batch]
        share = jnp.sum(batch.weights[:3]) / jnp.sum(batch.weights)
        again = grad_fn(params, type(batch)(*first), h_0)[1]
        return (loss, h_T), gradients._replace(
            params=jax.tree.map(lambda d, e: d + share * e, gradients.params, again.params)
        )

    return accumulated


# What they are


def backward(name: str, function: str, old: str, new: str, case: Case = PLAIN, module: str = "_nn.loops") -> Fault:
    return Fault(name, Change(module, function, old, new), Checked(case))


BACKWARD = [
    backward("Jacobians in forward time order", "deltas", "reverse=True", "reverse=False", STACK),
    backward("h_t used for h_{t-1}", "states_met", "jnp.concatenate([residuals.s_0[None], residuals.ss])[:-1]", "residuals.ss"),
    backward("h_0 forgotten in d_W_hh", "states_met", "residuals.s_0[None]", "jnp.zeros_like(residuals.s_0)[None]"),
    backward("first step forgotten in d_W_hh", "weight_gradients", "affine_d_weights(h_read, deltas.of_u, cell.w_hh)", "affine_d_weights(h_read[1:], deltas.of_u[1:], cell.w_hh)", module="_nn.step"),
    backward("input gradient shrinks as T grows", "backward", "affine_d_input(residuals.xs, all_deltas.z, residuals.layer.cell.w_xh)", "affine_d_input(residuals.xs, all_deltas.z, residuals.layer.cell.w_xh) / len(d_hs)", STACK),
    backward("upstream cotangent overwritten", "deltas.body", "add_to_hidden(cell, d_s_next, d_h_read)", "d_h_read", STACK),
    backward("only the upstream cotangent of the last step", "deltas.body", "add_to_hidden(cell, d_s_next, d_h_read)", "jnp.where(jnp.any(d_s_next != 0), d_s_next, d_h_read)"),
    backward("state gradient not passed on", "deltas.body", "event.d_enter(d_s_met, d_s_t)", "d_s_next"),
    backward("bias gradient dropped", "weight_gradients", "b_h=d_b_h", "b_h=0 * d_b_h", module="_nn.step"),
    backward("bias gradient twice", "weight_gradients", "b_h=d_b_h", "b_h=2 * d_b_h", module="_nn.step"),
    backward("φ' forgotten", "CellParams.backward_by_slope", "Deltas(d_s_t * slope_t)", "Deltas(d_s_t)", module="_cells.vanilla"),
    backward("φ' twice", "CellParams.backward_by_slope", "Deltas(d_s_t * slope_t)", "Deltas(d_s_t * slope_t * slope_t)", module="_cells.vanilla"),
    backward("tanh' = 1 - h", "CellParams.d_phi", "phi.d_phi(kept)", "1 - kept", module="_cells.vanilla"),
    backward("tanh' off by 0.1 %", "CellParams.backward_by_slope", "Deltas(d_s_t * slope_t)", "Deltas(d_s_t * slope_t * 1.001)", module="_cells.vanilla"),
    backward("relu' = 1 everywhere", "", "x > 0", "x >= 0", Case(activation="relu"), "_cells.activations"),
    backward("mask off by one", "deltas", "(d_hs, residuals.kept, events)", "(d_hs, residuals.kept, events._replace(mask=jnp.roll(events.mask, 1, 0)))", FLAGGED),
    backward("mask stops the gradient", "d_enter", "self.leave(self.enter(d_h_met), d_h_t)", "self.leave(self.enter(d_h_met), 0 * d_h_t)", FLAGGED, "_nn.events"),
    backward("reset off by one", "deltas", "(d_hs, residuals.kept, events)", "(d_hs, residuals.kept, events._replace(reset=jnp.roll(events.reset, 1, 0)))", FLAGGED),
    backward("reset lets the gradient through", "d_enter", "self.enter(d_h_met)", "d_h_met", FLAGGED, "_nn.events"),
    backward("gradient of h_0 dropped", "backward", "(weight_gradients(residuals, all_deltas), d_s_0, d_xs)", "(weight_gradients(residuals, all_deltas), 0 * d_s_0, d_xs)"),
    backward("W_hh not transposed", "deltas", "cell.w_hh.T", "cell.w_hh"),
    backward("d_W_hh transposed", "weight_gradients", "w_hh=d_w_hh", "w_hh=d_w_hh.T", module="_nn.step"),
    backward("gradient stops every three steps", "deltas", "(d_hs, residuals.kept, events)", "(d_hs, residuals.kept, events._replace(reset=jnp.broadcast_to(jnp.arange(len(d_hs))[:, None] % 3 == 0, d_hs.shape[:-1])))"),
    backward("1 % off in one weight", "weight_gradients", "w_hh=d_w_hh", "w_hh=d_w_hh.at[1, 2].multiply(1.01)", module="_nn.step"),
    backward("bias averaged over the batch", "affine_d_weights", "jnp.sum(d_y, steps, dtype=dtype)", "jnp.mean(d_y, steps, dtype=dtype)", module="_nn.affine"),
    backward("a token's row overwritten, not added to", "affine_d_weights", "rows.add", "rows.set", Case(inputs="tokens"), "_nn.affine"),
    backward("factor 2 of the squared error", "squared_error", "2 * error", "error", Case(loss="squared_error"), "_losses"),
    backward("one-hot not subtracted", "cross_entropy", "e / total - is_target.astype(y_t.dtype)", "e / total", module="_losses"),
    backward("weights of the steps forgotten", "weighted_loss", "w[..., None] * d_ys", "d_ys / w.size", module="_losses"),
    backward("loss sent to the first steps, not the last", "backward_readout", "[jnp.zeros_like(hs[:first_read]), d_read]", "[d_read, jnp.zeros_like(hs[:first_read])]", Case(last="some"), "_gradients.through_layers"),
    backward("b_y never updated", "backward_readout", "ReadoutParams(d_w_hy, d_b_y)", "ReadoutParams(d_w_hy, 0 * d_b_y)", module="_gradients.through_layers"),
    backward("W_hy updated before it is used", "backward_readout", "d_ys @ params.w_hy.T", "d_ys @ (params.w_hy - 0.1 * d_w_hy).T", module="_gradients.through_layers"),
    Fault("steps clipped before they are added up", None, Checked(PLAIN, clip_each_step)),
    Fault("windows that accumulate", None, Checked(PLAIN, accumulate_windows)),
]  # fmt: skip

DROPPED = [
    backward("units dropped on the way there only", "deltas.body", "dropped(deltas_t.of_u @ w_hh_t, layer.recurrent)", "deltas_t.of_u @ w_hh_t", DROP),
    backward("dropped units read by d_W_hh", "weight_gradients", "states_read(residuals)", "states_read(residuals._replace(layer=residuals.layer._replace(recurrent=None)))", DROP),
    backward("the leak dropped too", "deltas.body", "add_to_hidden(cell, d_s_kept, d_h_met)", "d_h_met + dropped(d_s_kept, layer.recurrent)", DROP),
    backward("φ(a_t) of a leaky cell without the mask", "pre_activations", "states_read(residuals)", "states_read(residuals._replace(layer=residuals.layer._replace(recurrent=None)))", DROP),
    backward("the layer below not dropped on the way back", "backward_layers", "layers[i - 1].down(d_xs)", "d_xs", DROP, "_gradients.through_layers"),
    backward("the mask of the wrong layer", "backward_layers", "layers[i - 1]", "layers[i]", DROP, "_gradients.through_layers"),
    backward("the readout not dropped on the way back", "backward_readout", "dropped(d_ys @ params.w_hy.T, units)", "d_ys @ params.w_hy.T", DROP, "_gradients.through_layers"),
]  # fmt: skip


GRU, LSTM, LEAKY = (Case(cell=cell, weights=True) for cell in ("gru", "lstm", "leaky"))
GRU_STACK, LSTM_STACK = (case._replace(num_layers=2, mask=True, reset=True) for case in (GRU, LSTM))


def forward(name: str, function: str, old: str, new: str, case: Case, module: str) -> Fault:
    """What differences of the loss cannot see."""
    return Fault(name, Change(module, function, old, new), Checked(case, witness="NumPy loop"))


CELLS = [
    backward("the order of a GRU's gates", "GRUParams.backward", "joined(d.r, d.k, d.z_n)", "joined(d.k, d.r, d.z_n)", GRU, "_cells.gru"),
    backward("the order of a GRU's gates in its weights only", "weight_gradients", "affine_d_weights(x, deltas.z, cell.w_xh)", "affine_d_weights(x, jnp.roll(deltas.z, 4, -1), cell.w_xh)", GRU, "_nn.step"),
    backward("reset before the product: r by h, not by u", "GRUParams.kept", "by_z_n * q * of_sigmoid(r)", "by_z_n * s_before * of_sigmoid(r)", GRU, "_cells.gru"),
    backward("reset after everything: z_n reset too", "GRUParams.values", "jnp.tanh(z_n + r * q)", "jnp.tanh(r * (z_n + q))", GRU, "_cells.gru"),
    backward("the reset gate forgotten on the way back", "GRUParams.kept", "by_z_n * r", "by_z_n", GRU, "_cells.gru"),
    backward("b_n outside of the reset", "GRUParams.values", "jnp.tanh(z_n + r * q)", "jnp.tanh(z_n + r * u_n + (q - u_n))", GRU, "_cells.gru"),
    backward("d_u given for d_z", "GRUParams.backward", "joined(d.r, d.k, d.z_n)", "joined(d.r, d.k, d.u_n)", GRU, "_cells.gru"),
    backward("d_z given for d_u to W_hh", "weight_gradients", "affine_d_weights(h_read, deltas.of_u, cell.w_hh)", "affine_d_weights(h_read, deltas.z, cell.w_hh)", GRU, "_nn.step"),
    backward("d_z given for d_u to the state", "deltas.body", "dropped(deltas_t.of_u @ w_hh_t, layer.recurrent)", "dropped(deltas_t.z @ w_hh_t, layer.recurrent)", GRU),
    backward("d_z given for d_u to b_n", "GRUParams.backward", '{"b_n": d.u_n}', '{"b_n": d.z_n}', GRU, "_cells.gru"),
    backward("the gradient of b_n dropped", "GRUParams.backward", '{"b_n": d.u_n}', '{"b_n": 0 * d.u_n}', GRU, "_cells.gru"),
    backward("a GRU's k and 1 - k exchanged", "GRUParams.kept", "(1 - k) * of_tanh(n)", "k * of_tanh(n)", GRU, "_cells.gru"),
    backward("a GRU's own path by 1 - k", "GRUParams.kept", "GRUKept(by_z_n, by_z_n * r, by_z_n * q * of_sigmoid(r), (s_before - n) * of_sigmoid(k), k)", "GRUKept(by_z_n, by_z_n * r, by_z_n * q * of_sigmoid(r), (s_before - n) * of_sigmoid(k), 1 - k)", GRU, "_cells.gru"),
    backward("the sign of the update gate", "GRUParams.kept", "s_before - n", "n - s_before", GRU, "_cells.gru"),
    forward("h = k n + (1 - k) h", "GRUParams.values", "jax.nn.sigmoid(z_k + u_k)", "1 - jax.nn.sigmoid(z_k + u_k)", GRU, "_cells.gru"),
    backward("the order of an LSTM's gates", "LSTMParams.backward", "joined(d_c * by.i, d_c * by.f, d_c * by.g, d_h * by.o)", "joined(d_c * by.f, d_c * by.i, d_c * by.g, d_h * by.o)", LSTM, "_cells.lstm"),
    backward("the order of an LSTM's gates in its weights only", "weight_gradients", "b_h=d_b_h", "b_h=d_b_h[jnp.array([0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11])]", LSTM, "_nn.step"),
    forward("the forget gate's bias twice", "LSTMParams.values", "jax.nn.sigmoid(f)", "jax.nn.sigmoid(f + 1)", LSTM, "_cells.lstm"),
    backward("the cell state's own path dropped", "LSTMParams.backward", "d_c * by.passes", "0 * d_c", LSTM, "_cells.lstm"),
    backward("the cell state's own path without its gate", "LSTMParams.backward", "d_c * by.passes", "d_c", LSTM, "_cells.lstm"),
    backward("the derivative of tanh(c) left out", "LSTMParams.kept", "o * of_tanh(tanh_c)", "o", LSTM, "_cells.lstm"),
    backward("tanh' of c, not of tanh(c)", "LSTMParams.kept", "o * of_tanh(tanh_c)", "o * of_tanh(split(s, 2)[1])", LSTM, "_cells.lstm"),
    backward("c learns nothing from h", "LSTMParams.backward", "d_c + d_h * by.c", "d_c", LSTM, "_cells.lstm"),
    backward("h learns nothing from what c gets", "LSTMParams.backward", "d_c + d_h * by.c", "d_h * by.c", LSTM, "_cells.lstm"),
    backward("the forget gate by c_t, not by c_{t-1}", "LSTMParams.kept", "c_before * of_sigmoid(f)", "split(s, 2)[1] * of_sigmoid(f)", LSTM, "_cells.lstm"),
    backward("the loss sent to c, not to h", "add_to_hidden", "jnp.concatenate([d_h + d_s[..., : num_units(cell)], d_s[..., num_units(cell) :]], -1)", "jnp.concatenate([d_s[..., : num_units(cell)], d_h + d_s[..., num_units(cell) :]], -1)", LSTM, "_cells.protocol"),
    backward("a reset that lets d_c through", "deltas.body", "event.d_enter(d_s_met, d_s_t)", "jnp.concatenate([event.d_enter(d_s_met, d_s_t)[..., :4], d_s_met[..., 4:]], -1)", LSTM_STACK),
    backward("a mask that stops d_c", "deltas.body", "event.d_enter(d_s_met, d_s_t)", "jnp.concatenate([event.d_enter(d_s_met, d_s_t)[..., :4], event.d_enter(d_s_met, 0 * d_s_t)[..., 4:]], -1)", LSTM_STACK),
    Fault("gates recomputed from the states after their steps", Change("_nn.loops", "residuals_of", "states_met(residuals)", "residuals.ss"), beside("blocked", GRU_STACK, plan=Plan(2, remake=True))),
    Fault("gates kept of the state before a reset", Change("_nn.loops", "forward.body", "cell.kept(z_t, u_t, s_met, s_new)", "cell.kept(z_t, u_t, s_tm1, s_new)"), beside("blocked", GRU_STACK, plan=Plan(2))),
    backward("a leak's gradient without the state before", "LeakyParams.backward", "f_t - s_tm1", "f_t", LEAKY, "_cells.leaky"),
    backward("a leak's gradient of one unit for all", "weight_gradients", "jnp.sum(d, tuple(range(d.ndim - 1)), dtype=accumulation_dtype(d.dtype))", "jnp.sum(d, tuple(range(d.ndim - 1)), dtype=accumulation_dtype(d.dtype))[:1] + 0 * d[0, 0]", LEAKY, "_nn.step"),
]  # fmt: skip


def blocked(name: str, function: str, old: str, new: str, plan: Plan = Plan(2), case: Case = FLAGGED_STACK) -> Fault:  # noqa: B008
    return Fault(name, Change("_gradients.blocked", function, old, new), beside("blocked", case, plan=plan))


SEGMENTED = Plan(2, (3,), 2)
BLOCKED = [
    blocked("a block starts where it ends", "_states_before", "jnp.maximum(i - 1, 0)", "i"),
    blocked("a block starts where the one before does", "_states_before", "lax.dynamic_index_in_dim(hs, jnp.maximum(i - 1, 0), keepdims=False)[-1]", "lax.dynamic_index_in_dim(hs, jnp.maximum(i - 1, 0), keepdims=False)[0]"),
    blocked("every block starts from the first", "_states_before", "jnp.where(i == 0, h, h_before)", "h"),
    blocked("d_h stays in its block", "retreat_piece", "d_h", "jax.tree.map(jnp.zeros_like, carry.d_h)"),
    blocked("d_h of the last block only", "retreat_piece", "d_h", "carry.d_h"),
    blocked("the loss of one block only", "retreat_piece", "carry.loss + loss", "loss"),
    blocked("weight gradients of one block only", "retreat_piece", "jax.tree.map(jnp.add, carry.d_params, d_params)", "jax.tree.map(lambda d, w: d.astype(w.dtype), d_params, carry.d_params)"),
    blocked("targets of the block after", "_steps", "cut((batch.targets, batch.weights), first_read, stretch.read)", "(cut(batch.targets, first_read + stretch.size, stretch.read), cut(batch.weights, first_read, stretch.read))"),
    blocked("weights of the first block", "_steps", "cut((batch.targets, batch.weights), first_read, stretch.read)", "(cut(batch.targets, first_read, stretch.read), cut(batch.weights, 0, stretch.read))"),
    blocked("mask of the first block", "_steps", "cut((batch.inputs, batch.mask, batch.reset), start, stretch.size)", "(cut(batch.inputs, start, stretch.size), cut(batch.mask, 0, stretch.size), cut(batch.reset, start, stretch.size))"),
    blocked("reset of the first block", "_steps", "cut((batch.inputs, batch.mask, batch.reset), start, stretch.size)", "(*cut((batch.inputs, batch.mask), start, stretch.size), cut(batch.reset, 0, stretch.size))"),
    Fault("burn-in read out", Change("_gradients.stretches", "split", "read * block", "min(block, 2)"), beside("blocked", FLAGGED_STACK, plan=Plan(2))),
    blocked("gates of each block in the rows of the first", "advance_blocks.through", "Room(of_layer, i * stretch.size)", "Room(of_layer, 0 * i)", case=GRU_STACK),
    blocked("scale of the mean from a block", "WayBack.backward", "problem.objective", "problem.objective._replace(scale=1 / jnp.sum(block.steps.weights))"),
    blocked("blocks forward in time", "retreat", "reverse=True", "reverse=False"),
    blocked("input gradients of a block where the first one's are", "retreat_piece", "lax.dynamic_update_slice_in_dim(carry.d_xs, d_xs, start, 0)", "lax.dynamic_update_slice_in_dim(carry.d_xs, d_xs, 0, 0)"),
    blocked("segment run again from the first one's inputs", "retreat_piece", "advance(problem, stretch.inner, start, piece)", "advance(problem, stretch.inner, stretch.start, piece)", SEGMENTED),
    blocked("segment's end kept, not its start", "advance_segments", "(reach(problem, stretch, start + i * stretch.size, h), h)", "(reach(problem, stretch, start + i * stretch.size, h),) * 2", SEGMENTED),
    blocked("inner segment without its offset", "retreat_piece", "retreat(problem, stretch.inner, start, kept, carry)", "retreat(problem, stretch.inner, stretch.start, kept, carry)", Plan(1, (4, 2))),
    blocked("segment's rest not run", "_blocks", "split(Plan(block.size), 0, segment.size, 0, read=False)", "split(Plan(block.size), 0, segment.size // block.size * block.size, 0, read=False)", SEGMENTED),
]  # fmt: skip


def truncated(name: str, function: str, old: str, new: str, k2: int = 5) -> Fault:
    """A fault on a problem with several windows per block, and several blocks."""
    return Fault(
        name,
        Change("_gradients.truncation.windows", function, old, new),
        beside("truncated", FLAGGED_STACK, k1=2, k2=k2, plan=Plan(4)),
    )


TRUNCATED = [
    truncated("a window reaches one step too far", "sent_on", "t != end - k2 + 1", "t != end - k2"),
    truncated("the last window counted from the end of its piece", "sent_on", "jnp.minimum(start + (piece + q + 1) * k1, time)", "start + (piece + q + 1) * k1"),
    truncated("h_0 cut off", "sent_on", "t == 1", "t == 0", k2=12),
    truncated("windows go on from their own place", "neighbours", "jnp.concatenate([d_h[1:], end[None]])", "d_h"),
    truncated("nothing comes from later blocks", "window_deltas", "tuple(d_h[:-1] for d_h in later)", "tuple(0 * d_h[:-1] for d_h in later)", k2=7),
    truncated("the loss sent in every pass", "window_deltas.again", "one_pass(pieces, q, None, neighbours(leaving, later_q))", "one_pass(pieces, q, d_hs, neighbours(leaving, later_q))"),
    truncated("the last pass only", "window_deltas.again", "jax.tree.map(jnp.add, sums, d_as)", "d_as"),
    truncated("windows that are no neighbours", "fold", "jnp.swapaxes(x.reshape(x.shape[0] // k1, k1, *x.shape[1:]), 0, 1)", "x.reshape(k1, x.shape[0] // k1, *x.shape[1:])"),
]  # fmt: skip
