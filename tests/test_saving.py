"""Other libraries save and load our trees without changing them."""

import copy
import io
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import Case, assert_trees_close, make_problem

import rnn_jax
from rnn_jax import _serialization


def by_pickle(state, folder):
    return pickle.loads(pickle.dumps(state))


def by_deepcopy(state, folder):
    return copy.deepcopy(state)


def by_numpy_leaves(state, folder):
    """The leaves in their order, as `jax.tree.leaves` gives them."""
    np.savez(folder / "leaves.npz", *jax.tree.leaves(state))
    with np.load(folder / "leaves.npz") as arrays:
        return jax.tree.structure(state).unflatten([arrays[name] for name in arrays.files])


def by_numpy_names(state, folder):
    """The leaves by their names, like `.params.cells[0].w_hh`."""
    name = jax.tree_util.keystr
    np.savez(folder / "names.npz", **{name(path): leaf for path, leaf in jax.tree.leaves_with_path(state)})
    with np.load(folder / "names.npz") as arrays:
        return jax.tree.map_with_path(lambda path, _: arrays[name(path)], state)


def by_numpy_object(state, folder):
    """A whole tree as one entry of an array of objects."""
    held, file = np.empty(1, object), io.BytesIO()
    held[0] = state
    np.save(file, held)
    return np.load(io.BytesIO(file.getvalue()), allow_pickle=True)[0]


def by_orbax(state, folder):
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "orbax", jax.eval_shape(lambda: state))


def by_flax(state, folder):
    serialization = pytest.importorskip("flax.serialization")
    return serialization.from_bytes(jax.tree.map(jnp.zeros_like, state), serialization.to_bytes(state))


def by_equinox(state, folder):
    equinox = pytest.importorskip("equinox")
    equinox.tree_serialise_leaves(folder / "equinox", state)
    return equinox.tree_deserialise_leaves(folder / "equinox", jax.eval_shape(lambda: state))


SAVERS = [by_pickle, by_deepcopy, by_numpy_leaves, by_numpy_names, by_numpy_object, by_orbax, by_flax, by_equinox]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_tree_that_was_saved_is_the_same(saver, tmp_path):
    """Structure, static fields, dtypes and values, of parameters and of all that a trainer carries."""
    params, _, h_0 = make_problem(Case(num_layers=2, activation="relu", leak=0.3))
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optax.adam(0.1), carry=True)
    state = trainer.init(params, h_0)
    again = saver(state, tmp_path)
    assert_trees_close(again, state, rtol=0)
    assert again.params.cells[1].activation == "relu" and again.params.cells[1].leak == 0.3


def test_flax_refuses_a_state_of_other_leaves():
    serialization = pytest.importorskip("flax.serialization")
    cell = make_problem(Case())[0].cells[0]
    with pytest.raises(ValueError, match="A CellParams must be saved as"):
        serialization.from_state_dict(cell, {"w_xh": cell.w_xh})


@pytest.mark.parametrize("imported_before", [False, True])
def test_a_library_is_told_of_our_types_whenever_it_is_imported(imported_before, tmp_path, monkeypatch):
    """As `flax.serialization` is, which the core must not import by itself."""
    name, told, finders = f"library_{imported_before}", [], list(sys.meta_path)
    (tmp_path / f"{name}.py").write_text("value = 3")
    monkeypatch.syspath_prepend(tmp_path)
    if imported_before:
        __import__(name)
    _serialization.when_imported(name, lambda module: told.append(module.value))
    assert told == [3] * imported_before
    __import__(name)
    assert told == [3] and sys.meta_path == finders
    assert sys.modules.pop(name).__spec__.name == name


def test_a_program_with_our_trees_is_saved():
    """`jax.export` writes the structure of arguments and results, static fields too."""
    pytest.importorskip("flatbuffers")
    params, batch, h_0 = make_problem(Case(num_layers=2, activation="relu", leak=0.3, drop=True, mask=True))
    shapes = jax.eval_shape(lambda: (params, batch, h_0))
    exported = jax.export.export(jax.jit(rnn_jax.make_grad_fn("stepwise", loss="cross_entropy")))(*shapes)
    again = jax.export.deserialize(exported.serialize())
    assert (again.in_tree, again.out_tree) == (exported.in_tree, exported.out_tree)


class Mine(rnn_jax.CellParams):
    """A class of your own."""


def test_types_are_saved_by_names_that_outlive_a_move():
    """Not by the module that a type stands in, if it is ours; one of your own by all of its name."""
    assert [_serialization._name(one) for one in (rnn_jax.CellParams, rnn_jax.Batch)] == [
        "rnn_jax.CellParams",
        "rnn_jax.Batch",
    ]
    assert _serialization._name(Case) == "rnn_jax.Case" and _serialization._name(Mine) == f"{__name__}.Mine"
