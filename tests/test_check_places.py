"""`check_gradients` where differences are hard: kinks, edges of domains, vanishing, explosion, saturation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy_unless_traced
from jax import lax
from problems import Case, make_problem
from wrong_gradients import change_inputs, grad_fn_of, with_wrong

import rnn_jax
from rnn_jax import check_gradients


def test_kinks_are_recognised_and_no_excuse():
    """At a kink, and a millionth beside it; a slope outside of those of both sides is a fault there too."""
    x = np.array([0.0, 1.0, 1e-6, -3.0, -1e-4])
    report = check_gradients(jax.nn.relu, x)
    assert report.passed and report.leaves[0].num_kinks == 1 and report.leaves[0].num_shortened >= 1
    assert "1 on a kink" in str(report)
    report = check_gradients(jnp.abs, np.zeros(3))  # JAX says 0, between -1 and 1
    assert report.passed and report.leaves[0].num_kinks == 3
    relu_with = jax.custom_vjp(jax.nn.relu)
    relu_with.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, g: (g * jnp.where(x >= 0, 1.5, 0.0),))
    report = check_gradients(relu_with, x)
    assert not report.passed and report.leaves[0].num_kinks == 0


@pytest.mark.parametrize(
    "fn, x, planted",
    [
        (lambda x: jnp.sum(1e-3 * jax.nn.relu(x) + 1000 * x), np.zeros(2), lambda g: 0.5 * g),
        (lambda x: 100 + jnp.sum(jax.nn.relu(x + 1e-4)), np.zeros(1), lambda g: 0 * g),
        (lambda x: 1 + jnp.sum(jnp.abs(x - 1e-6)), np.zeros(1), lambda g: 0.5 * g),
        (lambda x: 10 + jnp.sum(jax.nn.relu(x - 1e-5)), np.zeros(1), lambda g: g + 0.5),
        (lambda x: 1e6 + jnp.sum(jnp.sin(5000 * x + 0.7)) / 5000, np.zeros(1), lambda g: 0.5 * g),
        (lambda x: 1e7 + jnp.sum(jnp.sin(1e4 * x + 0.7)) / 1e4, np.ones(1), lambda g: 0.5 * g),
        (lambda x: jnp.sum(jnp.where(x > 0, 1.0, 0.0)), np.zeros(2), lambda g: g + 1),
        (lambda x: 1e6 + 1e-2 * jnp.sum(jax.nn.relu(x)), np.zeros(1), lambda g: g + 0.1),
        (lambda x: 1e3 + 1e-5 * jnp.sum(jax.nn.relu(x)), np.zeros(1), lambda g: g + 1e-3),
        (lambda x: jnp.sum(jnp.floor(x)), np.ones(1), lambda g: g + 1),
    ],
)
def test_a_kink_excuses_no_more_than_its_two_slopes(fn, x, planted):
    """A small kink on a large slope; a kink close by, where short steps resolve that there is none at the place."""
    assert check_gradients(fn, x).passed
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, d: (planted(d * jax.grad(fn)(x)),))
    assert not check_gradients(wrong, x).passed


@pytest.mark.parametrize(
    "fn, x",
    [(lambda x: jnp.sum(jnp.log(1000 - x)), np.array([1000 - 1e-6, 1.0])), (jnp.arctanh, np.array([1 - 1e-9]))],
)
def test_the_end_of_a_domain_that_is_not_zero(fn, x):
    """A step far beyond the end sees a small slope with a small error: what counts is the error relative to it."""
    assert check_gradients(lambda x: jnp.sum(fn(x)), x).passed


@pytest.mark.parametrize("seed", [8, 10])
def test_a_network_of_relus_on_inputs_padded_with_zeros(seed):
    """Of hundreds of kinks some have two sides that nearly agree; the zero of relu'(0) is right there, too."""
    key = jax.random.key(seed)
    sizes = {"input_size": 8, "hidden_size": 8, "output_size": 3}
    params = rnn_jax.init_params(key, activation="relu", recurrent_init=rnn_jax.initializers.identity(), **sizes)
    xs = jax.random.normal(key, (8, 6, 8)).at[:3].set(0)
    batch = rnn_jax.Batch(xs, jax.random.randint(key, (8, 6), 0, 3))
    grad_fn = jax.jit(rnn_jax.make_grad_fn("autodiff", loss="cross_entropy"))
    assert check_gradients(grad_fn, params, batch, rnn_jax.zero_state(params, 6), seed=seed).passed


