"""From parameters to arrays and a structure, and back: the same network, not only the same numbers."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._cells import kinds
from .._checks import check_params
from .._require import require_float64, require_values
from .._types import Params, ReadoutParams
from . import npz, safetensors
from .structure import DTYPES, refusal

OURS: dict[str, type] = {kind.__name__: kind for kind in kinds.OURS}


def save_params(path: str | os.PathLike[str], params: Params) -> None:
    """Save parameters in one file, from which `load_params` makes the same network again.

    The file holds every array with its dtype and, for each layer, the kind of its cell and its static fields, like
    activation and leak. If its name ends in `.safetensors`, it is a safetensors file, with the kinds and fields in its
    metadata; this needs the extra `app`. Otherwise it is an .npz file: `numpy.load` reads it, without pickle. An old
    file is replaced only when the new one is whole.

    Args:
        path: the file; nothing is appended to its name.
        params: the parameters, or gradients, which are `Params` too. They must have values: not under `jax.jit`.

    Raises:
        TypeError, ValueError: if these are not parameters, or a file cannot hold them, because an activation is not a
            name, another static field is not a text, a number or None, or two classes of cells have the same name.
        ModuleNotFoundError: if the name ends in `.safetensors` and the extra `app` is not installed.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile, jax, rnn_jax
    >>> sizes = {"input_size": 3, "hidden_size": 5, "output_size": 2}
    >>> params = rnn_jax.init_params(jax.random.key(0), activation="relu", leak=0.5, **sizes)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "network.npz")
    ...     rnn_jax.saving.save_params(file, params)
    ...     again = rnn_jax.saving.load_params(file)
    >>> again.cells[0].activation, again.cells[0].leak, bool((again.cells[0].w_hh == params.cells[0].w_hh).all())
    ('relu', 0.5, True)
    """
    check_params(params)
    require_values("save_params", params)
    _kinds("params.cells", map(type, params.cells))
    arrays: dict[str, np.ndarray] = {}

    def held(owner: str, names: Iterable[str], holder: Any) -> dict[str, str]:
        """Add the arrays of a layer or of the readout to `arrays`; returns their dtypes."""
        new = {name: _array(f"params.{owner}.{name}", getattr(holder, name)) for name in names}
        arrays.update({f"{owner}.{name}": array for name, array in new.items()})
        return {name: array.dtype.name for name, array in new.items()}

    cells = []
    for layer, cell in enumerate(params.cells):
        owner, (names, statics) = f"cells[{layer}]", _fields(type(cell))
        static = {name: _storable(f"params.{owner}.{name}", getattr(cell, name)) for name in statics}
        cells.append({"kind": type(cell).__name__, "static": static, "arrays": held(owner, names, cell)})
    readout = held("readout", ReadoutParams._fields, params.readout)
    _format(path).write(Path(path), {"cells": cells, "readout": readout}, arrays)


def load_params(path: str | os.PathLike[str], *, cells: Iterable[type] = ()) -> Params:
    """The parameters in a file of `save_params`: equal arrays, the same kinds of cells and static fields.

    Args:
        path: the file. Its name decides how it is read, as in `save_params`.
        cells: your own classes of cells that the file has. Those of this library are known.

    Returns:
        Parameters whose arrays are on JAX's default device.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, of a newer format, or not from `save_params`; if the class of a cell is not
            given, or its fields have changed; if the file holds float64 and `jax_enable_x64` is off.
        ModuleNotFoundError: if the name ends in `.safetensors` and the extra `app` is not installed.

    >>> import dataclasses, pathlib, tempfile, jax, rnn_jax
    >>> @jax.tree_util.register_dataclass
    ... @dataclasses.dataclass(frozen=True, eq=False)
    ... class Mine(rnn_jax.CellParams):
    ...     pass
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> w = params.cells[0]
    >>> params = params._replace(cells=(Mine(w.w_xh, w.w_hh, w.b_h),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "mine.npz")
    ...     rnn_jax.saving.save_params(file, params)
    ...     again = rnn_jax.saving.load_params(file, cells=(Mine,))
    >>> type(again.cells[0]).__name__
    'Mine'
    """
    known = _kinds("cells", cells)
    structure, arrays = _format(path).read(Path(path))
    kinds = [_kind(path, layer, described, known) for layer, described in enumerate(structure["cells"])]
    if any(array.dtype == np.float64 for array in arrays.values()):
        require_float64(f"{str(path)!r} holds float64")

    def leaves(owner: str, names: Iterable[str]) -> dict[str, Any]:
        return {name: jnp.asarray(arrays[f"{owner}.{name}"]) for name in names}

    try:
        stack = tuple(
            kind(**leaves(f"cells[{layer}]", described["arrays"]), **described["static"])
            for layer, (kind, described) in enumerate(zip(kinds, structure["cells"], strict=True))
        )
        params = Params(stack, ReadoutParams(**leaves("readout", ReadoutParams._fields)))
        check_params(params)
    except (TypeError, ValueError) as error:
        raise refusal(path, f"does not hold parameters: {str(error).removesuffix('.')}") from error
    return params


def _format(path: str | os.PathLike[str]) -> Any:
    """The module that reads and writes files with such a name."""
    return safetensors if Path(path).suffix.lower() == safetensors.ENDING else npz


def _fields(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the arrays and of the static fields of a cell."""
    fields = dataclasses.fields(kind)
    static = tuple(field.name for field in fields if field.metadata.get("static"))
    return tuple(field.name for field in fields if field.name not in static), static


def _kinds(who: str, classes: Iterable[type]) -> dict[str, type]:
    """These classes and ours, by their names.

    Raises:
        TypeError, ValueError: if these are no classes of cells, or two have the same name.
    """
    kinds = dict(OURS)
    for kind in classes if isinstance(classes, Iterable) else (classes,):
        if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
            raise TypeError(f"`{who}` must be a tuple of dataclasses, like (CellParams,), got {kind!r}.")
        if kinds.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"`{who}` must be classes with different names, got two named {kind.__name__!r}.")
    return kinds


