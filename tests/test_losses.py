"""Losses, weights and means: what is summed, what divides, what is never read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from problems import EXACT, OUT, Case, assert_trees_close, make_problem, method_of, run

import rnn_jax


def test_cross_entropy_is_optax_s():
    y, target = np.random.default_rng(0).standard_normal((6, 3, 5)), np.arange(18).reshape(6, 3) % 5
    value, d_y = by_numpy(rnn_jax.cross_entropy)(y, target)
    theirs = optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(value, by_numpy(theirs)(y, target), rtol=1e-13)
    expected = by_numpy(jax.grad(lambda y, target: jnp.sum(theirs(y, target))))(y, target)
    np.testing.assert_allclose(d_y, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("call", [by_numpy, jax.jit])
def test_cross_entropy_at_the_extremes(call):
    ys, targets = np.array([[1e4, -1e4], [-np.inf, 0.0], [0.0, 0.0]]), np.array([1, 1, 2])
    value, d_y = call(rnn_jax.cross_entropy)(ys, targets)
    np.testing.assert_allclose(value[:2], [2e4, 0.0])
    np.testing.assert_allclose(d_y[:2], [[1.0, -1.0], [0.0, 0.0]])
    assert np.isnan(value[2])  # there is no class 2
    for beyond in (np.array([2**32 - 1], np.uint32), np.array([2**31], np.uint32), np.array([200], np.uint8)):
        value, d_y = call(rnn_jax.cross_entropy)(np.zeros((1, 3)), beyond)
        assert np.isnan(value[0]) and np.allclose(d_y, 1 / 3)
    assert call(rnn_jax.cross_entropy)(np.zeros((1, 1)), np.array([0]))[0] == 0  # a vocabulary of one


def test_reductions():
    params, batch, h_0 = make_problem(Case(weights=True, loss="squared_error"))
    ys, _ = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)
    losses, weights = np.sum((ys - np.asarray(batch.targets)) ** 2, axis=-1), np.asarray(batch.weights)
    for reduction, expected in (
        ("sum", np.sum(weights * losses)),
        ("mean", np.sum(weights * losses) / np.sum(np.abs(weights))),
        ("mean_over_steps", np.mean(weights * losses)),
    ):
        (loss, _), _ = run("bptt", Case(loss="squared_error", reduction=reduction), (params, batch, h_0))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)


def test_a_mean_over_steps_counts_what_exists_or_has_a_weight():
    """The first step has weight 0, the second does not exist, the third does not and has a weight: three count."""
    params, batch, h_0 = make_problem(Case(time=4, batch=(), loss="squared_error"))
    mask, weights = jnp.array([True, False, False, True]), jnp.array([0.0, 0.0, -2.0, 3.0])
    batch = batch._replace(mask=mask, weights=weights)
    (total, _), _ = run("bptt", Case(loss="squared_error", reduction="sum"), (params, batch, h_0))
    for method in EXACT:
        case = Case(loss="squared_error", reduction="mean_over_steps")
        (loss, _), _ = run(method, case, (params, batch, h_0))
        np.testing.assert_allclose(loss, total / 3, rtol=1e-13)
        (loss, _), _ = run(method, case, (params, batch._replace(mask=jnp.zeros(4, bool)), h_0))
        assert np.isfinite(loss) and loss != 0


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "mean_over_steps"])
def test_a_mean_keeps_the_sign_of_the_weights(method, reduction):
    """Minus the weights is minus the loss and minus the gradient; weights that cancel divide by nothing small."""
    params, batch, h_0 = make_problem(Case(weights=True, mask=True))
    case = Case(reduction=reduction)
    (loss, _), gradients = run(method, case, (params, batch, h_0))
    (minus, _), opposite = run(method, case, (params, batch._replace(weights=-batch.weights), h_0))
    assert minus == -loss and abs(loss) > 0.01
    assert_trees_close(opposite, jax.tree.map(np.negative, gradients), rtol=1e-13)
    centred = batch.weights - jnp.mean(batch.weights)
    (loss, _), gradients = run(method, case, (params, batch._replace(weights=centred), h_0))
    largest = max(np.max(np.abs(d)) for d in jax.tree.leaves(gradients.params))
    assert abs(loss) < np.log(OUT) and 1e-3 < largest < 10


def test_parts_of_a_batch_add_up():
    """Sums over parts of unequal masks, divided once, are the mean of the whole; the mean of their means is not."""
    params, batch, h_0 = make_problem(Case(mask=True, batch=(4,)))
    whole = run("bptt", Case(), (params, batch, h_0))
    parts = [jax.tree.map(lambda x, i=i: x[:, i : i + 2], batch) for i in (0, 2)]
    states = [tuple(h[i : i + 2] for h in h_0) for i in (0, 2)]
    existing = [int(np.sum(part.mask)) for part in parts]
    assert existing[0] != existing[1]

    def mean_of(reduction, divisor):
        found = [run("bptt", Case(reduction=reduction), (params, p, h)) for p, h in zip(parts, states, strict=True)]
        pairs = [(loss, gradients.params) for (loss, _), gradients in found]
        return jax.tree.map(lambda x, y: (x + y) / divisor, *pairs)

    expected = whole[0][0], whole[1].params
    assert_trees_close(mean_of("sum", sum(existing)), expected, rtol=1e-12)
    assert abs(mean_of("mean", 2)[0] / expected[0] - 1) > 1e-3


def poisoned(value):
    """A problem in which `value(y, target)` is not finite at steps that do not exist."""
    case = Case(loss="squared_error", mask=True, time=7)
    params, batch, h_0 = make_problem(case)
    targets = jnp.where(batch.mask[..., None], 2 + jnp.abs(batch.targets), 0.0)
    return params, batch._replace(targets=targets), h_0, rnn_jax.pointwise(value)


LOSSES_WITH_POLES = {
    "relative": lambda y, target: jnp.mean(jnp.abs(y - target) / target),
    "logarithm": lambda y, target: jnp.mean((jnp.log1p(jnp.exp(y)) - jnp.log(target)) ** 2),
    "poisson": lambda y, target: jnp.sum(jnp.exp(y) - target * y + target * jnp.log(target)),
    "root": lambda y, target: jnp.sum(jnp.sqrt(target - 1 + y**2)),  # NaN at the padded target, near y = 0
    "of both": lambda y, target: jnp.sum(jnp.log((y**2 + 1) * target)),  # ∂/∂y is 0 / 0
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES_WITH_POLES)
def test_a_loss_that_is_not_finite_at_steps_that_do_not_exist(name, reduction):
    """Equal to the same batch whose padded targets are harmless, in value, gradients and second derivatives."""
    params, batch, h_0, loss = poisoned(LOSSES_WITH_POLES[name])
    harmless = batch._replace(targets=jnp.where(batch.mask[..., None], batch.targets, 3.0))
    for method in EXACT:
        grad_fn = by_numpy(rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction))
        expected = grad_fn(params, harmless, h_0)
        assert np.isfinite(expected[0][0]) and abs(expected[0][0]) > 0.1
        assert_trees_close(grad_fn(params, batch, h_0), expected, rtol=1e-12)


def test_second_derivatives_beside_a_loss_that_is_not_finite():
    params, batch, h_0, loss = poisoned(LOSSES_WITH_POLES["relative"])
    smooth = rnn_jax.pointwise(lambda y, target: jnp.mean((y - target) ** 2 / target))
    grad_fn = rnn_jax.make_grad_fn("autodiff", loss=smooth)
    direction = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size)).reshape(w.shape), params)

    def product(params, batch):
        return jax.jvp(lambda p: grad_fn(p, batch, h_0)[1].params, (params,), (direction,))[1]

    harmless = batch._replace(targets=jnp.where(batch.mask[..., None], batch.targets, 3.0))
    assert_trees_close(by_numpy(product)(params, batch), by_numpy(product)(params, harmless), rtol=1e-12)


def policy_gradient(logits, step):
    """A clipped surrogate: the ratio of the probabilities of an action, times its advantage."""
    ratio = jnp.exp(jax.nn.log_softmax(logits)[step["action"]] - step["log_probability"])
    clipped = jnp.clip(ratio, 0.8, 1.2) * step["advantage"]
    return -jnp.minimum(ratio * step["advantage"], clipped) + 0.1 * jnp.sum((logits[:2] - step["heads"][0]) ** 2)


TREES = {
    **{"autodiff": {}, "bptt": {}, "blocked": {"plan": rnn_jax.Plan(2)}},
    **{"truncated": {"k1": 2, "k2": 5}, "adaptive": {"k1": 2, "bias": 0.1}, "last_steps": {"k": 3}},
}


@pytest.mark.parametrize("last", ["all", "some"])
@pytest.mark.parametrize("method", TREES)
def test_targets_may_be_a_tree(method, last):
    """What a loss of one's own needs of a step, of any width, masked and weighted; every method is its reference."""
    case = Case(batch=(4,), time=7, mask=True, reset=True, weights=True, last=last)
    params, batch, h_0 = make_problem(case)
    rng, steps = np.random.default_rng(3), batch.targets.shape
    targets = {
        "action": jnp.asarray(rng.integers(0, 5, steps)),
        "advantage": jnp.asarray(rng.normal(size=steps)),
        "log_probability": jnp.asarray(rng.uniform(-3, -0.5, steps)),
        "heads": (jnp.asarray(rng.normal(size=(*steps, 2))),),
    }
    batch = batch._replace(targets=targets)
    loss, value = rnn_jax.pointwise(policy_gradient), method_of(method, **TREES[method])
    rnn_jax.check_batch(params, batch, h_0)
    ways = (rnn_jax.make_grad_fn(way, loss=loss) for way in (value, value.reference))
    mine, reference = (by_numpy(grad_fn)(params, batch, h_0) for grad_fn in ways)
    assert_trees_close(mine, reference, rtol=1e-12, floor=1e-3)
    if method == "blocked":
        assert rnn_jax.check_gradients(jax.jit(rnn_jax.make_grad_fn(value, loss=loss)), params, batch, h_0).passed
        sharded = rnn_jax.make_grad_fn(rnn_jax.Sharded(value, jax.devices()), loss=loss)
        assert_trees_close(jax.jit(sharded)(params, batch, h_0), mine, rtol=1e-12)
        sums, _ = rnn_jax.analysis.step_gradients(params, batch, h_0, loss=loss)
        np.testing.assert_allclose(sums, mine[0][0], rtol=1e-12)


