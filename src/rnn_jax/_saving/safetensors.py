"""A safetensors file: eight bytes with the length of the header, the header as JSON, the bytes of the arrays.

    {"__metadata__": {"rnn_jax": structure, "rnn_jax_crc32": checksum},
     "cells[0].w_xh": {"dtype": "F32", "shape": [3, 8], "data_offsets": [0, 96]}, ...}

The package `safetensors` reads these files; the format is so small that this module does not need the package. All that
the header says is checked against the size of the file before any array is read. The format has no checksum, so ours is
in the metadata: of the structure and of all arrays, in the order of the structure.
"""

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from .._reporting.files import replacing
from .structure import Structure, dtypes, parsed, refusal, require_names, text_of

ENDING = ".safetensors"
METADATA, STRUCTURE, CHECKSUM = "__metadata__", "rnn_jax", "rnn_jax_crc32"
NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
LONGEST_HEADER = 100_000_000  # that of the package
FIRST = 8  # bytes that hold the length of the header, which is filled up to a multiple of as many

Entry = tuple[str, tuple[int, ...], int, int]
"""The dtype, the shape, and the first and last place of an array in the data."""


def write(path: Path, structure: Structure, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole file or, if that fails, none. `arrays` must be those that `dtypes(structure)` names."""
    text, header, end = text_of(structure), {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    metadata = {STRUCTURE: text, CHECKSUM: _checksum(text, [arrays[name] for name in dtypes(structure)])}
    head = json.dumps({METADATA: metadata, **header}).encode()
    head += b" " * (-len(head) % FIRST)
    with replacing(path) as file:
        file.write(len(head).to_bytes(FIRST, "little") + head)
        for array in arrays.values():
            file.write(array.tobytes())


def read(path: Path) -> tuple[Structure, dict[str, np.ndarray]]:
    """The structure and the arrays of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `save_params` did not write it, or it is damaged or of a newer format.
    """
    with open(path, "rb") as file:
        start, size = file.read(FIRST), os.fstat(file.fileno()).st_size
        length = int.from_bytes(start, "little")
        if len(start) < FIRST or length > min(size - FIRST, LONGEST_HEADER):
            raise refusal(path, f"is no {ENDING} file, or it ends early")
        header = _header(path, file.read(length))
        metadata = header.pop(METADATA, None)
        if not isinstance(metadata, dict) or not isinstance(metadata.get(STRUCTURE), str):
            raise refusal(path, f"is another {ENDING} file: its `{METADATA}` has no `{STRUCTURE}`")
        text = metadata[STRUCTURE]
        structure = parsed(path, text, STRUCTURE)
        require_names(path, structure, header, STRUCTURE)
        entries = {name: _entry(path, name, told) for name, told in header.items()}
        _require_whole(path, entries, size - FIRST - length)
        for name, dtype in dtypes(structure).items():
            if entries[name][0] != dtype:
                raise refusal(path, f"has `{name}` as {entries[name][0]}, where {dtype} is expected")
        arrays = {name: _array(path, file, entries[name], FIRST + length) for name in dtypes(structure)}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(text, list(arrays.values())):
        raise refusal(path, f"is damaged: its contents do not have its `{CHECKSUM}`")
    return structure, arrays


def _header(path: Path, head: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        found = json.loads(head.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"is no {ENDING} file: its header is not JSON, or has a name twice") from error
    if not isinstance(found, dict):
        raise refusal(path, f"is no {ENDING} file: its header is no JSON object")
    return found


def _entry(path: Path, name: str, told: Any) -> Entry:
    """What the header says about an array, if it does not contradict itself."""
    wrong = refusal(path, f"says about `{name}` what cannot be")
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    shape, places = told["shape"], told["data_offsets"]
    numbers = [*shape, *places] if isinstance(shape, list) and isinstance(places, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(places) != 2 or len(shape) > 2:
        raise wrong
    known = {theirs: ours for ours, theirs in NAMES.items()}
    if not isinstance(told["dtype"], str) or told["dtype"] not in known:
        raise wrong
    dtype, (begin, end) = known[told["dtype"]], places
    if end - begin != math.prod(shape) * jnp.dtype(dtype).itemsize:
        raise wrong
    return dtype, tuple(shape), begin, end


def _require_whole(path: Path, entries: dict[str, Entry], size: int) -> None:
    """Raise unless the arrays fill the data one after the other."""
    last = 0
    for _, _, begin, end in sorted(entries.values(), key=lambda entry: entry[2:]):
        if begin != last:
            raise refusal(path, "has arrays that overlap, or leave room between them")
        last = end
    if last != size:
        raise refusal(path, f"has {size:,} bytes of arrays, where {last:,} are expected")


def _array(path: Path, file: BinaryIO, entry: Entry, first: int) -> np.ndarray:
    dtype, shape, begin, end = entry
    file.seek(first + begin)
    try:
        data = file.read(end - begin)
    except (MemoryError, OverflowError) as error:
        raise refusal(path, f"has an array of {end - begin:,} bytes, which the memory cannot hold") from error
    if len(data) != end - begin:
        raise refusal(path, "has become shorter while it was read")
    return np.frombuffer(data, jnp.dtype(dtype)).reshape(shape)


def _checksum(text: str, arrays: list[np.ndarray]) -> str:
    """The CRC-32 of the structure and the arrays, in hexadecimal digits."""
    crc = zlib.crc32(text.encode())
    for array in arrays:
        crc = zlib.crc32(array.tobytes(), crc)
    return f"{crc:08x}"
