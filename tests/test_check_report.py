"""How `check_gradients` reports what is wrong: in words, per step, in a picture."""

import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy_unless_traced
from plant import Change, plant
from problems import Case, make_problem
from wrong_gradients import change_inputs, grad_fn_of, with_wrong

import rnn_jax
from rnn_jax import check_gradients
from rnn_jax._cli import plots
from rnn_jax.verify import _clock


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
    alone, one, h = make_problem(Case(batch=()))
    one_unit = lambda g: g._replace(h_0=(g.h_0[0].at[1].add(1.0),))  # noqa: E731
    report = check_gradients(with_wrong(grad_fn_of(Case(batch=())), one_unit), alone, one, h)
    assert report.findings[0].startswith("h_0[0] is wrong: most at (1)")  # a unit, no sequence
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
    about_steps = [words for words in report.findings if words.startswith("In params")]
    assert about_steps and not any("right from" in words or "only" in words for words in about_steps), report


def test_a_picture_of_a_report(tmp_path):
    case = Case(num_layers=2, batch=(2,))
    report = check_gradients(
        with_wrong(grad_fn_of(case), change_inputs(lambda d: d.at[1].set(jnp.nan))), *make_problem(case)
    )
    plots.gradient_report(tmp_path / "report.png", report)
    plots.gradient_report(tmp_path / "right.png", check_gradients(grad_fn_of(case), *make_problem(case)))
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("report.png", "right.png"))
