"""Tests of all methods that are not exact: compiled, in low precision, without sequences, over devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import (
    GATED,
    Case,
    and_gated,
    assert_trees_close,
    cast,
    equations,
    grad_fn_of,
    make_problem,
    options_of,
    run,
    run_compiled,
)
from truncations import FLAGGED, INEXACT, definition, keyed

import rnn_jax


@pytest.mark.parametrize("inputs", ["features", pytest.param("tokens", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("method, cell", and_gated(INEXACT, "adaptive", "truncated"))
def test_compiled_by_xla_it_is_the_same(method, inputs, cell):
    case, options = FLAGGED._replace(inputs=inputs, time=5, num_layers=1, cell=cell), options_of(method)
    problem = keyed(make_problem(case))
    expected = run(method, case, problem, **options)
    assert_trees_close(run_compiled(method, case, problem, **options), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("method", ["truncated", *(pytest.param(m, marks=pytest.mark.thorough) for m in INEXACT[1:])])
def test_uncompiled_it_is_the_same(method):
    case, options = Case(mask=True, time=3), options_of(method)
    problem = keyed(make_problem(case))
    with jax.disable_jit():
        actual = grad_fn_of(method, case, **options)(*problem)
    assert_trees_close(actual, run(method, case, problem, **options), rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("cells", [("lstm", "vanilla"), ("vanilla", "gru")], ids="-".join)
@pytest.mark.parametrize("method", INEXACT)
def test_layers_whose_states_have_different_dtypes(method, cells):
    """In bfloat16 the states of gated layers are float32, those of tanh layers are not. Within 8 % of float64."""
    stacks = [make_problem(Case(num_layers=2, time=8, cell=cell)) for cell in cells]
    params = stacks[0][0]._replace(cells=tuple(stack[0].cells[i] for i, stack in enumerate(stacks)))
    h_0 = tuple(stack[2][i] for i, stack in enumerate(stacks))
    problem = keyed((params, stacks[0][1], h_0))
    options = options_of(method)
    half, exact = (
        grad_fn_of(method, Case(), **options, compute_dtype=dtype)(*problem) for dtype in (jnp.bfloat16, None)
    )
    if method not in ("adaptive", "randomised"):  # whose reach rounding may change
        assert_trees_close(half[1], exact[1], rtol=8e-2)
    assert jnp.isfinite(half[0][0])


@pytest.mark.parametrize("k1, cell", and_gated([1, 3, 13], 3))
def test_a_reach_of_all_steps_is_full_backpropagation(k1, cell):
    case = FLAGGED._replace(cell=cell)
    problem = make_problem(case)
    full = run("autodiff", case, problem)
    assert_trees_close(run("truncated", case, problem, k1=k1, k2=13), full, rtol=1e-12)
    assert_trees_close(run("last_steps", case, problem, k=13), full, rtol=1e-12)
    (loss, h_T), gradients = run("adaptive", case, problem, k1=k1, bias=1e-9)
    assert_trees_close((loss, h_T), full[0], rtol=1e-12)
    assert_trees_close(gradients.params, full[1].params, rtol=1e-8)


@pytest.mark.parametrize("cell", ["vanilla", *(pytest.param(cell, marks=pytest.mark.thorough) for cell in GATED)])
def test_lower_precision(cell):
    """Float32 within 2e-5 of the truth, bfloat16 in states and products within 8 %."""
    case = FLAGGED._replace(num_layers=1, cell=cell)
    problem = make_problem(case)
    truth = cast(definition("truncated", case, problem, k1=2, k2=5), jnp.float32)
    low = cast(problem, jnp.float32)
    assert_trees_close(run_compiled("truncated", case, low, k1=2, k2=5), truth, rtol=2e-5)
    half = run_compiled("truncated", case, low, k1=2, k2=5, compute_dtype=jnp.bfloat16)
    assert_trees_close(half, truth, rtol=8e-2)
    for method in INEXACT:
        options = options_of(method)
        half = run(method, case, keyed(low), compute_dtype=jnp.bfloat16, **options)
        assert all(leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(half))


@pytest.mark.parametrize("method, options", [("truncated", {"k1": 2, "k2": 5}), ("adaptive", {"k1": 2, "bias": 0.1})])
def test_one_forward_pass(method, options):
    """However far the windows reach, states are computed once."""
    case = Case(time=8)
    grad_fn = grad_fn_of(method, case, **options)
    jaxpr = jax.make_jaxpr(grad_fn)(*make_problem(case)).jaxpr
    assert sum(eqn.primitive.name == "tanh" for eqn in equations(jaxpr)) == 1


@pytest.mark.parametrize("method, cell", and_gated(["truncated", "adaptive"], "adaptive"))
def test_a_window_longer_than_the_sequence_is_all_of_it(method, cell):
    """And no more is computed for it."""
    case = FLAGGED._replace(cell=cell)
    problem = make_problem(case)
    options = {"k1": 1000, "k2": 1000} if method == "truncated" else {"k1": 1000, "bias": 0.1}
    assert_trees_close(run(method, case, problem, **options), run("autodiff", case, problem), rtol=1e-12)
    jaxpr = jax.make_jaxpr(grad_fn_of(method, case, **options))(*problem).jaxpr
    shapes = [v.aval.shape for eqn in equations(jaxpr) for v in eqn.outvars]
    assert all(max(shape, default=0) < 1000 for shape in shapes)


@pytest.mark.parametrize("method, cell", and_gated(INEXACT, "randomised", "adaptive"))
def test_no_sequences(method, cell):
    params, batch, _ = keyed(make_problem(Case(batch=(3,), inputs="tokens", cell=cell)))
    nobody = rnn_jax.Batch(batch.inputs[:, :0], batch.targets[:, :0], key=batch.key)
    (loss, _), gradients = run(method, Case(), (params, nobody, rnn_jax.zero_state(params, 0)), **options_of(method))
    assert loss == 0 and all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    "method, name, values", [("randomised", "mean_reach", [2.0, 4.0]), ("adaptive", "bias", [1e-9, 1e9])]
)
def test_a_sweep_over_what_cuts(method, name, values):
    """Under `vmap` each is what it is one at a time."""
    case = Case(batch=(2,), time=13)
    params, batch, h_0 = keyed(make_problem(case))
    options = {"k1": 2} if method == "adaptive" else {}

    def gradient(value):
        return grad_fn_of(method, case, **options, **{name: value})(params, batch, h_0)

    one_by_one = [by_numpy(gradient)(jnp.asarray(value)) for value in values]
    swept = jax.jit(jax.vmap(gradient))(jnp.array(values))
    assert_trees_close(swept, jax.tree.map(lambda *x: np.stack(x), *one_by_one), rtol=1e-12)
    assert np.any(np.asarray(swept[1].params.cells[0].w_hh[0]) != swept[1].params.cells[0].w_hh[1])


def test_many_devices():
    case = FLAGGED._replace(batch=(4,), num_layers=1)
    problem = make_problem(case)
    for method, options in (
        ("truncated", {"k1": 3, "k2": 5}),
        ("last_steps", {"k": 4}),
        ("adaptive", {"k1": 3, "bias": 1e-9}),
    ):
        expected = definition(method, case, problem, **options)
        actual = run_compiled(method, case, problem, devices=jax.devices(), **options)
        assert_trees_close(actual, expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize(
    "inputs, method, cell",
    and_gated(
        list(itertools.product(["features", "tokens"], INEXACT)),
        *(("features", method) for method in ("truncated", "truncated", "adaptive", "last_steps", "randomised")),
    ),
)
def test_corners(inputs, method, cell):
    """No steps, nothing to sum, NaN where nothing is, arrays of NumPy."""
    options = options_of(method)
    case = Case(mask=True, reset=True, inputs=inputs, cell=cell)
    params, batch, h_0 = keyed(make_problem(case))
    grad_fn = grad_fn_of(method, case, **options)
    expected = definition(method, case, (params, batch, h_0), **options)
    assert_trees_close(by_numpy(grad_fn)(params, batch, h_0), expected, rtol=1e-12, floor=1e-3)
    in_numpy = jax.tree.map(np.asarray, (params, batch._replace(key=None), h_0))
    in_numpy = in_numpy[0], in_numpy[1]._replace(key=batch.key), in_numpy[2]
    assert_trees_close(by_numpy(grad_fn)(*in_numpy), expected, rtol=1e-12, floor=1e-3)

    nothing = batch._replace(mask=jnp.zeros_like(batch.mask))
    if inputs == "features":
        nothing = nothing._replace(inputs=jnp.full_like(batch.inputs, jnp.nan))
    empty = rnn_jax.Batch(batch.inputs[:0], batch.targets[:0], key=batch.key)
    for other in (nothing, empty):
        (loss, h_T), gradients = by_numpy(grad_fn)(params, other, h_0)
        assert loss == 0 and all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradients))
        assert_trees_close(h_T, h_0, rtol=0)


@pytest.mark.parametrize("method, cell", and_gated(INEXACT, "adaptive"))
def test_sharded_under_jit(method, cell):
    case, options = Case(batch=(4,), mask=True, cell=cell), options_of(method)
    problem = keyed(make_problem(case))
    expected = run(method, case, problem, **options)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params, batch, h_0 = problem
    columns, rows = NamedSharding(mesh, PartitionSpec(None, "data")), NamedSharding(mesh, PartitionSpec("data"))
    split = jax.tree.map(lambda x: jax.device_put(x, columns), batch._replace(key=None))._replace(key=batch.key)
    actual = run_compiled(method, case, (params, split, jax.device_put(h_0, rows)), **options)
    assert_trees_close(actual, expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("method, cell", and_gated(INEXACT, "truncated", "randomised"))
def test_over_devices_a_method_is_its_reference_over_them(method, cell):
    """Each device draws and chooses for its own sequences, in both."""
    case = Case(batch=(4,), mask=True, cell=cell)
    problem = keyed(make_problem(case))
    sharded = rnn_jax.Sharded(rnn_jax.GRADIENTS[method].example, jax.devices())
    mine, its = (jax.jit(rnn_jax.make_grad_fn(way, loss=case.loss))(*problem) for way in (sharded, sharded.reference))
    assert_trees_close(mine, its, rtol=1e-12, floor=1e-3)
