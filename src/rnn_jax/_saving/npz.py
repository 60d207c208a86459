"""The file of `save_params`: an .npz of NumPy, read without pickle.

The file has each array under its name in the tree, like `cells[0].w_hh`, and a JSON text under `structure`:

    {"format": 1,
     "cells": [{"kind": "CellParams",
                "static": {"activation": "tanh", "leak": 1.0},
                "arrays": {"w_xh": "float32", "w_hh": "float32", "b_h": "float32"}}],
     "readout": {"w_hy": "float32", "b_y": "float32"}}

An .npz has no bfloat16: such an array is stored as its bits, in uint16.
"""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._reporting.files import replacing
from .._types import ReadoutParams

FORMAT = 1
STRUCTURE = "structure"  # the name of the JSON text
STORED_AS = {"float16": "float16", "bfloat16": "uint16", "float32": "float32", "float64": "float64"}

Structure = dict[str, Any]


def write(path: Path, structure: Structure, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole file or, if that fails, none. `arrays` must be those that `dtypes(structure)` names."""
    text = np.array(json.dumps({"format": FORMAT, **structure}))
    held = {name: array.view(STORED_AS[array.dtype.name]) for name, array in arrays.items()}
    with replacing(path) as file:
        np.savez(file, **{STRUCTURE: text}, **held)  # type: ignore[arg-type]


def read(path: Path) -> tuple[Structure, dict[str, np.ndarray]]:
    """The structure and the arrays of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `save_params` did not write it, or it is damaged or of a newer format.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise refusal(path, "is no .npz file")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as found:
                ours = STRUCTURE in found.files
                held = {name: found[name] for name in found.files if ours}
        except Exception as error:  # zipfile and NumPy raise many kinds of errors for damaged files
            raise refusal(path, "is damaged: it cannot be read") from error
    if not ours:
        raise refusal(path, f"is another .npz file: it has no `{STRUCTURE}`")
    structure = _parsed(path, str(held.pop(STRUCTURE)))
    arrays = {name: _as_saved(path, name, dtype, held) for name, dtype in dtypes(structure).items()}
    if more := held.keys() - arrays.keys():
        raise refusal(path, f"has `{min(more)}`, which its `{STRUCTURE}` does not name")
    return structure, arrays


def dtypes(structure: Structure) -> dict[str, str]:
    """The dtype of each array by its name."""
    owners = {f"cells[{layer}]": cell["arrays"] for layer, cell in enumerate(structure["cells"])}
    owners["readout"] = structure["readout"]
    return {f"{owner}.{name}": dtype for owner, arrays in owners.items() for name, dtype in arrays.items()}


def refusal(path: Any, reason: str) -> ValueError:
    """The error for a file that cannot be used."""
    return ValueError(f"`path` must be a file that `save_params` wrote, but {str(path)!r} {reason}.")


def _as_saved(path: Path, name: str, dtype: str, held: dict[str, np.ndarray]) -> np.ndarray:
    if name not in held:
        raise refusal(path, f"lacks the array `{name}`")
    came = getattr(held[name], "dtype", "no array")
    if came != np.dtype(STORED_AS[dtype]):
        raise refusal(path, f"has `{name}` as {came}, where {STORED_AS[dtype]} is expected")
    return held[name].view(jnp.dtype(dtype))


def _parsed(path: Path, text: str) -> Structure:
    """The structure that is written as JSON, if it is one of ours."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"has a `{STRUCTURE}` that is not JSON") from error
    number = found.get("format") if isinstance(found, dict) else None
    number = number if type(number) is int else None  # True == 1
    if number is not None and number > FORMAT:
        raise refusal(path, f"is of format {number}, and this version of rnn_jax reads up to {FORMAT}: update it")
    if number != FORMAT or not _is_structure(found):
        raise refusal(path, f"has a `{STRUCTURE}` that is not one of ours")
    structure: Structure = found
    return structure


def _is_structure(found: Structure) -> bool:
    def are_arrays(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(one, str) and one in STORED_AS for one in value.values())

    def is_cell(value: Any) -> bool:
        if not isinstance(value, dict) or value.keys() != {"kind", "static", "arrays"}:
            return False
        return isinstance(value["kind"], str) and isinstance(value["static"], dict) and are_arrays(value["arrays"])

    cells, readout = found.get("cells"), found.get("readout")
    if not isinstance(cells, list) or not all(map(is_cell, cells)):
        return False
    return are_arrays(readout) and readout.keys() == set(ReadoutParams._fields)  # type: ignore[union-attr]