def _kind(path: Any, layer: int, described: dict[str, Any], known: dict[str, type]) -> type:
    """The class of a layer as it is described in a file, if it is known and has the fields that were saved."""
    name = described["kind"]
    if name not in known:
        raise ValueError(
            f"`cells` must hold your own classes of cells, but layer {layer} of {str(path)!r} is a {name!r}, "
            f"and only {', '.join(known)} are known: give its class, `load_params(path, cells=({name},))`."
        )
    saved, (names, statics) = sorted([*described["arrays"], *described["static"]]), _fields(known[name])
    if set(described["arrays"]) != set(names) or set(described["static"]) != set(statics):
        raise ValueError(
            f"{name} must have the fields that were saved in {str(path)!r}, {', '.join(saved)}, but has "
            f"{', '.join(sorted([*names, *statics]))}."
        )
    return known[name]


def _array(name: str, leaf: Any) -> np.ndarray:
    """A leaf as an array of NumPy, in C order and this machine's order of bytes."""
    array = np.asarray(leaf)
    if array.dtype.name not in DTYPES:
        came = type(leaf).__name__ if array.dtype == object else array.dtype
        raise TypeError(f"`{name}` must be an array of {', '.join(DTYPES)} to be saved, got {came}.")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _storable(name: str, value: Any) -> Any:
    """A static field as JSON holds it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (str, int, float, bool):
        return value
    if callable(value) or (isinstance(value, tuple) and callable(next(iter(value), None))):
        raise TypeError(
            f"`{name}` must be a name to be saved, got {value!r}: a file holds no functions. Save the cell with a "
            f"name, and set the function after loading, with `cell.replace`."
        )
    raise TypeError(f"`{name}` must be a text, a number or None to be saved, got {value!r}.")