def test_a_network_of_relus_on_their_kink():
    """The IRNN on zero inputs and states: every unit stands on its kink; and a fault is still a fault."""
    case = Case(activation="relu", loss="squared_error")
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    params = params._replace(cells=(type(cell)(cell.w_xh, jnp.eye(4), 0 * cell.b_h, "relu"),))
    problem = params, batch._replace(inputs=0 * batch.inputs), (0 * h_0[0],)
    report = check_gradients(grad_fn_of(case), *problem)
    assert report.passed and sum(leaf.num_kinks for leaf in report.leaves) > 10
    wrong = with_wrong(grad_fn_of(case), change_inputs(lambda d: d - 100.0))
    assert "inputs" in check_gradients(wrong, *problem).failing


def huber(x):
    return jnp.where(jnp.abs(x) <= 1, 0.5 * x * x, jnp.abs(x) - 0.5)


PLACES = {  # where the reasoning of differences assumes that a function is smooth, or of one scale
    "relu²": (lambda x: jax.nn.relu(x) ** 2, [0.0]),
    "1 + 3x + relu²": (lambda x: 1 + 3 * x + jax.nn.relu(x) ** 2, [0.0]),
    "relu² close by": (lambda x: jax.nn.relu(x) ** 2, [0.0, 1e-9, -1e-9, 1e-5, -1e-5]),
    "relu³": (lambda x: jax.nn.relu(x) ** 3, [0.0]),
    "|x|³": (lambda x: jnp.abs(x) ** 3, [0.0, 1e-3]),
    "x |x|": (lambda x: x * jnp.abs(x), [0.0, 0.5]),
    "huber at its joints": (huber, [-1.0, 1.0, 0.0]),
    "elu": (jax.nn.elu, [0.0]),
    "clip squared at its edges": (lambda x: jnp.clip(x, 0, 1) ** 2, [0.0, 1.0, 0.5]),
    "maximum of equals": (lambda x: jnp.maximum(x, 1 - 3 * x), [0.25, 0.7]),
    "max of equals": (lambda x: jnp.max(x), [1.0, 1.0, 0.0]),
    "relu beside its kink": (jax.nn.relu, [1e-12, 1e-7, 1.0]),
    "saturated softmax": (lambda x: -jax.nn.log_softmax(x)[1], [40.0, 0.0, -40.0]),
    "saturated tanh": (jnp.tanh, [17.0, -9.0, 0.5]),
    "log": (jnp.log, [1e-8, 1.0]),
    "log, closer": (jnp.log, [1e-300, 1.0]),
    "sqrt": (jnp.sqrt, [1e-8, 1.0]),
    "1 / x": (lambda x: 1 / x, [1e-8, 1.0]),
    "x log x": (lambda x: x * jnp.log(x), [1e-8, 1.0]),
    "norm": (jnp.linalg.norm, [1e-9, 2e-9]),
    "end of a domain elsewhere": (lambda x: jnp.sqrt(1 - x * x), [1 - 1e-9, 0.5]),
    "end of a domain": (lambda x: jnp.where(x < 0, jnp.nan, x * (1 + x)), [0.0, 1.0]),
    "fast": (lambda x: jnp.sin(1e6 * x), [0.3, 0.7]),
    "faster": (lambda x: jnp.sin(1e8 * x), [0.3, 0.7]),
    "a slope without a slope": (lambda x: x**1.5, [0.0]),
    "one that is nearly steep": (lambda x: x**1.1, [0.0, 1.0]),
    "sort of equals": (lambda x: jnp.sort(x) * jnp.arange(1.0, 41.0), [0.0] * 40),
    "median of many equals": (jnp.median, np.round(np.random.default_rng(0).standard_normal(301)).tolist()),
    "median of equals": (jnp.median, [0.0] * 5),
    "top two of equals": (lambda x: lax.top_k(x, 2)[0] * jnp.array([1.0, 3.0]), [0.0] * 5),
    "running maximum of equals": (lambda x: lax.cummax(x) * jnp.arange(1.0, 6.0), [0.0] * 5),
    "what cancels": (lambda x: 1 - jnp.cos(x), [1e-8, 1e-5, -1e-8]),
    "two scales": (lambda x: x * jnp.log(x), [1e-8, 1.0, 1e3]),
    "kinks close together": (lambda x: jnp.abs(1e4 * x - jnp.round(1e4 * x)), [0.31, 0.77]),
}
ON_A_KINK = "clip squared at its edges", "maximum of equals", "max of equals"


