"""Random cuts have the stated probability, depend on their key, and are right on average."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Case, assert_trees_close, make_problem, run, thinned
from truncations import CASES, OTHER_CASES, definition, keyed

import rnn_jax
from rnn_jax import Plan
from rnn_jax._gradients.truncation import randomised as _randomised

CUT = thinned(itertools.product([None, Plan(3, (6,), 2)], CASES[1::3]), 2)
CUT += zip([Plan(3, (6,), 2), Plan(2, remake=True), None], OTHER_CASES[1::4], strict=False)


@pytest.mark.parametrize("plan, case", CUT, ids=str)
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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("mean_reach", [2.0, 10.0, 100.0])
def test_cuts_are_right_on_average_in_half_precision_too(mean_reach, dtype):
    batch = rnn_jax.Batch(jnp.zeros((2, 400_000), int), jnp.zeros((2, 400_000), int), key=jax.random.key(0))
    sent = np.asarray(_randomised.cuts(mean_reach, batch, dtype)[1].astype(jnp.float64))
    assert abs(sent.mean() - 1) <= 4 * sent.std() / len(sent) ** 0.5
