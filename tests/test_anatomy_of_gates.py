"""The anatomy of a gradient through gated cells: every part compared with autodiff, and the slopes of each gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from anatomies import EVERYTHING, beside_autodiff, it_cuts, they_add_up
from by_numpy import by_numpy
from problems import Case

import rnn_jax
from test_cells import problem_of


@pytest.mark.parametrize("case", [Case(time=5, num_layers=2), EVERYTHING._replace(leak=1.0, time=6)], ids=str)
@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole"])
def test_every_part_of_a_gated_cell_beside_autodiff(cell, case):
    beside_autodiff(case, problem_of(cell, case))
    they_add_up(case, problem_of(cell, case))


@pytest.mark.parametrize("cell", ["gru", "lstm", "peephole"])
def test_what_truncation_cuts_of_a_gated_cell(cell):
    case = EVERYTHING._replace(leak=1.0)
    it_cuts(case, problem_of(cell, case), 1, 2)  # gates forget: 5 steps back little is left to cut


GATES = {"gru": "rkn", "lstm": "ifgo"}


@pytest.mark.parametrize("name", GATES)
def test_saturation_of_each_gate(name):
    """Each slope by autodiff of the activation, from a product step by step, where the sequence has the step."""
    case = Case(mask=True, time=5)
    params, batch, h_0 = problem_of(name, case)
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(params, batch, h_0).layers
    assert set(layer.gates) == set(GATES[name]) and layer.d_phi is None and layer.saturated is None
    cell, s, sigmoid = params.cells[0], h_0[0], jax.nn.sigmoid
    weights = jax.tree.map(np.asarray, cell)
    for t in range(5):
        exists = np.asarray(batch.mask[t])
        x_t = np.where(exists[:, None], batch.inputs[t], 0)
        u = np.split(np.asarray(s)[:, :4] @ weights.w_hh, weights.gates, 1)
        z = np.split(x_t @ weights.w_xh + weights.b_h, weights.gates, 1)
        if weights.gates == 3:
            u[2] = sigmoid(z[0] + u[0]) * (u[2] + weights.b_n)
        for gate, z_t, u_t in zip(GATES[name], z, u, strict=True):
            phi, most = (jnp.tanh, 1) if gate in "ng" else (sigmoid, 1 / 4)
            slope = np.asarray(jnp.vectorize(jax.grad(phi))(z_t + u_t) / most)[exists]
            np.testing.assert_allclose(layer.gates[gate].slope[t], slope.mean(0) if len(slope) else 0, rtol=1e-10)
            np.testing.assert_allclose(layer.gates[gate].saturated[t], (slope < 0.1).mean() if len(slope) else 0)
        s = np.where(exists[:, None], rnn_jax.step(cell, jnp.asarray(s), jnp.asarray(x_t)), s)


def test_a_cell_that_does_not_know_its_slopes():
    (layer,) = by_numpy(rnn_jax.analysis.anatomy)(*problem_of("peephole", Case())).layers
    assert layer.gates == {} and layer.d_phi is None and layer.saturated is None
