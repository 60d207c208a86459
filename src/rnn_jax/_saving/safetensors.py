"""A safetensors file, by the package `safetensors`: each array under its name, and the structure in the metadata.

The format has no checksum, so ours is in the structure, as `crc32`.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .._reporting.files import replacing
from .structure import Structure, dtypes, parsed, refusal, require_names, text_of

ENDING = ".safetensors"
STRUCTURE, CHECKSUM = "rnn_jax", "crc32"  # one entry of the metadata: the package writes several in random order
NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


def write(path: Path, structure: Structure, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole file or, if that fails, none. `arrays` must be those that `dtypes(structure)` names, in C order."""
    text = text_of({**structure, CHECKSUM: _checksum(structure, arrays)})
    data = _package().numpy.save(arrays, {STRUCTURE: text})
    with replacing(path) as file:
        file.write(data)


def read(path: Path) -> tuple[Structure, dict[str, np.ndarray]]:
    """The structure and the arrays of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if the extra `app` is not installed.
        ValueError: if `save_params` did not write it, or it is damaged or of a newer format.
    """
    package = _package()
    try:
        with open(path, "rb"), package.safe_open(path, "numpy") as file:  # open: its errors have the true reason
            metadata = file.metadata() or {}
            if STRUCTURE not in metadata:
                raise refusal(path, f"is another {ENDING} file: its metadata has no `{STRUCTURE}`")
            structure = parsed(path, metadata[STRUCTURE], STRUCTURE)
            require_names(path, structure, file.keys(), STRUCTURE)
            for name, dtype in dtypes(structure).items():
                if (came := file.get_slice(name).get_dtype()) != NAMES[dtype]:
                    raise refusal(path, f"has `{name}` as {came}, where {NAMES[dtype]} is expected")
            np.empty(path.stat().st_size, np.uint8)  # a MemoryError; the package would panic
            arrays = {name: file.get_tensor(name) for name in dtypes(structure)}
    except package.SafetensorError as error:
        raise refusal(path, f"is no {ENDING} file, or is damaged") from error
    except MemoryError as error:
        raise refusal(path, f"has {path.stat().st_size:,} bytes, which the memory cannot hold") from error
    if structure.pop(CHECKSUM, None) not in (None, _checksum(structure, arrays)):
        raise refusal(path, f"is damaged: its contents do not have its `{CHECKSUM}`")
    return structure, arrays


def _checksum(structure: Structure, arrays: dict[str, np.ndarray]) -> int:
    """The CRC-32 of the structure without this number, and of all arrays in its order."""
    crc = zlib.crc32(text_of(structure).encode())
    for name in dtypes(structure):
        crc = zlib.crc32(arrays[name].tobytes(), crc)
    return crc


def _package() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        told = f"A {ENDING} file needs {error.name}: pip install 'rnn-jax-bptt[app]'."
        raise ModuleNotFoundError(told, name=error.name) from error
    return safetensors