@pytest.mark.parametrize("name", PLACES)
def test_a_right_gradient_is_never_accused_and_a_wrong_one_is(name):
    """The largest entry off by a percent of it and, where all are zero, by a thousandth; on a kink by 5."""
    fn, x = PLACES[name]
    x = np.array(x)
    report = check_gradients(fn, x)
    assert report.passed and not report.findings and not report.undecided, report

    def summed(x):
        return jnp.sum(fn(x))

    def off(d):
        sizes = jnp.abs(d)
        add = jnp.where(jnp.max(sizes) > 0, 0.01 * jnp.max(sizes), 1e-3)
        return d.at[jnp.argmax(sizes)].add(5.0 if name in ON_A_KINK else add)

    wrong = jax.custom_vjp(summed)
    wrong.defvjp(lambda x: (summed(x), x), lambda x, g: (g * off(jax.grad(summed)(x)),))
    assert not check_gradients(wrong, x).passed


@pytest.mark.parametrize("power", [1, 2])
def test_kinks_along_the_directions_of_a_large_leaf(power):
    """Every entry of 600 on a kink of the first or the second derivative, and each direction too."""

    def fn(x):
        return jnp.sum(jax.nn.relu(x) ** power)

    assert check_gradients(fn, np.zeros(600), max_entries=20).passed
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, g: (g * jnp.full(600, 1.5),))
    assert not check_gradients(wrong, np.zeros(600), max_entries=20).passed
    assert check_gradients(lambda x: jnp.sum(jnp.log(x)), np.geomspace(1e-8, 1, 600), max_entries=20).passed


@pytest.mark.parametrize("x", [[0.0], [0.0, 1.0]])
def test_where_no_step_fits_the_gradients_close_by_decide(x):
    """The slope of `x^1.5` has no slope at 0: a rule that is off there only is no limit of what it is close by."""

    def fn(x):
        return jnp.sum(x**1.5)

    def off(x):
        return 1.5 * jnp.sqrt(x) + jnp.where(x == 0, 5e-5, 0)

    report = check_gradients(fn, np.array(x))
    assert report.passed and report.verdict == "The gradient is right."
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, g: (g * off(x),))
    assert check_gradients(wrong, np.array(x)).failing == ("args[0]",)


def guarded_norm(x):
    s = jnp.sum(x**2)
    return jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0.0)


