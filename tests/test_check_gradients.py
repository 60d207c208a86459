"""`check_gradients` on functions of all kinds: what passes, what fails, what it says, and what it leaves alone."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy_unless_traced
from commands import as_users_have_it
from jax import lax
from plant import Change, plant
from problems import Case, cast, make_problem

import rnn_jax
from rnn_jax import check_gradients
from rnn_jax._cli import gradcheck, plots
from rnn_jax._cli.config import GradcheckConfig
from rnn_jax.verify import _clock


def grad_fn_of(case, **options):
    return by_numpy_unless_traced(rnn_jax.make_grad_fn("bptt", loss=case.loss, reduction=case.reduction, **options))


def with_wrong(grad_fn, change):
    """`grad_fn` with `change(gradients)` for its gradients."""
    return by_numpy_unless_traced(lambda *args: (lambda out: (out[0], change(out[1])))(grad_fn(*args)))


def change_inputs(change):
    return lambda gradients: gradients._replace(inputs=change(gradients.inputs))


CASES = [
    Case(num_layers=2, mask=True, reset=True, weights=True, batch=(2, 2)),
    Case(activation="relu", inputs="tokens", loss="squared_error", last="one"),
    Case(activation="identity", time=1, batch=(), reduction="sum"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_right_gradient(case):
    problem = make_problem(case)
    report = check_gradients(grad_fn_of(case), *problem)
    assert report.passed and not report.findings and not report.steps, report
    assert all(leaf.error < 1e-8 and leaf.num_checked == np.prod(leaf.shape) for leaf in report.leaves)
    size = sum(leaf.size for leaf in jax.tree.leaves((problem[0], problem[2])))
    features = 0 if case.inputs == "tokens" else problem[1].inputs.size
    assert sum(leaf.num_checked for leaf in report.leaves) == size + features


def test_no_steps_at_all():
    """T = 0: only the readout of nothing; zero everywhere, and said to be right."""
    params, batch, h_0 = make_problem(Case())
    batch = rnn_jax.Batch(batch.inputs[:0], batch.targets[:0])
    report = check_gradients(grad_fn_of(Case()), params, batch, h_0)
    assert report.passed
    assert {leaf.name: leaf.num_checked for leaf in report.leaves}["inputs"] == 0


@pytest.mark.parametrize("leaf", range(7))
def test_the_smallest_wrong_entry_is_named(leaf):
    """One entry of one leaf, off by a millionth of the largest."""
    problem = make_problem(CASE := Case())
    grad_fn = grad_fn_of(CASE)
    path, x = jax.tree.leaves_with_path(grad_fn(*problem)[1])[leaf]
    entry = tuple(size - 1 for size in x.shape)

    def change(gradients):
        leaves, tree = jax.tree.flatten(gradients)
        leaves[leaf] = leaves[leaf].at[entry].add(1e-6 * jnp.max(jnp.abs(leaves[leaf])))
        return tree.unflatten(leaves)

    report = check_gradients(with_wrong(grad_fn, change), *problem)
    name = jax.tree_util.keystr(path).lstrip(".")
    assert report.failing == (name,)
    assert f"most at {entry}".replace(",)", ")") in report.findings[0]
    assert "WRONG" in str(report) and name in str(report)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d[::-1], "is in reversed time order"),
        (lambda d: jnp.roll(d, 1, 0), "comes one step too late"),
        (lambda d: jnp.roll(d, -1, 0), "comes one step too early"),
        (lambda d: -d, "is -1 times what it should be"),
        (lambda d: 0 * d, "is zero, it was dropped"),
        (lambda d: d.at[3].multiply(1.5), "is wrong at t = 4 only"),
        (lambda d: d.at[:3].multiply(1.5), "is wrong up to t = 3 and right from t = 4 on"),
        (lambda d: d.at[2, 1, 0].set(jnp.nan), "is not finite: nan at (2, 1, 0)"),
    ],
)
def test_what_is_wrong_with_the_inputs_gradient_in_words(change, words):
    case = Case(num_layers=1, batch=(2,))
    report = check_gradients(with_wrong(grad_fn_of(case), change_inputs(change)), *make_problem(case))
    assert report.failing == ("inputs",)
    assert words in report.findings[0]


def test_a_fault_of_some_sequences_and_of_a_leaf_that_should_be_zero():
    case = Case(reset=True)
    params, batch, h_0 = make_problem(case)
    batch = batch._replace(reset=jnp.zeros((7, 3), bool).at[0, :2].set(True))
    change = lambda g: g._replace(h_0=(g.h_0[0].at[1].add(1.0),))  # noqa: E731
    report = check_gradients(with_wrong(grad_fn_of(case), change), params, batch, h_0)
    assert report.findings[0].startswith("h_0[0] is wrong in 1 of 3 sequences, 1:")
    batch = batch._replace(reset=jnp.ones((7, 3), bool))
    report = check_gradients(with_wrong(grad_fn_of(case), change), params, batch, h_0)
    assert report.findings[0].startswith("h_0[0] should be zero and is not")
    assert check_gradients(grad_fn_of(case), params, batch, h_0).passed


@pytest.mark.parametrize(
    "case", [Case(num_layers=3, mask=True, reset=True), Case(inputs="tokens", activation="relu", mask=True)]
)
def test_the_clock_changes_nothing_and_shows_every_step(case):
    """Loss and gradients of the rest are as before, and the rows of the clock add up to the gradient of the bias."""
    problem = make_problem(case)
    grad_fn = grad_fn_of(case)
    (loss, _), d = grad_fn(*problem)
    (same, _), clocked = grad_fn(*_clock.with_clock(*problem))
    np.testing.assert_allclose(same, loss, rtol=1e-14)
    rows = _clock.rows_of_steps(problem[0], clocked)
    for layer, cell in enumerate(d.params.cells):
        again = clocked.params.cells[layer]
        in_size, hid = cell.w_xh.shape
        np.testing.assert_allclose(again.w_hh[:hid, :hid], cell.w_hh, atol=1e-12)
        np.testing.assert_allclose(again.w_xh[:in_size, :hid], cell.w_xh, atol=1e-12)
        on = 1.0  # the value of the clock's lines that this layer reads: features for the first, then states
        for below in problem[0].cells[:layer]:
            on = float(rnn_jax._cells.activations.ACTIVATIONS[below.activation].phi(jnp.asarray(on)))
        if not case.mask or layer == 0:
            np.testing.assert_allclose(rows[f"params.cells[{layer}].w_xh"].sum(0) / on, cell.b_h, atol=1e-12)


def wrong_rule(change):
    """Sine with a derivative rule of which `change` makes something else."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (change(g * jnp.cos(x)),))
    return sine