def test_a_tree_of_targets_that_does_not_fit():
    params, batch, h_0 = make_problem(Case(batch=(3,), time=7))
    grad_fn = rnn_jax.make_grad_fn("bptt", loss=rnn_jax.pointwise(lambda y, target: jnp.sum(y)))

    def call(**targets):
        return grad_fn(params, batch._replace(targets=targets), h_0)

    with pytest.raises(ValueError, match=r"`batch.targets\['a'\]` must have shape \(last, \*batch\) = \(7, 3\) or"):
        call(a=jnp.zeros((7, 2)))
    with pytest.raises(ValueError, match=r"`batch.targets` must have leaves of equal length, got \[5, 7\]"):
        call(a=jnp.zeros((7, 3)), b=jnp.zeros((5, 3, 2)))
    with pytest.raises(ValueError, match="`batch.targets` must hold at least one array"):
        call()
    with pytest.raises(TypeError, match="`targets` must be an array, got dict"):
        rnn_jax.make_grad_fn("bptt", loss="cross_entropy")(params, batch._replace(targets={"a": batch.targets}), h_0)
    wide = batch._replace(targets=jnp.zeros((7, 3, 9)))
    with pytest.raises(ValueError, match=r"`targets` must have shape \(7, 3, 5\) to match the outputs"):
        rnn_jax.make_grad_fn("bptt", loss="squared_error")(params, wide, h_0)
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        rnn_jax.check_batch(params, batch._replace(targets={"a": jnp.full((7, 3), jnp.nan)}), h_0)


