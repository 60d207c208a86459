"""Burn-in with a stopped gradient, compared with `stop_gradient` in a plain loop, for every method."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, assert_trees_close, make_problem, run
from truncations import keyed

import rnn_jax

STEPS = 5
FLAGS = Case(num_layers=2, time=13, last="some", weights=True, mask=True, reset=True, drop=True)
CASES = [
    FLAGS,
    FLAGS._replace(inputs="tokens", leak=0.3, reduction="mean_over_steps", weights=False),
    Case(batch=(), time=9, last="one", loss="squared_error", num_layers=2),
]


def by_stopping(method, case, steps=STEPS):
    """A `GradFn` written out: the first steps by `apply`, `stop_gradient`, then `method` on the rest."""

    def grad_fn(params, batch, h_0):
        def part(x, which):
            return None if x is None else x[which]

        def h_s(h_0, xs):
            mask, reset = part(batch.mask, slice(steps)), part(batch.reset, slice(steps))
            _, h = rnn_jax.apply(params, h_0, xs, last=0, mask=mask, reset=reset, drop=batch.drop)
            return jax.tree.map(jax.lax.stop_gradient, h)

        after = slice(steps, None)
        mask, reset = part(batch.mask, after), part(batch.reset, after)
        rest = batch._replace(inputs=batch.inputs[after], mask=mask, reset=reset)
        inner = rnn_jax.make_grad_fn(method, loss=case.loss, reduction=case.reduction)
        (loss, h_T), d = inner(params, rest, h_s(h_0, batch.inputs[:steps]))
        d_xs = None if d.inputs is None else jnp.concatenate([jnp.zeros_like(batch.inputs[:steps]), d.inputs])
        return (loss, h_T), rnn_jax.Gradients(d.params, jax.tree.map(jnp.zeros_like, h_0), d_xs)

    return grad_fn


def by_grad(case, steps=STEPS):
    """`jax.grad` of the whole loss, with `stop_gradient` on `h_s`."""
    loss_of = rnn_jax.LOSSES[case.loss]

    def grad_fn(params, batch, h_0):
        w = jnp.ones_like(batch.targets, h_0[0].dtype) if batch.weights is None else batch.weights

        def loss_fn(params, h_0, xs):
            flags = [{"mask": f[0], "reset": f[1]} for f in zip(cut(batch.mask), cut(batch.reset), strict=True)]
            _, h = rnn_jax.apply(params, h_0, xs[:steps], last=0, drop=batch.drop, **flags[0])
            h, last = jax.tree.map(jax.lax.stop_gradient, h), len(batch.targets)
            ys, h_T = rnn_jax.apply(params, h, xs[steps:], last=last, drop=batch.drop, **flags[1])
            return jnp.sum(w * loss_of(ys, batch.targets)[0]) / jnp.sum(jnp.abs(w)), h_T

        def cut(x):
            return (None, None) if x is None else (x[:steps], x[steps:])

        fn = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
        result, gradients = fn(params, h_0, batch.inputs)
        return result, rnn_jax.Gradients(*gradients)

    return grad_fn


@pytest.mark.parametrize("case", CASES, ids=["flags", "tokens", "one"])
@pytest.mark.parametrize("method", rnn_jax.GRADIENTS)
def test_it_is_stop_gradient_after_the_burn_in(method, case):
    example = rnn_jax.GRADIENTS[method].example
    problem = keyed(make_problem(case))
    burn_in = rnn_jax.BurnIn(example, STEPS)
    mine, its = (
        by_numpy(rnn_jax.make_grad_fn(way, loss=case.loss, reduction=case.reduction))(*problem)
        for way in (burn_in, burn_in.reference)
    )
    assert_trees_close(mine, its, rtol=1e-12, floor=1e-3)
    stopped = by_numpy(by_stopping(example.reference, case))(*problem)
    assert_trees_close(mine, stopped, rtol=1e-12, floor=1e-3)
    assert all(np.all(np.asarray(d_h) == 0) for d_h in mine[1].h_0)


@pytest.mark.parametrize("method", [name for name, named in rnn_jax.GRADIENTS.items() if named.exact])
def test_it_is_the_gradient_of_the_loss_with_the_states_constant(method):
    case = FLAGS
    problem = make_problem(case)
    example = rnn_jax.GRADIENTS[method].example
    mine = by_numpy(rnn_jax.make_grad_fn(rnn_jax.BurnIn(example, STEPS), loss=case.loss))(*problem)
    assert_trees_close(mine, by_numpy(by_grad(case))(*problem), rtol=1e-12, floor=1e-3)


def test_the_loss_is_that_of_the_whole_and_the_gradient_is_not():
    """Without the wrapper the gradient goes through the burn-in; the value is the same."""
    case = Case(time=9, last="some")
    problem = make_problem(case)
    through = run("blocked", case, problem)
    stopped = by_numpy(rnn_jax.make_grad_fn(rnn_jax.BurnIn(rnn_jax.Blocked(), 3), loss=case.loss))(*problem)
    assert_trees_close(stopped[0], through[0], rtol=1e-12)
    assert np.any(np.asarray(through[1].inputs[:3]) != 0) and np.all(np.asarray(stopped[1].inputs[:3]) == 0)
    np.testing.assert_allclose(stopped[1].inputs[3:], through[1].inputs[3:], rtol=1e-12)
    _, w_hh = (np.asarray(d.params.cells[0].w_hh) for d in (stopped[1], through[1]))
    assert np.max(np.abs(np.asarray(stopped[1].params.cells[0].w_hh) - w_hh)) > 1e-3


@pytest.mark.parametrize("method", ["blocked", "truncated", "randomised"])
def test_it_composes_with_devices(method):
    """Around them and inside of them; without draws both are the method on one device."""
    case = Case(batch=(4,), time=9, last="some", mask=True)
    problem, example = keyed(make_problem(case)), rnn_jax.GRADIENTS[method].example
    around = rnn_jax.BurnIn(rnn_jax.Sharded(example, jax.devices()), 3)
    inside = rnn_jax.Sharded(rnn_jax.BurnIn(example, 3), jax.devices())
    found = [jax.jit(rnn_jax.make_grad_fn(way, loss=case.loss))(*problem) for way in (around, inside)]
    assert_trees_close(found[0], found[1], rtol=1e-12, floor=1e-3)
    ways = [inside.reference] if method == "randomised" else [inside.reference, rnn_jax.BurnIn(example, 3)]
    for way in ways:
        expected = jax.jit(rnn_jax.make_grad_fn(way, loss=case.loss))(*problem)
        assert_trees_close(found[0], expected, rtol=1e-12, floor=1e-3)


def test_a_burn_in_in_two_parts_is_one():
    case = FLAGS._replace(time=13)
    problem = make_problem(case)
    ways = rnn_jax.BurnIn(rnn_jax.BurnIn(rnn_jax.BPTT(), 2), 3), rnn_jax.BurnIn(rnn_jax.BPTT(), 5)
    one, other = (by_numpy(rnn_jax.make_grad_fn(way, loss=case.loss))(*problem) for way in ways)
    assert_trees_close(one, other, rtol=1e-12)


def test_it_is_checked_and_is_a_value():
    case = Case(time=9, last="some")
    problem = make_problem(case)
    burn_in = rnn_jax.BurnIn(rnn_jax.Blocked(), 3)
    assert pickle.loads(pickle.dumps(burn_in)) == burn_in and hash(burn_in) == hash(dataclasses.replace(burn_in))
    assert pickle.loads(pickle.dumps(burn_in.reference)) == burn_in.reference
    grad_fn, witness = (jax.jit(rnn_jax.make_grad_fn(way, loss=case.loss)) for way in (burn_in, burn_in.reference))
    assert rnn_jax.check_gradients(grad_fn, *problem, witness=witness).passed
    half = rnn_jax.make_grad_fn(burn_in, loss=case.loss, compute_dtype=jnp.bfloat16)(*problem)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(half[1]))


def test_nothing_is_left_for_losses():
    """As many steps as there are: no target, no gradient, the last states."""
    params, batch, h_0 = make_problem(Case(time=5))
    batch = batch._replace(targets=batch.targets[:0])
    (loss, h_T), d = by_numpy(rnn_jax.make_grad_fn(rnn_jax.BurnIn(rnn_jax.Blocked(), 5), loss="cross_entropy"))(
        params, batch, h_0
    )
    assert loss == 0 and all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(d))
    assert_trees_close(h_T, by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)[1], rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")
def test_bad_arguments_are_one_sentence():
    case = Case(time=9, last="some")  # 4 targets
    with pytest.raises(TypeError, match="`method` must be a gradient method, like Blocked"):
        rnn_jax.BurnIn("blocked", 3)
    for steps, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="`steps` must be"):
            rnn_jax.BurnIn(rnn_jax.Blocked(), steps)
    grad_fn = rnn_jax.make_grad_fn(rnn_jax.BurnIn(rnn_jax.Blocked(), 6), loss=case.loss)
    said = "`batch.targets` must be for steps after the burn-in, at most the last 3 of 9 for a burn-in of 6, got 4."
    with pytest.raises(ValueError) as raised:
        grad_fn(*make_problem(case))
    assert str(raised.value) == said
