"""The reach that the adaptive method chooses, and the bias that stays below its limit."""

import itertools

import jax
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import GATED, Case, assert_trees_close, make_problem, run, thinned
from truncations import FLAGGED, decaying, definition

import rnn_jax
from rnn_jax._gradients.truncation import adaptive as _adaptive


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


@pytest.mark.parametrize("cell", GATED)
def test_the_bias_stays_below_its_bound_in_gated_cells(cell):
    """From `init_params`, where gates forget half in each step."""
    params = rnn_jax.init_params(jax.random.key(0), cell=cell, input_size=3, hidden_size=12, output_size=5, dtype=float)
    _, batch, _ = decaying(0.5, 96)
    problem = params, batch, rnn_jax.zero_state(params, 4)
    _, full = run("autodiff", Case(), problem)
    for bias in (0.3, 0.03):
        k2, (_, gradients) = chosen(problem, k1=4, bias=bias)
        mine, its = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(d.params.cells)]) for d in (gradients, full))
        assert 4 < k2 < 96 and 0 < np.linalg.norm(mine - its) <= bias * np.linalg.norm(its)


CHOSEN = thinned(itertools.product([12, 13, 1], ["all", "some", "one"], ["vanilla"]), 2)


@pytest.mark.parametrize("time, last, cell", [*CHOSEN, *thinned([(13, "some", "lstm"), (12, "all", "gru")], 2)])
def test_adaptive_is_truncated_with_the_reach_that_it_chose(last, time, cell):
    case = FLAGGED._replace(last=last, time=time, cell=cell)
    problem = make_problem(case)
    for bias in (10.0, 0.5):
        actual = run("adaptive", case, problem, k1=2, bias=bias)
        assert_trees_close(actual, definition("adaptive", case, problem, k1=2, bias=bias), rtol=1e-12, floor=1e-3)
    shortest = run("adaptive", case, problem, k1=2, bias=1e-9, k2_max=4)
    assert_trees_close(shortest, run("truncated", case, problem, k1=2, k2=4), rtol=1e-12, floor=1e-3)
