"""Where the text comes from."""

import codecs
import hashlib
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from .._reporting.errors import InputError
from .._reporting.files import is_unicode

MOST_BYTES = 2**30  # of one file: a text that is read without an end, /dev/zero say, is refused


class Corpus(NamedTuple):
    """A text, where it came from, for a person, and how many of each mark were left out of its files."""

    text: str
    source: str
    left_out: dict[str, int]

    @property
    def sha256(self) -> str:
        """Of the text, as it is learned."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_corpus(files: tuple[str, ...]) -> Corpus:
    """The text of `files` in their order, `-` being standard input; without files, the standard library's.

    Raises:
        InputError: for a file that is missing, unreadable, empty or not UTF-8, by name.
    """
    if not files:
        return _standard_library()
    if "" in files:
        raise InputError("FILE must name a file, got ''.")
    for name in files:
        if not is_unicode(name):
            raise InputError(f"FILE must have a name in UTF-8, got {name!r}.")
    if files.count("-") > 1:
        raise InputError("FILE must name standard input, `-`, at most once.")
    texts, marks, returns = zip(*map(_read, files), strict=True)
    left_out = {"byte_order_marks": sum(marks), "carriage_returns": sum(returns)}
    return Corpus("".join(texts), ", ".join(files), left_out)


def corpus_of_run(run: Path, files: tuple[str, ...], given: tuple[str, ...], sha256: str) -> Corpus:
    """The text that a run began with: of the `files` in its settings or, if it has moved, of those `given`.

    Raises:
        InputError: if it cannot be read, or is another text.
    """
    moved = f"If the text of {str(run)!r} has moved, give its files after RUN."
    try:
        corpus = read_corpus(given or files)
    except InputError as error:
        raise error if given else InputError(f"{error} {moved}") from error
    if corpus.sha256 != sha256:
        words = "is another text" if given else f"has changed. {moved.removesuffix('.')}"
        raise InputError(f"{str(run)!r} must find the text that it began with, but {corpus.source} {words}.")
    return corpus


def _read(name: str) -> tuple[str, int, int]:
    """The text of a file; how many byte order marks it began with, 0 or 1; how many CRLF became LF."""
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
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte 0x{data[error.start]:02x} at position {error.start}"
        raise InputError(f"FILE must be UTF-8 text, but {label} has {got}.") from error
    if not text:
        raise InputError(f"FILE must hold text, but {label} is empty.")
    return text.replace("\r\n", "\n"), int(data.startswith(codecs.BOM_UTF8)), text.count("\r\n")


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
    return Corpus("".join(texts), f"the standard library of Python {python}, {len(texts)} modules", {})
