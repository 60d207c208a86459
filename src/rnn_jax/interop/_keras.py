"""Weight lists of Keras."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._cells.activations import Phi
from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from .._cells.vanilla import CellParams
from .._require import require_values
from ._arrays import Axes, Source, gates_of, of_numpy, require_axes, times, with_arrays
from ._gates import (
    GATES,
    built,
    one_bias,
    own_biases,
    reordered,
    require_activation,
    require_cell,
    require_zero,
    two_biases,
)

MODULES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
KINDS: dict[type, str] = {CellParams: "SimpleRNN", GRUParams: "GRU", LSTMParams: "LSTM"}
ORDER = {1: "a", 3: "krn", 4: "ifgo"}  # which Keras calls z, r, h and i, f, c, o
NAMES = ("kernel", "recurrent_kernel", "bias")


def from_keras(weights: Sequence[Any], *, activation: Phi = "tanh") -> Cell:
    """The cell of a `SimpleRNN`, `GRU` or `LSTM` of Keras, from its weight list.

    The gates of a GRU are reordered. Of its two biases of a sum, one is made; the second one of n is `b_n`. The weights
    of the others stay as they are. The forget bias of 1 is in the weights of both. Keras is not imported.

        params = rnn_jax.Params(
            tuple(rnn_jax.interop.from_keras(layer.get_weights()) for layer in model.layers[:-1]),
            rnn_jax.ReadoutParams(*map(jnp.asarray, model.layers[-1].get_weights())),  # of a Dense
        )

    Args:
        weights: what `layer.get_weights()` returns: kernel, recurrent kernel, and bias unless `use_bias=False`. A GRU
            must have `reset_after=True`, the default; without bias, its weights do not show it.
        activation: that of a `SimpleRNN`: a name, a function φ, or an `Activation`. No weights hold it.

    Returns:
        The cell. For `Bidirectional`, convert `forward_layer` and `backward_layer`; both cells in a tuple are what
        `bidirectional` takes. The arrays share no memory with `weights`.

    Raises:
        ValueError: for another number of arrays, a wrong shape, a GRU with `reset_after=False`, an activation with a
            GRU or LSTM, or float64 while `jax_enable_x64` is off.
        TypeError: if the arrays are not of one floating dtype, or it is not a list of arrays.

    >>> import numpy as np, rnn_jax
    >>> cell = rnn_jax.interop.from_keras([np.ones(shape, np.float32) for shape in ((2, 12), (3, 12), (12,))])
    >>> type(cell).__name__, cell.w_xh.shape
    ('LSTMParams', (2, 12))
    """
    if not isinstance(weights, Sequence) or isinstance(weights, (str, bytes)):
        hint = ": call `get_weights()` of the layer" if hasattr(weights, "get_weights") else ""
        raise TypeError(f"`weights` must be a list of arrays, got {type(weights).__name__}{hint}.")
    if len(weights) not in (2, 3):
        hint = ": convert one layer after the other, and both layers of a `Bidirectional`" if len(weights) > 3 else ""
        raise ValueError(
            f"`weights` must hold {', '.join(NAMES[:2])}, and bias if any, got {len(weights)} arrays{hint}."
        )
    module = ", ".join(MODULES.values())
    source = with_arrays(Source("weights", module, "", dict(zip(NAMES, weights, strict=False))))
    gates = gates_of(source, "recurrent_kernel", MODULES)
    wide = times(gates)
    axes: dict[str, Axes] = {"recurrent_kernel": ("hid", wide), "kernel": ("in", wide)}
    if bias := "bias" in source.arrays:
        if gates == 3 and source.arrays["bias"].ndim == 1:
            raise ValueError(
                "`bias` of `weights` must have two rows, as in a GRU with `reset_after=True`, got one: with "
                "`reset_after=False` the reset comes before the product, `(r ∘ h) W`, which no cell here has."
            )
        axes["bias"] = ("2", wide) if gates == 3 else (wide,)
    require_axes(source, axes)
    require_activation(activation, gates, MODULES)
    in_order = {name: reordered(array, ORDER[gates], GATES[gates]) for name, array in source.arrays.items()}
    b_h, b_n = one_bias(gates, *in_order["bias"]) if gates == 3 and bias else (in_order.get("bias"), None)
    return built(in_order["kernel"], in_order["recurrent_kernel"], b_h, b_n, activation)


def to_keras(cell: Cell, *, bias: bool = True) -> list[np.ndarray]:
    """The weight list of a `SimpleRNN`, `GRU` or `LSTM` of Keras that computes what this cell computes.

    In a GRU, the first row of `bias` is `b_h`, and the second is -0.0, which adds nothing to any number, and `b_n`. So
    `from_keras(to_keras(cell))` has the bits of `cell`.

        layer.set_weights(rnn_jax.interop.to_keras(params.cells[0]))

    Args:
        cell: a `CellParams` without leak, a `GRUParams` or an `LSTMParams`.
        bias: False for a layer with `use_bias=False`. All biases must then be zero.

    Returns:
        New arrays of NumPy: kernel, recurrent kernel, bias. Make a `SimpleRNN` with the activation of the cell, and a
        GRU with `reset_after=True`, the default.

    Raises:
        ValueError: for a leak, or `bias=False` with a bias that is not zero.
        TypeError: for a cell that Keras lacks.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=3, output_size=1)
    >>> [w.shape for w in rnn_jax.interop.to_keras(params.cells[0])]
    [(2, 9), (3, 9), (2, 9)]
    """
    ours = require_cell("cell", cell, "Keras", KINDS)
    require_values("to_keras", ours)
    weights = [ours.w_xh, ours.w_hh]
    if bias:
        weights.append(np.stack(two_biases(ours)) if ours.gates == 3 else ours.b_h)
    else:
        named = {f"cell.{field}": b for field, b in own_biases(ours).items()}
        require_zero("to_keras", "with `bias=False`", **named)
    return [of_numpy(reordered(w, GATES[ours.gates], ORDER[ours.gates])) for w in weights]
