"""States of the cells of flax.nnx: one matrix for all gates."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from .._cells.activations import Phi
from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from .._cells.vanilla import CellParams
from ._arrays import gates_of, of_jax, of_mapping, require_axes, times, with_names
from ._gates import built, require_activation, require_cell, require_zero
from ._linen import of_gates

MODULES = {1: "SimpleCell", 3: "GRUCell", 4: "OptimizedLSTMCell"}
KINDS: dict[type, str] = {CellParams: "SimpleCell", GRUParams: "GRUCell", LSTMParams: "OptimizedLSTMCell"}

OF_AN_LSTM_CELL = ["ii hi", "if_ hf", "ig hg", "io ho"]  # whose gates have their own matrices


def from_nnx(state: Mapping[str, Any], *, activation: Phi = "tanh") -> Cell:
    """The cell of a `SimpleCell`, `GRUCell`, `OptimizedLSTMCell` or `LSTMCell` of flax.nnx, from its state.

    The gates of flax come in our order. A `GRUCell` of nnx has no second bias of n: `b_n` is zero here, and trains
    unless you freeze it. flax is not imported. Under `jax.grad`, the gradient is by the state of flax.

        cell = rnn_jax.interop.from_nnx(nnx.state(module, nnx.Param))  # or nnx.to_pure_dict of it

    Args:
        state: the parameters of the cell, as nested mappings: `kernel` and `bias` under `dense_i` and `dense_h`; for an
            `LSTMCell`, under `ii`, `if_` and so on.
        activation: that of a `SimpleCell`: a name, a function φ, or an `Activation`. No state holds it.

    Returns:
        The cell. For `nnx.Bidirectional`, convert `forward_rnn` and `backward_rnn`; both cells in a tuple are what
        `bidirectional` takes.

    Raises:
        ValueError: if a name is missing or left over, a shape is wrong, or an array is float64 and `jax_enable_x64` is
            off; for an activation with a GRU or LSTM.
        TypeError: if the arrays are not of one floating dtype, or it is not a mapping of arrays.

    >>> import numpy as np, rnn_jax
    >>> state = {"dense_i": {"kernel": np.ones((2, 9), np.float32), "bias": np.ones(9, np.float32)}}
    >>> cell = rnn_jax.interop.from_nnx(state | {"dense_h": {"kernel": np.ones((3, 9), np.float32)}})
    >>> type(cell).__name__, cell.b_n.tolist()
    ('GRUParams', [0.0, 0.0, 0.0])
    """
    modules = "SimpleCell, GRUCell, OptimizedLSTMCell or LSTMCell"
    source = of_mapping("state", state, modules, hint=": pass `nnx.state(module, nnx.Param)`")
    if any(name.split("/")[0] in " ".join(OF_AN_LSTM_CELL).split() for name in source.arrays):
        return of_gates(source, activation, {4: OF_AN_LSTM_CELL})
    hint = ": go down in the state to the cell"
    is_lstm = "dense_h/bias" in source.arrays
    with_bias = "dense_h/bias" if is_lstm else "dense_i/bias"
    source = with_names(source, ["dense_h/kernel", "dense_i/kernel", with_bias], hint)
    gates = gates_of(source, "dense_h/kernel", {4: MODULES[4]} if is_lstm else {1: MODULES[1], 3: MODULES[3]})
    wide = times(gates)
    require_axes(source, {"dense_h/kernel": ("hid", wide), "dense_i/kernel": ("in", wide), with_bias: (wide,)})
    require_activation(activation, gates, MODULES)
    w_xh, w_hh, b_h = (source.arrays[name] for name in ("dense_i/kernel", "dense_h/kernel", with_bias))
    return built(w_xh, w_hh, b_h, None, activation)


def to_nnx(cell: Cell) -> dict[str, dict[str, Array]]:
    """The state of the cell of flax.nnx that computes what this cell computes.

    `from_nnx(to_nnx(cell))` has the bits of `cell`, and `to_nnx(from_nnx(state))` those of `state`, except that of an
    `LSTMCell`, which becomes that of an `OptimizedLSTMCell`.

        module = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        state = nnx.state(module, nnx.Param)
        nnx.replace_by_pure_dict(state, rnn_jax.interop.to_nnx(cell))
        nnx.update(module, state)

    Args:
        cell: a `CellParams` without leak, for a `SimpleCell` with the activation of the cell; a `GRUParams` whose `b_n`
            is zero, for a `GRUCell`; an `LSTMParams`, for an `OptimizedLSTMCell`.

    Returns:
        Arrays of JAX in nested dicts.

    Raises:
        ValueError: for a leak, or a `b_n` that is not zero.
        TypeError: for a cell that flax lacks, or a traced `b_n`.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=3, output_size=1)
    >>> state = rnn_jax.interop.to_nnx(params.cells[0])
    >>> {name: list(part) for name, part in state.items()}
    {'dense_h': ['kernel'], 'dense_i': ['bias', 'kernel']}
    """
    ours = require_cell("cell", cell, "flax", KINDS)
    if ours.gates == 3:
        require_zero("to_nnx", "because a GRUCell of nnx has no such bias", **{"cell.b_n": ours.b_n})
    tree = {"dense_i": {"kernel": ours.w_xh}, "dense_h": {"kernel": ours.w_hh}}
    tree["dense_h" if ours.gates == 4 else "dense_i"]["bias"] = ours.b_h
    made: dict[str, dict[str, Array]] = of_jax(tree)
    return made
