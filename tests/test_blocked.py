"""`Blocked`: equal to autodiff under every plan, arrays of one block, costs as predicted, several devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import FLAGGED_STACK
from problems import (
    EXACT,
    HID,
    OPTIONS,
    OUT,
    Case,
    assert_trees_close,
    cast,
    equations,
    grad_fn_of,
    innermost_loops,
    make_problem,
    run,
    run_compiled,
    thinned,
)
from witness import central_differences

import rnn_jax
from rnn_jax import Plan
from rnn_jax.verify._grid import covering, with_other_cells

PLANS = [
    None,
    Plan(1),
    Plan(3),
    Plan(50),
    Plan(2, (3,)),
    Plan(2, (5, 2)),
    Plan(1, (4, 2, 1)),
    Plan(3, (2,), 3),
    Plan(2, (4, 4), 1),
    Plan(2, (50,)),
    Plan(2, (3,), 99),
]
GRID = list(zip(itertools.cycle(PLANS), covering(OPTIONS, 2), strict=False))
GRID += [(plan, FLAGGED_STACK) for plan in PLANS]
GATED_GRID = list(zip(itertools.cycle(PLANS), covering(with_other_cells(OPTIONS), 2), strict=False))


def describe(value):
    return "-".join(str(part).replace(" ", "") for part in value) if isinstance(value, tuple) else None


@pytest.mark.parametrize("plan, case", GRID + GATED_GRID, ids=describe)
def test_equal_to_autodiff_under_every_plan(plan, case):
    problem = make_problem(case)
    assert_trees_close(run("blocked", case, problem, plan=plan), run("autodiff", case, problem), rtol=1e-12)


COMPILED = [GRID[i] for i in (1, 2, -4)]
THOROUGH = [pytest.param(*one, marks=pytest.mark.thorough) for one in GRID if one not in COMPILED]


@pytest.mark.parametrize("plan, case", [*COMPILED, *THOROUGH], ids=describe)
def test_compiled_by_xla_it_is_the_same(plan, case):
    problem = make_problem(case)
    result = run_compiled("blocked", case, problem, plan=plan)
    assert_trees_close(result, run("blocked", case, problem, plan=plan), rtol=1e-12)


def test_equal_to_central_differences_and_uncompiled():
    case = FLAGGED_STACK._replace(time=5)
    problem, plan = make_problem(case), Plan(1, (2,), 1)
    uncompiled = rnn_jax.make_grad_fn(rnn_jax.Blocked(plan=plan), loss=case.loss)
    with jax.disable_jit():
        assert_trees_close(uncompiled(*problem), run("autodiff", case, problem), rtol=1e-12)
    result = run("blocked", case, problem, plan=plan)
    differences = central_differences(case, problem)
    expected = jax.tree.structure(result[1]).unflatten(map(jnp.asarray, differences))
    assert_trees_close(result[1], expected, rtol=1e-7, floor=1e-2)


@pytest.mark.parametrize("plan", [Plan(3), Plan(2, (3,), 2)], ids=describe)
@pytest.mark.parametrize("time", [0, 7])
def test_nothing_read_and_no_steps(time, plan):
    params, batch, h_0 = make_problem(Case(num_layers=2))
    problem = params, rnn_jax.Batch(batch.inputs[:time], batch.targets[:0]), h_0
    result = run("blocked", Case(), problem, plan=plan)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves((result[0][0], result[1])))
    assert_trees_close(result, run("autodiff", Case(), problem), rtol=1e-12)


@pytest.mark.parametrize(
    "plan", [Plan(4, (8,)), *(pytest.param(p, marks=pytest.mark.thorough) for p in (Plan(4), Plan(4, (8,), 3)))]
)
def test_lower_precision(plan):
    """Float32 within 2e-5 of the truth, bfloat16 in states and products within 8 %."""
    case = Case(num_layers=2, mask=True, reset=True, time=24 + plan.keep)
    problem = make_problem(case)
    low = cast(problem, jnp.float32)
    truth = cast(run("autodiff", case, problem), jnp.float32)
    assert_trees_close(run_compiled("blocked", case, low, plan=plan), truth, rtol=2e-5)
    assert_trees_close(run_compiled("blocked", case, low, plan=plan, compute_dtype=jnp.bfloat16), truth, rtol=8e-2)
    (loss, _), gradients = run_compiled("blocked", case, cast(problem, jnp.bfloat16), plan=plan)
    assert loss.dtype == jnp.float32 and all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients))


def program(method, case, **options):
    return jax.make_jaxpr(grad_fn_of(method, case, **options))(*make_problem(case)).jaxpr


def test_no_array_is_as_long_as_the_sequence_but_the_states():
    """Of 24 steps in blocks of 4 the states are kept; with segments nothing as long exists."""
    case = Case(time=24, inputs="tokens")

    def long_arrays(method, **options):
        made = [var.aval for eqn in equations(program(method, case, **options)) for var in eqn.outvars]
        return {aval.shape for aval in made if getattr(aval, "size", 0) >= 24 * 3 * min(HID, OUT)}

    assert long_arrays("blocked", plan=Plan(4)) == {(6, 4, 3, HID)}
    assert long_arrays("blocked", plan=Plan(4, (8,))) == set()
    assert {(24, 3, HID), (24, 3, OUT)} <= long_arrays("bptt")


@pytest.mark.parametrize("last, plan", thinned(itertools.product(["all", "some", "one"], PLANS[1:]), 3), ids=describe)
def test_one_product_a_step_and_as_many_steps_again_as_forecast(last, plan):
    case = Case(num_layers=2, time=13, last=last)
    loops = list(innermost_loops(program("blocked", case, plan=plan)))
    for body, _ in loops:
        assert sum(eqn.primitive.name == "dot_general" for eqn in equations(body)) == 1
    there_and_back = 2 * case.time
    steps = sum(runs for _, runs in loops) / case.num_layers
    cost = rnn_jax.plan_cost(make_problem(case), plan)
    assert (cost.steps, cost.recomputed_steps) == (case.time, steps - there_and_back)


def test_a_plan_in_words():
    every = "one state is kept per 100 steps; the others are recomputed"
    nested = "one state is kept per 1,000 steps and, within them, per 1 step; the others are recomputed"
    assert str(Plan(1)) == "blocks of 1 step; all states are kept"
    assert str(Plan(50, (100,))) == f"blocks of 50 steps; {every}"
    assert str(Plan(50, (1000, 1), 2000)) == f"blocks of 50 steps; {nested}, except for the last 2,000"
    shapes = make_problem(Case())
    assert str(rnn_jax.plan_cost(shapes, Plan(1))).startswith("no step recomputed, ")
    assert str(rnn_jax.plan_cost(shapes, Plan(1, (3,)))).startswith("6 of 7 steps recomputed, ")


def shapes_of(time, batch, hid, out, in_size=32, num_layers=1, tokens=False):
    """Shapes of `(params, batch, h_0)` in float32; nothing is allocated."""

    def make():
        sizes = {"input_size": in_size, "hidden_size": hid, "output_size": out, "num_layers": num_layers}
        params = rnn_jax.init_params(
            jax.random.key(0), **sizes, recurrent_init=rnn_jax.initializers.identity(1.0), dtype=jnp.float32
        )
        steps = time, batch
        inputs = jnp.zeros(steps, jnp.int32) if tokens else jnp.zeros((*steps, in_size), jnp.float32)
        return params, rnn_jax.Batch(inputs, jnp.zeros(steps, jnp.int32)), rnn_jax.zero_state(params, batch)

    return jax.eval_shape(make)


def temporary_bytes(shapes, plan):
    grad_fn = jax.jit(rnn_jax.make_grad_fn(rnn_jax.Blocked(plan=plan), loss="cross_entropy"))
    return grad_fn.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


FORECASTS = [
    (shapes_of(500, 32, 128, 10_000, tokens=True), Plan(20)),
    (shapes_of(2000, 16, 128, 64), Plan(50)),
    (shapes_of(20_000, 16, 128, 65, tokens=True), Plan(50, (500,), 1000)),
    (shapes_of(1000, 32, 512, 256, num_layers=2), Plan(40, (200,), 200)),
    (shapes_of(20_000, 16, 256, 32), Plan(100, (4000, 400), 400)),
    (shapes_of(4096, 64, 256, 64), Plan(64, (64,))),
    (shapes_of(2000, 64, 256, 64, in_size=64, num_layers=2), Plan(50, (50,))),
]


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("shapes, plan", thinned(FORECASTS, 2), ids=[str(tuple(plan)) for _, plan in FORECASTS])
def test_the_forecast_of_bytes_is_what_xla_allots(shapes, plan):
    expected = temporary_bytes(shapes, plan)
    assert expected >= 8e6
    assert rnn_jax.plan_cost(shapes, plan).temporary_bytes == pytest.approx(expected, rel=0.1)


@pytest.mark.usefixtures("annotations_unchecked")
def test_a_million_steps_in_64_mebibytes():
    """256 MB of states, were they all kept."""
    shapes, budget = shapes_of(1_000_000, 1, 64, 65, in_size=65, tokens=True), 2**26
    plan = rnn_jax.plan_memory(shapes, budget)
    assert rnn_jax.plan_cost(shapes, plan).temporary_bytes <= budget
    assert temporary_bytes(shapes, plan) <= budget


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    "shapes", [shapes_of(1000, 4, 64, 32), shapes_of(997, 1, 16, 8, num_layers=2)], ids=["", "prime"]
)
def test_plan_memory_stays_within_its_budget_and_spends_it(shapes):
    again = []
    for budget in (4.0**i for i in range(7, 13)):
        try:
            plan = rnn_jax.plan_memory(shapes, budget)
        except ValueError as error:
            assert not again and f"got {budget:,.0f}." in str(error)
            continue
        cost = rnn_jax.plan_cost(shapes, plan)
        assert cost.temporary_bytes <= budget
        again.append(cost.recomputed_steps)
    assert again == sorted(again, reverse=True)
    assert again[0] > 0 and again[-1] == 0


def every_pair(methods):
    """Methods, reductions and inputs: every pair in the quick suite, the other triples in the thorough one."""
    params = []
    for i, method in enumerate(methods):
        for reduction, inputs in itertools.product(["mean", "sum"], ["features", "tokens"]):
            quick = (reduction == "mean") == ((inputs == "features") == (i % 2 == 0))
            params.append(pytest.param(method, reduction, inputs, marks=[] if quick else pytest.mark.thorough))
    return params


@pytest.mark.parametrize("method, reduction, inputs", every_pair(EXACT))
def test_devices_share_a_batch(method, reduction, inputs):
    """Weights and masks differ from device to device; the mean is of them all."""
    layers = 2 if method == "blocked" else 1
    case = FLAGGED_STACK._replace(batch=(4, 2), time=7, inputs=inputs, reduction=reduction, num_layers=layers)
    params, batch, h_0 = make_problem(case)
    batch = batch._replace(weights=batch.weights.at[:, 2:].multiply(7.0))
    problem = params, batch, h_0
    assert_trees_close(
        run_compiled(method, case, problem, devices=jax.devices()), run("autodiff", case, problem), rtol=1e-12
    )


@pytest.mark.parametrize("devices", [1, 2])
def test_devices_with_a_mask_for_weights_and_a_plan(devices):
    case = FLAGGED_STACK._replace(batch=(4,), weights=False, num_layers=1)
    problem = make_problem(case)
    options = {"plan": Plan(2, (3,), 2), "devices": jax.devices()[:devices]}
    result = run_compiled("blocked", case, problem, **options)
    assert_trees_close(result, run("autodiff", case, problem), rtol=1e-12)
    (_, h_T), gradients = result
    for mine in (h_T[0], gradients.h_0[0], gradients.params.cells[0].w_hh):
        assert mine.sharding.device_set == set(options["devices"])


@pytest.mark.thorough
def test_devices_uncompiled():
    case = Case(batch=(2,), time=2)
    problem = make_problem(case)
    result = rnn_jax.make_grad_fn(rnn_jax.Sharded(rnn_jax.Blocked(), jax.devices()), loss=case.loss)(*problem)
    assert_trees_close(result, run("autodiff", case, problem), rtol=1e-12)
