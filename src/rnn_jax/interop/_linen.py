"""Parameters of the cells of flax.linen: one matrix for each gate."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from .._cells.activations import Phi
from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from .._cells.vanilla import CellParams
from ._arrays import Axes, Source, joined, of_jax, of_mapping, require_axes, with_names
from ._gates import GATES, built, reordered, require_activation, require_cell

MODULES = {1: "SimpleCell", 3: "GRUCell", 4: "OptimizedLSTMCell or LSTMCell"}
KINDS: dict[type, str] = {CellParams: "SimpleCell", GRUParams: "GRUCell", LSTMParams: "OptimizedLSTMCell"}
NAMES = {1: ["i h"], 3: ["ir hr", "iz hz", "in hn"], 4: ["ii hi", "if hf", "ig hg", "io ho"]}
"""The matrices of x and of h of each gate, in our order, by the number of gates."""


def from_linen(params: Mapping[str, Any], *, activation: Phi = "tanh") -> Cell:
    """The cell of a `SimpleCell`, `GRUCell`, `LSTMCell` or `OptimizedLSTMCell` of flax.linen, from its parameters.

    flax has one matrix for each gate; they are joined. The biases of flax are those of ours: of a GRU's n both. flax is
    not imported. Under `jax.grad`, the gradient is by the parameters of flax.

        variables = model.init(key, xs)  # model = nn.RNN(nn.GRUCell(8))
        cell = rnn_jax.interop.from_linen(variables["params"]["cell"])

    Args:
        params: the parameters of the cell, as nested mappings: `kernel` and `bias` under `ir`, `iz` and so on.
        activation: that of a `SimpleCell`: a name, a function φ, or an `Activation`. No parameters hold it.

    Returns:
        The cell. For `nn.Bidirectional`, convert `forward_rnn` and `backward_rnn`; both cells in a tuple are what
        `bidirectional` takes.

    Raises:
        ValueError: if a name is missing or left over, a shape is wrong, the cell is an `MGUCell`, or an array is
            float64 and `jax_enable_x64` is off; for an activation with a GRU or LSTM.
        TypeError: if the arrays are not of one floating dtype, or it is not a mapping of arrays.

    >>> import numpy as np, rnn_jax
    >>> of_x, of_h, bias = (np.ones(shape, np.float32) for shape in ((2, 3), (3, 3), 3))
    >>> params = {f"i{gate}": {"kernel": of_x} for gate in "ifgo"}
    >>> params |= {f"h{gate}": {"kernel": of_h, "bias": bias} for gate in "ifgo"}
    >>> cell = rnn_jax.interop.from_linen(params)
    >>> type(cell).__name__, cell.w_xh.shape
    ('LSTMParams', (2, 12))
    """
    source = of_mapping("params", params, ", ".join(MODULES.values()), hint=": pass the `params` of a cell")
    return of_gates(source, activation, NAMES)


def of_gates(source: Source, activation: Phi, names: Mapping[int, list[str]]) -> Cell:
    """The cell of which each gate has its own matrices, with these `names`."""
    if {name.split("/")[0] for name in source.arrays} == {"if", "in", "hf", "hn"}:
        raise ValueError(
            f"`{source.who}` must be of {source.module}, got an MGUCell, in which one gate both resets and updates: "
            "make such a cell with `elementwise`."
        )
    known = {gates: _axes(gates, [pair.split() for pair in pairs]) for gates, pairs in names.items()}
    overlap = {gates: len(axes.keys() & source.arrays.keys()) / len(axes) for gates, axes in known.items()}
    gates = max(overlap, key=lambda gates: overlap[gates])
    if overlap[gates]:
        source = source._replace(module=MODULES[gates])
    source = with_names(source, known[gates], "" if overlap[gates] else ": go down in the tree to the cell")
    require_axes(source, known[gates])
    require_activation(activation, gates, MODULES)

    def columns(which: int, leaf: str) -> Any:
        return joined([source.arrays[f"{pair.split()[which]}/{leaf}"] for pair in names[gates]])

    b_n = source.arrays["hn/bias"] if gates == 3 else None
    return built(columns(0, "kernel"), columns(1, "kernel"), columns(gates == 4, "bias"), b_n, activation)


def _axes(gates: int, pairs: list[list[str]]) -> dict[str, Axes]:
    """The names of a cell, and the axes of each array; those that tell the number of units first."""
    axes: dict[str, Axes] = {f"{of_h}/kernel": ("hid", "hid") for _, of_h in pairs}
    axes |= {f"{of_x}/kernel": ("in", "hid") for of_x, _ in pairs}
    axes |= {f"{pair[gates == 4]}/bias": ("hid",) for pair in pairs}  # an LSTM has its biases with h
    return axes | ({"hn/bias": ("hid",)} if gates == 3 else {})


def to_linen(cell: Cell) -> dict[str, dict[str, Array]]:
    """The parameters of the cell of flax.linen that computes what this cell computes.

    `from_linen(to_linen(cell))` has the bits of `cell`, and `to_linen(from_linen(params))` those of `params`.

        nn.GRUCell(8).apply({"params": rnn_jax.interop.to_linen(cell)}, h, x_t)
        nn.RNN(nn.GRUCell(8)).apply({"params": {"cell": rnn_jax.interop.to_linen(cell)}}, xs)

    Args:
        cell: a `CellParams` without leak, for a `SimpleCell` with the activation of the cell; a `GRUParams`, for a
            `GRUCell`; an `LSTMParams`, for an `OptimizedLSTMCell` or `LSTMCell`.

    Returns:
        Arrays of JAX in nested dicts.

    Raises:
        ValueError: for a leak.
        TypeError: for a cell that flax lacks.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=3, output_size=1)
    >>> sorted(rnn_jax.interop.to_linen(params.cells[0]))
    ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    ours = require_cell("cell", cell, "flax", KINDS)
    tree: dict[str, dict[str, Any]] = {}
    for pair, gate in zip(NAMES[ours.gates], GATES[ours.gates], strict=True):
        w_x, w_h, b = (reordered(x, GATES[ours.gates], gate) for x in (ours.w_xh, ours.w_hh, ours.b_h))
        of_x, of_h = pair.split()
        tree |= {of_x: {"kernel": w_x}, of_h: {"kernel": w_h}}
        tree[of_h if ours.gates == 4 else of_x]["bias"] = b
    if ours.gates == 3:
        tree["hn"]["bias"] = ours.b_n
    made: dict[str, dict[str, Array]] = of_jax(tree)
    return made
