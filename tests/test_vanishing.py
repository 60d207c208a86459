"""Gradients that vanish or explode, by Pascanu, Mikolov and Bengio (2013): γ bounds φ', 1 for tanh and relu."""

import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, make_problem

import rnn_jax


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("size", [0.5, 0.95])
def test_a_small_matrix_makes_gradients_vanish_at_every_step(size, activation):
    """Largest singular value s < 1/γ: `‖δ_{t-1}‖ ≤ γ s ‖δ_t‖` at every step, so `‖δ_{T-k}‖ ≤ s^k ‖δ_T‖`."""
    case = Case(activation=activation, time=12, last="one", batch=(4,))
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    w_hh = np.asarray(cell.w_hh) * (size / np.linalg.norm(cell.w_hh, 2))
    params = params._replace(cells=(rnn_jax.CellParams(cell.w_xh, w_hh, cell.b_h, activation),))
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch, h_0).layers
    norms = np.asarray(layer.d_h_norms)
    assert np.all(norms[:-1] <= size * norms[1:] * (1 + 1e-12))
    assert np.all(norms[0] <= size**11 * norms[-1] * (1 + 1e-12)) and np.any(norms[0] > 0)


def test_a_gradient_explodes_only_where_a_singular_value_is_above_one():
    """Gains on either side, without activation: 0.9 vanishes, 1.1 explodes, at the rates of the largest direction."""
    norms = {}
    for gain in (0.9, 1.1):
        params, batch, h_0 = make_problem(Case(activation="identity", time=60, last="one"))
        cell = params.cells[0]
        rotation, _ = np.linalg.qr(np.asarray(cell.w_hh))
        cell = rnn_jax.CellParams(cell.w_xh, jnp.asarray(gain * rotation), cell.b_h, "identity")
        (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params._replace(cells=(cell,)), batch, h_0).layers
        norms[gain] = np.asarray(layer.d_h_norms)
        np.testing.assert_allclose(norms[gain][0], gain**59 * norms[gain][-1], rtol=1e-10)
    assert np.all(norms[0.9][0] < norms[0.9][-1] / 100) and np.all(norms[1.1][0] > norms[1.1][-1] * 100)


def test_a_saturated_network_with_large_weights_vanishes_all_the_same():
    """s > 1/γ is needed to explode, and not enough: tanh that saturates shrinks what W_hh stretches."""
    params, batch, h_0 = make_problem(Case(time=30, last="one"))
    cell = params.cells[0]
    large = rnn_jax.CellParams(cell.w_xh, 20 * cell.w_hh, cell.b_h, "tanh")
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params._replace(cells=(large,)), batch, h_0).layers
    without = layer.d_h_norms[-1] * np.linalg.norm(large.w_hh, 2) ** 29
    assert np.all(layer.d_h_norms[0] < layer.d_h_norms[-1] / 1e6) and np.all(without > 1e30)
