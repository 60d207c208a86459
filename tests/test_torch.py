"""Values and gradients equal those of `torch.nn.RNN`, kept in a file that tests/golden/make_torch_golden.py makes."""

import functools
import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import EXACT, assert_trees_close

import rnn_jax

FOLDER = Path(__file__).parent / "golden"
REDUCTIONS = {"squared_error": "sum", "cross_entropy": "mean"}  # in the file's order
METHODS = EXACT
UNROLLS = {"unroll": rnn_jax.unroll, "unroll_bptt": rnn_jax.unroll_bptt}


@functools.cache
def load():
    with np.load(FOLDER / "torch_rnn.npz") as file:
        return dict(file)


def make_params(activation, num_layers, leaf):
    """`Params` of `leaf(name)` for each weight."""

    def cell(layer):
        return rnn_jax.CellParams(*(leaf(f"cells[{layer}].{w}") for w in ("w_xh", "w_hh", "b_h")), activation)

    cells = tuple(cell(layer) for layer in range(num_layers))
    return rnn_jax.Params(cells, rnn_jax.ReadoutParams(leaf("readout.w_hy"), leaf("readout.b_y")))


@functools.cache
def computed(activation, num_layers, call=by_numpy):
    """What `apply` gives, by unroll, and what the gradient methods give, by loss and method; all in one program."""
    golden = load()
    params = make_params(activation, num_layers, lambda name: golden[f"params.{name}"])
    h_0 = tuple(golden["h_0"][:num_layers])
    batches = {loss: rnn_jax.Batch(golden["inputs"], golden[f"targets.{loss}"]) for loss in REDUCTIONS}

    @call
    def run(params, batches, h_0, inputs):
        outputs = {name: rnn_jax.apply(params, h_0, inputs, unroll=unroll) for name, unroll in UNROLLS.items()}
        gradients = {
            loss: {
                method: rnn_jax.make_grad_fn(method, loss=loss, reduction=reduction)(params, batches[loss], h_0)
                for method in METHODS
            }
            for loss, reduction in REDUCTIONS.items()
        }
        return outputs, gradients

    return run(params, batches, h_0, golden["inputs"])


def expected(golden, activation, num_layers):
    """The tree of `computed`, of the file's numbers."""
    case = f"{activation}-{num_layers}"
    h_T = tuple(golden[f"{case}.h_T"])

    def of_loss(i):
        d = {name: array[i] for name, array in golden.items() if name.startswith(f"{case}.gradients.")}
        d_params = make_params(activation, num_layers, lambda name: d[f"{case}.gradients.params.{name}"])
        d_h_0, d_inputs = tuple(d[f"{case}.gradients.h_0"]), d[f"{case}.gradients.inputs"]
        return (golden[f"{case}.loss"][i], h_T), rnn_jax.Gradients(d_params, d_h_0, d_inputs)

    outputs = {name: (golden[f"{case}.ys"], h_T) for name in UNROLLS}
    return outputs, {loss: {method: of_loss(i) for method in METHODS} for i, loss in enumerate(REDUCTIONS)}


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_as_torch(activation, num_layers):
    results = computed(activation, num_layers)
    assert_trees_close(results, expected(load(), activation, num_layers), rtol=1e-12)


OTHERS = [("tanh", 1), ("tanh", 2), ("tanh", 3), ("relu", 1), ("relu", 3)]
THOROUGH = [pytest.param(*one, marks=pytest.mark.thorough) for one in OTHERS]


@pytest.mark.parametrize("activation, num_layers", [("relu", 2), *THOROUGH])
def test_compiled_by_xla_it_is_the_same(activation, num_layers):
    results = computed(activation, num_layers, jax.jit)
    assert_trees_close(results, expected(load(), activation, num_layers), rtol=1e-12)


def test_a_wrong_sign_is_seen():
    """In any gradient of the file; the message names the leaf."""
    golden = load()
    results = computed("tanh", 2)
    assert_trees_close(results, expected(golden, "tanh", 2), rtol=1e-12)
    names = [name for name in golden if name.startswith("tanh-2.gradients.")]
    assert len(names) == 2 * 3 + 2 + 2
    for name in names:
        wrong = expected(golden | {name: -golden[name]}, "tanh", 2)
        with pytest.raises(AssertionError, match=re.escape(name.removeprefix("tanh-2.gradients"))):
            assert_trees_close(results, wrong, rtol=1e-12)


def test_the_file_is_what_torch_computes(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(FOLDER)
    script = importlib.import_module("make_torch_golden")
    assert script.LOSSES == tuple(REDUCTIONS)
    fresh, kept = script.golden(torch), dict(load())
    del fresh["torch_version"], kept["torch_version"]
    assert_trees_close(fresh, kept, rtol=1e-12)
