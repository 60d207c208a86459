"""Truncation: each method is what its definition says, the claims of the papers hold, and the report is right."""

import dataclasses
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import (
    OPTIONS,
    Case,
    assert_trees_close,
    cast,
    equations,
    grad_fn_of,
    make_problem,
    method_of,
    options_of,
    run,
    run_compiled,
    thinned,
)
from witness import central_differences

import rnn_jax
from rnn_jax import Plan
from rnn_jax._cli.gradcheck import covering
from rnn_jax._gradients.truncation import adaptive as _adaptive
from rnn_jax._gradients.truncation import randomised as _randomised

CASES = covering(OPTIONS | {"num_layers": [1, 2]}, 2)
FLAGGED = Case(num_layers=2, weights=True, mask=True, reset=True, time=13)
INEXACT = [name for name, method in rnn_jax.GRADIENTS.items() if not method.exact]
WINDOWS = [
    {"k1": 1, "k2": 1},
    {"k1": 1, "k2": 3},
    {"k1": 2, "k2": 5, "plan": Plan(2)},
    {"k1": 3, "k2": 3},
    {"k1": 3, "k2": 7, "plan": Plan(3, (6,), 3)},
    {"k1": 4, "k2": 6, "plan": Plan(8)},
    {"k1": 5, "k2": 13},
    {"k1": 13, "k2": 13},
    {"k1": 50, "k2": 60},
]


def definition(method, case, problem, **options):
    reference = method_of(method, **options).reference
    return by_numpy(rnn_jax.make_grad_fn(reference, loss=case.loss, reduction=case.reduction))(*problem)


def keyed(problem, seed=0):
    params, batch, h_0 = problem
    return params, batch._replace(key=jax.random.key(seed)), h_0