MISTAKES_AT_EQUALS = {
    "one to each of the largest": (lambda x: jnp.max(x), lambda x: (x == jnp.max(x)).astype(x.dtype), [1.0, 1.0, 0.0]),
    "one to each, all equal": (lambda x: jnp.max(x), lambda x: (x == jnp.max(x)).astype(x.dtype), [0.0, 0.0, 0.0]),
    "one to both sides of a minimum": (lambda x: jnp.minimum(x[0], x[1]), jnp.ones_like, [1.0, 1.0]),
    "a sort that gives one weight twice": (
        lambda x: jnp.sum(jnp.sort(x) * jnp.array([1.0, 5.0])),
        lambda x: jnp.where(x[0] == x[1], jnp.full(2, 5.0), jnp.array([1.0, 5.0])[jnp.argsort(jnp.argsort(x))]),
        [2.0, 2.0],
    ),
    "a median that was dropped": (lambda x: jnp.median(x), jnp.zeros_like, [1.0, 2.0, 2.0, 2.0, 3.0]),
    "an absolute value that was dropped": (lambda x: jnp.sum(jnp.abs(x)), jnp.zeros_like, [0.0]),
    "nine tenths on one side": (lambda x: jnp.sum(jnp.abs(x)), lambda x: jnp.sign(x) * jnp.where(x > 0, 0.9, 1), [0.0]),
    "two where every limit is at most one": (
        guarded_norm,
        lambda x: jnp.where(jnp.sum(x**2) > 0, x / jnp.linalg.norm(x + 1e-300), 2.0),
        [0.0, 0.0, 0.0],
    ),
}


@pytest.mark.parametrize(
    "fn, x", [(lambda x: -jax.nn.log_softmax(x)[0], [40.0, 0.0, -50.0]), (lambda x: jnp.log(1 + jnp.exp(x)), [-40.0])]
)
def test_what_is_rounded_away_inside_is_not_called_wrong(fn, x):
    """The value is one number around here, the gradient 4e-18: neither is wrong."""
    report = check_gradients(fn, np.array(x))
    assert report.passed and "below what differences resolve" in str(report)


@pytest.mark.parametrize("name", MISTAKES_AT_EQUALS)
def test_a_mistake_at_equals_is_found(name):
    """Each entry may lie between its slopes and their sum not; and what both sides of a kink hide shows next to it."""
    fn, d_fn, x = MISTAKES_AT_EQUALS[name]
    x = np.array(x)
    assert check_gradients(fn, x).passed
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, g: (g * d_fn(x),))
    assert not check_gradients(wrong, x).passed


def test_a_mistake_that_a_kink_hides_shows_next_to_it():
    """Nine tenths of a slope lie between those of both sides."""
    fn = lambda x: jnp.sum(jnp.sort(x) * jnp.arange(1.0, 6.0))  # noqa: E731
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, g: (0.9 * g * jax.grad(fn)(x),))
    report = check_gradients(wrong, np.zeros(5))
    assert report.findings == ("args[0] is 0.9 times what it should be, near `args`, where differences can decide.",)


def test_what_cannot_be_decided_is_neither_right_nor_wrong():
    """A sum of ever steeper saw teeth: at each step the slope is another, here and elsewhere."""

    def teeth(x):
        y = 3.0 ** jnp.arange(26.0) * x
        return jnp.sum(3.0 ** (-jnp.arange(26.0) / 2) * jnp.abs(y - jnp.round(y)))

    report = check_gradients(teeth, np.array(0.3))
    assert not report.passed and report.undecided == ("args[0]",) and not report.failing
    assert str(report).startswith("The gradient cannot be decided in args[0].") and "witness" in report.findings[0]


@pytest.mark.parametrize("method", ["autodiff", "blocked"])
def test_a_network_of_relus_at_zero_with_no_loss(method):
    """States, biases and targets of zero: the loss is the square of what a relu lets through on one side."""
    params, batch, h_0 = make_problem(Case(activation="relu", loss="squared_error"))
    (cell,), readout = params.cells, params.readout
    cell = type(cell)(cell.w_xh, cell.w_hh, 0 * cell.b_h, "relu")
    params = params._replace(cells=(cell,), readout=readout._replace(b_y=0 * readout.b_y))
    problem = params, batch._replace(inputs=0 * batch.inputs, targets=0 * batch.targets), (0 * h_0[0],)
    grad_fn = by_numpy_unless_traced(rnn_jax.make_grad_fn(method, loss="squared_error"))
    report = check_gradients(grad_fn, *problem)
    assert report.passed, report
    assert check_gradients(with_wrong(grad_fn, change_inputs(lambda d: d + 0.01)), *problem).failing == ("inputs",)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_the_steps_follow_the_scale_of_a_leaf(scale):
    """Inputs of size 1e±30 with weights to match: steps of a fixed size would see nothing, or noise."""
    case = Case(batch=())
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    params = params._replace(cells=(type(cell)(cell.w_xh / scale, cell.w_hh, cell.b_h, "tanh"),))
    problem = params, batch._replace(inputs=batch.inputs * scale), h_0
    assert check_gradients(grad_fn_of(case), *problem).passed
    wrong = with_wrong(grad_fn_of(case), change_inputs(lambda d: 1.01 * d))
    assert check_gradients(wrong, *problem).failing == ("inputs",)