def test_any_function_with_a_derivative_rule():
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    assert check_gradients(wrong_rule(lambda d: d), x).passed
    report = check_gradients(wrong_rule(lambda d: d.at[1, 2].multiply(1.00001)), x)
    assert report.failing == ("args[0]",) and report.leaves[0].entry == "(1, 2)"

    def f(tree, n, key):  # trees, integers and keys among the arguments, several results, one of them of integers
        return {"sum": jnp.sum(tree["a"] ** n), "all": jnp.tanh(tree["b"]) * tree["a"][0], "n": n}

    args = {"a": np.ones(3, np.float32), "b": np.ones((2, 2))}, 3, jax.random.key(0)
    report = check_gradients(f, *args)
    assert report.passed and [leaf.name for leaf in report.leaves] == ["args[0]['a']", "args[0]['b']"]


def test_the_derivatives_of_the_unroll_and_of_a_step():
    params, batch, h_0 = make_problem(Case(mask=True))
    cell = params.cells[0]
    inputs = jnp.nan_to_num(batch.inputs)
    assert check_gradients(lambda *args: rnn_jax.unroll_bptt(*args, mask=batch.mask), cell, h_0[0], inputs).passed
    assert check_gradients(rnn_jax.step, cell, h_0[0], inputs[0]).passed


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


def test_a_mistake_that_a_kink_hides_shows_next_to_it():
    """Nine tenths of a slope lie between those of both sides."""
    fn = lambda x: jnp.sum(jnp.sort(x) * jnp.arange(1.0, 6.0))  # noqa: E731
    wrong = jax.custom_vjp(fn)
    wrong.defvjp(lambda x: (fn(x), x), lambda x, g: (0.9 * g * jax.grad(fn)(x),))
    report = check_gradients(wrong, np.zeros(5))
    assert report.findings == ("args[0] is 0.9 times what it should be, next to `args`, where differences tell more.",)


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


