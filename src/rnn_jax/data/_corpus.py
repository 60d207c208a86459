"""Read the text: from files, from standard input, or from Python's standard library."""

import codecs
import hashlib
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from .._reporting.errors import InputError
from .._reporting.files import is_unicode
from ._encodings import MARKS, UTF_8, WrongEncoding, text_of

MOST_BYTES = 2**30  # of one file, so that an endless file, like /dev/zero, is refused


class Corpus(NamedTuple):
    """A text, a description of its source, and the number of marks of each kind that were left out of its files."""

    text: str
    source: str
    left_out: dict[str, int]

    @property
    def sha256(self) -> str:
        """The SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_corpus(files: tuple[str, ...], encoding: str = UTF_8) -> Corpus:
    """The text of `files` in their order, where `-` is standard input. Without files, Python's standard library.

    Raises:
        InputError: for a file that is missing, unreadable, empty or in another encoding; it names the file.
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
    texts, marks, returns = zip(
        *(_read(name, codecs.lookup(encoding).name.removesuffix("-sig")) for name in files), strict=True
    )
    left_out = {"byte_order_marks": sum(marks), "carriage_returns": sum(returns)}
    return Corpus("".join(texts), ", ".join(files), left_out)


def corpus_of_run(run: Path, files: tuple[str, ...], given: tuple[str, ...], sha256: str, encoding: str) -> Corpus:
    """The text that a run began with, from the `files` in its settings or, if the text has moved, from those `given`.

    Raises:
        InputError: if the text cannot be read, or is not the text that the run began with.
    """
    moved = f"If the text of {str(run)!r} has moved, give its files after RUN."
    try:
        corpus = read_corpus(given or files, encoding)
    except InputError as error:
        said = error.wrong if isinstance(error, WrongEncoding) else str(error)  # a run keeps its encoding
        raise InputError(said if given else f"{said} {moved}") from error
    if corpus.sha256 != sha256:
        words = "is another text" if given else f"has changed. {moved.removesuffix('.')}"
        raise InputError(f"{str(run)!r} needs the text that it began with, but {corpus.source} {words}.")
    return corpus


def _read(name: str, encoding: str) -> tuple[str, int, int]:
    """The text of a file, the number of byte order marks at its start (0 or 1), and of CRLF replaced by LF."""
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
    text = text_of(data, encoding, label)
    left_out_by_python = data.startswith(MARKS.get(encoding, ()))
    marked, text = left_out_by_python or text.startswith("\ufeff"), text.removeprefix("\ufeff")
    if not text:
        raise InputError(f"FILE must hold text, but {label} is empty.")
    return text.replace("\r\n", "\n"), int(marked), text.count("\r\n")


def _standard_library() -> Corpus:
    """The top-level modules of Python's standard library that are pure ASCII, in alphabetical order."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    try:
        texts = [data.decode() for data in map(Path.read_bytes, paths) if data.isascii()]
    except OSError as error:
        raise InputError(f"The sources of Python's standard library cannot be read, {error}: give a FILE.") from error
    if not texts:
        raise InputError("This Python has no sources of its standard library: give a FILE.")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Corpus("".join(texts), f"the standard library of Python {python}, {len(texts)} modules", {})
