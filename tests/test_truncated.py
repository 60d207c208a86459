"""Windows and last steps equal their definitions by `stop_gradient` and differences; also a case from a forum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, assert_trees_close, make_problem, run, thinned
from truncations import CASES, FLAGGED, OTHER_CASES, OTHER_WINDOWS, WINDOWS, definition
from witness import central_differences

import rnn_jax

OF_OTHER_CELLS = list(zip(OTHER_CASES, itertools.cycle(OTHER_WINDOWS), strict=False))


@pytest.mark.parametrize(
    "case, options",
    [*zip(CASES, itertools.cycle(WINDOWS), strict=False), *thinned(OF_OTHER_CELLS, 3)],
    ids=str,
)
def test_windows_are_what_stop_gradient_says(case, options):
    problem = make_problem(case)
    expected = definition("truncated", case, problem, **options)
    assert_trees_close(run("truncated", case, problem, **options), expected, rtol=1e-12, floor=1e-3)


ON = thinned(itertools.product(WINDOWS, ["all", "some", "one"], ["vanilla"]), 2)
ON += thinned([(OTHER_WINDOWS[2], "some", "lstm"), (OTHER_WINDOWS[3], "all", "gru")], 2)


@pytest.mark.parametrize("options, last, cell", ON, ids=str)
def test_windows_with_everything_on(last, options, cell):
    case = FLAGGED._replace(last=last, cell=cell)
    problem = make_problem(case)
    expected = definition("truncated", case, problem, **options)
    assert_trees_close(run("truncated", case, problem, **options), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_windows_that_do_not_overlap_are_cuts(k):
    case = FLAGGED._replace(time=6)
    problem = make_problem(case)
    expected = definition("truncated", case, problem, k1=k, k2=k)
    assert_trees_close(run("truncated", case, problem, k1=k, k2=k), expected, rtol=1e-12, floor=1e-3)


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


LAST = thinned(itertools.product(["all", "some", "one"], [1, 4, 13, 50], ["vanilla"]), 3)


@pytest.mark.parametrize("last, k, cell", [*LAST, *thinned([("some", 4, "lstm"), ("one", 13, "gru")], 2)])
def test_last_steps_only(last, k, cell):
    case = FLAGGED._replace(last=last, cell=cell)
    problem = make_problem(case)
    expected = definition("last_steps", case, problem, k=k)
    assert_trees_close(run("last_steps", case, problem, k=k), expected, rtol=1e-12, floor=1e-3)
