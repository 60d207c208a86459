"""Read the text: from files, from standard input, or from Python's standard library."""

import codecs
import contextlib
import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from .._reporting.errors import InputError
from .._reporting.files import is_unicode
from ._encodings import UTF_8, WrongEncoding
from ._pieces import Pieces
from ._token_cache import Kept, kept, read_entry
from ._tokens import Plain, in_memory, scan
from ._validation import Validation, count_unknown, table_of
from ._vocab import as_text

MOST_BYTES = 2**30  # of what is no regular file, so that an endless one, like /dev/zero, is refused
IN_MEMORY = 2**26  # bytes; a larger text is mapped into memory from a file of tokens


class Corpus(NamedTuple):
    """A text as tokens, each the index of a symbol in `symbols`; they may be mapped from a file.

    `sha256` is that of the text in UTF-8. `left_out` is the number of marks of each kind that were left out of its
    files, and `source` a description of these. `entry` is the file of the cache that they are mapped from, if there is
    one. With a `validation`, all of the text is for training.
    """

    symbols: str
    tokens: np.ndarray
    source: str
    sha256: str
    left_out: dict[str, int]
    vocab: str = "character"
    entry: str = ""
    validation: Validation | None = None

    @property
    def held_out_words(self) -> str:
        """What is held out, in words."""
        return f"held out of {self.source}" if self.validation is None else f"of {self.validation.source}"

    @property
    def text(self) -> str:
        """The text, for one that fits into memory."""
        codes = np.frombuffer(self.symbols.encode("utf-32-le"), np.uint32)
        return as_text(self.vocab, str(codes[self.tokens].tobytes(), "utf-32-le"))


def read_corpus(files: tuple[str, ...], encoding: str = UTF_8, vocab: str = "character") -> Corpus:
    """The text of `files` in their order, where `-` is standard input. Without files, Python's standard library.

    Its tokens are those of `vocab`, `character` or `byte`.

    Raises:
        InputError: for a file that is missing, unreadable, empty or in another encoding; it names the file.
    """
    if not files:
        return _standard_library(vocab)
    if "" in files:
        raise InputError("FILE must name a file, got ''.")
    for name in files:
        if not is_unicode(name):
            raise InputError(f"FILE must have a name in UTF-8, got {name!r}.")
    if files.count("-") > 1:
        raise InputError("FILE must name standard input, `-`, at most once.")
    source, encoding = ", ".join(files), codecs.lookup(encoding).name.removesuffix("-sig")
    with contextlib.ExitStack() as copies:
        texts = Plain([_pieces(name, copies) for name in files], encoding, vocab)
        if sum(data.size for data in texts.files) >= IN_MEMORY:
            return _of_entry(kept(texts), source, vocab)
        found = scan(texts, vocab)
        return Corpus(found.symbols, in_memory(texts, found), source, found.sha256, texts.left_out, vocab)


def corpus_of_entry(entry: str, source: str, vocab: str) -> Corpus:
    """A text whose tokens another process has just read from, or written into, this entry of the cache.

    Only what is needed of the tokens is read, when it is needed.

    Raises:
        OSError, ValueError: if the entry is not there.
    """
    return _of_entry(read_entry(Path(entry), is_checked=True), source, vocab)


def _of_entry(kept: Kept, source: str, vocab: str) -> Corpus:
    found = kept.found
    return Corpus(found.symbols, kept.tokens, source, found.sha256, kept.left_out, vocab, kept.entry)


def corpus_of_text(text: str, source: str = "", vocab: str = "character") -> Corpus:
    """A text that is in memory, as tokens."""
    found = scan([text], vocab)
    return Corpus(found.symbols, in_memory([text], found), source, found.sha256, {}, vocab)


def with_validation(corpus: Corpus, files: tuple[str, ...], file: str | None, encoding: str = UTF_8) -> Corpus:
    """The text of `files` for training, and that of `file` for validation; without it, the end of the text is held out.

    Raises:
        InputError: if the file cannot be read, or holds the text for training.
    """
    if file is None:
        return corpus
    try:
        found = read_corpus((file,), encoding, corpus.vocab)
    except InputError as error:
        wrong = f"{error.wrong} FILE and --validation have one encoding." if isinstance(error, WrongEncoding) else error
        raise InputError(str(wrong).replace("FILE must", "--validation must", 1)) from error
    is_learned = any(name != "-" and os.path.exists(name) and os.path.samefile(name, file) for name in files)
    if is_learned or found.sha256 == corpus.sha256:
        raise InputError(
            f"--validation must hold another text than FILE, but {file!r} holds a text that is learned: leave it out "
            "of FILE, or leave --validation out to hold out the end of the text."
        )
    table = table_of(found.symbols, corpus.symbols)
    num_unknown = count_unknown(found.tokens, table)
    about = found.source, found.sha256, found.left_out
    return corpus._replace(validation=Validation(*about, found.tokens, table, num_unknown))


