"""Functions fit each other: every output is passed to every function that reads its kind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Case, make_problem

import rnn_jax
from rnn_jax import analysis, data, dynamics

TIME, HID, SYMBOLS = 12, 4, 5
KEY = jax.random.key(0)


def a_problem(batch, cell):
    """A stack of two layers of equal width that reads and predicts tokens."""
    sizes = {"input_size": SYMBOLS, "hidden_size": HID, "output_size": SYMBOLS}
    params = rnn_jax.init_params(KEY, cell=cell, num_layers=2, dtype=float, **sizes)
    _, example, _ = make_problem(Case(batch=batch, time=TIME, inputs="tokens", mask=True, reset=True))
    inputs = jnp.abs(example.inputs) % SYMBOLS
    example = example._replace(inputs=inputs, targets=inputs, key=KEY)
    return params, example, rnn_jax.zero_state(params, *batch)


def clipped(params):
    clip = rnn_jax.clip_gradients(max_norm=1.0)
    return clip.update(params, clip.init(params))[0]


def producers(params, example, h_0):
    """`(kind, name, output)` of every function whose output another one reads; `kind` is what it is."""
    batch, cell = h_0[0].shape[:-1], params.cells[0]
    flags = {"mask": example.mask, "reset": example.reset}
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    (_, h_T), gradients = grad_fn(params, example, h_0)
    outputs, after = rnn_jax.generate(KEY, params, example.inputs, TIME, mask=example.mask)
    _, h_t = rnn_jax.apply_step(params, h_0, example.inputs[0], mask=example.mask[0], reset=example.reset[0])
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.1), carry=True)
    state, _ = trainer.step(trainer.init(params, h_0), example)
    h_1, residuals = rnn_jax.step_forward(cell, h_0[0], example.inputs[0])
    _, d_h_0, _ = rnn_jax.step_backward(cell, residuals, h_1)
    unrolled = rnn_jax.unroll(cell, h_0[0], example.inputs, **flags)
    yield "state of a layer", "step", rnn_jax.step(cell, h_0[0], example.inputs[0])
    yield "state of a layer", "step_forward", h_1
    yield "state of a layer", "step_backward", d_h_0
    yield "states", "zero_state", rnn_jax.zero_state(params, *batch)
    yield "states", "apply", rnn_jax.apply(params, h_0, example.inputs, **flags)[1]
    yield "states", "apply_step", h_t
    yield "states", "generate", after
    yield "states", "grad_fn", h_T
    yield "states", "gradients of h_0", gradients.h_0
    yield "states", "trainer", state.h_0
    yield "states", "anatomy", analysis.anatomy(params, example, h_0).h_T
    yield "params", "gradients of params", gradients.params
    yield "params", "trainer", state.params
    yield "params", "clip_gradients", clipped(gradients.params)
    yield "inputs", "generate", outputs
    yield "states of all steps", "unroll", unrolled
    yield "states of all steps", "unroll_bptt", rnn_jax.unroll_bptt(cell, h_0[0], example.inputs, **flags)
    yield "states of all steps", "anatomy", analysis.anatomy(params, example, h_0).layers[0].d_hs
    yield "hidden states", "hidden", rnn_jax.hidden(cell, unrolled)
    yield "batch", "drop_units", rnn_jax.drop_units(params, example, between=0.5, recurrent=0.5)
    yield "flags", "lengths_to_mask", data.lengths_to_mask(jnp.ones(batch, int), TIME)
    yield "jacobians", "step_jacobians", dynamics.step_jacobians(cell, h_0[0], example.inputs, **flags)
    spectrum = dynamics.lyapunov_exponents(KEY, params, h_0, example.inputs)
    yield "exponents", "lyapunov_exponents", spectrum.exponents


def consumers(params, example, h_0):
    """`(kind, name, function of an output)` of every function that reads the kind."""
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
    cell, xs = params.cells[0], example.inputs
    yield "state of a layer", "step", lambda h: rnn_jax.step(cell, h, xs[0])
    yield (
        "state of a layer",
        "step_backward",
        lambda h: rnn_jax.step_backward(cell, rnn_jax.step_forward(cell, h, xs[0])[1], h),
    )
    yield "state of a layer", "unroll", lambda h: rnn_jax.unroll(cell, h, xs)
    yield "state of a layer", "unroll_bptt", lambda h: rnn_jax.unroll_bptt(cell, h, xs)
    yield "state of a layer", "bidirectional", lambda h: rnn_jax.bidirectional((cell, cell), (h, h), xs)
    yield "state of a layer", "step_jacobians", lambda h: dynamics.step_jacobians(cell, h, xs)
    yield "state of a layer", "hidden", lambda h: rnn_jax.readout(params.readout, rnn_jax.hidden(cell, h))
    yield "states", "apply", lambda h: rnn_jax.apply(params, h, xs)
    yield "states", "apply_step", lambda h: rnn_jax.apply_step(params, h, xs[0])
    yield "states", "generate", lambda h: rnn_jax.generate(KEY, params, xs, 3, h_0=h)
    yield "states", "grad_fn", lambda h: grad_fn(params, example, h)
    yield "states", "anatomy", lambda h: analysis.anatomy(params, example, h)
    yield "states", "step_gradients", lambda h: analysis.step_gradients(params, example, h)
    yield "states", "lyapunov_exponents", lambda h: dynamics.lyapunov_exponents(KEY, params, h, xs)
    yield "states", "flossing", lambda h: dynamics.flossing(KEY, params, h, xs, num=2)
    yield "params", "apply", lambda p: rnn_jax.apply(p, h_0, xs)
    yield "params", "grad_fn", lambda p: grad_fn(p, example, h_0)
    yield "params", "generate", lambda p: rnn_jax.generate(KEY, p, xs, 3)
    yield "params", "zero_state", lambda p: rnn_jax.zero_state(p, 3)
    yield "params", "drop_units", lambda p: rnn_jax.drop_units(p, example, between=0.5)
    yield "params", "clip_gradients", clipped
    yield "inputs", "generate", lambda x: rnn_jax.generate(KEY, params, x, 3)
    yield "inputs", "apply", lambda x: rnn_jax.apply(params, h_0, x)
    yield "inputs", "apply_step", lambda x: rnn_jax.apply_step(params, h_0, x[0])
    yield "inputs", "grad_fn", lambda x: grad_fn(params, rnn_jax.Batch(x[:-1], x[1:]), h_0)
    yield "inputs", "step_jacobians", lambda x: dynamics.step_jacobians(cell, h_0[0], x)
    yield "inputs", "bidirectional", lambda x: rnn_jax.bidirectional((cell, cell), h_0, x)
    yield "inputs", "lyapunov_exponents", lambda x: dynamics.lyapunov_exponents(KEY, params, h_0, x)
    yield "states of all steps", "hidden", lambda hs: rnn_jax.readout(params.readout, rnn_jax.hidden(cell, hs))
    yield "hidden states", "readout", lambda hs: rnn_jax.readout(params.readout, hs)
    yield "hidden states", "unroll", lambda hs: rnn_jax.unroll(params.cells[1], h_0[1], hs)
    yield "hidden states", "step_jacobians", lambda hs: dynamics.step_jacobians(params.cells[1], h_0[1], hs)
    yield "batch", "grad_fn", lambda batch: grad_fn(params, batch, h_0)
    yield "batch", "anatomy", lambda batch: analysis.anatomy(params, batch, h_0)
    yield "batch", "drop_units", lambda batch: rnn_jax.drop_units(params, batch, between=0.5)
    yield (
        "batch",
        "apply",
        lambda batch: rnn_jax.apply(params, h_0, batch.inputs, mask=batch.mask, reset=batch.reset, drop=batch.drop),
    )
    yield "flags", "grad_fn", lambda m: grad_fn(params, example._replace(mask=m, reset=m), h_0)
    yield "flags", "apply", lambda m: rnn_jax.apply(params, h_0, xs, mask=m, reset=m)
    yield "flags", "apply_step", lambda m: rnn_jax.apply_step(params, h_0, xs[0], mask=m[0], reset=m[0])
    yield "flags", "generate", lambda m: rnn_jax.generate(KEY, params, xs, 3, mask=m)
    yield "flags", "unroll_bptt", lambda m: rnn_jax.unroll_bptt(cell, h_0[0], xs, mask=m, reset=m)
    yield "flags", "bidirectional", lambda m: rnn_jax.bidirectional((cell, cell), h_0, xs, mask=m, reset=m)
    yield "flags", "step_jacobians", lambda m: dynamics.step_jacobians(cell, h_0[0], xs, mask=m, reset=m)
    yield "jacobians", "log_singular_values", lambda js: dynamics.log_singular_values(js, [1, 5])
    yield "exponents", "kaplan_yorke", dynamics.kaplan_yorke


LAYOUTS = [((), "vanilla"), ((3,), "vanilla"), ((2, 2), "vanilla"), ((3,), "lstm")]
THOROUGH = [pytest.param(*one, marks=pytest.mark.thorough) for one in [((), "lstm"), ((2, 2), "lstm"), ((2, 2), "gru")]]


@pytest.mark.parametrize("batch, cell", LAYOUTS + THOROUGH, ids=str)
def test_every_output_is_an_input(batch, cell):
    """By their shapes and dtypes, through all checks of arguments and annotations; nothing is computed.

    A vanilla layer has no other state than h.
    """
    problem = a_problem(batch, cell)
    made = jax.eval_shape(lambda *problem: {(kind, name): x for kind, name, x in producers(*problem)}, *problem)
    if cell == "vanilla":
        made |= {("hidden states", name): x for (kind, name), x in made.items() if kind == "states of all steps"}
    read = list(consumers(*problem))
    assert {kind for kind, _ in made} == {kind for kind, _, _ in read}
    for (kind, producer), output in made.items():
        for its, consumer, function in read:
            if its != kind:
                continue
            try:
                jax.eval_shape(function, output)
            except Exception as error:
                raise AssertionError(f"{consumer} does not take the {kind} that {producer} returns") from error


ARRANGED = {
    "pad_sequences": lambda xs: data.pad_sequences(xs, xs)[0],
    "pack_sequences": lambda xs: data.pack_sequences(xs, xs)[0],
    "window_batch": lambda xs: data.window_batch(jnp.asarray(data.make_streams(np.concatenate(xs), 2)), 0, 5),
}


@pytest.mark.parametrize("name", [*ARRANGED, *rnn_jax.tasks.TASKS])
def test_every_batch_is_read(name):
    """Those of sequences, of a text and of the tasks: by gradients, by `apply`, and their inputs as prompts."""
    if name in ARRANGED:
        rng = np.random.default_rng(0)
        batch = ARRANGED[name]([rng.integers(0, SYMBOLS, n) for n in (12, 3, 7)])
        loss, sizes = "cross_entropy", {"input_size": SYMBOLS, "output_size": SYMBOLS}
    else:
        task = rnn_jax.tasks.TASKS[name]
        batch = jax.eval_shape(partial(task.make, num_sequences=3, **task.sizes), KEY)
        loss = task.loss
        sizes = {"input_size": task.input_size(**task.sizes), "output_size": task.output_size(**task.sizes)}
    params = rnn_jax.init_params(KEY, hidden_size=HID, dtype=float, **sizes)
    h_0 = rnn_jax.zero_state(params, batch.inputs.shape[1])
    grad_fn = rnn_jax.make_grad_fn("blocked", loss=loss)
    _, gradients = jax.eval_shape(grad_fn, params, batch, h_0)
    assert jax.tree.structure(gradients.params) == jax.tree.structure(params)
    flags = {"mask": batch.mask, "reset": batch.reset}
    jax.eval_shape(partial(rnn_jax.apply, params, h_0), batch.inputs, **flags)
    jax.eval_shape(partial(dynamics.step_jacobians, params.cells[0], h_0[0]), batch.inputs, **flags)
    if sizes["input_size"] == sizes["output_size"] and jnp.issubdtype(batch.inputs.dtype, jnp.integer):
        jax.eval_shape(lambda x, m: rnn_jax.generate(KEY, params, x, 3, mask=m), batch.inputs, batch.mask)
