"""`jax.export`: one program for several platforms, and for any number of steps and sequences."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from layer_problems import ALL, loss_of, problem_of
from problems import Case, assert_trees_close, grad_fn_of, make_problem, options_of, run

import rnn_jax
from rnn_jax import analysis, unroll, unroll_bptt


def test_export_for_cpu_and_cuda():
    """One artifact with value, gradient and Hessian-vector product for both; what it computes here is right."""
    primals, _, _ = problem_of("plain")

    def derivatives(loss):
        return lambda *p: (jax.value_and_grad(loss, ALL)(*p), jax.jvp(jax.grad(loss), p, p))

    f = jax.jit(derivatives(loss_of(unroll_bptt, {})))
    exported = jax.export.export(f, platforms=["cpu", "cuda"])(*primals)
    assert exported.platforms == ("cpu", "cuda")
    expected = by_numpy(derivatives(loss_of(unroll, {})))(*primals)
    assert_trees_close(exported.call(*primals), expected, rtol=1e-12)


SYMBOLIC = {name: options_of(name) for name in rnn_jax.GRADIENTS if name not in ("last_steps", "randomised")}


def exported(method, case, options, time, batch):
    """A gradient function exported with symbolic sizes. It takes leaves; test_saving.py exports trees."""
    params, example, h_0 = make_problem(case)
    last = time if case.last == "all" else 1

    def shaped(x, *leading):
        return None if x is None else jax.ShapeDtypeStruct((*leading, *x.shape[len(leading) :]), x.dtype)

    shapes = (
        jax.tree.map(shaped, params),
        rnn_jax.Batch(
            shaped(example.inputs, time, batch),
            shaped(example.targets, last, batch),
            shaped(example.weights, last, batch),
            shaped(example.mask, time, batch),
            shaped(example.reset, time, batch),
        ),
        tuple(shaped(h, batch) for h in h_0),
    )
    return jax.export.export(jax.jit(grad_fn_of(method, case, **options)))(*shapes)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("last", ["all", "one"])
@pytest.mark.parametrize("method", list(SYMBOLIC))
def test_a_gradient_exported_for_any_length_and_batch(method, last):
    """What the program computes for each length is what the method computes for it; shorter than a window, too."""
    case = Case(num_layers=2, last=last, mask=True, inputs="tokens" if method == "bptt" else "features")
    program = exported(method, case, SYMBOLIC[method], *jax.export.symbolic_shape("t, b"))
    for time, batch in ((5, 2), (1, 3)):
        case = case._replace(time=time, batch=(batch,))
        problem = make_problem(case)
        expected = run(method, case, problem, **SYMBOLIC[method])
        assert_trees_close(program.call(*problem), expected, rtol=1e-12, floor=1e-6)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_plans_exported_for_multiples_of_their_blocks():
    case, plan = Case(leak=0.3), rnn_jax.Plan(2, (4,))
    time, batch = jax.export.symbolic_shape("4*n, b")
    program = exported("blocked", case, {"plan": plan}, time, batch)
    case = case._replace(time=12)
    problem = make_problem(case)
    assert_trees_close(program.call(*problem), run("autodiff", case, problem), rtol=1e-12)
    time, batch = jax.export.symbolic_shape("t, b")
    with pytest.raises(ValueError, match="`plan` must cut t steps, t of them read, into equal blocks and segments"):
        exported("blocked", case, {"plan": plan}, time, batch)


def shapes_of(problem, time, batch):
    """The problem of `make_problem` with symbols for its numbers of steps and sequences."""
    params, example, h_0 = problem
    num_steps, num_sequences = example.inputs.shape[:2]
    last = time if example.targets.shape[0] == num_steps else example.targets.shape[0]

    def with_symbols(x, *sizes):
        return None if x is None else jax.ShapeDtypeStruct((*sizes, *x.shape[len(sizes) :]), x.dtype)

    steps = {name: with_symbols(getattr(example, name), time, batch) for name in ("inputs", "mask", "reset")}
    read = {name: with_symbols(getattr(example, name), last, batch) for name in ("targets", "weights")}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    return shapes, rnn_jax.Batch(**steps, **read), tuple(with_symbols(h, batch) for h in h_0)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize(
    "case",
    [Case(num_layers=2), Case(mask=True, reset=True, inputs="tokens"), Case(last="one", leak=0.3)],
    ids=["stack", "flags", "last"],
)
@pytest.mark.parametrize("options", [{}, {"lags": 4}, {"k1": 3, "k2": 4}, {"lags": 2, "k1": 2, "k2": 20}], ids=str)
def test_the_anatomy_exported_for_any_length_and_batch(case, options):
    """Of sequences shorter than the lags the lags past their length are zero."""
    look = jax.jit(partial(analysis.anatomy, **options))
    program = jax.export.export(look)(*shapes_of(make_problem(case), *jax.export.symbolic_shape("t, b")))
    for time, batch in ((7, 3), (2, 1)):
        problem = make_problem(case._replace(time=time, batch=(batch,)))
        expected, found = look(*problem), program.call(*problem)
        grids = [np.asarray(grid) for grid in found.lag_norms]
        num = min(options.get("lags", 0), time) + 1
        assert all(len(grid) == options.get("lags", 0) + 1 and not grid[num:].any() for grid in grids)
        found = found._replace(lag_norms=tuple(jnp.asarray(grid[:num]) for grid in grids))
        if num < 3:  # the rate of fewer than two lags is None
            found, expected = (x._replace(decay=None, decay_error=None) for x in (found, expected))
        found, expected = (jax.tree.map(jnp.nan_to_num, x) for x in (found, expected))  # an error that is infinite
        if found.cut is not None:  # where nothing is lost, rounding is
            found, expected = (x._replace(cut=jax.tree.map(lambda x: 1 + x, x.cut)) for x in (found, expected))
        assert_trees_close(found, expected, rtol=1e-9, floor=1e-9)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_what_needs_some_steps_is_exported_with_that_constraint():
    """And says which, if the symbols lack it."""
    params, example, h_0 = make_problem(Case(time=30))
    part = example._replace(targets=example.targets[-4:])
    key, xs, tokens = jax.random.key(0), example.inputs, jnp.zeros((30, 3), int)
    of_tokens = rnn_jax.init_params(key, input_size=5, hidden_size=4, output_size=5, dtype=xs.dtype)
    jacobians = rnn_jax.dynamics.step_jacobians(params.cells[0], h_0[0][0], xs[:, 0])
    alone = tuple(h[0] for h in h_0)
    for least, name, call, args in (
        (13, "xs", lambda p, x: rnn_jax.dynamics.lyapunov_exponents(key, p, alone, x, skip=3), (params, xs[:, 0])),
        (4, "xs", lambda p, x: rnn_jax.dynamics.flossing(key, p, alone, x, num=2, skip=3), (params, xs[:, 0])),
        (6, "jacobians", lambda js: rnn_jax.dynamics.log_singular_values(js, [2, 6]), (jacobians,)),
        (3, "inputs", lambda p, x: rnn_jax.apply(p, h_0, x, last=3), (params, xs)),
        (2, "prompt", lambda p, x: rnn_jax.generate(key, p, x, 5), (of_tokens, tokens)),
        (7, "streams", lambda x: rnn_jax.data.window_batch(x, 1, 5), (tokens,)),
        (4, "batch.inputs", lambda p, x: analysis.step_gradients(p, part._replace(inputs=x), h_0), (params, xs)),
    ):  # fmt: skip

        def export(constraint, call=call, args=args):
            (time,) = jax.export.symbolic_shape("t", constraints=constraint)
            *others, last = args
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), others)
            return jax.export.export(jax.jit(call))(*shapes, jax.ShapeDtypeStruct((time, *last.shape[1:]), last.dtype))

        sentence = f"`{name}` must be known to have at least {least} steps, got t: export it for symbols with this"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            export([f"t >= {least - 1}"])
        assert_trees_close(export([f"t >= {least}"]).call(*args), jax.jit(call)(*args), rtol=1e-9, floor=1e-9)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_what_cannot_be_exported_for_any_length_says_so():
    time, batch = jax.export.symbolic_shape("t, b")
    with pytest.raises(ValueError, match="'last_steps' needs a known number of steps, got t, t of them read"):
        exported("last_steps", Case(), {"k": 3}, time, batch)
    expected = run("last_steps", Case(), make_problem(Case()), k=3)
    assert_trees_close(
        exported("last_steps", Case(), {"k": 3}, 7, batch).call(*make_problem(Case())), expected, rtol=1e-12
    )
    params, example, h_0 = make_problem(Case())
    inputs = jax.ShapeDtypeStruct((time, 3, *example.inputs.shape[2:]), example.inputs.dtype)
    targets = jax.ShapeDtypeStruct((time, 3), example.targets.dtype)
    with pytest.raises(ValueError, match="`shapes` must have known sizes, got the symbols t."):
        rnn_jax.plan_cost((params, rnn_jax.Batch(inputs, targets), h_0))


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("text", ["t, b", "t, 3", "40, b"])
def test_the_derivative_of_the_unroll_with_flags_exported_for_any_length_and_batch(text):
    """And a program that makes its own first state, of a batch whose size is a symbol."""
    (cell, _, xs), _, _ = problem_of("plain")
    time, batch = jax.export.symbolic_shape(text)

    def gradient(cell, xs, mask, reset):
        params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((cell.w_hh.shape[0], 1)), jnp.ones(1)))
        (h_0,) = rnn_jax.zero_state(params, xs.shape[1])
        mask &= rnn_jax.data.lengths_to_mask(jnp.sum(mask, 0), xs.shape[0])
        loss = lambda cell, xs: jnp.sum(unroll_bptt(cell, h_0, xs, mask=mask, reset=reset) ** 2)  # noqa: E731
        return jax.grad(loss, (0, 1))(cell, xs)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), cell)
    flags = [jax.ShapeDtypeStruct((time, batch), bool)] * 2
    program = jax.export.export(jax.jit(gradient))(
        shapes, jax.ShapeDtypeStruct((time, batch, xs.shape[2]), xs.dtype), *flags
    )
    steps = tuple(given if isinstance(given, int) else 5 for given in (time, batch))
    rng = np.random.default_rng(0)
    args = cell, rng.normal(size=(*steps, xs.shape[2])), rng.random(steps) < 0.8, rng.random(steps) < 0.2
    assert_trees_close(program.call(*args), jax.jit(gradient)(*args), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("method", ["bptt", "blocked"])
def test_steps_of_a_turn_are_one_where_their_number_is_a_symbol(method):
    case = Case()
    program = exported(method, case, {"unroll": 4}, *jax.export.symbolic_shape("t, b"))
    problem = make_problem(case)
    assert_trees_close(program.call(*problem), run("autodiff", case, problem), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("text", ["t, b", "t, 3", "40, b"])
def test_the_derivative_of_the_unroll_exported_for_any_length_and_batch(text):
    (cell, h_0, xs), _, _ = problem_of("plain")
    time, batch = jax.export.symbolic_shape(text)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), cell)
    sizes = (
        jax.ShapeDtypeStruct((batch, *h_0.shape[1:]), h_0.dtype),
        jax.ShapeDtypeStruct((time, batch, xs.shape[2]), xs.dtype),
    )
    program = jax.export.export(jax.jit(jax.grad(loss_of(unroll_bptt, {}), ALL)))(shapes, *sizes)
    num_steps, num_sequences = (given if isinstance(given, int) else 5 for given in (time, batch))
    primals = cell, np.ones((num_sequences, *h_0.shape[1:])), np.ones((num_steps, num_sequences, xs.shape[2]))
    assert_trees_close(program.call(*primals), by_numpy(jax.grad(loss_of(unroll, {}), ALL))(*primals), rtol=1e-12)