def test_a_gradient_that_has_vanished_is_not_refused():
    """A contracting network: what comes back to the first state is below the rounding of differences, and said so."""
    case = Case(batch=(2,), time=40, last="one")
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    params = params._replace(cells=(type(cell)(cell.w_xh, 0.2 * cell.w_hh, cell.b_h, "tanh"),))
    report = check_gradients(grad_fn_of(case), params, batch, h_0)
    of_h_0 = next(leaf for leaf in report.leaves if leaf.name == "h_0[0]")
    assert report.passed and 0 < abs(of_h_0.analytic) < 1e-15 and of_h_0.resolved > 1
    assert "below what differences resolve" in str(report)
    witness = rnn_jax.verify.WITNESSES["complex step"].make(case.loss, case.reduction)  # knows no such bound
    assert check_gradients(grad_fn_of(case), params, batch, h_0, witness=witness).passed


def hard_problems():
    """Right gradients in places where differences are hard: vanishing, exploding, saturated."""

    def with_cell(case, w_hh=1.0, b_h=0.0):
        params, batch, h_0 = make_problem(case)
        cell = params.cells[0]
        cell = type(cell)(cell.w_xh, w_hh * cell.w_hh, cell.b_h + b_h, cell.activation)
        return case, (params._replace(cells=(cell,)), batch, h_0)

    return {
        "long": with_cell(Case(time=60, last="one", batch=())),
        "vanishing": with_cell(Case(time=30, last="one", batch=(2,)), w_hh=0.5),
        "gone": with_cell(Case(time=60, last="one", batch=(2,)), w_hh=0.5),
        "saturated": with_cell(Case(batch=(2,)), b_h=10.0),
        "flat": with_cell(Case(batch=(2,)), b_h=17.0),
        "exploding": with_cell(Case(activation="identity", time=20, loss="squared_error", batch=(2,)), w_hh=3.0),
    }


@pytest.mark.parametrize("name", hard_problems())
def test_no_false_alarm_and_no_invented_kink(name):
    case, problem = hard_problems()[name]
    report = check_gradients(grad_fn_of(case), *problem)
    assert report.passed, report
    assert not any(leaf.num_kinks for leaf in report.leaves)


def test_rounding_is_not_taken_for_a_kink():
    """A small leaf beside a large value: what is wrong there by all of itself is found where it can be."""
    for scale, x in itertools.product((1e-6, 1e-4, 1e-2), np.linspace(0.1, 1.3, 6)):
        f = jax.custom_vjp(lambda x: 1 + scale * jnp.sin(x))  # noqa: B023
        f.defvjp(lambda x: (1 + scale * jnp.sin(x), x), lambda x, g: (0.0 * g * x,))  # noqa: B023
        report = check_gradients(f, x)
        assert not report.passed and report.leaves[0].num_kinks == 0
    case, problem = hard_problems()["vanishing"]
    drop_first = lambda g: g._replace(h_0=(g.h_0[0].at[0, 0].set(0.1),))  # noqa: E731
    report = check_gradients(with_wrong(grad_fn_of(case), drop_first), *problem)
    assert report.failing == ("h_0[0]",) and not any(leaf.num_kinks for leaf in report.leaves)
