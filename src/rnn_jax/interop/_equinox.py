"""Cells of equinox, or their arrays by name."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from ._arrays import Axes, gates_of, of_jax, of_mapping, require_axes, times, with_names
from ._gates import built, own_biases, require_cell, require_zero

MODULES = {3: "GRUCell", 4: "LSTMCell"}
KINDS: dict[type, str] = {GRUParams: "GRUCell", LSTMParams: "LSTMCell"}
NAMES = ("weight_ih", "weight_hh", "bias", "bias_n")


def from_equinox(cell: object) -> Cell:
    """The cell of a `GRUCell` or `LSTMCell` of equinox, from the module or from its arrays by name.

    Weights are transposed. The gates of equinox come in our order, and its biases are ours: `bias_n` is `b_n`. equinox
    is not imported. Under `jax.grad`, the gradient is by the arrays of equinox.

        cell = rnn_jax.interop.from_equinox(eqx.nn.GRUCell(3, 8, key=key))

    Args:
        cell: an object that has `weight_ih`, `weight_hh`, `bias`, and `bias_n` for a GRU, or a mapping with these
            names. Without bias, as with `use_bias=False`, both biases are None or missing.

    Returns:
        The cell. For a readout, `ReadoutParams(linear.weight.T, linear.bias)` converts an `eqx.nn.Linear`.

    Raises:
        ValueError: if a name is missing or left over, a shape is wrong, or an array is float64 and `jax_enable_x64` is
            off.
        TypeError: if it is not a cell, or the arrays are not of one floating dtype.

    >>> import numpy as np, rnn_jax
    >>> arrays = {"weight_ih": np.ones((12, 2), np.float32), "weight_hh": np.ones((12, 3), np.float32)}
    >>> cell = rnn_jax.interop.from_equinox(arrays)
    >>> type(cell).__name__, cell.w_xh.shape, float(cell.b_h[0])
    ('LSTMParams', (2, 12), 0.0)
    """
    if not isinstance(cell, Mapping) and not all(hasattr(cell, name) for name in NAMES[:3]):
        raise TypeError(f"`cell` must be a GRUCell, an LSTMCell, or their arrays by name, got {type(cell).__name__}.")
    arrays = cell if isinstance(cell, Mapping) else {name: getattr(cell, name, None) for name in NAMES}
    named = {name: leaf for name, leaf in arrays.items() if leaf is not None}
    source = of_mapping("cell", named, "GRUCell or LSTMCell")
    source = with_names(source, [*NAMES[:2], *(name for name in NAMES[2:] if name in named)])
    gates = gates_of(source, "weight_hh", MODULES, transposed=True)
    wide, biases = times(gates), NAMES[2:] if gates == 3 else NAMES[2:3]
    used = [*NAMES[:2], *(biases if len(named) > 2 else ())]
    source = with_names(source._replace(module=MODULES[gates]), used)
    axes: dict[str, Axes] = {"weight_hh": (wide, "hid"), "weight_ih": (wide, "in"), "bias": (wide,), "bias_n": ("hid",)}
    require_axes(source, {name: legend for name, legend in axes.items() if name in used})
    w_x, w_h = (source.arrays[name].T for name in NAMES[:2])
    return built(w_x, w_h, source.arrays.get("bias"), source.arrays.get("bias_n"))


def to_equinox(cell: Cell, *, bias: bool = True) -> dict[str, Array]:
    """The arrays of the `GRUCell` or `LSTMCell` of equinox that computes what this cell computes, by name.

    `from_equinox(to_equinox(cell))` has the bits of `cell`, and the arrays of equinox come back with theirs.

        arrays = rnn_jax.interop.to_equinox(cell)
        module = eqx.tree_at(lambda m: [getattr(m, name) for name in arrays], module, list(arrays.values()))

    Args:
        cell: a `GRUParams` or an `LSTMParams`.
        bias: False for a module with `use_bias=False`. All biases must then be zero.

    Returns:
        Arrays of JAX by the names of equinox.

    Raises:
        ValueError: for `bias=False` with a bias that is not zero.
        TypeError: for a cell that equinox lacks, like a `CellParams`, or `bias=False` with traced biases.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=3, output_size=1)
    >>> {name: w.shape for name, w in rnn_jax.interop.to_equinox(params.cells[0]).items()}
    {'bias': (9,), 'bias_n': (3,), 'weight_hh': (9, 3), 'weight_ih': (9, 2)}
    """
    ours = require_cell("cell", cell, "equinox", KINDS)
    arrays: dict[str, Any] = {"weight_ih": ours.w_xh.T, "weight_hh": ours.w_hh.T}
    if bias:
        arrays |= {"bias": ours.b_h} | ({"bias_n": ours.b_n} if isinstance(ours, GRUParams) else {})
    else:
        named = {f"cell.{name}": b for name, b in own_biases(ours).items()}
        require_zero("to_equinox", "with `bias=False`", **named)
    made: dict[str, Array] = of_jax(arrays)
    return made