@pytest.mark.parametrize("inputs", ["features", "tokens"])
def test_a_loss_over_the_whole_sequence(inputs):
    """Of a sum over steps it is the same gradient as any method's; of another it is right, and trains."""
    case = Case(inputs=inputs, num_layers=2, mask=True, reset=True)
    params, batch, h_0 = make_problem(case)

    def summed(params, batch, h_0):
        flags = {"mask": batch.mask, "reset": batch.reset}
        ys, h_T = rnn_jax.apply(params, h_0, batch.inputs, **flags, unroll=rnn_jax.unroll_bptt)
        values, _ = rnn_jax.cross_entropy(ys, batch.targets)
        return jnp.sum(jnp.where(batch.mask, values, 0)) / jnp.sum(batch.mask, dtype=values.dtype), h_T

    mine = by_numpy(rnn_jax.grad_fn_of(summed))(params, batch, h_0)
    assert_trees_close(mine, run("autodiff", case, (params, batch, h_0)), rtol=1e-12)

    def spread(params, batch, h_0):  # between the sequences of a batch: no sum over them, nor over steps
        ys, h_T = rnn_jax.apply(params, h_0, batch.inputs, mask=batch.mask, unroll=rnn_jax.unroll_bptt)
        return jnp.var(jnp.mean(ys, 0)) + jnp.max(h_T[0]), h_T

    report = rnn_jax.check_gradients(jax.jit(rnn_jax.grad_fn_of(spread)), params, batch, h_0)
    assert report.passed, report


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("returned", [lambda params: 1.0, lambda params: (1.0, (), ())], ids=["a number", "three"])
def test_a_loss_over_the_whole_sequence_that_returns_something_else(returned):
    with pytest.raises(TypeError, match="`loss` must return a pair"):
        rnn_jax.grad_fn_of(lambda params, batch, h_0: returned(params))(*make_problem(Case()))
    with pytest.raises(TypeError, match="`loss` must return an h_T with the tree structure of `h_0`, got "):
        rnn_jax.grad_fn_of(lambda params, batch, h_0: (1.0, (h_0, "metrics")))(*make_problem(Case()))
    with pytest.raises(TypeError, match="`loss` must be a function"):
        rnn_jax.grad_fn_of("cross_entropy")
