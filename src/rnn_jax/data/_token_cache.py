"""Tokens of large texts, kept in files: a text is encoded once, and then mapped into memory."""

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from .._reporting.caches import cache_folder, remove_old
from .._reporting.console import warn
from .._reporting.files import replacing
from ._pieces import PIECE
from ._tokens import Found, Plain, encoded, in_memory, scan

FORMAT = "rnn_jax tokens 2"
ENDING = ".tokens"
END = struct.Struct("<QI")  # the length of the description, and the CRC-32 of all before
MOST_FILES, MOST_BYTES = 8, 2**35  # of the cache; the entry in use always stays

T = TypeVar("T")


class Kept(NamedTuple):
    """What a first pass over a text finds, its tokens, what is left out of its files, and the file of the tokens.

    The tokens are mapped from this `entry` of the cache; it is empty if they are not in the cache.
    """

    found: Found
    tokens: np.ndarray
    left_out: dict[str, int]
    entry: str


def kept(texts: Plain) -> Kept:
    """The tokens of a text, mapped from a file in the cache.

    If the cache cannot be written, it is a temporary file; if this cannot be written
    either, the tokens are in memory. A warning says so.

    Raises:
        InputError: if the text cannot be read.
    """
    name = _name(texts)
    with contextlib.suppress(OSError, ValueError):
        return read_entry(cache_folder("tokens") / name)
    found, entry = scan(_shown(texts, texts, "symbols of the text"), texts.vocab), str(cache_folder("tokens") / name)
    try:
        tokens = _in_cache(Path(entry), texts, found)
    except OSError as error:
        tokens, where = _elsewhere(texts, found)
        entry = ""
        warn(
            f"the tokens of the text cannot be kept in a cache, {error}. They are in {where}, so the next command "
            "encodes the text again. XDG_CACHE_HOME may name another folder for caches."
        )
    return Kept(found, tokens, texts.left_out, entry)


def _name(texts: Plain) -> str:
    """The name of the entry for a text. It follows from the bytes of its files, their encoding, the vocabulary."""
    for _ in _shown(itertools.chain.from_iterable(texts.files), texts, "reading the text"):
        pass  # all of each file, for its SHA-256
    about = [FORMAT, texts.vocab, texts.encoding, *(data.sha256 for data in texts.files)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest() + ENDING


def _shown(pieces: Iterable[T], texts: Plain, what: str) -> Iterator[T]:
    """The pieces of a text, with a bar on a terminal: how many there are yet, each of a MiB."""
    from tqdm import tqdm  # of the extra `app`

    total = sum(-(-data.size // PIECE) for data in texts.files)
    return iter(tqdm(pieces, what, total, leave=False, unit=" MiB", disable=None))  # no bar in a file or a pipe


def _in_cache(path: Path, texts: Plain, found: Found) -> np.ndarray:
    """Write an entry, all of it or nothing, and map its tokens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_suffix(f".{secrets.token_hex(8)}")  # another process may write the same text
    with replacing(own) as file:
        _write(file, texts, found)
    os.replace(own, path)
    with open(path, "rb") as file:
        tokens = _mapped(file, found)
    remove_old(path.parent, most_files=MOST_FILES, most_bytes=MOST_BYTES, but=path)
    return tokens


def _write(file: IO[bytes], texts: Plain, found: Found) -> None:
    """Write the tokens, their description in JSON, the length of this, and the checksum."""
    crc = 0
    for piece in encoded(_shown(texts, texts, "tokens of the text"), found):
        crc = zlib.crc32(piece.data, crc)
        file.write(piece.data)
    about = json.dumps({"found": found, "left_out": texts.left_out}).encode()
    file.write(about + END.pack(len(about), zlib.crc32(about, crc)))
    file.flush()


def read_entry(path: Path, *, is_checked: bool = False) -> Kept:
    """What `_write` has written. If another process has just checked it, only its end is read now.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < END.size:
            raise ValueError
        file.seek(size - END.size)
        length, checksum = END.unpack(file.read())
        file.seek(0)
        if not is_checked and _checksum(file, size - END.size) != checksum:
            raise ValueError
        file.seek(size - END.size - length)
        about: dict[str, Any] = json.loads(file.read(length))
        found = Found(*about["found"])
        if size != found.num * np.dtype(found.dtype).itemsize + length + END.size:
            raise ValueError
        tokens = _mapped(file, found)
        with contextlib.suppress(OSError):  # a cache that can only be read is good too
            os.utime(path)  # the entries that have not been used for longest are removed
    return Kept(found, tokens, about["left_out"], str(path))


def _checksum(file: IO[bytes], left: int) -> int:
    """The CRC-32 of the next `left` bytes."""
    crc = 0
    while left:
        piece = file.read(min(left, PIECE))
        if not piece:
            raise ValueError
        left, crc = left - len(piece), zlib.crc32(piece, crc)
    return crc


def _mapped(file: IO[bytes], found: Found) -> np.ndarray:
    return np.asarray(np.memmap(file, found.dtype, "r", shape=(found.num,)))


def _elsewhere(texts: Plain, found: Found) -> tuple[np.ndarray, str]:
    """The tokens in a temporary file that no other process sees, or in memory; and in which of these."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        for piece in encoded(texts, found):
            file.write(piece.data)
        file.flush()
        return _mapped(file, found), "a temporary file"
    return in_memory(texts, found), "memory"
