"""The rounding errors of gradients."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from precision import F32_EPS, TIMES, bfloat16_errors, compiled, float64_truth, leaf_errors, long_problem, slow_problem
from problems import EXACT, Case, assert_trees_close, cast, make_problem

import rnn_jax

SEEDS = (0, 1)
LONGEST = ("squared_error", TIMES[-1], SEEDS[0])
FLOOR, SLOPE = 8.0, 0.9  # in eps of float32: the error of T steps is below FLOOR + SLOPE √T
GROWTH = 3.0  # from 100 to 10 000 steps the error grows by at most this times √100; one that is linear grows by 100


@pytest.mark.parametrize(
    "method, loss, reduction, times",
    [
        ("bptt", "squared_error", "sum", TIMES),
        ("bptt", "cross_entropy", "mean", TIMES[1::2]),
        ("stepwise", "squared_error", "sum", TIMES),
        ("autodiff", "cross_entropy", "mean", TIMES[1::2]),
    ],
)
def test_float32_error_grows_as_the_root_of_the_steps(method, loss, reduction, times):
    """Measured, worst leaf, in eps: at most 3.9, 4.3, 10.5, 31.6 for 10, 100, 1000, 10 000 steps, bptt at most 4.4.

    A running sum (stepwise, autodiff) comes to 0.31 √T; one product after the loop (bptt) stays level. The growth from
    100 to 10 000 steps was at most 1.1 √100.
    """
    worst = {}
    for time in times:
        for seed in SEEDS:
            problem = long_problem(loss, time, seed)
            errors = leaf_errors(
                compiled(method, loss, reduction)(*problem), float64_truth(loss, reduction, time, seed)
            )
            for leaf, error in errors.items():
                assert error <= (FLOOR + SLOPE * time**0.5) * F32_EPS, f"{leaf}, T = {time}: {error / F32_EPS:.1f} eps"
            worst[time] = max(worst.get(time, 0), *errors.values())
    assert worst[10000] <= GROWTH * 10 * worst[100]


def test_one_product_after_the_loop_rounds_less_than_a_running_sum():
    """Measured for `w_hh` at 10 000 steps: bptt 0.8 eps, stepwise 31 eps."""
    problem, truth = long_problem(*LONGEST), float64_truth("squared_error", "sum", *LONGEST[1:])
    by_product, by_sum = (leaf_errors(compiled(m, LONGEST[0])(*problem), truth) for m in ("bptt", "stepwise"))
    w_hh = "[1].params.cells[0].w_hh"
    assert by_product[w_hh] < by_sum[w_hh] / 4


BF16_BOUND = {"bptt": 11.0, "blocked": 11.0, "stepwise": 11.0, "autodiff": 16.0}  # in eps of bfloat16
BF16_LOSS_BOUND = 0.25
LONG_BF16_BOUND = {"leaky": 5.0, "leaks": 5.0, "gru": 6.0, "lstm": 140.0}
HALF = [(method, "squared_error", "compute") for method in EXACT]  # which numbers are bfloat16


@pytest.mark.parametrize("method, loss, kind", [*HALF, ("bptt", "cross_entropy", "parameters")])
def test_bfloat16_error(method, loss, kind):
    """64 steps. Measured, worst leaf, in eps of bfloat16: 3.5 by hand, 5.4 autodiff; the loss, 0.08."""
    params, batch, h_0 = long_problem(loss, 64, 0, jnp.float32 if kind == "compute" else jnp.bfloat16)
    compute_dtype = jnp.bfloat16 if kind == "compute" else None
    for leaf, error in bfloat16_errors(method, loss, (params, batch, h_0), compute_dtype).items():
        assert error <= (BF16_LOSS_BOUND if leaf == "[0][0]" else BF16_BOUND[method]), f"{leaf}: {error:.1f} eps"


@pytest.mark.parametrize(
    "method, loss, kind", [case for case in HALF if case[0] != "autodiff"] + [("bptt", "squared_error", "parameters")]
)
def test_bfloat16_sums_do_not_stall(method, loss, kind):
    """512 steps of 8 sequences with equal terms, of which a running sum in bfloat16 takes in 256: an error of 128 eps.

    Measured by hand: 1.5 eps for the sums, 5.1 for `d_x`. Autodiff, which adds up in bfloat16 itself, stalls.
    """
    params, batch, h_0 = make_problem(Case(loss=loss, batch=(8,), time=512))
    cell = params.cells[0]
    params = params._replace(cells=(rnn_jax.CellParams(cell.w_xh, 0.3 * cell.w_hh, cell.b_h, cell.activation),))
    constant = batch._replace(
        inputs=jnp.broadcast_to(batch.inputs[:1, :1], batch.inputs.shape), targets=jnp.full_like(batch.targets, 3.0)
    )
    problem = cast((params, constant, h_0), jnp.float32 if kind == "compute" else jnp.bfloat16)
    errors = bfloat16_errors(method, loss, problem, jnp.bfloat16 if kind == "compute" else None)
    stalled = {leaf: round(error, 1) for leaf, error in errors.items() if error > BF16_BOUND[method]}
    assert not stalled, f"in eps of bfloat16: {stalled}"


@pytest.mark.parametrize("kind", LONG_BF16_BOUND)
@pytest.mark.parametrize("method", ["blocked", "stepwise"])
def test_a_long_memory_lasts_in_bfloat16(method, kind):
    """500 steps, each of which adds little to the state. Measured, in eps of bfloat16: 0.4 for the states.

    The worst gradient is off by 1.9, or 47 for the LSTM, where tanh(c) is saturated. With states in bfloat16 it is off
    by 100 to 250, and 990.
    """
    errors = bfloat16_errors(method, "cross_entropy", slow_problem(kind, 500), jnp.bfloat16)
    drifted = {leaf: round(error, 1) for leaf, error in errors.items() if error > LONG_BF16_BOUND[kind]}
    assert not drifted, f"in eps of bfloat16: {drifted}"
    assert errors["[0][1][0]"] <= 1.2, errors["[0][1][0]"]


def test_compiled_equals_interpreted_in_float32():
    """Under `disable_jit` even the loops are Python's. Within 4 eps; measured 1.1."""
    problem = make_problem(Case(time=2, mask=True, reset=True), dtype=jnp.float32)
    with jax.disable_jit():
        result = rnn_jax.make_grad_fn("bptt", loss="cross_entropy", reduction="sum")(*problem)
    assert_trees_close(result, compiled("bptt")(*problem), rtol=4 * F32_EPS)


def test_two_devices_equal_one_in_float32():
    """Within 11 eps; measured 3.5."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params, batch, h_0 = long_problem("cross_entropy", 100, 0)
    expected = compiled("bptt", reduction="mean")(params, batch, h_0)

    def put(tree, *axes):
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))

    result = compiled("bptt", reduction="mean")(put(params), put(batch, None, "data"), put(h_0, "data"))
    assert len(result[1].inputs.sharding.device_set) == 2
    assert_trees_close(result, expected, rtol=11 * F32_EPS)
