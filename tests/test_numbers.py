"""Numbers of the public surface: what enters arithmetic may be traced, what the program depends on must be known.

Each number has a row; a test fails for a number without one.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import HID, Case, assert_trees_close, cast, make_problem

import rnn_jax
from rnn_jax import initializers
from rnn_jax.initializers import RECURRENT_INITS

KEY = jax.random.key(0)
PARAMS, BATCH, H_0 = cast(make_problem(Case(time=13)), jnp.float32)
CELL = PARAMS.cells[0]
PARAMS = PARAMS._replace(cells=(CELL.replace(w_hh=0.5 * CELL.w_hh),))  # one that forgets
WITH_KEY = BATCH._replace(key=KEY)
SIZES = {"input_size": 3, "hidden_size": HID, "output_size": 2}
ONE_UNIT = rnn_jax.Params(
    (rnn_jax.CellParams(jnp.zeros((1, 1)), jnp.array([[2.0]]), jnp.zeros(1)),),
    rnn_jax.ReadoutParams(jnp.ones((1, 1)), jnp.zeros(1)),
)

NOT_FINITE = (float("nan"), float("inf"), -float("inf"))
NOT_POSITIVE = (0.0, -1.0, *NOT_FINITE)
NO_RATE = (1.0, -0.5, *NOT_FINITE)
NO_REACH = (1.0, 0.5, *NOT_FINITE)
NO_LEAK = (0.0, 1.5, *NOT_FINITE)
NO_NUMBER = ("0.5", True, np.True_, 1j, [0.5], np.ones(1), jnp.ones(2), jnp.ones((), bool), KEY, {})


class Row(NamedTuple):
    """`call(x)` for a number `x`, two good values that float32 holds, and bad ones. `good[0]` may be an integer."""

    call: Callable[[Any], Any]
    good: tuple[float, float]
    bad: tuple[float, ...]
    has_gradient: bool = True


def two_updates(**numbers):
    """Two updates of float32 gradients by `clipped_sgd`."""
    d = {"w": jnp.array([3.0, -4.0], jnp.float32), "b": jnp.array([12.0], jnp.float32)}
    optimizer = rnn_jax.clipped_sgd(**{"learning_rate": 0.5, "momentum": 0.25, **numbers})
    updates, state = optimizer.update(d, optimizer.init(d), d)
    return optimizer.update(updates, state, d)[0]


def clipped(**numbers):
    clip = rnn_jax.clip_gradients(**numbers)
    d = {"w": jnp.array([3.0, -4.0], jnp.float32)}
    return clip.update(d, clip.init(d))[0]


def drawn(make):
    return lambda x: make(x)(KEY, (5, 5), jnp.float32)


def dropped_at(**rates):
    return rnn_jax.drop_units(PARAMS, WITH_KEY, **rates).drop


def gradients_by(make):
    return lambda x: rnn_jax.make_grad_fn(make(x), loss="cross_entropy")(PARAMS, WITH_KEY, H_0)


def adaptive(bias):
    return rnn_jax.Adaptive(k1=2, bias=bias)


def penalised(weight):
    return rnn_jax.analysis.penalise_norms(weight, loss="cross_entropy")(PARAMS, BATCH, H_0)


def ridge_with(penalty):
    outputs = PARAMS.readout.b_y.size
    targets = jnp.sin(jnp.arange(BATCH.targets.size * outputs, dtype=jnp.float32))
    real = BATCH._replace(targets=targets.reshape(*BATCH.targets.shape, outputs))
    return rnn_jax.ridge_readout(PARAMS, real, H_0, penalty).readout


def case_of(leak):
    return make_problem(Case(leak=leak), dtype=jnp.float32)[0].cells[0]


def plan_of(budget_bytes):
    return rnn_jax.plan_memory((PARAMS, BATCH, H_0), budget_bytes)


def tokens_at(temperature):
    return rnn_jax.categorical(temperature)(KEY, jnp.asarray(np.sin(np.arange(50.0)).reshape(10, 5), jnp.float32))


TRACED = {
    "clipped_sgd.learning_rate": Row(lambda x: two_updates(learning_rate=x), (1.0, 0.25), NOT_POSITIVE),
    "clipped_sgd.momentum": Row(lambda x: two_updates(momentum=x), (0.0, 0.75), NO_RATE),
    "clipped_sgd.max_norm": Row(lambda x: two_updates(max_norm=x), (2.0, 0.5), NOT_POSITIVE),
    "clipped_sgd.max_value": Row(lambda x: two_updates(max_value=x), (2.0, 0.5), NOT_POSITIVE),
    "clip_gradients.max_norm": Row(lambda x: clipped(max_norm=x), (2.0, 0.5), NOT_POSITIVE),
    "clip_gradients.max_value": Row(lambda x: clipped(max_value=x), (2.0, 0.5), NOT_POSITIVE),
    "drop_units.between": Row(lambda x: dropped_at(between=x), (0.5, 0.25), NO_RATE),
    "drop_units.recurrent": Row(lambda x: dropped_at(recurrent=x), (0.5, 0.25), NO_RATE),
    "categorical.temperature": Row(tokens_at, (2.0, 0.5), NOT_POSITIVE, False),  # draws tokens
    "Adaptive.bias": Row(gradients_by(adaptive), (1.0, 2.0**-10), NOT_POSITIVE, False),  # decides how far back
    "Randomised.mean_reach": Row(gradients_by(lambda x: rnn_jax.Randomised(mean_reach=x)), (4.0, 1.5), NO_REACH),
    "analysis.penalise_norms.weight": Row(penalised, (2.0, 0.5), NOT_POSITIVE),
    "ridge_readout.penalty": Row(ridge_with, (2.0, 0.5), (-1.0, *NOT_FINITE)),
    "initializers.orthogonal.scale": Row(drawn(initializers.orthogonal), (2.0, 0.5), NOT_POSITIVE),
    "initializers.identity.scale": Row(drawn(initializers.identity), (2.0, 0.5), NOT_POSITIVE),
    "initializers.normal.stddev": Row(drawn(initializers.normal), (2.0, 0.5), NOT_POSITIVE),
    "initializers.spectral_radius.rho": Row(drawn(initializers.spectral_radius), (2.0, 0.5), NOT_POSITIVE),
    "initializers.RECURRENT_INITS.normal.gain": Row(drawn(RECURRENT_INITS["normal"]), (2.0, 0.5), NOT_POSITIVE),
}  # fmt: skip


def states_of(cell):
    assert isinstance(hash(jax.tree.structure(cell)), int)
    return by_numpy(rnn_jax.unroll_bptt)(cell.replace(b_h=PARAMS.cells[0].b_h), H_0[0], BATCH.inputs)


def new_params(leak):
    return rnn_jax.init_params(KEY, **SIZES, leak=leak, dtype=jnp.float32).cells[0]


STARTS = (jnp.array([[0.8], [-0.9]]),)


def fixed_points_by(**numbers):
    return rnn_jax.dynamics.fixed_points(ONE_UNIT, STARTS, max_steps=3, **numbers)


KNOWN = {
    "CellParams.leak": Row(lambda x: states_of(PARAMS.cells[0].replace(leak=x)), (1.0, 0.5), NO_LEAK),
    "init_params.leak": Row(lambda x: states_of(new_params(x)), (1.0, 0.5), NO_LEAK),
    "verify.Case.leak": Row(lambda x: states_of(case_of(x)), (1.0, 0.5), NO_LEAK),
    "plan_memory.budget_bytes": Row(plan_of, (2.0**12, 2.0**11), NOT_POSITIVE),
    "dynamics.fixed_points.tolerance": Row(lambda x: fixed_points_by(tolerance=x), (1.0, 2.0**-7), NOT_POSITIVE),
    "dynamics.fixed_points.apart": Row(lambda x: fixed_points_by(apart=x), (4.0, 0.5), NOT_POSITIVE),
}  # fmt: skip
ROWS = TRACED | KNOWN
FORMS = {
    "integer": int,
    "NumPy float64": np.float64,
    "NumPy float32": np.float32,
    "NumPy integer": np.int32,
    "NumPy array": lambda x: np.array(x, np.float32),
    "JAX float64": lambda x: jnp.asarray(x, jnp.float64),
    "JAX bfloat16": lambda x: jnp.asarray(x, jnp.bfloat16),
    "JAX integer": lambda x: jnp.asarray(x, int),
}


def known(row, x):
    """`call(x)`, `x` known while the program is made."""
    return by_numpy(lambda: row.call(x))()


@pytest.mark.parametrize("name", TRACED)
def test_a_known_number_of_any_form_is_the_same_number(name):
    row = TRACED[name]
    expected = {x: jax.tree.leaves(known(row, x)) for x in row.good}
    for form, make in FORMS.items():
        x = row.good[0] if "integer" in form else row.good[1]
        if "integer" in form and x != int(x):
            continue  # no rate but zero is an integer
        np.testing.assert_equal(jax.tree.leaves(known(row, make(x))), expected[x], err_msg=form)


@pytest.mark.parametrize("name", KNOWN)
def test_what_must_be_known_may_have_any_form(name):
    row = KNOWN[name]
    expected = {x: jax.tree.leaves(row.call(x)) for x in row.good}
    assert not all(map(np.array_equal, *expected.values())), "the number does something"
    forms = list(FORMS.items())[:: 2 if "fixed_points" in name else 1]  # these compile
    for form, make in forms:
        x = row.good[0] if "integer" in form else row.good[1]
        np.testing.assert_equal(jax.tree.leaves(row.call(make(x))), expected[x], err_msg=form)


def of_numbers(row):
    return lambda x: [
        leaf for leaf in jax.tree.leaves(row.call(x)) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


@pytest.mark.parametrize("name", TRACED)
def test_a_traced_number_is_the_same_number(name):
    """Under jit and vmap, in float32 and float64 beside arrays of float32; it does something."""
    row = TRACED[name]
    fn = of_numbers(row)
    each = [by_numpy(lambda x=x: fn(x))() for x in row.good]
    assert not all(map(np.array_equal, *each)), "the number does something"
    for dtype in (jnp.float32, jnp.float64):
        for x, expected in zip(row.good, each, strict=True):
            assert_trees_close(by_numpy(fn)(jnp.asarray(x, dtype)), expected, rtol=1e-6)
        run = jax.jit if name == "Adaptive.bias" else by_numpy  # NumPy has no loop whose end is each its own
        stacked = run(jax.vmap(fn))(jnp.asarray(row.good, dtype))
        assert_trees_close(stacked, [np.stack(leaves) for leaves in zip(*each, strict=True)], rtol=1e-6)
    if row.good[0] == int(row.good[0]):
        assert_trees_close(by_numpy(fn)(jnp.asarray(int(row.good[0]))), each[0], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, row in TRACED.items() if row.has_gradient])
def test_a_traced_number_has_a_derivative(name):
    """That of a sum of the results, finite and not zero."""
    fn = of_numbers(TRACED[name])

    def total(x):
        return sum(jnp.sum(jnp.sin(leaf + 1)) for leaf in fn(x) if jnp.issubdtype(leaf.dtype, jnp.floating))

    x = jnp.asarray(TRACED[name].good[1], jnp.float32)
    slope = by_numpy(jax.grad(total))(x)
    assert np.isfinite(slope) and slope != 0


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("name", ROWS)
def test_a_bad_number_is_refused_by_name(name):
    row, parameter = ROWS[name], name.split(".")[-1]
    for bad in (*row.bad, 10**400):
        with pytest.raises(ValueError, match=f"^`{parameter}` must be a .*number.*, got {re.escape(repr(bad))}[.]$"):
            row.call(bad)
    for bad in NO_NUMBER:
        shapes = (ValueError,) if np.shape(bad) and name == "init_params.leak" else ()  # one for each unit has a shape
        with pytest.raises((TypeError, *shapes), match=f"^`{parameter}` must .*, got "):
            row.call(bad)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("name", TRACED)
def test_what_is_traced_must_be_one_real_number(name):
    for bad in (jnp.ones(2), jnp.ones((), bool), jnp.ones((), complex)):
        with pytest.raises(TypeError, match=f"^`{name.split('.')[-1]}` must be a .*, got {bad.dtype}\\["):
            jax.eval_shape(TRACED[name].call, bad)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("name", KNOWN)
def test_what_must_be_known_says_so_where_it_is_traced(name):
    row, parameter = KNOWN[name], name.split(".")[-1]
    sentence = rf"^`{parameter}` must be .*number.* that is known, not traced by .*, got float\d+\[\]: [^.]+[.]"
    for transformed in (jax.jit(row.call), lambda x: jax.vmap(row.call)(x[None]), jax.grad(row.call)):
        with pytest.raises(TypeError, match=sentence):
            transformed(jnp.asarray(row.good[1]))


def test_a_leak_for_each_unit_may_be_traced_and_trained():
    """`init_params` makes `LeakyParams` of it: equal to one leak for all units where all are equal."""

    def states(leak):
        cell = rnn_jax.init_params(KEY, **SIZES, leak=leak, num_layers=2, dtype=jnp.float32).cells[1]
        return rnn_jax.unroll_bptt(cell, jnp.ones(HID, jnp.float32), jnp.ones((9, HID), jnp.float32))

    each = [by_numpy(lambda leak=leak: states(leak))() for leak in (0.5, 0.25)]
    for dtype in (jnp.float32, jnp.float64):
        leaks = jnp.broadcast_to(jnp.array([[0.5], [0.25]], dtype), (2, HID))
        assert_trees_close(by_numpy(jax.vmap(states))(leaks), np.stack(each), rtol=2e-6)
        assert_trees_close(by_numpy(lambda dtype=dtype: states(np.full(HID, 0.5, dtype)))(), each[0], rtol=2e-6)
        slope = by_numpy(jax.grad(lambda leak: jnp.sum(states(leak))))(leaks[0])
        assert np.all(np.isfinite(slope)) and np.all(slope != 0)
    cells = rnn_jax.init_params(KEY, **SIZES, leak=leaks[0], num_layers=2).cells
    assert all(isinstance(cell, rnn_jax.LeakyParams) for cell in cells)
    assert cells[0].leak.unsafe_buffer_pointer() != cells[1].leak.unsafe_buffer_pointer()  # each may be donated


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    "leak, error, sentence",
    [
        (jnp.array([0.5, 0.5, 0.0, 1.0]), ValueError, "`leak` must hold numbers above 0 and at most 1, got "),
        (np.array([0.5, 0.5, np.nan, 1.0]), ValueError, "`leak` must hold numbers above 0 and at most 1, got "),
        (jnp.full(3, 0.5), ValueError, "`leak` must have shape (hid,) = (4,) to match `hidden_size`, got (3,)."),
        (jnp.ones(4, int), TypeError, "`leak` must hold floating point numbers, got dtype int64."),
    ],
)
def test_a_bad_leak_for_each_unit(leak, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        new_params(leak)


# every number of the public surface is in a row

NO_ROW = {
    "experiments": "settings of trainings, which name their files: Python numbers",
    "analysis.Distance": "a result",
    "analysis.TruncationReport": "a result",
    "analysis.TruncationRow": "a result",
    "typing.TrainState": "a result: the state of an optimizer may hold anything",
    "verify.LeafReport": "a result",
    "verify.Report": "a result",
}
OF_ANY_TYPE = {  # parameters annotated `Any`, of which none is a number
    *("args", "kwargs", "options", "changes"),
    *("dtype", "compute_dtype"),
    *("targets", "target_t", "lengths", "lags", "kept", "kept_t"),
    *("w_xh", "w_hh", "b_h", "leak", "b_n"),  # leaves of cells
}


def public_functions():
    """`(path, function or class)` of all public names."""
    spaces = {"": rnn_jax} | {n: getattr(rnn_jax, n) for n in rnn_jax.__all__ if inspect.ismodule(getattr(rnn_jax, n))}
    for space, module in spaces.items():
        for name in getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]:
            value = getattr(module, name)
            path = f"{space}.{name}".lstrip(".")
            if inspect.isclass(value) or inspect.isfunction(value):
                yield path, value
            if isinstance(value, dict):
                yield from ((f"{path}.{key}", one) for key, one in value.items() if inspect.isfunction(one))
            if inspect.isclass(value):
                methods = [m for m in vars(value) if not m.startswith("_") and inspect.isfunction(vars(value)[m])]
                yield from ((f"{path}.{method}", vars(value)[method]) for method in methods)


def is_a_number(annotation):
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(map(is_a_number, typing.get_args(annotation)))
    return annotation is float or annotation == "float"


def numbers_of_the_surface():
    """The paths of all parameters and fields whose annotation allows a number."""
    for path, function in public_functions():
        for parameter in inspect.signature(function).parameters.values():
            untold = parameter.annotation in (Any, inspect.Parameter.empty) and parameter.name != "self"
            if is_a_number(parameter.annotation) or untold and parameter.name not in OF_ANY_TYPE:
                yield f"{path}.{parameter.name}"


def test_every_number_of_the_public_surface_has_a_row():
    found = set(numbers_of_the_surface())
    excepted = {path for path in found if any(path.startswith(f"{prefix}.") for prefix in NO_ROW)}
    by_another_name = {f"initializers.RECURRENT_INITS.{name}" for name in ("orthogonal", "identity", "spectral_radius")}
    found -= {path for path in found if any(path.startswith(f"{prefix}.") for prefix in by_another_name)}
    assert found - excepted == set(ROWS)
    assert {prefix for prefix in NO_ROW if not any(path.startswith(f"{prefix}.") for path in excepted)} == set()
