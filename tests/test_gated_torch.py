"""`nn.GRU`, `nn.LSTM` and `nn.RNN` of torch, from their weights: stacks, both directions, packed sequences.

The numbers are in a file that tests/golden/make_gated_torch_golden.py makes.
"""

import functools

import jax
import jax.numpy as jnp
import make_gated_golden
import make_gated_torch_golden as script
import numpy as np
import pytest
from by_numpy import by_numpy
from conversions import by_methods, carry_of, nested, of_both_sums, state_of
from problems import EXACT, assert_trees_close

import rnn_jax
from rnn_jax import interop

METHODS = {"2": EXACT, "2-packed": EXACT, "2-bidirectional": [], "2-bidirectional-packed": []}  # others: blocked

load = functools.cache(lambda: make_gated_golden.load("torch"))


def cells_of(weights):
    """All cells; of both directions, the forward and the backward cell of a layer, as torch orders its states."""
    layers = interop.from_torch(weights)
    return tuple(cell for layer in layers for cell in (layer if isinstance(layer, tuple) else (layer,)))


def computed(case, call=by_numpy):
    """Values and gradients by each way of ours, all in one program; and the tree that is expected."""
    tree = nested(load(), case)
    problem, factors = tree.pop("problem"), tree.pop("factors")
    kind = case.split("-", 1)[1]
    lengths, methods = jnp.array(script.LENGTHS), METHODS.get(kind, ["blocked"])
    mask = rnn_jax.data.lengths_to_mask(lengths, script.TIME) if "packed" in kind else None

    def states_of(carry):
        return tuple(state_of(carry, "hc"))

    def run(problem):
        cells, states, xs = cells_of(problem["weights"]), states_of(problem["carry"]), problem["inputs"]
        last = []

        def recording(*args, **flags):
            """`unroll_bptt`, whose last state is recorded: `bidirectional` returns only h."""
            found = rnn_jax.unroll_bptt(*args, **flags)
            last.append(found[-1])
            return found

        if "bidirectional" in kind:
            for i in range(0, len(cells), 2):
                xs = rnn_jax.bidirectional(cells[i : i + 2], states[i : i + 2], xs, mask=mask, unroll=recording)
        else:
            for layer, s_0 in zip(cells, states, strict=True):
                xs = recording(layer, s_0, xs, mask=mask)[..., : script.HID]
        ys = xs if mask is None else jnp.where(mask[..., None], xs, 0.0)  # as torch pads
        return ys, carry_of(jnp.stack(last), "hc", len(problem["carry"]))

    @call
    def ours(problem, factors):
        found = of_both_sums(run, problem, factors)
        return found, by_methods(methods, cells_of, states_of, problem, factors, mask) if methods else {}

    first = jax.tree.map(lambda d: d[0], tree["gradients"])
    return ours(problem, factors), (tree, dict.fromkeys(methods, first))


@pytest.mark.parametrize("case", script.CASES)
def test_as_torch(case):
    """Outputs, `h_n`, `c_n`, and the gradients by each of their weights, `h_0`, `c_0` and the inputs."""
    assert_trees_close(*computed(case), rtol=1e-12)


QUICK = "lstm-2-bidirectional-packed"
OTHERS = [pytest.param(case, marks=pytest.mark.thorough) for case in script.CASES if case != QUICK]


@pytest.mark.parametrize("case", [*OTHERS, QUICK])
def test_compiled_by_xla_it_is_the_same(case):
    assert_trees_close(*computed(case, jax.jit), rtol=1e-12)


def test_the_file_is_what_torch_computes():
    torch = pytest.importorskip("torch")
    fresh = script.golden(torch)
    del fresh["versions"]
    assert_trees_close(fresh, load(), rtol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_biases_of_a_fresh_torch_cell_are_random(cell):
    """Both of them: no forget gate starts with 1."""
    torch = pytest.importorskip("torch")
    model = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](script.IN, 400, dtype=torch.float64)
    for b in (model.bias_ih_l0, model.bias_hh_l0):
        assert np.all(np.abs(b.detach().numpy()) <= 1 / 20) and abs(b.mean().item()) < 0.01 < b.std().item()


def test_one_gradient_goes_to_both_biases():
    """Except in n of a GRU, where they are two parameters."""
    hid = script.HID
    for case, shared in (("gru-1", 2 * hid), ("lstm-1", 4 * hid)):
        d = nested(load(), case)["gradients"]["weights"]
        b_x, b_u = d["bias_ih_l0"], d["bias_hh_l0"]
        np.testing.assert_allclose(b_x[:, :shared], b_u[:, :shared], rtol=1e-12, atol=1e-14)
        assert np.all(b_x[:, shared:] != b_u[:, shared:])
