"""Parameters of the recurrent cores of haiku."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell
from .._cells.vanilla import CellParams
from ._arrays import Source, joined, of_jax, of_mapping, require_axes, require_prefix, with_names
from ._gates import GATES, built, one_bias, reordered, require_cell, require_known_activation, two_biases

KINDS: dict[type, str] = {CellParams: "VanillaRNN", LSTMParams: "LSTM"}
ORDER = "igfo"
FORGET = 1.0  # what `hk.LSTM` adds to its forget gate in each step


def from_haiku(params: Mapping[str, Any], *, prefix: str = "") -> Cell:
    """The cell of a `VanillaRNN` or `LSTM` of haiku, from the parameters of a transformed function.

    In an `LSTM`, one matrix is for x and h; it is cut and its gates are reordered. haiku adds 1 to the forget gate in
    each step. Here this 1 is a part of `b_h`. In a `VanillaRNN`, one bias is made of the two; its activation is relu.
    haiku is not imported. Under `jax.grad`, the gradient is by the parameters of haiku.

        params = net.init(key, xs)  # with hk.LSTM(8) in it, which is named "lstm"
        cell = rnn_jax.interop.from_haiku(params, prefix="lstm/")

    Args:
        params: a mapping from names of modules to mappings of arrays.
        prefix: what comes before `linear` in the names of the module, like `"lstm/"` or `"my_model/~/vanilla_rnn/"`.
            Other names are not read.

    Returns:
        The cell: a `CellParams` with relu, or an `LSTMParams`.

    Raises:
        ValueError: if a name is missing or left over, a shape is wrong, the core is a `GRU`, which resets before the
            product, or an array is float64 and `jax_enable_x64` is off.
        TypeError: if the arrays are not of one floating dtype, or it is not a mapping of arrays.

    >>> import numpy as np, rnn_jax
    >>> params = {"lstm/linear": {"w": np.ones((5, 12), np.float32), "b": np.zeros(12, np.float32)}}
    >>> cell = rnn_jax.interop.from_haiku(params, prefix="lstm/")
    >>> cell.w_xh.shape, cell.b_h.tolist()[3:6]
    ((2, 12), [1.0, 1.0, 1.0])
    """
    source = of_mapping("params", params, "VanillaRNN or LSTM", prefix=prefix)
    if {"w_i", "w_h"} <= source.arrays.keys():
        raise ValueError(
            f"{source.name('w_h')} must be of a VanillaRNN or LSTM, got a GRU: that of haiku resets before the "
            "product, `(r ∘ h) W`, which no cell here does."
        )
    hint = "" if prefix else ": give what comes before `linear` in the names as `prefix`, like `lstm/`"
    if "linear_1/w" in source.arrays:
        return _vanilla(source._replace(module="VanillaRNN"), hint)
    return _lstm(source._replace(module="LSTM") if "linear/w" in source.arrays else source, hint)


def _vanilla(source: Source, hint: str) -> Cell:
    names = ["linear_1/w", "linear/w", "linear/b"] + ["linear_1/b"] * ("linear_1/b" in source.arrays)
    source = with_names(source, names, hint)
    axes = {"linear_1/w": ("hid", "hid"), "linear/w": ("in", "hid"), "linear/b": ("hid",), "linear_1/b": ("hid",)}
    require_axes(source, {name: axes[name] for name in names})
    b_h, _ = one_bias(1, source.arrays["linear/b"], source.arrays.get("linear_1/b"))
    return built(source.arrays["linear/w"], source.arrays["linear_1/w"], b_h, None, "relu")


def _lstm(source: Source, hint: str) -> Cell:
    source = with_names(source, ["linear/w", "linear/b"], hint)
    require_axes(source, {"linear/b": ("4 hid",), "linear/w": ("in+hid", "4 hid")})
    w, b = source.arrays["linear/w"], source.arrays["linear/b"]
    hid = b.shape[0] // 4
    if w.shape[0] <= hid:
        raise ValueError(f"{source.name('linear/w')} must have more than hid = {hid} rows (in+hid), got {w.shape[0]}.")
    w_xh, w_hh, b_h = (reordered(part, ORDER, GATES[4]) for part in (w[:-hid], w[-hid:], b))
    return built(w_xh, w_hh, _with_forget(b_h, FORGET))


def _with_forget(b_h: Any, more: float) -> Any:
    """`b_h` with `more` added to the bias of the forget gate."""
    i, f, g, o = (reordered(b_h, GATES[4], gate) for gate in GATES[4])
    return joined([i, f + np.asarray(more, b_h.dtype), g, o])


def to_haiku(cell: Cell, *, prefix: str = "", double_bias: bool = True) -> dict[str, dict[str, Array]]:
    """The parameters of a `VanillaRNN` or `LSTM` of haiku that computes what this cell computes.

    In an `LSTM`, 1 is taken from the bias of the forget gate, because haiku adds it in each step. So this bias comes
    back from `from_haiku` within one rounding of 1; all other numbers have the same bits. In a `VanillaRNN` the second
    bias is -0.0, which adds nothing to any number.

        net.apply(rnn_jax.interop.to_haiku(cell, prefix="lstm/"), None, xs)

    Args:
        cell: a `CellParams` without leak, with relu, or an `LSTMParams`.
        prefix: what comes before `linear` in the names, like `"lstm/"`.
        double_bias: False for a `VanillaRNN` with `double_bias=False`.

    Returns:
        Arrays of JAX by the names of modules.

    Raises:
        ValueError: for a leak, or another activation than relu.
        TypeError: for a cell that haiku lacks, like a `GRUParams`.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="lstm", input_size=2, hidden_size=3, output_size=1)
    >>> {name: w.shape for name, w in rnn_jax.interop.to_haiku(params.cells[0])["linear"].items()}
    {'b': (12,), 'w': (5, 12)}
    """
    require_prefix(prefix)
    ours = require_cell("cell", cell, "haiku", KINDS)
    require_known_activation("cell", ours, ("relu",), "a VanillaRNN")
    if isinstance(ours, LSTMParams):
        w_xh, w_hh, b = (reordered(x, GATES[4], ORDER) for x in (ours.w_xh, ours.w_hh, _with_forget(ours.b_h, -FORGET)))
        tree = {f"{prefix}linear": {"w": joined([w_xh.T, w_hh.T]).T, "b": b}}
    else:
        b_x, b_u = two_biases(ours)
        tree = {f"{prefix}linear": {"w": ours.w_xh, "b": b_x}, f"{prefix}linear_1": {"w": ours.w_hh}}
        tree[f"{prefix}linear_1"] |= {"b": b_u} if double_bias else {}
    made: dict[str, dict[str, Array]] = of_jax(tree)
    return made
