"""How `unroll_bptt` makes the gradients of its weights: one for all sequences, in blocks of steps."""

import jax
import jax.numpy as jnp
import pytest
from by_numpy import by_numpy
from layer_problems import ALL, CASES, loss_of, over_sequences, problem_of
from problems import assert_trees_close, make_problem

from rnn_jax import unroll, unroll_bptt
from rnn_jax._nn import loops


def test_vmap_over_sequences_builds_one_weight_gradient():
    """The mapped axis joins the batch: no product in the program makes a weight gradient for each sequence."""
    (cell, h_0, xs), _, _ = problem_of("plain")

    def loss(cell):
        return jnp.sum(over_sequences(lambda h, x: unroll_bptt(cell, h, x), h_0, xs) ** 2)

    program = jax.jit(jax.grad(loss)).lower(cell).as_text()
    in_size, hid = cell.w_xh.shape
    sequences = h_0.shape[0]
    assert f"tensor<{in_size}x{hid}xf64>" in program
    assert f"tensor<{sequences}x{in_size}x{hid}xf64>" not in program
    assert f"tensor<{sequences}x{hid}x{hid}xf64>" not in program


@pytest.mark.parametrize("block", [1, 3, 4, 7])
@pytest.mark.parametrize("name", CASES)
def test_weight_gradients_in_blocks_of_steps(name, block, monkeypatch):
    """Long sequences have their products made in blocks: seven steps in blocks of 3 are 1 and 3 and 3."""
    monkeypatch.setattr(loops, "rows_block", lambda time, num_sequences: block)
    params, batch, h_0 = make_problem(CASES[name]._replace(time=7))
    flags = {"mask": batch.mask, "reset": batch.reset}
    args = params.cells[0], h_0[0], batch.inputs
    argnums = ALL[:2] if name == "tokens" else ALL
    expected = by_numpy(jax.grad(loss_of(unroll, flags), argnums))(*args)
    assert_trees_close(by_numpy(jax.grad(loss_of(unroll_bptt, flags), argnums))(*args), expected, rtol=1e-12)