@pytest.mark.parametrize("case, options", list(zip(CASES, itertools.cycle(WINDOWS), strict=False)), ids=str)
def test_windows_are_what_stop_gradient_says(case, options):
    problem = make_problem(case)
    expected = definition("truncated", case, problem, **options)
    assert_trees_close(run("truncated", case, problem, **options), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("inputs", ["features", pytest.param("tokens", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("method", INEXACT)
def test_compiled_by_xla_it_is_the_same(method, inputs):
    case, options = FLAGGED._replace(inputs=inputs, time=5, num_layers=1), options_of(method)
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


@pytest.mark.parametrize("options, last", thinned(itertools.product(WINDOWS, ["all", "some", "one"]), 2), ids=str)
def test_windows_with_everything_on(last, options):
    case = FLAGGED._replace(last=last)
    problem = make_problem(case)
    expected = definition("truncated", case, problem, **options)
    assert_trees_close(run("truncated", case, problem, **options), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_windows_that_do_not_overlap_are_cuts(k):
    case = FLAGGED._replace(time=6)
    problem = make_problem(case)
    expected = definition("truncated", case, problem, k1=k, k2=k)
    assert_trees_close(run("truncated", case, problem, k1=k, k2=k), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("k1", [1, 3, 13])
def test_a_reach_of_all_steps_is_full_backpropagation(k1):
    problem = make_problem(FLAGGED)
    full = run("autodiff", FLAGGED, problem)
    assert_trees_close(run("truncated", FLAGGED, problem, k1=k1, k2=13), full, rtol=1e-12)
    assert_trees_close(run("last_steps", FLAGGED, problem, k=13), full, rtol=1e-12)
    (loss, h_T), gradients = run("adaptive", FLAGGED, problem, k1=k1, bias=1e-9)
    assert_trees_close((loss, h_T), full[0], rtol=1e-12)
    assert_trees_close(gradients.params, full[1].params, rtol=1e-8)


def test_windows_against_differences_of_their_losses():
    """A window's loss is a function of its own steps, from a state that is a number."""
    case = Case(time=7, weights=True)
    params, batch, h_0 = make_problem(case)
    k1, k2 = 3, 4
    hs = rnn_jax.unroll(params.cells[0], h_0[0], batch.inputs)
    expected = [0.0] * 5
    total = jnp.sum(jnp.abs(batch.weights))
    for end in (3, 6, 7):
        begin, first = (end - 1) // k1 * k1, max(end - k2, 0)
        h = h_0[0] if first == 0 else hs[first - 1]
        window = rnn_jax.Batch(batch.inputs[first:end], batch.targets[begin:end], batch.weights[begin:end] / total)
        part = central_differences(case._replace(reduction="sum"), (params, window, (h,)))
        expected = [e + d for e, d in zip(expected, part[:5], strict=True)]
    actual = jax.tree.leaves(run("truncated", case, (params, batch, h_0), k1=k1, k2=k2)[1].params)
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)


@pytest.mark.parametrize("k, expected", [(1, 0.2**2 * 0.9), (2, 2 * 0.2**2 * 0.9), (3, 3 * 0.2**2 * 0.9)])
def test_the_forum_case(k, expected):
    """x_t = w x_{t-1}, x_0 = 0.9, w = 0.2: dx_3/dw is 3 w² x_0 = 0.108, and k terms of it when three steps become k.

    A widely copied loop leaves the gradients of earlier windows behind and gets 0.2880.
    """
    cell = rnn_jax.CellParams(jnp.zeros((1, 1)), jnp.full((1, 1), 0.2), jnp.zeros(1), "identity")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((1, 1)), jnp.zeros(1)))
    output = rnn_jax.pointwise(lambda y_t, target_t: jnp.sum(y_t - target_t, -1))
    batch = rnn_jax.Batch(jnp.zeros((3, 1)), jnp.zeros((1, 1)))
    grad_fn = rnn_jax.make_grad_fn(rnn_jax.Truncated(k1=1, k2=k), loss=output)
    _, gradients = by_numpy(grad_fn)(params, batch, (jnp.array([0.9]),))
    np.testing.assert_allclose(gradients.params.cells[0].w_hh, [[expected]], rtol=1e-12)


@pytest.mark.parametrize("last, k", thinned(itertools.product(["all", "some", "one"], [1, 4, 13, 50]), 3))
def test_last_steps_only(last, k):
    case = FLAGGED._replace(last=last)
    problem = make_problem(case)
    expected = definition("last_steps", case, problem, k=k)
    assert_trees_close(run("last_steps", case, problem, k=k), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("plan, case", thinned(itertools.product([None, Plan(3, (6,), 2)], CASES[1::3]), 2), ids=str)
def test_random_cuts_are_what_they_say(plan, case):
    problem = keyed(make_problem(case), seed=3)
    options = {"mean_reach": 3.0}
    expected = definition("randomised", case, problem, **options)
    assert_trees_close(run("randomised", case, problem, plan=plan, **options), expected, rtol=1e-12, floor=1e-3)


def test_random_cuts_are_right_on_average():
    """Over 4,000 keys the mean is the full gradient within four standard errors, in every entry; windows are not."""
    case = Case(time=6, batch=(2,))
    params, batch, h_0 = make_problem(case)
    draw = rnn_jax.make_grad_fn(rnn_jax.Randomised(mean_reach=3.0), loss=case.loss)
    keys = jax.random.split(jax.random.key(0), 4000)
    of_key = jax.jit(jax.vmap(lambda key: draw(params, batch._replace(key=key), h_0)[1]))
    full = run("autodiff", case, (params, batch, h_0))[1]
    off = []
    for drawn, truth in zip(jax.tree.leaves(of_key(keys)), jax.tree.leaves(full), strict=True):
        error = drawn.std(0) / len(keys) ** 0.5
        assert np.all(np.abs(drawn.mean(0) - truth) <= 4 * error + 1e-12)
        off.append(np.max(np.asarray(error)))
    windows = run("truncated", case, (params, batch, h_0), k1=3, k2=3)[1]
    gap = np.abs(windows.params.cells[0].w_hh - full.params.cells[0].w_hh)
    assert np.max(gap) > 10 * max(off)


def test_random_cuts_follow_their_key():
    case, problem = Case(), make_problem(Case())
    first, same, other = (run("randomised", case, keyed(problem, s), mean_reach=2.0)[1] for s in (1, 1, 2))
    assert_trees_close(first, same, rtol=0)
    assert np.any(first.params.cells[0].w_hh != other.params.cells[0].w_hh)


def decaying(rho, time, seed=0, activation="identity", hid=12):
    """A network whose gradient falls by `rho` a step: a scaled rotation."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((hid, hid)))
    cell = rnn_jax.CellParams(
        jnp.asarray(0.5 * rng.standard_normal((3, hid))), jnp.asarray(rho * rotation), jnp.zeros(hid), activation
    )
    readout = rnn_jax.ReadoutParams(jnp.asarray(rng.standard_normal((hid, 5)) / hid**0.5), jnp.zeros(5))
    batch = rnn_jax.Batch(jnp.asarray(rng.standard_normal((time, 4, 3))), jnp.asarray(rng.integers(0, 5, (time, 4))))
    return rnn_jax.Params((cell,), readout), batch, (jnp.zeros((4, hid)),)


def chosen(problem, **options):
    settle = rnn_jax._losses.make_objective("cross_entropy", "mean")
    method = rnn_jax.Adaptive(**options)
    k2, result = by_numpy(lambda *args: _adaptive.adaptive(method, settle(*args[:2]), *args))(*problem)
    return int(k2), result


@pytest.mark.parametrize(
    "seed, bias, rho", thinned(itertools.product([0, 1], [0.3, 0.1, 0.01], [0.3, 0.6, 0.8, 0.9]), 5)
)
def test_the_bias_stays_below_its_bound_where_the_decay_is_known(seed, bias, rho):
    problem = decaying(rho, 96, seed)
    k2, (_, gradients) = chosen(problem, k1=4, bias=bias)
    _, full = run("autodiff", Case(), problem)
    mine, theirs = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g.params.cells)]) for g in (gradients, full))
    assert np.linalg.norm(mine - theirs) <= bias * np.linalg.norm(theirs)
    assert k2 < 96 or rho > 0.8  # it did cut


def test_a_slower_decay_reaches_further_and_so_does_a_smaller_bias():
    reached = [chosen(decaying(rho, 96), k1=4, bias=0.1)[0] for rho in (0.2, 0.5, 0.8)]
    assert reached == sorted(reached) and reached[0] < reached[-1]
    reached = [chosen(decaying(0.5, 96), k1=4, bias=bias)[0] for bias in (0.5, 0.05, 0.0005)]
    assert reached == sorted(reached) and reached[0] < reached[-1]


@pytest.mark.parametrize("time, last", thinned(itertools.product([12, 13, 1], ["all", "some", "one"]), 2))
def test_adaptive_is_truncated_with_the_reach_that_it_chose(last, time):
    case = FLAGGED._replace(last=last, time=time)
    problem = make_problem(case)
    for bias in (10.0, 0.5):
        actual = run("adaptive", case, problem, k1=2, bias=bias)
        assert_trees_close(actual, definition("adaptive", case, problem, k1=2, bias=bias), rtol=1e-12, floor=1e-3)
    shortest = run("adaptive", case, problem, k1=2, bias=1e-9, k2_max=4)
    assert_trees_close(shortest, run("truncated", case, problem, k1=2, k2=4), rtol=1e-12, floor=1e-3)


def test_lower_precision():
    """Float32 within 2e-5 of the truth, bfloat16 in states and products within 8 %."""
    case = FLAGGED._replace(num_layers=1)
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


@pytest.mark.parametrize("method", ["truncated", "adaptive"])
def test_a_window_longer_than_the_sequence_is_all_of_it(method):
    """And no more is computed for it."""
    problem = make_problem(FLAGGED)
    options = {"k1": 1000, "k2": 1000} if method == "truncated" else {"k1": 1000, "bias": 0.1}
    assert_trees_close(run(method, FLAGGED, problem, **options), run("autodiff", FLAGGED, problem), rtol=1e-12)
    jaxpr = jax.make_jaxpr(grad_fn_of(method, FLAGGED, **options))(*problem).jaxpr
    shapes = [v.aval.shape for eqn in equations(jaxpr) for v in eqn.outvars]
    assert all(max(shape, default=0) < 1000 for shape in shapes)


@pytest.mark.parametrize("method", INEXACT)
def test_no_sequences(method):
    params, batch, _ = keyed(make_problem(Case(batch=(3,), inputs="tokens")))
    nobody = rnn_jax.Batch(batch.inputs[:, :0], batch.targets[:, :0], key=batch.key)
    (loss, _), gradients = run(method, Case(), (params, nobody, rnn_jax.zero_state(params, 0)), **options_of(method))
    assert loss == 0 and all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("mean_reach", [2.0, 10.0, 100.0])
def test_cuts_are_right_on_average_in_half_precision_too(mean_reach, dtype):
    batch = rnn_jax.Batch(jnp.zeros((2, 400_000), int), jnp.zeros((2, 400_000), int), key=jax.random.key(0))
    sent = np.asarray(_randomised.cuts(mean_reach, batch, dtype)[1].astype(jnp.float64))
    assert abs(sent.mean() - 1) <= 4 * sent.std() / len(sent) ** 0.5


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


@pytest.mark.parametrize("last", thinned([1, 10, 20], 3))
def test_the_decay_is_that_of_the_losses_that_are_read(last):
    params, batch, h_0 = decaying(0.9, 20)
    batch = batch._replace(targets=batch.targets[-last:])
    report = rnn_jax.analysis.truncation_report(params, batch, h_0, [5], lags=10)
    assert report.decay == pytest.approx(0.9, rel=0.02)


def test_the_report():
    problem = decaying(0.5, 40)
    report = rnn_jax.analysis.truncation_report(*problem, [1, 4, 40], lags=20)
    errors = {(row.k1, row.k2): row.whole.error for row in report.rows}
    assert list(errors) == [(1, 1), (4, 4), (2, 4), (1, 4), (40, 40), (20, 40), (1, 40)]
    assert (
        errors[1, 1]
        > errors[4, 4]
        > errors[2, 4]
        > errors[1, 4]
        > 1e-3
        > 1e-12
        > max(errors[k, 40] for k in (40, 20, 1))
    )
    assert report.rows[-1].whole.cosine == pytest.approx(1)
    _, full = run("autodiff", Case(), problem)
    _, windows = run("truncated", Case(), problem, k1=4, k2=4)
    of_w_hh = report.rows[1].leaves["cells.0.w_hh"]
    mine, theirs = windows.params.cells[0].w_hh, full.params.cells[0].w_hh
    assert of_w_hh.error == pytest.approx(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))
    assert report.decay == pytest.approx(0.5, rel=5e-3) and report.decay_error < 5e-3
    np.testing.assert_allclose(report.lag_norms[1:] / report.lag_norms[:-1], 0.5, rtol=0.2)
    assert "0.499 ±" in str(report) and len(str(report).splitlines()) == 3 + 8


@pytest.mark.parametrize("method", INEXACT)
@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_corners(inputs, method):
    """No steps, nothing to sum, NaN where nothing is, arrays of NumPy."""
    options = options_of(method)
    case = Case(mask=True, reset=True, inputs=inputs)
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


@pytest.mark.parametrize("method", INEXACT)
def test_sharded_under_jit(method):
    case, options = Case(batch=(4,), mask=True), options_of(method)
    problem = keyed(make_problem(case))
    expected = run(method, case, problem, **options)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params, batch, h_0 = problem
    columns, rows = NamedSharding(mesh, PartitionSpec(None, "data")), NamedSharding(mesh, PartitionSpec("data"))
    split = jax.tree.map(lambda x: jax.device_put(x, columns), batch._replace(key=None))._replace(key=batch.key)
    actual = run_compiled(method, case, (params, split, jax.device_put(h_0, rows)), **options)
    assert_trees_close(actual, expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("method", rnn_jax.GRADIENTS)
def test_methods_are_values(method):
    """Equal, hashable and picklable, they and what they are checked against, and frozen."""
    example = rnn_jax.GRADIENTS[method].example
    again = dataclasses.replace(example)
    assert example == again and hash(example) == hash(again) and example.reference == again.reference
    for value in (example, example.reference):
        assert pickle.loads(pickle.dumps(value)) == value
        assert hash(value) == hash(pickle.loads(pickle.dumps(value)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.plan = None
    sharded = rnn_jax.Sharded(example, jax.devices())
    assert sharded == rnn_jax.Sharded(example, tuple(jax.devices())) and hash(sharded)
    with pytest.raises(ValueError, match="must not be `Sharded` itself"):
        rnn_jax.Sharded(sharded, jax.devices())


@pytest.mark.parametrize("method", INEXACT)
def test_over_devices_a_method_is_its_reference_over_them(method):
    """Each device draws and chooses for its own sequences, in both."""
    case = Case(batch=(4,), mask=True)
    problem = keyed(make_problem(case))
    sharded = rnn_jax.Sharded(rnn_jax.GRADIENTS[method].example, jax.devices())
    mine, its = (jax.jit(rnn_jax.make_grad_fn(way, loss=case.loss))(*problem) for way in (sharded, sharded.reference))
    assert_trees_close(mine, its, rtol=1e-12, floor=1e-3)