def _of(package, params, batch, h_0):
    """The same problem in the types of a copy of the package."""
    cells = tuple(package.CellParams(c.w_xh, c.w_hh, c.b_h, c.activation, c.leak) for c in params.cells)
    return package.Params(cells, package.ReadoutParams(*params.readout)), package.Batch(*batch), h_0


@pytest.mark.parametrize("w_hh", [0.1, 3.0])
def test_steps_are_only_said_to_be_right_where_that_can_be_told(w_hh):
    """φ' off by 1 % at every step, with gradients that vanish or explode over the steps."""
    case = Case(time=12, last="one", batch=(2,), activation="tanh" if w_hh < 1 else "identity")
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    params = params._replace(cells=(type(cell)(cell.w_xh, w_hh * cell.w_hh, cell.b_h, cell.activation),))
    off = plant(
        Change(
            "_cells.vanilla",
            "CellParams.backward_by_slope",
            "Deltas(d_s_t * slope_t)",
            "Deltas(d_s_t * slope_t * 1.01)",
        )
    )
    grad_fn = off.make_grad_fn("bptt", loss=case.loss)
    report = off.check_gradients(by_numpy_unless_traced(grad_fn), *_of(off, params, batch, h_0))
    about_steps = [words for words in report.findings if words.startswith("What")]
    assert about_steps and not any("right from" in words or "only" in words for words in about_steps), report


def test_large_leaves_are_sampled_and_checked_along_directions():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 30))

    @jax.custom_vjp
    def f(x):
        return jnp.sum(jnp.sin(a * x))

    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * a * jnp.cos(a * x),))
    report = check_gradients(f, rng.standard_normal((40, 30)), max_entries=50)
    assert report.passed and report.leaves[0].num_checked == 50 and len(report.leaves[0].errors) == 53
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * (a * jnp.cos(a * x)).at[1:, 1:].multiply(1.01),))
    assert not check_gradients(f, rng.standard_normal((40, 30)), max_entries=1).passed  # by a direction
    again = [check_gradients(f, a, max_entries=50, seed=3).leaves[0].errors for _ in range(2)]
    assert np.array_equal(*again)


def test_beside_a_witness():
    case = Case(num_layers=2, mask=True)
    problem = make_problem(case)
    for witness in rnn_jax.verify.WITNESSES.values():
        report = check_gradients(grad_fn_of(case), *problem, witness=witness.make(case.loss, case.reduction))
        assert report.passed and report.tolerance == 1e-12 and report.leaves[0].name == "loss", report
    tiny = with_wrong(grad_fn_of(case), change_inputs(lambda d: d * (1 + 1e-10)))
    report = check_gradients(
        tiny, *problem, witness=rnn_jax.verify.WITNESSES["NumPy loop"].make("cross_entropy", "mean")
    )
    assert report.failing == ("inputs",) and not check_gradients(tiny, *problem).failing
    report = check_gradients(grad_fn_of(case), *problem, witness=grad_fn_of(case._replace(reduction="sum")))
    assert "loss" in report.failing  # a witness knows the loss as well, differences do not


def test_arithmetic_in_float32_inside_is_named():
    case = Case()
    problem = make_problem(case)
    loops = [rnn_jax.verify.WITNESSES[name].make(case.loss, case.reduction) for name in ("NumPy loop", "RTRL")]
    assert check_gradients(loops[0], *problem, witness=loops[1]).passed  # neither can be traced
    report = check_gradients(grad_fn_of(case, compute_dtype=jnp.float32), *problem)
    assert not report.passed and "computed in float32" in report.findings[0]

    @jax.custom_vjp
    def f(x):
        return jnp.sum(x**3)

    f.defvjp(lambda x: (f(x), x), lambda x, g: ((g * 3 * x**2).astype(jnp.float32).astype(x.dtype),))
    x = np.linspace(0.1, 1.3, 3)
    assert 0 < np.max(np.abs(np.float32(3 * x**2) - 3 * x**2)) < 1e-6
    assert check_gradients(f, x).passed  # 1e-8: below what differences tell


