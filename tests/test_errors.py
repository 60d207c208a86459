"""Bad input: one clear sentence with the name, what was expected and what came, at trace time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import EXACT, HID, IN, OUT, Case, assert_trees_close, make_problem, method_of, run

import rnn_jax

pytestmark = pytest.mark.usefixtures("annotations_unchecked")  # they would speak first
PARAMS, BATCH, H_0 = make_problem(Case(num_layers=2))
CELL = PARAMS.cells[0]
SHAPES = PARAMS, BATCH, H_0
GRAD_FN = jax.jit(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"))


def cell(**changes):
    parts = {"w_xh": CELL.w_xh, "w_hh": CELL.w_hh, "b_h": CELL.b_h, "activation": "tanh"} | changes
    return rnn_jax.CellParams(**parts)


def call(params=PARAMS, batch=BATCH, h_0=H_0, **changes):
    return GRAD_FN(params, batch._replace(**changes) if changes else batch, h_0)


def with_readout(**changes):
    return PARAMS._replace(readout=PARAMS.readout._replace(**changes))


def init(**changes):
    sizes = {"input_size": 2, "hidden_size": 3, "output_size": 2}
    return rnn_jax.init_params(jax.random.key(0), **(sizes | changes))


def grad_fn(method="blocked", **options):
    return rnn_jax.make_grad_fn(method_of(method, **options), loss="cross_entropy")


def both_ways(cells=(CELL, CELL), h_0=(H_0[0], H_0[0]), **options):
    return rnn_jax.bidirectional(cells, h_0, BATCH.inputs, **options)


def of_two_axes(**changes):
    batch = rnn_jax.Batch(jnp.zeros((7, 2, 5, IN)), jnp.zeros((7, 2, 5), int))
    return call(batch=batch._replace(**changes), h_0=(jnp.zeros((2, 5, HID)),) * 2)


_, RESIDUALS = rnn_jax.step_forward(CELL, H_0[0], BATCH.inputs[0])


class NoReference:
    """A method without a reference."""

    def gradient(self, *problem):
        return rnn_jax.BPTT().gradient(*problem)


class Returning:
    """A method whose result is changed. Its reference raises, but is never asked for."""

    def __init__(self, change):
        self.change = change

    @property
    def reference(self):
        raise NotImplementedError

    def gradient(self, *problem):
        return self.change(rnn_jax.BPTT().gradient(*problem))


def truncated(method="truncated", **options):
    return method_of(method, **options)


def planned(*plan):
    return grad_fn(plan=rnn_jax.Plan(*plan))


def sgd(rate=0.1, **options):
    return rnn_jax.clipped_sgd(rate, **options)


def generate(prompt, length=3, params=PARAMS, **options):
    return rnn_jax.generate(jax.random.key(0), params, prompt, length, **options)


def of_tokens(vocabulary):
    w_xh, w_hy, b_y = (jnp.asarray(np.zeros(shape)) for shape in ((vocabulary, HID), (HID, vocabulary), (vocabulary,)))
    return rnn_jax.Params((cell(w_xh=w_xh),), rnn_jax.ReadoutParams(w_hy, b_y))


def trained_by(grad_fn):
    trainer = rnn_jax.make_trainer(grad_fn, sgd(), carry=True)
    return jax.eval_shape(lambda: trainer.step(trainer.init(PARAMS, H_0), BATCH))


def gradients_at(params):
    return rnn_jax.Gradients(params, H_0, None)


TWO_DIMS = jnp.zeros((7, 3))
CASES = [
    # shapes in a GradFn
    (lambda: call(inputs=jnp.zeros((7, 3, 2))), ValueError, "`batch.inputs` must have shape (time, *batch, in) = (7, 3, 3) to match `params.cells[0].w_xh`, got (7, 3, 2)."),
    (lambda: call(inputs=jnp.zeros(())), ValueError, "`batch.inputs` must have the axes (time, *batch, in), got shape ()."),
    (lambda: call(h_0=(H_0[0][0], H_0[1])), ValueError, "`h_0[0]` must have shape (*batch, hid) = (3, 4) to match `batch.inputs` and `params.cells[0].w_hh`, got (4,)."),
    (lambda: call(h_0=(H_0[0], H_0[1][:2])), ValueError, "`h_0[1]` must have shape (*batch, hid) = (3, 4) to match `batch.inputs` and `params.cells[1].w_hh`, got (2, 4)."),
    (lambda: call(h_0=H_0[:1]), ValueError, "`h_0` must hold one state for each of the 2 layers, got 1."),
    (lambda: call(h_0=H_0[0]), TypeError, "`h_0` must be a tuple of one state per layer, got"),
    (lambda: call(targets=jnp.zeros((8, 3), int)), ValueError, "`batch.targets` must cover at most the 7 steps of `batch.inputs`, got (8, 3)."),
    (lambda: call(targets=jnp.zeros((7, 2), int)), ValueError, "`batch.targets` must have shape (last, *batch) = (7, 3) or (last, *batch, ...) to match `batch.inputs`, got (7, 2)."),
    (lambda: call(weights=jnp.zeros((6, 3))), ValueError, "`batch.weights` must have shape (last, *batch) = (7, 3) to match `batch.targets`, got (6, 3)."),
    (lambda: call(mask=jnp.ones((7,), bool)), ValueError, "`batch.mask` must have shape (time, *batch) = (7, 3) to match the inputs, got (7,)."),
    (lambda: call(mask=jnp.ones((7, 3))), TypeError, "`batch.mask` must hold booleans, got dtype float64."),
    (lambda: call(reset=jnp.ones((7, 3), int)), TypeError, "`batch.reset` must hold booleans, got dtype int64."),
    # dtypes in a GradFn
    (lambda: call(inputs=BATCH.inputs.astype(jnp.float32)), TypeError, "`batch.inputs` must have dtype float64 to match `params.cells[0].w_xh`, got float32."),
    (lambda: call(inputs=BATCH.inputs > 0), TypeError, "`batch.inputs` must hold floating point features or integer tokens, got dtype bool."),
    (lambda: call(weights=jnp.ones((7, 3), jnp.float32)), TypeError, "`batch.weights` must have dtype float64 to match `params`, got float32."),
    (lambda: call(targets=jnp.zeros((7, 3, OUT), jnp.float32)), TypeError, "`batch.targets` must have dtype float64 to match `params`, got float32."),
    (lambda: call(targets=jnp.zeros((7, 3, OUT))), TypeError, "`targets` must hold integer classes for cross-entropy, got dtype float64: for vectors use another `loss`, like \"squared_error\"."),
    (lambda: call(batch=tuple(BATCH)), TypeError, "`batch` must be a Batch, got tuple."),
    # parameters
    (lambda: call(params=tuple(PARAMS)), TypeError, "`params` must be Params, got tuple."),
    (lambda: call(params=PARAMS._replace(cells=())), ValueError, "`params.cells` must hold at least one layer, got none."),
    (lambda: call(params=PARAMS._replace(cells=list(PARAMS.cells))), TypeError, "`params.cells` must be a tuple of cells, like CellParams, got list."),
    (lambda: call(params=with_readout(w_hy=jnp.zeros((3, OUT)))), ValueError, "`params.readout.w_hy` must have shape (hid, out) = (4, 5) to match the highest of `params.cells`, got (3, 5)."),
    (lambda: call(params=with_readout(b_y=jnp.zeros(4))), ValueError, "`params.readout.b_y` must have shape (out,) = (5,) to match `params.readout.w_hy`, got (4,)."),
    (lambda: call(params=PARAMS._replace(cells=(CELL, CELL))), ValueError, "`params.cells[1].w_xh` must have shape (hid below, hid) = (4, 4) to match the layer below, `params.cells[0]`, got (3, 4)."),
    # a layer
    (lambda: rnn_jax.unroll(cell(w_hh=jnp.zeros((3, 4))), H_0[0], BATCH.inputs), ValueError, "`cell.w_hh` must have shape (hid, hid) = (4, 4) to match `cell.w_xh`, got (3, 4)."),
    (lambda: rnn_jax.unroll_bptt(cell(b_h=jnp.zeros((1, 4))), H_0[0], BATCH.inputs), ValueError, "`cell.b_h` must have shape (hid,) = (4,) to match `cell.w_xh`, got (1, 4)."),
    (lambda: rnn_jax.unroll_bptt(cell(b_h=jnp.zeros(4, jnp.float32)), H_0[0], BATCH.inputs), TypeError, "`cell.b_h` must have dtype float64 to match `cell.w_xh`, got float32."),
    (lambda: rnn_jax.unroll(cell(w_xh=jnp.zeros(4)), H_0[0], BATCH.inputs), ValueError, "`cell.w_xh` must have two axes (in, hid), got shape (4,)."),
    (lambda: rnn_jax.unroll(cell(w_xh=jnp.zeros((IN, HID), int)), H_0[0], BATCH.inputs), TypeError, "`cell.w_xh` must hold floating point numbers, got dtype int64."),
    (lambda: rnn_jax.unroll(cell(activation="sigmoid"), H_0[0], BATCH.inputs), ValueError, "No activation named 'sigmoid'; known names: 'tanh', 'relu', 'identity'; or pass a function, like `jax.nn.sigmoid`."),
    (lambda: rnn_jax.step(PARAMS, H_0[0], BATCH.inputs[0]), TypeError, "`cell` must be a cell, like CellParams, got Params, which holds cells: use `params.cells[0]`."),
    (lambda: rnn_jax.readout(PARAMS, jnp.zeros((2, HID))), TypeError, "`params` must be ReadoutParams, got Params, which holds one: use `params.readout`."),
    (lambda: rnn_jax.apply(PARAMS, jnp.zeros((3, HID)), BATCH.inputs), TypeError, "`h_0` must be a tuple of one state per layer, got"),
    (lambda: rnn_jax.apply(PARAMS, jnp.zeros((3, HID)), BATCH.inputs), TypeError, ": use `tuple(h_0)`."),
    (lambda: rnn_jax.step(CELL, H_0[0], jnp.ones((3, 3), jnp.float32)), TypeError, "got float32. Cast it: `x_t.astype(jnp.float64)`."),
    (lambda: rnn_jax.data.encode("the text", "abc"), ValueError, "got 'the text': the symbols come first, then the text."),
    (lambda: rnn_jax.unroll(cell(), H_0[0], BATCH.inputs, mask=jnp.ones((3, 7), bool)), ValueError, "`mask` must have shape (time, *batch) = (7, 3) to match the inputs, got (3, 7): swap its first two axes."),
    (lambda: rnn_jax.unroll_bptt(cell(), H_0[0][:2], BATCH.inputs), ValueError, "`h_0` must have shape (*batch, hid) = (3, 4) to match `xs` and `cell.w_hh`, got (2, 4)."),
    (lambda: rnn_jax.step(cell(), H_0[0], BATCH.inputs), ValueError, "`x_t` must be one step, without a time axis, got shape (7, 3, 3): use `x_t[t]`."),
    (lambda: rnn_jax.step_backward(cell(), rnn_jax.step_forward(cell(), H_0[0], BATCH.inputs[0])[1], jnp.zeros(4)), ValueError, "`d_h_t` must have shape (3, 4) to match `residuals.h_t`, got (4,)."),
    (lambda: rnn_jax.readout(PARAMS.readout, TWO_DIMS), ValueError, "`hs` must have shape (*steps, hid) = (7, 4) to match `params.w_hy`, got (7, 3)."),
    (lambda: rnn_jax.apply(PARAMS, H_0, BATCH.inputs, last=8), ValueError, "`last` must be from 0 to the 7 steps of `inputs`, got 8."),
    # names
    (lambda: rnn_jax.make_grad_fn("bttp", loss="cross_entropy"), ValueError, "No gradient method named 'bttp'; known names: 'autodiff', 'stepwise', 'bptt', 'blocked', 'truncated', 'adaptive', 'randomised', 'last_steps'."),
    (lambda: rnn_jax.make_grad_fn("bptt", loss="hinge"), ValueError, "No loss named 'hinge'; known names: 'cross_entropy', 'squared_error'."),
    (lambda: rnn_jax.make_grad_fn("bptt", loss="cross_entropy", reduction="max"), ValueError, "No reduction named 'max'; known names: 'mean', 'mean_over_steps', 'sum'."),
    (lambda: rnn_jax.make_grad_fn("truncated", loss="cross_entropy"), ValueError, "The gradient method 'truncated' has no defaults: give the method itself, like Truncated(k1=2, k2=5, plan=None)."),
    (lambda: rnn_jax.make_grad_fn(rnn_jax.Blocked, loss="cross_entropy"), TypeError, "`method` must be a name or a method, like Blocked(), got <class"),
    (lambda: rnn_jax.make_grad_fn(3, loss="cross_entropy"), TypeError, "`method` must be a name or a method, like Blocked(), got 3."),
    (lambda: rnn_jax.make_grad_fn(NoReference(), loss="cross_entropy"), TypeError, "like Blocked(), got <"),
    (lambda: rnn_jax.make_grad_fn(NoReference(), loss="cross_entropy"), TypeError, ", which lacks `reference`."),
    (lambda: rnn_jax.make_grad_fn(Returning(lambda result: result[0][0]), loss="cross_entropy")(PARAMS, BATCH, H_0), TypeError, "`Returning.gradient` of (params, batch, h_0) must return ((loss, h_T), Gradients), as a GradFn does, got float64[]."),
    (lambda: rnn_jax.make_grad_fn(Returning(lambda result: (result[0], result[1]._replace(inputs=result[1].inputs[:2]))), loss="cross_entropy")(PARAMS, BATCH, H_0), ValueError, "`Returning.gradient` must return `gradients` with leaves of the shapes [(3, 4), (4, 4), (4,), (4, 4),"),
    (lambda: rnn_jax.Truncated(k1=3), TypeError, "missing 1 required keyword-only argument: 'k2'"),
    (lambda: rnn_jax.Blocked(block=3), TypeError, "got an unexpected keyword argument 'block'"),
    (lambda: rnn_jax.Blocked(unroll=0), ValueError, "`unroll` must be at least 1, got 0."),
    (lambda: rnn_jax.Sharded("blocked", jax.devices()), TypeError, "`method` must be a gradient method, like Blocked(), got 'blocked'."),
    (lambda: truncated(k1=3, k2=2), ValueError, "`k2` (reach) must be at least `k1` (window length), got 2 and 3."),
    (lambda: truncated(k1=0, k2=2), ValueError, "`k1` must be at least 1, got 0."),
    (lambda: truncated(k1=2, k2=2, plan=rnn_jax.Plan(3)), ValueError, "`plan` must be made of multiples of `k1`, got 3 with k1 = 2."),
    (lambda: truncated("adaptive", k1=2, bias=-1.0), ValueError, "`bias` must be a finite number above zero, got -1.0."),
    (lambda: truncated("adaptive", k1=4, bias=0.1, k2_max=3), ValueError, "`k2_max` must be at least 4, got 3."),
    (lambda: truncated("randomised", mean_reach=1.0), ValueError, "`mean_reach` must be a finite number of steps above 1, got 1.0."),
    (lambda: grad_fn("randomised", mean_reach=2.0)(*SHAPES), ValueError, "`batch.key` must be given, because the gradient method 'randomised' draws from it: `batch._replace(key=jax.random.key(0))`."),
    (lambda: truncated("last_steps", k=0), ValueError, "`k` must be at least 1, got 0."),
    (lambda: rnn_jax.analysis.truncation_report(*SHAPES, []), ValueError, "`ks` must be a list of at least one number of steps, got []."),
    (lambda: rnn_jax.analysis.truncation_report(*SHAPES, [3, 0]), ValueError, "`ks[1]` must be at least 1, got 0."),
    (lambda: rnn_jax.make_grad_fn("bptt", loss="cross_entropy", compute_dtype=jnp.int32), TypeError, "`compute_dtype` must be a floating point type, got"),
    # plans, budgets and devices
    (lambda: grad_fn(plan=3), TypeError, "`plan` must be a Plan, got int."),
    (lambda: grad_fn(plan=(3, (), 0)), TypeError, "`plan` must be a Plan, got tuple."),
    (lambda: planned(0), ValueError, "`plan.block` must be at least 1, got 0."),
    (lambda: planned(2.0), TypeError, "`plan.block` must be an integer of at least 1, got 2.0."),
    (lambda: planned(1, [3]), TypeError, "`plan.segments` must be a tuple of lengths, got list."),
    (lambda: planned(1, (3, 0)), ValueError, "`plan.segments` must be at least 1, got 0."),
    (lambda: planned(1, (3, 4)), ValueError, "`plan.segments` must not grow from one to the next, got 4 after 3."),
    (lambda: planned(1, (3,), -1), ValueError, "`plan.keep` must be at least 0, got -1."),
    (lambda: rnn_jax.plan_memory(SHAPES, 0), ValueError, "`budget_bytes` must be a finite number above zero, got 0."),
    (lambda: rnn_jax.plan_memory(SHAPES, "1 MB"), TypeError, "`budget_bytes` must be a finite number above zero, got '1 MB'."),
    (lambda: rnn_jax.plan_memory(SHAPES, 1), ValueError, "`budget_bytes` must be at least "),
    (lambda: rnn_jax.plan_memory(list(SHAPES), 1e9), TypeError, "`shapes` must be a tuple (params, batch, h_0), got list."),
    (lambda: rnn_jax.plan_cost(SHAPES[:2]), TypeError, "`shapes` must be a tuple (params, batch, h_0), got tuple."),
    (lambda: rnn_jax.plan_cost(SHAPES, 3), TypeError, "`plan` must be a Plan, got int."),
    (lambda: grad_fn(devices=2), TypeError, "`devices` must be a list of devices, like jax.devices(), got 2."),
    (lambda: grad_fn(devices=["cpu"]), TypeError, "`devices` must be a list of devices, like jax.devices(), got ['cpu']."),
    (lambda: grad_fn(devices=[]), ValueError, "`devices` must hold at least one device, each once, got []."),
    (lambda: grad_fn(devices=jax.devices()[:1] * 2), ValueError, "`devices` must hold at least one device, each once, got"),
    (lambda: grad_fn(devices=jax.devices())(PARAMS, BATCH, H_0), ValueError, "The first batch axis must be a multiple of the 2 `devices`, got the batch axes (3,)."),
    (lambda: grad_fn("bptt", devices=jax.devices())(*make_problem(Case(batch=()))), ValueError, "The first batch axis must be a multiple of the 2 `devices`, got the batch axes ()."),
    # layouts: what is blamed is what is wrong
    (lambda: call(inputs=jnp.zeros((3, 7, 3)), targets=jnp.zeros((3, 7), int)), ValueError, "`batch.inputs` must have time as its first axis, (time, *batch, in), got shape (3, 7, 3), whose first axis is as long as the batch of `h_0[0]`: use `jnp.swapaxes(batch.inputs, 0, 1)`."),
    (lambda: call(inputs=jnp.zeros((3, 7), int), targets=jnp.zeros((3, 7), int)), ValueError, "`batch.inputs` must have time as its first axis, (time, *batch), got shape (3, 7), whose first axis is as long"),
    (lambda: call(targets=jnp.zeros((3, 7), int)), ValueError, "`batch.targets` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape (3, 7) for `batch.inputs` of 7 steps: swap the first two axes."),
    (lambda: call(targets=jnp.zeros((3, 7, 5))), ValueError, "`batch.targets` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape (3, 7, 5)"),
    (lambda: call(targets=jnp.zeros(3, int)), ValueError, "`batch.targets` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape (3,), which is one step for the batch axes (3,): use `batch.targets[None]`."),
    (lambda: call(targets=jnp.zeros((3, 5))), ValueError, "got shape (3, 5), which is one step for the batch axes (3,): use `batch.targets[None]`."),
    (lambda: call(weights=jnp.zeros((3, 7))), ValueError, "`batch.weights` must have shape (last, *batch) = (7, 3) to match `batch.targets`, got (3, 7): swap its first two axes."),
    (lambda: rnn_jax.apply(PARAMS, H_0, jnp.zeros((3, 7, 3))), ValueError, "`inputs` must have time as its first axis, (time, *batch, in), got shape (3, 7, 3), whose"),
    (lambda: rnn_jax.apply(PARAMS, H_0, BATCH.inputs[0]), ValueError, "`inputs` must have time as its first axis, got shape (3, 3), which is one step for the batch of `h_0[0]`: use `inputs[None]`."),
    (lambda: rnn_jax.unroll(CELL, H_0[0], jnp.zeros((3, 7, 3))), ValueError, "`xs` must have time as its first axis, (time, *batch, in), got shape (3, 7, 3), whose"),
    (lambda: rnn_jax.unroll_bptt(CELL, H_0[0], jnp.zeros((3, 7, 3))), ValueError, "`xs` must have time as its first axis, (time, *batch, in), got shape (3, 7, 3), whose"),
    (lambda: rnn_jax.bidirectional((CELL, CELL), (H_0[0], H_0[0]), jnp.zeros((3, 7, 3))), ValueError, "`xs` must have time as its first axis, (time, *batch, in), got shape (3, 7, 3), whose first axis is as long as the batch of `h_0[0]`"),
    (lambda: rnn_jax.unroll(cell(w_xh=CELL.w_xh.T), H_0[0], BATCH.inputs), ValueError, "`cell.w_xh` must have shape (in, hid) = (3, 4) to match `cell.w_hh` and `cell.b_h`, got (4, 3): swap its first two axes."),
    (lambda: rnn_jax.unroll(cell(w_xh=jnp.zeros((3, 5))), H_0[0], BATCH.inputs), ValueError, "`cell.w_xh` must have shape (in, hid) = (3, 4) to match `cell.w_hh` and `cell.b_h`, got (3, 5)."),
    (lambda: call(with_readout(w_hy=PARAMS.readout.w_hy.T)), ValueError, "`params.readout.w_hy` must have shape (hid, out) = (4, 5) to match the highest of `params.cells`, got (5, 4): swap its first two axes."),
    # integers where features are meant
    (lambda: call(inputs=jnp.zeros((7, 3, 3), jnp.uint8)), TypeError, "`batch.inputs` must hold floating point numbers to be features, got uint8 in the shape (7, 3, 3): integers are tokens and have no feature axis, so cast them, `batch.inputs.astype(jnp.float32)`."),
    (lambda: call(inputs=jnp.zeros((3, 7, 3), jnp.uint8)), TypeError, "`batch.inputs` must hold floating point numbers to be features, got uint8 in the shape (3, 7, 3)"),
    (lambda: call(inputs=jnp.zeros((7, 3, 28), jnp.uint8)), TypeError, "`batch.inputs` must hold floating point numbers to be features, got uint8 in the shape (7, 3, 28)"),
    (lambda: rnn_jax.unroll_bptt(CELL, H_0[0], jnp.zeros((7, 3, 3), int)), TypeError, "`xs` must hold floating point numbers to be features, got int64 in the shape (7, 3, 3)"),
    (lambda: rnn_jax.step(CELL, H_0[0], jnp.zeros((3, 3), jnp.uint8)), TypeError, "`x_t` must hold floating point numbers to be features, got uint8 in the shape (3, 3)"),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, jnp.zeros((3, 3), jnp.uint8)), TypeError, "`x_t` must hold floating point numbers to be features, got uint8 in the shape (3, 3)"),
    (lambda: call(inputs=jnp.zeros((7, 5), int), targets=jnp.zeros((7, 5), int)), ValueError, "`h_0[0]` must have the batch axes (5,) of `batch.inputs`, whose integers are tokens, (time, *batch) = (7, 5), got (3, 4): if they are features, cast them, `batch.inputs.astype(jnp.float32)`."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, jnp.zeros((5,), int)), ValueError, "`h_tm1[0]` must have the batch axes (5,) of `x_t`, whose integers are tokens, (*batch,) = (5,), got (3, 4)"),
    (lambda: call(inputs=jnp.zeros((7, 3), int), targets=jnp.zeros((7, 4), int)), ValueError, "`batch.targets` must have shape (last, *batch) = (7, 3) or (last, *batch, ...) to match `batch.inputs`, whose integers are tokens, (time, *batch), got (7, 4)."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, BATCH.inputs[0], drop=0.5), TypeError, "`drop` must be a Drop, got float."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, BATCH.inputs[0], drop=rnn_jax.typing.Drop(between=H_0[:1])), ValueError, "`drop.between` must hold one state for each of the 2 layers, got 1."),
    # the names that the caller passed
    (lambda: rnn_jax.apply_step(PARAMS, H_0[:1], BATCH.inputs[0]), ValueError, "`h_tm1` must hold one state for each of the 2 layers, got 1."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0[0], BATCH.inputs[0]), TypeError, "`h_tm1` must be a tuple of one state per layer, got"),
    (lambda: rnn_jax.apply_step(PARAMS, (H_0[0], H_0[1][:2]), BATCH.inputs[0]), ValueError, "`h_tm1[1]` must have shape (*batch, hid) = (3, 4) to match `x_t` and `params.cells[1].w_hh`, got (2, 4)."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, jnp.zeros((3, 2))), ValueError, "`x_t` must have shape (*batch, in) = (3, 3) to match `params.cells[0].w_xh`, got (3, 2)."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, BATCH.inputs), ValueError, "`x_t` must be one step, without a time axis, got shape (7, 3, 3): use `x_t[t]`."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, BATCH.inputs[0], reset=jnp.ones((7, 3), bool)), ValueError, "`reset` must have shape (*batch,) = (3,) to match the inputs, got (7, 3)."),
    (lambda: rnn_jax.apply_step(PARAMS, H_0, BATCH.inputs[0], mask=jnp.ones(3)), TypeError, "`mask` must hold booleans, got dtype float64."),
    (lambda: rnn_jax.apply_step(None, H_0, BATCH.inputs[0]), TypeError, "`params` must be Params, got NoneType."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((2, 4)),)), ValueError, "`starts` must hold one state for each of the 2 layers, got 1."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((2, 4)), jnp.zeros((3, 4)))), ValueError, "`starts[1]` must have shape (*batch, hid) = (2, 4) to match `starts[0]` and `params.cells[1].w_hh`, got (3, 4)."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((2, 4), int), jnp.zeros((2, 4)))), TypeError, "`starts[0]` must hold floating point numbers, got dtype int64."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((2, 4)), jnp.zeros((2, 4))), jnp.zeros((2, 3))), ValueError, "`x` must be one constant input, (in,) or a token (), without a batch, got shape (2, 3)."),
    # numbers that cannot be traced
    (lambda: jax.jit(lambda leak: init(leak=leak))(0.5), TypeError, "`leak` must be a number above 0 and at most 1 that is known, not traced by jit, vmap or grad, got float64[]: use `LeakyParams`, or pass `init_params` an array with one leak per unit, which may be traced."),
    (lambda: jax.vmap(lambda leak: rnn_jax.unroll(cell(leak=leak), H_0[0], BATCH.inputs))(jnp.ones(2)), TypeError, "`leak` must be a number above 0 and at most 1 that is known, not traced"),
    # keys
    (lambda: rnn_jax.init_params(0, input_size=1, hidden_size=1, output_size=1), TypeError, "`key` must be one typed key, as jax.random.key(seed) makes it, got int."),
    (lambda: rnn_jax.generate(jax.random.PRNGKey(0), PARAMS, BATCH.inputs, 1), TypeError, "`key` must be one typed key, as jax.random.key(seed) makes it, got uint32(2,)."),
    (lambda: call(key=jnp.zeros(2)), TypeError, "`key` must be one typed key, as jax.random.key(seed) makes it, got float64(2,)."),
    # sizes and numbers
    (lambda: init(hidden_size=0), ValueError, "`hidden_size` must be at least 1, got 0."),
    (lambda: init(num_layers=-1), ValueError, "`num_layers` must be at least 1, got -1."),
    (lambda: init(input_size=2.5), TypeError, "`input_size` must be an integer of at least 1, got 2.5."),
    (lambda: init(activation="selu"), ValueError, "No activation named 'selu'"),
    (lambda: init(dtype=int), TypeError, "`dtype` must be a floating point type, got"),
    (lambda: rnn_jax.initializers.spectral_radius(0.0), ValueError, "`rho` must be a finite number above zero, got 0.0."),
    (lambda: rnn_jax.initializers.identity("1"), TypeError, "`scale` must be a finite number above zero, got '1'."),
    (lambda: sgd(-0.1), ValueError, "`learning_rate` must be a finite number above zero, got -0.1."),
    (lambda: sgd(momentum=1.0), ValueError, "`momentum` must be a number from 0 to below 1, got 1.0."),
    (lambda: sgd(max_norm=0.0), ValueError, "`max_norm` must be a finite number above zero, got 0.0."),
    (lambda: sgd(max_value=float("nan")), ValueError, "`max_value` must be a finite number above zero, got nan."),
    # generation
    (lambda: rnn_jax.categorical(0.0), ValueError, "`temperature` must be a finite number above zero, got 0.0."),
    (lambda: generate(jnp.zeros((0,), int)), ValueError, "`prompt` must have at least one step, got shape (0,)."),
    (lambda: generate(jnp.zeros(2, int), 0), ValueError, "`length` must be at least 1, got 0."),
    (lambda: generate(jnp.zeros((2, IN)), draw=rnn_jax.feedback), ValueError, "`draw` must return a next input of shape (3,) and dtype float64, got (5,) and float64."),
    (lambda: generate(jnp.zeros((2, IN))), ValueError, "`draw` must return a next input of shape (3,) and dtype float64, got () and int64."),
    (lambda: generate(jnp.zeros((2, IN), jnp.float32)), TypeError, "`prompt` must have dtype float64 to match `params.cells[0].w_xh`, got float32."),
    (lambda: generate(jnp.zeros(2, int)), ValueError, "`params.readout` must have at most 3 outputs, the number of input tokens, for its outputs to be fed back, got 5."),
    (lambda: generate([0, 1]), TypeError, "`prompt` must be an array, got list."),
    (lambda: generate(jnp.zeros(2, int), draw="greedy"), TypeError, "`draw` must be a function, got 'greedy'."),
    (lambda: generate(jnp.zeros(2, jnp.uint8), params=of_tokens(300)), TypeError, "`prompt` must have a dtype that holds tokens up to 299, got uint8."),
    # what the caller's own functions return
    (lambda: jax.eval_shape(rnn_jax.make_grad_fn("bptt", loss=lambda y, t: (jnp.sum(y), y)), PARAMS, BATCH, H_0), ValueError, "`loss` must return a value for each step and d_y of the outputs' shape, (7, 3) and (7, 3, 5), got () and (7, 3, 5)."),
    (lambda: jax.eval_shape(rnn_jax.make_grad_fn("bptt", loss=lambda y, t: jnp.sum(y)), PARAMS, BATCH, H_0), TypeError, "`loss` must return a pair (value, d_y), got"),
    (lambda: rnn_jax.pointwise(None), TypeError, "`value_fn` must be a function, got None."),
    (lambda: jax.eval_shape(lambda: init(recurrent_init=lambda key, shape, dtype: jnp.zeros((2, 2), dtype))), ValueError, "`params.cells[0].w_hh` must have shape (hid, hid) = (3, 3)"),
    (lambda: init(recurrent_init="orthogonl"), ValueError, "No recurrent_init named 'orthogonl'; known names: 'orthogonal', 'identity', 'normal', 'spectral_radius', 'lecun_normal', 'glorot_uniform', 'he_normal', 'zeros'."),
    (lambda: init(bias_init="ones"), ValueError, "No bias_init named 'ones'; known names:"),
    (lambda: init(input_init=0.1), TypeError, "`input_init` must be a function (key, shape, dtype) -> array"),
    (lambda: init(readout_init=lambda key, shape, dtype: jnp.zeros((2, 2), dtype)), ValueError, "`params.readout.w_hy` must have shape"),
    (lambda: rnn_jax.initializers.normal(0.0), ValueError, "`stddev` must be a finite number above zero, got 0.0."),
    (lambda: init(recurrent_init=rnn_jax.initializers.normal), TypeError, "`recurrent_init` must be a function (key, shape, dtype) -> array, like `orthogonal()`, got <function normal"),
    (lambda: init(recurrent_init=rnn_jax.initializers.identity), TypeError, "`recurrent_init` must be a function (key, shape, dtype) -> array, like `orthogonal()`, got <function identity"),
    (lambda: init(recurrent_init=jax.nn.initializers.orthogonal), TypeError, "which returns a function: call it first."),
    (lambda: trained_by(lambda *_: (jnp.zeros(()), PARAMS)), TypeError, "`grad_fn` of (params, batch, h_0) must return ((loss, h_T), Gradients), as a GradFn does, got ("),
    (lambda: trained_by(lambda *_: jnp.zeros(())), TypeError, "as a GradFn does, got float64[]."),
    (lambda: trained_by(lambda *_: ("loss", "gradients")), TypeError, "as a GradFn does, got ('str', 'str')."),
    (lambda: trained_by(lambda p, b, h: (("low", h), gradients_at(p))), TypeError, "`the loss of grad_fn` must be an array, got str."),
    (lambda: rnn_jax.data.decode("abc", jnp.array([0.0, 1.0])), TypeError, "`tokens` must be one axis of integers, got float64[2]."),
    (lambda: rnn_jax.data.window_batch([0, 1, 2], 0, 1), TypeError, "`streams` must be an array, got list."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), 2**70, 4), ValueError, "`start` must be from 0 to 5, got 1180591620717411303424."),
    (lambda: rnn_jax.pointwise(lambda y, t: y)(jnp.ones((2, 3)), jnp.ones(2, int)), TypeError, "`value_fn` of one output and its target must return a real scalar, got"),
    (lambda: trained_by(lambda *_: None), TypeError, "as a GradFn does, got None."),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(()), h), p)), TypeError, "as a GradFn does, got (("),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(7), h), gradients_at(p))), ValueError, "`grad_fn` must return a loss of shape (), got (7,)."),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(()), h), gradients_at(p.cells))), ValueError, "`gradients.params` must have the tree structure of `params`, got "),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(()), h), gradients_at(jax.tree.map(jnp.transpose, p)))), ValueError, "`gradients.params.cells[0].w_xh` must have shape (3, 4) to match `params`, got (4, 3)."),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(()), h[:1]), gradients_at(p))), ValueError, "`h_T` must have the tree structure of `h_0`, got "),
    (lambda: trained_by(lambda p, b, h: ((jnp.zeros(()), h), gradients_at(jax.tree.map(lambda w: w.astype(jnp.float32), p)))), TypeError, "`gradients.params.cells[0].w_xh` must have dtype float64 to match `params`, got float32."),
    (lambda: call(PARAMS._replace(cells=(CELL, PARAMS.readout))), TypeError, "`params.cells[1]` must be a cell, like CellParams, got ReadoutParams."),
    (lambda: call(PARAMS._replace(readout=tuple(PARAMS.readout))), TypeError, "`params.readout` must be ReadoutParams, got tuple."),
    (lambda: call(with_readout(w_hy=jnp.zeros(4))), ValueError, "`params.readout.w_hy` must have two axes (hid, out), got shape (4,)."),
    (lambda: rnn_jax.drop_units(PARAMS, BATCH, between="half"), TypeError, "`between` must be a number from 0 to below 1, got 'half'."),
    # the sentence names what the caller passed
    (lambda: rnn_jax.readout(PARAMS.readout._replace(w_hy=PARAMS.readout.w_hy.T), jnp.zeros((7, HID))), ValueError, "`params.w_hy` must have shape (hid, out) = (4, 5) to match `hs`, got (5, 4): swap its first two axes."),
    (lambda: rnn_jax.readout(PARAMS.readout._replace(b_y=jnp.zeros(9)), jnp.zeros((7, HID))), ValueError, "`params.b_y` must have shape (out,) = (5,) to match `params.w_hy`, got (9,)."),
    (lambda: rnn_jax.readout(PARAMS.readout, jnp.zeros((7, HID), jnp.float32)), TypeError, "`hs` must have dtype float64 to match `params.w_hy`, got float32."),
    (lambda: rnn_jax.readout(PARAMS, jnp.zeros((7, HID))), TypeError, "`params` must be ReadoutParams, got Params"),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((2, 9)), jnp.zeros((2, HID)))), ValueError, "`starts[0]` must have shape (*batch, hid) = (2, 4) to match `params.cells[0].w_hh`, got (2, 9)."),
    (lambda: both_ways(h_0=(jnp.zeros((3, 9)), H_0[0])), ValueError, "`h_0[0]` must have shape (*batch, hid) = (3, 4) to match `xs` and `cells[0].w_hh`, got (3, 9)."),
    (lambda: both_ways(rs=(jnp.zeros((3, 9)), None)), ValueError, "`rs[0]` must have shape (*batch, hid) = (3, 4) to match `xs` and `cells[0].w_hh`, got (3, 9)."),
    (lambda: both_ways(rs=(None, jnp.zeros((3, 9)))), ValueError, "`rs[1]` must have shape (*batch, hid) = (3, 4) to match `xs` and `cells[1].w_hh`, got (3, 9)."),
    (lambda: both_ways(cells=(cell(w_xh=jnp.zeros((9, HID))), cell())), ValueError, "to match `cells[0].w_xh`, got (7, 3, 3)."),
    (lambda: rnn_jax.step_backward(cell(), RESIDUALS._replace(h_tm1=jnp.zeros((3, 9))), H_0[0]), ValueError, "`residuals.h_tm1` must have shape (*batch, hid) = (3, 4) to match `residuals.x_t` and `cell.w_hh`, got (3, 9)."),
    # two batch axes before time
    (lambda: rnn_jax.unroll(cell(), jnp.zeros((2, 5, HID)), jnp.zeros((2, 5, 7, IN))), ValueError, "`xs` must have time as its first axis, (time, *batch, in), got shape (2, 5, 7, 3), whose first 2 axes are as long as the batch of `h_0`: use `jnp.moveaxis(xs, 2, 0)`."),
    (lambda: rnn_jax.unroll_bptt(cell(), jnp.zeros((2, 5, HID)), jnp.zeros((2, 5, 7), int)), ValueError, "(time, *batch), got shape (2, 5, 7), whose first 2 axes are as long as the batch of `h_0`: use `jnp.moveaxis(xs, 2, 0)`."),
    (lambda: of_two_axes(inputs=jnp.zeros((2, 5, 7, IN))), ValueError, "use `jnp.moveaxis(batch.inputs, 2, 0)`."),
    (lambda: of_two_axes(targets=jnp.zeros((2, 5, 7), int)), ValueError, "`batch.targets` must have time as its first axis, (last, *batch) or (last, *batch, out), got shape (2, 5, 7) for `batch.inputs` of 7 steps: use `jnp.moveaxis(batch.targets, 2, 0)`."),
    (lambda: of_two_axes(mask=jnp.ones((2, 5, 7), bool)), ValueError, "`batch.mask` must have shape (time, *batch) = (7, 2, 5) to match the inputs, got (2, 5, 7): use `jnp.moveaxis(batch.mask, 2, 0)`."),
    (lambda: of_two_axes(weights=jnp.ones((2, 5, 7))), ValueError, "use `jnp.moveaxis(batch.weights, 2, 0)`."),
    (lambda: rnn_jax.apply_step(PARAMS, (jnp.zeros((2, 5, HID)),) * 2, jnp.zeros((2, 5, 7, IN))), ValueError, "`x_t` must be one step, without a time axis, got shape (2, 5, 7, 3): use `jnp.moveaxis(x_t, 2, 0)[t]`."),
    # the rest of the surface
    (lambda: rnn_jax.zero_state(PARAMS, -1), ValueError, "`batch` must be at least 0, got -1."),
    (lambda: rnn_jax.zero_state(PARAMS, (2, 3)), TypeError, "`batch` must be an integer of at least 0, got (2, 3)."),
    (lambda: rnn_jax.readout(PARAMS.readout, [1.0]), TypeError, "`hs` must be an array, got list."),
    (lambda: rnn_jax.readout(PARAMS.readout, jnp.array(1.0)), ValueError, "`hs` must have the axes (*steps, hid), got shape ()."),
    (lambda: rnn_jax.apply(PARAMS, H_0, BATCH.inputs, last=2.0), TypeError, "`last` must be an integer of at least 0, got 2.0."),
    (lambda: rnn_jax.step_backward(cell(), (1, 2, 3), jnp.zeros(4)), TypeError, "`residuals` must be StepResiduals, got tuple."),
    (lambda: rnn_jax.make_trainer(None, sgd(), carry=True), TypeError, "`grad_fn` must be a function, got None."),
    (lambda: rnn_jax.make_trainer(GRAD_FN, None, carry=True), TypeError, "`optimizer` must be an optax GradientTransformation, got NoneType."),
    (lambda: rnn_jax.make_trainer(GRAD_FN, sgd(), carry="yes"), TypeError, "`carry` must be True or False, got 'yes'."),
    (lambda: rnn_jax.make_trainer(GRAD_FN, sgd(), carry=True).init(PARAMS, (H_0[0], jnp.zeros(9))), ValueError, "`h_0[1]` must have shape (*batch, hid) = (3, 4) to match `h_0[0]` and `params.cells[1].w_hh`, got (9,)."),
    (lambda: rnn_jax.make_grad_fn("bptt", loss="cross_entropy", compute_dtype="bf16"), TypeError, "`compute_dtype` must be a floating point type, got 'bf16'."),
    (lambda: rnn_jax.cross_entropy(jnp.zeros((2, 3)), 0), TypeError, "`targets` must be an array, got int."),
    (lambda: sgd(momentum="x"), TypeError, "`momentum` must be a number from 0 to below 1, got 'x'."),
    (lambda: jax.jit(rnn_jax.check_batch)(PARAMS, BATCH, H_0), TypeError, "`check_batch` reads values, which do not exist under jit, vmap or grad: call it outside."),
    # text
    (lambda: rnn_jax.data.encode("ba", "ab"), ValueError, "`symbols` must be sorted and without repeats, as `symbols_of` makes them, got 'ba'"),
    (lambda: rnn_jax.data.decode("abc", jnp.array([0, -1])), ValueError, "`tokens` must be from 0 to 2, got -1 to 0."),
    (lambda: rnn_jax.data.make_streams(jnp.arange(3), 4), ValueError, "`tokens` must be one axis of at least 4 symbols, got shape (3,)."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), 8, 5), ValueError, "`start` must be from 0 to 4, got 8."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), jnp.asarray(7), 4), ValueError, "`start` must be from 0 to 5, got 7."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), np.int64(-3), 4), ValueError, "`start` must be from 0 to 5, got -3."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), jnp.asarray([1, 2]), 4), TypeError, "`start` must be an integer, got "),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((10, 2), int), 2.0, 4), TypeError, "`start` must be an integer, got 2.0."),
    (lambda: rnn_jax.data.encode("abc", "abd"), ValueError, "`text` must hold only the 3 known symbols, got 'd' at position 2."),
    (lambda: rnn_jax.data.encode("", "a"), ValueError, "`text` must hold only the 0 known symbols, got 'a' at position 0."),
    (lambda: rnn_jax.data.make_streams(jnp.arange(3), 0), ValueError, "`num_streams` must be at least 1, got 0."),
    (lambda: rnn_jax.data.window_batch(jnp.zeros((5, 2), int), 0, 5), ValueError, "`window` must be below the 5 steps of `streams`, got 5."),
    # definitions, reports, both directions
    (lambda: rnn_jax.analysis.truncation_report(*SHAPES, 5), ValueError, "`ks` must be a list of at least one number of steps, got 5."),
    (lambda: rnn_jax.analysis.truncation_report(*SHAPES, [5], lags="a"), TypeError, "`lags` must be an integer of at least 1, got 'a'."),
    (lambda: rnn_jax.analysis.anatomy(*SHAPES, lags=-1), ValueError, "`lags` must be at least 0, got -1."),
    (lambda: rnn_jax.analysis.anatomy(*SHAPES, k1=2), ValueError, "`k1` and `k2` must be given together or not at all, got 2 and None."),
    (lambda: rnn_jax.analysis.anatomy(*SHAPES, k1=3, k2=2), ValueError, "`k2` (reach) must be at least `k1` (window length), got 2 and 3."),
    (lambda: rnn_jax.dynamics.log_singular_values(jnp.ones((4, 3, 2)), [1]), ValueError, "`jacobians` must have the axes (time, *batch, hid, hid), got shape (4, 3, 2)."),
    (lambda: rnn_jax.dynamics.log_singular_values(jnp.ones((4, 3, 3)), [1, 5]), ValueError, "`lags` must be from 1 to the 4 steps of `jacobians`, got 5."),
    (lambda: rnn_jax.dynamics.lyapunov_exponents(jax.random.key(0), PARAMS, H_0), ValueError, "Either `xs`, the inputs that drive the network, or `num_steps` must be given, not both."),
    (lambda: rnn_jax.dynamics.lyapunov_exponents(jax.random.key(0), PARAMS, H_0, num_steps=12, skip=3), ValueError, "At least 10 steps must be left after `skip`, got 12 steps and skip = 3."),
    (lambda: rnn_jax.dynamics.lyapunov_exponents(jax.random.key(0), PARAMS, H_0, num_steps=12, num=9), ValueError, "`num` must be at most 8, the size of the states of all layers, got 9."),
    (lambda: rnn_jax.dynamics.log_singular_values(jnp.ones((4, 3, 3)), 3), TypeError, "`lags` must be a list of numbers of steps, got 3."),
    (lambda: rnn_jax.dynamics.kaplan_yorke(jnp.ones((2, 0))), ValueError, "`exponents` must have the axes (*batch, num), num at least 1, got shape (2, 0)."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.full((2, 4), jnp.nan), jnp.zeros((2, 4)))), ValueError, "`starts` must hold at least one state, and only finite numbers: leave out those that diverged."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros((0, 4)), jnp.zeros((0, 4)))), ValueError, "`starts` must hold at least one state, and only finite numbers: leave out those that diverged."),
    (lambda: jax.jit(rnn_jax.dynamics.fixed_points)(PARAMS, H_0), TypeError, "`fixed_points` reads values, which do not exist under jit, vmap or grad: call it outside."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, (jnp.zeros(4), jnp.zeros(4))), ValueError, "`starts[0]` must have the axes (num, hid), got shape (4,)."),
    (lambda: rnn_jax.dynamics.fixed_points(PARAMS, H_0, jnp.zeros(9)), ValueError, "`x` must have shape (*batch, in) = (3,) to match `params.cells[0].w_xh`, got (9,)."),
    (lambda: rnn_jax.bidirectional(CELL, (H_0[0], H_0[0]), BATCH.inputs), TypeError, "`cells` must be a tuple of two, one for each direction, got CellParams."),
    (lambda: rnn_jax.bidirectional((CELL, CELL), jnp.zeros((2, 4)), BATCH.inputs), TypeError, "`h_0` must be a tuple of two, one for each direction, got ArrayImpl."),
    # dropout
    (lambda: rnn_jax.drop_units(PARAMS, BATCH, between=0.5), ValueError, "`batch.key` must be given, because `drop_units` draws from it: set `key=jax.random.key(...)`."),
    (lambda: rnn_jax.drop_units(PARAMS, BATCH, between=1.0), ValueError, "`between` must be a number from 0 to below 1, got 1.0."),
    (lambda: rnn_jax.drop_units(PARAMS, None, between=0.5), TypeError, "`batch` must be a Batch, got NoneType."),
    (lambda: call(drop=rnn_jax.typing.Drop(between=H_0[:1])), ValueError, "`batch.drop.between` must hold one state for each of the 2 layers, got 1."),
    (lambda: call(drop=rnn_jax.typing.Drop(recurrent=(H_0[0], jnp.ones(9)))), ValueError, "`batch.drop.recurrent[1]` must have shape (*batch, hid) = (3, 4) to match `batch.inputs` and `params.cells[1].w_hh`, got (9,)."),
    (lambda: rnn_jax.drop_units(PARAMS, BATCH._replace(key=jax.random.PRNGKey(0)), between=0.5), TypeError, "`key` must be one typed key, as jax.random.key(seed) makes it, got uint32(2,)."),
    (lambda: rnn_jax.check_batch(PARAMS, BATCH._replace(drop=rnn_jax.typing.Drop(H_0, (H_0[0], H_0[1] * jnp.nan))), H_0), ValueError, "`batch.drop.recurrent[1]` must hold finite numbers, got nan at (0, 0)."),
    (lambda: call(drop=H_0), TypeError, "`batch.drop` must be a Drop, got tuple."),
    (lambda: rnn_jax.unroll(CELL, H_0[0], BATCH.inputs, r=jnp.ones(4)), ValueError, "`r` must have shape (*batch, hid) = (3, 4) to match `xs` and `cell.w_hh`, got (4,)."),
    # a loss called directly
    (lambda: rnn_jax.squared_error(jnp.zeros((2, 3)), jnp.zeros((2,))), ValueError, "`targets` must have shape (2, 3) to match the outputs, got (2,)."),
    (lambda: rnn_jax.cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3), int)), ValueError, "`targets` must have shape (2,) to match the outputs, got (2, 3)."),
    # values, eagerly
    (lambda: rnn_jax.check_batch(PARAMS, BATCH._replace(inputs=BATCH.inputs.at[1, 2, 0].set(jnp.inf)), H_0), ValueError, "`batch.inputs` must hold finite numbers, got inf at (1, 2, 0)."),
    (lambda: rnn_jax.check_batch(PARAMS, BATCH._replace(targets=BATCH.targets.at[1, 2].set(5)), H_0), ValueError, "`batch.targets` must hold classes from 0 to 4, got 5 at (1, 2)."),
    (lambda: rnn_jax.check_batch(PARAMS, BATCH._replace(inputs=jnp.zeros((7, 3), int).at[0, 1].set(-1)), H_0), ValueError, "`batch.inputs` must hold tokens from 0 to 2, got -1 at (0, 1)."),
    (lambda: rnn_jax.check_batch(PARAMS, BATCH._replace(weights=jnp.full((7, 3), jnp.nan)), H_0), ValueError, "`batch.weights` must hold finite numbers, got nan at (0, 0)."),
    (lambda: rnn_jax.check_batch(PARAMS, BATCH, (H_0[0], H_0[1] * jnp.nan)), ValueError, "`h_0[1]` must hold finite numbers, got nan at (0, 0)."),
]  # fmt: skip


@pytest.mark.parametrize("bad, error, sentence", CASES, ids=[sentence[:60] for _, _, sentence in CASES])
def test_bad_input(bad, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        bad()


def test_check_batch_reads_nothing_that_is_hidden():
    """What the mask or a weight of zero hides may be anything."""
    inputs = jnp.zeros((7, 3), int).at[0, 0].set(-9)
    targets = BATCH.targets.at[0, 0].set(99)
    mask = jnp.ones((7, 3), bool).at[0, 0].set(False)
    rnn_jax.check_batch(PARAMS, rnn_jax.Batch(inputs, targets, mask=mask), H_0)
    with pytest.raises(ValueError, match="classes from 0 to 4, got 99"):
        rnn_jax.check_batch(PARAMS, rnn_jax.Batch(inputs, targets, weights=jnp.ones((7, 3)), mask=mask), H_0)


def test_shapes_are_checked_without_running():
    """At trace time: `eval_shape` is enough to hear of it."""
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    with pytest.raises(ValueError, match=re.escape("`batch.inputs` must have shape")):
        jax.eval_shape(grad_fn, PARAMS, BATCH._replace(inputs=jnp.zeros((7, 3, 2))), H_0)
    _, gradients = jax.eval_shape(grad_fn, PARAMS, BATCH, H_0)
    assert gradients.inputs.shape == BATCH.inputs.shape


@pytest.mark.parametrize("inputs", ["features", "tokens"])
@pytest.mark.parametrize("method", EXACT)
def test_numpy_arrays_are_as_good(inputs, method):
    """In eager calls too."""
    case = Case(inputs=inputs, weights=True)
    problem = make_problem(case)
    in_numpy = jax.tree.map(np.asarray, problem)
    grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    assert_trees_close(grad_fn(*in_numpy), run(method, case, problem), rtol=1e-12)


@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_numpy_arrays_are_as_good_in_a_layer(inputs):
    params, batch, h_0 = make_problem(Case(inputs=inputs))
    args = params.cells[0], h_0[0], batch.inputs
    in_numpy = jax.tree.map(np.asarray, args)
    for unroll in (rnn_jax.unroll, rnn_jax.unroll_bptt):
        assert_trees_close(unroll(*in_numpy), by_numpy(unroll)(*args), rtol=1e-12)
    h_1 = rnn_jax.step(*in_numpy[:2], in_numpy[2][0])
    assert_trees_close(h_1, by_numpy(rnn_jax.unroll)(*args)[0], rtol=1e-12)
