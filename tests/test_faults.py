"""One planted fault a leaf: a deliberately broken twin is caught, and the leaf is named."""

import jax
import jax.numpy as jnp
import pytest
from problems import Case, assert_trees_close, make_problem

import rnn_jax
from rnn_jax import _by_hand, _cell, _stepwise

CASE = Case(num_layers=1, time=7)


def broken_step_backward(**wrong):
    """`step_backward` with some of its results replaced: `wrong[name](cell, residuals, d_a) -> value`."""

    def step_backward(cell, residuals, d_h_t):
        d_cell, d_h_tm1, d_x_t = _cell.step_backward(cell, residuals, d_h_t)
        d_a_t = d_h_t * (1 - residuals.h_t**2)
        values = {"w_xh": d_cell.w_xh, "w_hh": d_cell.w_hh, "b_h": d_cell.b_h, "h": d_h_tm1, "x": d_x_t}
        values |= {name: fn(cell, residuals, d_a_t) for name, fn in wrong.items()}
        d_cell = rnn_jax.CellParams(values["w_xh"], values["w_hh"], values["b_h"], cell.activation)
        return d_cell, values["h"], values["x"]

    return step_backward


FAULTS = {
    "the input of the wrong sequence": (".params.cells[0].w_xh", {"w_xh": lambda c, r, d_a: r.x_t[::-1].T @ d_a}),
    "h_t where h_{t-1} belongs": (".params.cells[0].w_hh", {"w_hh": lambda c, r, d_a: r.h_t.T @ d_a}),
    "the bias of one sequence": (".params.cells[0].b_h", {"b_h": lambda c, r, d_a: d_a[0]}),
    "φ' forgotten on the way back": (".params.cells[0]", {"h": lambda c, r, d_a: d_a / (1 - r.h_t**2) @ c.w_hh.T}),
    "W_hh not transposed": (".params.cells[0]", {"h": lambda c, r, d_a: d_a @ c.w_hh}),
    "φ' twice in d_x": (".inputs", {"x": lambda c, r, d_a: d_a * (1 - r.h_t**2) @ c.w_xh.T}),
}


def check(problem):
    """Compare "stepwise" with autodiff; the error names the first leaf that differs."""
    results = [jax.jit(rnn_jax.make_grad_fn(m, loss=CASE.loss))(*problem) for m in ("stepwise", "autodiff")]
    assert_trees_close(results[0][1], results[1][1], rtol=1e-12)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_step_is_caught(fault, monkeypatch):
    problem = make_problem(CASE)
    check(problem)
    leaf, wrong = FAULTS[fault]
    monkeypatch.setattr(_stepwise, "step_backward", broken_step_backward(**wrong))
    with pytest.raises(AssertionError) as caught:
        check(problem)
    assert str(caught.value).startswith(leaf), caught.value


def test_a_dropped_gradient_of_h_0_is_caught(monkeypatch):
    problem = make_problem(CASE)

    def no_h_0(residuals, d_hs):
        d_cell, d_h_0, d_xs = _stepwise.backward(residuals, d_hs)
        return d_cell, jnp.zeros_like(d_h_0), d_xs

    layer = _by_hand.Layer(_stepwise.forward, no_h_0)
    monkeypatch.setattr("rnn_jax._methods.stepwise", layer)
    with pytest.raises(AssertionError, match=r"^\.h_0\[0\]"):
        check(problem)


@pytest.mark.parametrize(
    "leaf, wrong",
    [
        (".params.readout.w_hy", lambda d_w, d_b: (2 * d_w / d_w.shape[1], d_b)),
        (".params.readout.b_y", lambda d_w, d_b: (d_w, d_b.at[0].set(0))),
    ],
)
def test_a_broken_readout_is_caught(leaf, wrong, monkeypatch):
    problem = make_problem(CASE)
    right = _by_hand.affine_d_weights
    monkeypatch.setattr(_by_hand, "affine_d_weights", lambda *args: wrong(*right(*args)))
    with pytest.raises(AssertionError) as caught:
        check(problem)
    assert str(caught.value).startswith(leaf), caught.value


def test_every_leaf_has_its_fault():
    """No leaf of the gradients is compared for nothing: each one, changed by 1e-9 of its size, is noticed."""
    problem = make_problem(CASE)
    _, gradients = rnn_jax.make_grad_fn("stepwise", loss=CASE.loss)(*problem)
    leaves, tree = jax.tree.flatten(gradients)
    for i, (path, leaf) in enumerate(jax.tree.leaves_with_path(gradients)):
        largest = jnp.unravel_index(jnp.argmax(jnp.abs(leaf)), leaf.shape)
        changed = [*leaves[:i], leaf.at[largest].multiply(1 + 1e-9), *leaves[i + 1 :]]
        with pytest.raises(AssertionError) as caught:
            assert_trees_close(tree.unflatten(changed), gradients, rtol=1e-12)
        assert str(caught.value).startswith(jax.tree_util.keystr(path))