def test_float64_whatever_the_session_has_and_the_setting_stays():
    """With JAX's own settings: float32, and arrays of NumPy."""
    case = Case(num_layers=2, mask=True)
    problem = jax.tree.map(np.asarray, cast(make_problem(case), np.float32))
    with as_users_have_it():
        report = check_gradients(jax.jit(rnn_jax.make_grad_fn("bptt", loss="cross_entropy")), *problem)
        assert report.passed and max(leaf.error for leaf in report.leaves) < 1e-8, report
        assert not jax.config.jax_enable_x64 and jnp.ones(()).dtype == np.float32


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_cannot_be_checked_is_refused():
    problem = make_problem(case := Case())
    grad_fn = grad_fn_of(case)
    with pytest.raises(TypeError, match="`fn` must be a function"):
        check_gradients(3, 1.0)
    with pytest.raises(TypeError, match="under jit, vmap or grad: call it outside"):
        jax.jit(lambda x: check_gradients(jnp.sin, x))(1.0)
    with pytest.raises(TypeError, match="as a GradFn does"):
        check_gradients(lambda *args: grad_fn(*args)[0], *problem)
    with pytest.raises(ValueError, match="floating point number to differentiate"):
        check_gradients(lambda n: n, 3)
    with pytest.raises(ValueError, match="must return a floating point number"):
        check_gradients(lambda x: 3, 1.0)
    with pytest.raises(TypeError, match="the result of `fn` must be real, got complex"):
        check_gradients(lambda x: jax.lax.complex(x, x), 1.0)
    with pytest.raises(TypeError, match="`args` must be real, got complex"):
        check_gradients(jnp.real, 1j)
    with pytest.raises(TypeError, match="that JAX can trace"):
        check_gradients(lambda x: x if x > 0 else -x, 1.0)
    with pytest.raises(TypeError, match="can be set beside a `witness`"):
        check_gradients(rnn_jax.verify.WITNESSES["NumPy loop"].make("cross_entropy", "mean"), *problem)
    with pytest.raises(ValueError, match="a loss of shape"):
        check_gradients(lambda *args: (lambda out: ((out[0][0][None], out[0][1]), out[1]))(grad_fn(*args)), *problem)
    poisoned = with_wrong(grad_fn, change_inputs(lambda d: d * jnp.nan))
    with pytest.raises(ValueError, match="`witness` must return finite numbers, got nan in inputs"):
        check_gradients(grad_fn, *problem, witness=poisoned)
    with pytest.raises(ValueError, match="must be finite, got inf"):
        check_gradients(lambda x: 1 / x, 0.0)
    with pytest.raises(ValueError, match="`witness` is for a GradFn"):
        check_gradients(jnp.sin, 1.0, witness=grad_fn)
    with pytest.raises(ValueError, match="`max_entries` must be at least 1"):
        check_gradients(jnp.sin, 1.0, max_entries=0)
    with pytest.raises(ValueError, match="shape .* for h_0"):
        check_gradients(with_wrong(grad_fn, lambda g: g._replace(h_0=(g.h_0[0][0],))), *problem)
    with pytest.raises(ValueError, match="No gradient method named 'bppt'"):
        rnn_jax.make_grad_fn("bppt", loss="cross_entropy")
    with pytest.raises(ValueError, match="analytic activation"):
        relu = make_problem(Case(activation="relu"))
        rnn_jax.verify.WITNESSES["complex step"].make("cross_entropy", "mean")(*relu)


@dataclasses.dataclass(frozen=True)
class LastStepOnly:
    """The gradient of the last `steps` steps of each sequence, with the state before given."""

    steps: int = 1

    @property
    def reference(self):
        return LastStepByAutodiff()

    def gradient(self, objective, params, batch, h_0):
        time, full = batch.inputs.shape[0], rnn_jax.BPTT().gradient
        (loss, h_T), _ = full(objective, params, batch, h_0)
        _, h_cut = rnn_jax.apply(params, h_0, batch.inputs[: time - self.steps])
        cut = batch._replace(inputs=batch.inputs[time - self.steps :])
        _, d = full(objective, params, cut, h_cut)
        d_inputs = jnp.zeros_like(batch.inputs).at[time - self.steps :].set(d.inputs)
        return (loss, h_T), d._replace(h_0=jax.tree.map(jnp.zeros_like, h_0), inputs=d_inputs)


