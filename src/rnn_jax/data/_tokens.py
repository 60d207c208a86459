"""A text as tokens, in pieces: its symbols first, then a number for each."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .._reporting.errors import InputError
from ._encodings import MARKS, decoded
from ._pieces import Pieces
from ._vocab import BYTES, spelled

CODES = 0x110000  # of Unicode


class Found(NamedTuple):
    """What a first pass through a text finds: its symbols, its length, the SHA-256 of the text in UTF-8.

    `symbols` are all those of the vocabulary `byte`, and those that occur of the vocabulary `character`; `num` counts
    bytes or characters.
    """

    symbols: str
    num: int
    sha256: str
    vocab: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type of a token."""
        return np.min_scalar_type(len(self.symbols) - 1)


class Plain:
    """The text of files in their order, in pieces: without byte order marks at their starts, each CRLF as LF.

    `left_out` counts both, as of the last iteration. `vocab` is the vocabulary of its tokens.
    """

    def __init__(self, files: list[Pieces], encoding: str, vocab: str) -> None:
        self.files, self.encoding, self.vocab = files, encoding, vocab
        self.left_out = {"byte_order_marks": 0, "carriage_returns": 0}

    def __iter__(self) -> Iterator[str]:
        """The pieces.

        Raises:
            InputError: for a file that is unreadable, empty or in another encoding.
        """
        self.left_out = dict.fromkeys(self.left_out, 0)
        for data in self.files:
            is_empty = True
            for text in self._of_one(data):
                is_empty = False
                yield text
            if is_empty:
                raise InputError(f"FILE must hold text, but {data.label} is empty.")

    def _of_one(self, data: Pieces) -> Iterator[str]:
        is_marked = data.head.startswith(MARKS.get(self.encoding, ()))  # Python leaves out some of these marks
        at_start, held = True, ""
        for text in decoded(data, self.encoding):
            if at_start and text:
                at_start = False
                is_marked = is_marked or text.startswith("\ufeff")
                text = text.removeprefix("\ufeff")
            text = held + text
            held = "\r" if text.endswith("\r") else ""  # the next piece may begin with the LF
            text = text.removesuffix("\r")
            if text:
                self.left_out["carriage_returns"] += text.count("\r\n")
                yield text.replace("\r\n", "\n")
        self.left_out["byte_order_marks"] += is_marked
        if held:
            yield held


def scan(texts: Iterable[str], vocab: str) -> Found:
    """The first pass through a text."""
    seen, num, digest = np.zeros(CODES, bool), 0, hashlib.sha256()
    for text in texts:
        codes = _codes(spelled(vocab, text))
        seen[codes] = True
        num += len(codes)
        digest.update(text.encode(errors="surrogatepass"))  # halves of pairs are refused at the end
    symbols = BYTES if vocab == "byte" else "".join(map(chr, np.flatnonzero(seen).tolist()))
    return Found(symbols, num, digest.hexdigest(), vocab)


def encoded(texts: Iterable[str], found: Found) -> Iterator[np.ndarray]:
    """The second pass: the tokens of a text, in pieces, each the index of a symbol in `found.symbols`."""
    table = np.zeros(CODES, found.dtype)
    table[_codes(found.symbols)] = np.arange(len(found.symbols))
    return (table[_codes(spelled(found.vocab, text))] for text in texts)


def in_memory(texts: Iterable[str], found: Found) -> np.ndarray:
    """The tokens of a text, in one array."""
    tokens, at = np.empty(found.num, found.dtype), 0
    for piece in encoded(texts, found):
        tokens[at : at + len(piece)] = piece[: found.num - at]  # a file that grows is refused at its end
        at += len(piece)
    return tokens


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