def corpus_of_run(
    run: Path, files: tuple[str, ...], given: tuple[str, ...], sha256: str, encoding: str, vocab: str
) -> Corpus:
    """The text that a run began with, from the `files` in its settings or, if the text has moved, from those `given`.

    Raises:
        InputError: if the text cannot be read, or is not the text that the run began with.
    """
    moved = "" if given else f"If the text of {str(run)!r} has moved, give its files after RUN."
    with _moved(moved):
        corpus = read_corpus(given or files, encoding, vocab)
    _check_same(run, "text", corpus, sha256, moved)
    return corpus


def validation_of_run(
    run: Path, corpus: Corpus, files: tuple[str, ...], file: str, given: str | None, sha256: str, encoding: str
) -> Corpus:
    """The text of a run with that for validation, from its `file` or, if this has moved, from the one `given`.

    Raises:
        InputError: if the text cannot be read, or is not the text that the run began with.
    """
    moved = "" if given else f"If the validation file of {str(run)!r} has moved, name it by --validation."
    with _moved(moved):
        corpus = with_validation(corpus, files, given or file, encoding)
    assert corpus.validation is not None
    _check_same(run, "validation file", corpus.validation, sha256, moved)
    return corpus


@contextlib.contextmanager
def _moved(advice: str) -> Iterator[None]:
    """Add the advice to the message of a text of a run that cannot be read."""
    try:
        yield
    except InputError as error:
        said = error.wrong if isinstance(error, WrongEncoding) else str(error)  # a run keeps its encoding
        raise InputError(f"{said} {advice}".rstrip()) from error


def _check_same(run: Path, what: str, found: Corpus | Validation, sha256: str, moved: str) -> None:
    if found.sha256 != sha256:
        words = f"has changed. {moved.removesuffix('.')}" if moved else "is another text"
        raise InputError(f"{str(run)!r} needs the {what} that it began with, but {found.source} {words}.")


def _pieces(name: str, copies: contextlib.ExitStack) -> Pieces:
    """The bytes of a file. What can be read only once, like a pipe, is copied."""
    if name == "-":
        if sys.stdin is None:
            raise InputError("FILE must name readable text, but standard input is closed.")
        return _copied(Pieces("standard input", 0, lambda: contextlib.nullcontext(sys.stdin.buffer)), copies)
    data = Pieces(f"file {name!r}", 0, lambda: open(name, "rb"))
    try:
        found = os.stat(name)
    except OSError:
        return data  # its error comes when its turn comes
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        data.size = found.st_size
        return data
    return _copied(data, copies)


def _copied(data: Pieces, copies: contextlib.ExitStack) -> Pieces:
    """A copy in memory or, of more than `IN_MEMORY` bytes, in a temporary file."""
    copy = copies.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))
    for piece in data:
        if copy.tell() + len(piece) > MOST_BYTES:
            raise InputError(
                f"FILE must have at most {MOST_BYTES:,} bytes, but {data.label} has more. Only a regular file may "
                "have more."
            )
        try:
            copy.write(piece)
        except OSError as error:
            raise InputError(
                f"FILE must fit into a temporary file if it is not a regular file, but {data.label} does not: "
                f"{error.strerror}."
            ) from error

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        copy.seek(0)
        yield copy

    return Pieces(data.label, copy.tell(), opened)


def _standard_library(vocab: str) -> Corpus:
    """The top-level modules of Python's standard library that are pure ASCII, in alphabetical order."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    try:
        texts = [data.decode() for data in map(Path.read_bytes, paths) if data.isascii()]
    except OSError as error:
        raise InputError(f"The sources of Python's standard library cannot be read, {error}: give a FILE.") from error
    if not texts:
        raise InputError("This Python has no sources of its standard library: give a FILE.")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return corpus_of_text("".join(texts), f"the standard library of Python {python}, {len(texts)} modules", vocab)