class LastStepByAutodiff:
    """What it means, by `stop_gradient`."""

    @property
    def reference(self):
        return self

    def gradient(self, objective, params, batch, h_0):
        def loss_fn(params, h_0, inputs):
            time = inputs.shape[0]
            _, h_cut = jax.lax.stop_gradient(rnn_jax.apply(params, h_0, inputs[: time - 1]))
            ys, h_T = rnn_jax.apply(params, h_cut, inputs[time - 1 :])
            values, _ = objective.loss(ys[-1:], batch.targets)
            return objective.scale * jnp.sum(values), h_T

        value = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
        (loss, h_T), d = value(params, h_0, batch.inputs)
        return (loss, h_T), rnn_jax.Gradients(*d)


def test_an_inexact_method_is_checked_against_its_reference(monkeypatch):
    named = rnn_jax.GRADIENTS["bptt"]._replace(kind=LastStepOnly, example=LastStepOnly())
    assert not named.exact
    monkeypatch.setitem(rnn_jax.GRADIENTS, "last", named)
    case = Case(last="one")
    found = list(gradcheck.reports(("last",), case, seed=0))
    assert [(name, witness) for name, witness, _ in found] == [("last", "autodiff")]
    assert found[0][2].passed, found[0][2]
    assert not check_gradients(jax.jit(rnn_jax.make_grad_fn("last", loss=case.loss)), *make_problem(case)).passed
    monkeypatch.setitem(rnn_jax.GRADIENTS, "last", named._replace(example=LastStepOnly(2)))
    (_, _, report), *_ = gradcheck.reports(("last",), case, seed=0)
    assert not report.passed
    assert "wrong at t = 6" in " ".join(report.findings), report


class Halved:
    """A gradient that is half of what it should be."""

    reference = rnn_jax.Autodiff()

    def gradient(self, *problem):
        result, gradients = rnn_jax.BPTT().gradient(*problem)
        return result, gradients._replace(params=jax.tree.map(lambda d: d / 2, gradients.params))


def test_the_command_prints_a_matrix_and_says_what_is_wrong(monkeypatch, capsys, tmp_path):
    """In this process, on two problems; the whole command runs in CI."""
    few = [Case(batch=(2,), time=3), Case(activation="relu", inputs="tokens", time=2)]
    monkeypatch.setattr(gradcheck, "cases", lambda grid: few)
    config = GradcheckConfig(methods=("bptt",), picture=tmp_path / "errors.png")
    assert gradcheck.gradcheck(config) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("differences", "complex step", "autodiff", "NumPy loop", "RTRL"))
    figures = next(line for line in printed.splitlines() if line.startswith("bptt")).split()[1:]
    assert len(figures) == 5 and all(0 <= float(figure) < 1e-8 for figure in figures)
    assert (tmp_path / "errors.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    monkeypatch.setitem(rnn_jax.GRADIENTS, "half", rnn_jax.GRADIENTS["bptt"]._replace(example=Halved()))
    assert gradcheck.gradcheck(GradcheckConfig(methods=("half",))) == 1
    printed = capsys.readouterr().out
    assert "WRONG in 2" in printed and "params.cells[0].w_xh is 0.5 times what it should be." in printed
    assert "9 checks failed, the first three are above." in printed


def test_the_grids_cover_what_they_say():
    for grid, options, together, most in (("small", gradcheck.MAIN, 2, 15), ("full", gradcheck.OPTIONS, 3, 60)):
        found, values = gradcheck.cases(grid), list(options.values())
        assert len(found) <= most
        for at in itertools.combinations(range(len(values)), together):
            covered = {tuple(case[i] for i in at) for case in found}
            assert covered == set(itertools.product(*(values[i] for i in at)))


def test_a_picture_of_a_report(tmp_path):
    case = Case(num_layers=2, batch=(2,))
    report = check_gradients(
        with_wrong(grad_fn_of(case), change_inputs(lambda d: d.at[1].set(jnp.nan))), *make_problem(case)
    )
    plots.gradient_report(tmp_path / "report.png", report)
    plots.gradient_report(tmp_path / "right.png", check_gradients(grad_fn_of(case), *make_problem(case)))
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("report.png", "right.png"))
