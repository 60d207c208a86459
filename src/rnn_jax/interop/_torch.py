"""State dicts of torch."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._cells.activations import Phi
from .._cells.gru import GRUParams
from .._cells.lstm import LSTMParams
from .._cells.protocol import Cell, num_units
from .._cells.vanilla import CellParams
from .._checks import check_readout
from .._require import require_values
from .._types import Params, ReadoutParams
from ._arrays import (
    Source,
    gates_of,
    of_jax,
    of_mapping,
    of_numpy,
    require_axes,
    require_prefix,
    times,
    values,
    with_names,
)
from ._gates import (
    built,
    one_bias,
    own_biases,
    require_activation,
    require_cell,
    require_known_activation,
    require_zero,
    two_biases,
)

Layer = Cell | tuple[Cell, Cell]
"""A cell, or the cells of the forward and of the backward direction."""

MODULES = {1: "nn.RNN", 3: "nn.GRU", 4: "nn.LSTM"}
KINDS: dict[type, str] = {CellParams: "nn.RNN", GRUParams: "nn.GRU", LSTMParams: "nn.LSTM"}
OF_A_LAYER = re.compile(r"(?:weight|bias)_(?:ih|hh)_l(\d+)(?:_reverse)?")
CALL = ": call `state_dict()` of the module"


def from_torch(
    state_dict: Mapping[str, Any], *, prefix: str = "", activation: Phi = "tanh"
) -> tuple[Cell | tuple[Cell, Cell], ...]:
    """The layers of an `nn.RNN`, `nn.GRU` or `nn.LSTM`, from its state dict.

    Weights are transposed. The gates of torch come in our order. Of the two biases of a sum, one is made; of a GRU's n,
    `bias_hh` is `b_n`. Number of layers, directions and biases are those of the names. torch is not imported.

        rnn, fc = torch.nn.GRU(3, 8, num_layers=2), torch.nn.Linear(8, 4)
        cells = rnn_jax.interop.from_torch(rnn.state_dict())
        params = rnn_jax.Params(cells, rnn_jax.interop.from_torch_linear(fc.state_dict()))

    Args:
        state_dict: tensors by name, or anything that `numpy.asarray` takes. All of one floating dtype, which stays.
        prefix: what comes before the names of the module in the state dict of a larger one, like `"rnn."`. Other names
            are not read.
        activation: that of an `nn.RNN`, `"tanh"` or `"relu"`: its `nonlinearity`, which no state dict holds.

    Returns:
        The layers, lowest first: the `cells` of a `Params`. With `bidirectional=True` each is a pair of cells, which
        `bidirectional` takes, but `Params` does not. The arrays share no memory with those of torch.

    Raises:
        ValueError: if a name is missing or left over, a shape is wrong, the module has `proj_size`, or an array is
            float64 and `jax_enable_x64` is off; for an activation with a GRU or LSTM.
        TypeError: if the arrays are not of one floating dtype, or it is not a mapping of arrays.

    >>> import numpy as np, rnn_jax
    >>> shapes = {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 3), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
    >>> (cell,) = rnn_jax.interop.from_torch({name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    >>> type(cell).__name__, cell.w_xh.shape, float(cell.b_h[0])
    ('LSTMParams', (2, 12), 2.0)
    """
    modules = "nn.RNN, nn.GRU or nn.LSTM"
    source = of_mapping("state_dict", state_dict, modules, prefix=prefix, hint=CALL)
    if any(name.startswith("weight_hr_") for name in source.arrays):
        raise ValueError(
            "`state_dict` must be of a module without `proj_size`, because a projected state is a second product in "
            "each step, which no cell here has."
        )
    layers = {match[1] for match in map(OF_A_LAYER.fullmatch, source.arrays) if match}
    ends = ("", "_reverse") if any(name.endswith("_reverse") for name in source.arrays) else ("",)
    kinds = ("weight", "bias") if any(name.startswith("bias_") for name in source.arrays) else ("weight",)
    places = [[f"l{layer}{end}" for end in ends] for layer in range(max(len(layers), 1))]
    names = [f"{kind}_{of}_{place}" for kind in kinds for pair in places for place in pair for of in ("ih", "hh")]
    source = with_names(source, names, _hint(source, "rnn."))
    gates = gates_of(source, "weight_hh_l0", MODULES, transposed=True)
    wide = times(gates)
    axes = {"weight_hh": (wide, "hid"), "bias_ih": (wide,), "bias_hh": (wide,)}
    inputs = [(wide, times(len(ends)) if layer else "in") for layer in range(len(places))]
    of_inputs = {f"weight_ih_{place}": inputs[layer] for layer, pair in enumerate(places) for place in pair}
    of_others = {name: axes[name[: name.rindex("_l")]] for name in names if name not in of_inputs}
    require_axes(source, of_others | of_inputs)
    require_activation(activation, gates, MODULES)
    found = [tuple(_cell(source, gates, place, activation) for place in pair) for pair in places]
    return tuple((pair[0], pair[1]) if len(ends) == 2 else pair[0] for pair in found)


def _hint(source: Source, example: str) -> str:
    """What to do if the names are not those of the module."""
    if any("parametrizations." in name for name in source.arrays):
        return ": remove the parametrizations of the module first"
    if source.prefix and not source.prefix.endswith("."):
        return ": `prefix` must end with a dot"
    inside = any("." in name for name in source.arrays)  # of another module
    return f": give the beginning of the names of the module as `prefix`, like `{example}`" if inside else ""


def _cell(source: Source, gates: int, place: str, activation: Phi) -> Cell:
    w_x, w_h = source.arrays[f"weight_ih_{place}"], source.arrays[f"weight_hh_{place}"]
    b_x, b_u = source.arrays.get(f"bias_ih_{place}"), source.arrays.get(f"bias_hh_{place}")
    return built(w_x.T, w_h.T, *one_bias(gates, b_x, b_u), activation)


def to_torch(
    cells: tuple[Cell | tuple[Cell, Cell], ...], *, prefix: str = "", bias: bool = True
) -> dict[str, np.ndarray]:
    """The state dict of an `nn.RNN`, `nn.GRU` or `nn.LSTM` that computes what these layers compute.

    `bias_ih` is `b_h`, and `bias_hh` is -0.0, which adds nothing to any number, except that of a GRU's n, which is
    `b_n`. So `from_torch(to_torch(cells))` has the bits of `cells`. The other way round, `to_torch(from_torch(...))`
    computes the same, but has the sum of two biases in one of them.

        module = torch.nn.LSTM(3, 8, num_layers=2)
        module.load_state_dict({name: torch.tensor(w) for name, w in rnn_jax.interop.to_torch(params.cells).items()})

    Args:
        cells: the layers, lowest first, like the `cells` of a `Params`: all `CellParams` without leak, all `GRUParams`
            or all `LSTMParams`, of one width. For both directions, a tuple of pairs of cells.
        prefix: what comes before the names, like `"rnn."`.
        bias: False for a module with `bias=False`. All biases must then be zero.

    Returns:
        New arrays of NumPy by torch's names. Make the module with the `nonlinearity` of the cells.

    Raises:
        ValueError: for cells of different widths, a leak, another activation than tanh and relu, different activations,
            or `bias=False` with a bias that is not zero.
        TypeError: for cells that torch lacks, cells of different classes, and anything but a tuple of them.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="gru", input_size=2, hidden_size=3, output_size=1)
    >>> weights = rnn_jax.interop.to_torch(params.cells, prefix="rnn.")
    >>> {name: w.shape for name, w in weights.items()}["rnn.weight_ih_l0"]
    (9, 2)
    """
    if isinstance(cells, Params) or not isinstance(cells, tuple) or not cells:
        hint = ": use `params.cells`" if isinstance(cells, Params) else ""
        raise TypeError(f"`cells` must be a tuple of at least one layer, got {type(cells).__name__}{hint}.")
    require_prefix(prefix)
    require_values("to_torch", cells)
    both, found = isinstance(cells[0], tuple), {}
    for layer, entry in enumerate(cells):
        if isinstance(entry, tuple) != both or both and len(entry) != 2:  # type: ignore[arg-type]
            raise TypeError(f"`cells` must all be cells, or all pairs of cells, got another as `cells[{layer}]`.")
        for direction, cell in enumerate(entry if isinstance(entry, tuple) else (entry,)):
            name = f"cells[{layer}][{direction}]" if both else f"cells[{layer}]"
            found[f"l{layer}{'_reverse' if direction else ''}"] = name, require_cell(name, cell, "torch", KINDS)
    _require_alike(list(found.values()), 2 if both else 1)
    state_dict: dict[str, Any] = {}
    for place, (name, cell) in found.items():
        state_dict |= {f"{prefix}weight_ih_{place}": cell.w_xh.T, f"{prefix}weight_hh_{place}": cell.w_hh.T}
        if bias:
            biases = zip(("ih", "hh"), two_biases(cell), strict=True)
            state_dict |= {f"{prefix}bias_{of}_{place}": b for of, b in biases}
        else:
            named = {f"{name}.{field}": b for field, b in own_biases(cell).items()}
            require_zero("to_torch", "with `bias=False`", **named)
    return {name: of_numpy(array) for name, array in state_dict.items()}


def _require_alike(named: list[tuple[str, Any]], directions: int) -> None:
    """Raise unless the cells can be the layers of one module of torch."""
    first_name, first = named[0]
    for number, (name, cell) in enumerate(named):
        require_known_activation(name, cell, ("tanh", "relu"), "nn.RNN")
        if type(cell) is not type(first):
            raise TypeError(
                f"`{name}` must be a {type(first).__name__} like `{first_name}`, because a module of torch has layers "
                f"of one kind, got {type(cell).__name__}."
            )
        if getattr(cell, "activation", None) != getattr(first, "activation", None):
            raise ValueError(
                f"`{name}.activation` must be {first.activation!r}, like that of `{first_name}`, because an nn.RNN has "
                f"one for all layers, got {cell.activation!r}."
            )
        hid = num_units(first)
        inputs = first.w_xh.shape[0] if number < directions else directions * hid
        if (cell.w_xh.shape[0], num_units(cell)) != (inputs, hid):
            raise ValueError(
                f"`{name}` must have {inputs} inputs and {hid} units, because all layers of a module of torch have the "
                f"same width, got {cell.w_xh.shape[0]} and {num_units(cell)}."
            )


def from_torch_linear(state_dict: Mapping[str, Any], *, prefix: str = "") -> ReadoutParams:
    """The readout that an `nn.Linear` is, from its state dict.

    Args:
        state_dict: tensors by name, or anything that `numpy.asarray` takes.
        prefix: what comes before `weight` and `bias` in the state dict of a larger module, like `"fc."`.

    Returns:
        The readout; without a bias, `b_y` is zero.

    Raises:
        ValueError, TypeError: as in `from_torch`.

    >>> import numpy as np, rnn_jax
    >>> rnn_jax.interop.from_torch_linear({"weight": np.ones((2, 5), np.float32)}).w_hy.shape
    (5, 2)
    """
    source = of_mapping("state_dict", state_dict, "nn.Linear", prefix=prefix, hint=CALL)
    names = ("weight", "bias") if "bias" in source.arrays else ("weight",)
    source = with_names(source, names, _hint(source, "fc."))
    axes = {"weight": ("out", "hid"), "bias": ("out",)}
    require_axes(source, {name: axes[name] for name in names})
    w = source.arrays["weight"]
    readout: ReadoutParams = of_jax(ReadoutParams(w.T, source.arrays.get("bias", np.zeros(w.shape[0], w.dtype))))
    return readout


def to_torch_linear(readout: ReadoutParams, *, prefix: str = "") -> dict[str, np.ndarray]:
    """The state dict of the `nn.Linear` that computes what this readout computes.

    Args:
        readout: the readout, like `params.readout`.
        prefix: what comes before `weight` and `bias`, like `"fc."`.

    Returns:
        New arrays of NumPy by torch's names.

    Raises:
        TypeError, ValueError: if it is not a readout, or its arrays do not fit each other.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1)
    >>> {name: w.shape for name, w in rnn_jax.interop.to_torch_linear(params.readout, prefix="fc.").items()}
    {'fc.weight': (1, 3), 'fc.bias': (1,)}
    """
    require_prefix(prefix)
    w: Any = getattr(readout, "w_hy", None)
    hid = w.shape[0] if getattr(w, "ndim", 0) else 0
    check_readout(readout, hid, getattr(w, "dtype", None), "`readout.w_hy`", "readout")
    require_values("to_torch_linear", readout)
    w, b = values("readout", readout)
    return {f"{prefix}weight": of_numpy(w.T), f"{prefix}bias": of_numpy(b)}
