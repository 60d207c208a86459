"""What a file says about its arrays, as JSON text: the same in all formats.

    {"format": 1,
     "cells": [{"kind": "CellParams",
                "static": {"activation": "tanh", "leak": 1.0},
                "arrays": {"w_xh": "float32", "w_hh": "float32", "b_h": "float32"}}],
     "readout": {"w_hy": "float32", "b_y": "float32"}}

The arrays are called by their place in the tree, like `cells[0].w_hh`.
"""

import json
from collections.abc import Iterable
from typing import Any

from .._types import ReadoutParams

FORMAT = 1
DTYPES = ("float16", "bfloat16", "float32", "float64")

Structure = dict[str, Any]


def text_of(structure: Structure) -> str:
    """The JSON text of a structure."""
    return json.dumps({"format": FORMAT, **structure})


def dtypes(structure: Structure) -> dict[str, str]:
    """The dtype of each array by its name."""
    owners = {f"cells[{layer}]": cell["arrays"] for layer, cell in enumerate(structure["cells"])}
    owners["readout"] = structure["readout"]
    return {f"{owner}.{name}": dtype for owner, arrays in owners.items() for name, dtype in arrays.items()}


class Refusal(ValueError):
    """A file cannot be used."""


def refusal(path: Any, reason: str) -> Refusal:
    """The error for a file that cannot be used."""
    return Refusal(f"`path` must be a file that `save_params` wrote, but {str(path)!r} {reason}.")


def require_names(path: Any, structure: Structure, names: Iterable[str], where: str) -> None:
    """Raise unless a file has exactly the arrays that its structure, called `where`, names."""
    expected, found = dtypes(structure), set(names)
    for name in expected:
        if name not in found:
            raise refusal(path, f"lacks the array `{name}`")
    if more := found - expected.keys():
        raise refusal(path, f"has `{min(more)}`, which its `{where}` does not name")


def parsed(path: Any, text: str, where: str) -> Structure:
    """The structure in a text, if it is one of ours; `where` is the name of the text in the file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"has a `{where}` that is not JSON") from error
    number = found.get("format") if isinstance(found, dict) else None
    number = number if type(number) is int else None  # True == 1
    if number is not None and number > FORMAT:
        raise refusal(path, f"is of format {number}, and this version of rnn_jax reads up to {FORMAT}: update it")
    if number != FORMAT or not _is_structure(found):
        raise refusal(path, f"has a `{where}` that is not one of ours")
    structure: Structure = found
    return structure


def _is_structure(found: Structure) -> bool:
    def are_arrays(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(one, str) and one in DTYPES for one in value.values())

    def is_cell(value: Any) -> bool:
        if not isinstance(value, dict) or value.keys() != {"kind", "static", "arrays"}:
            return False
        return isinstance(value["kind"], str) and isinstance(value["static"], dict) and are_arrays(value["arrays"])

    cells, readout = found.get("cells"), found.get("readout")
    if not isinstance(cells, list) or not all(map(is_cell, cells)):
        return False
    return are_arrays(readout) and readout.keys() == set(ReadoutParams._fields)  # type: ignore[union-attr]
