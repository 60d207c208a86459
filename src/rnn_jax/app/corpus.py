"""Where the text comes from."""

import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from .errors import InputError

MOST_BYTES = 2**30  # of one file: a text that is read without an end, /dev/zero say, is refused


class Corpus(NamedTuple):
    """A text and where it came from, for a person."""

    text: str
    source: str


def read_corpus(files: tuple[str, ...]) -> Corpus:
    """The text of `files` in their order, `-` being standard input; without files, the standard library's.

    Raises:
        InputError: for a file that is missing, unreadable, empty or not UTF-8, by name.
    """
    if not files:
        return _standard_library()
    if files.count("-") > 1:
        raise InputError("FILE must name standard input, `-`, at most once.")
    return Corpus("".join(_read(name) for name in files), ", ".join(files))


def _read(name: str) -> str:
    label = "standard input" if name == "-" else f"file {name!r}"
    try:
        if name == "-":
            if sys.stdin is None:
                raise InputError("FILE must name readable text, but standard input is closed.")
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"FILE must name readable text, but {label} is not: {error.strerror}.") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"FILE must have at most {MOST_BYTES:,} bytes, but {label} has more.")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        got = f"byte 0x{data[error.start]:02x} at position {error.start}"
        raise InputError(f"FILE must be UTF-8 text, but {label} has {got}.") from error
    if not text:
        raise InputError(f"FILE must hold text, but {label} is empty.")
    return text


def _standard_library() -> Corpus:
    """The top-level modules of this Python, in alphabetical order, those that are pure ASCII."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    try:
        texts = [data.decode() for data in map(Path.read_bytes, paths) if data.isascii()]
    except OSError as error:
        raise InputError(f"This Python's sources cannot be read, {error}: give a FILE.") from error
    if not texts:
        raise InputError("This Python has no sources of its standard library: give a FILE.")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Corpus("".join(texts), f"the standard library of Python {python}, {len(texts)} modules")
