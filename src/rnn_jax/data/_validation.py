"""A held-out text that is a file of its own, as tokens of the training text."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ._pieces import PIECE


class Validation(NamedTuple):
    """A text that is held out, except its symbols that the training text lacks: these are neither read nor predicted.

    `tokens` are indices of its own symbols; they may be mapped from a file. `table` has, for each of these symbols, its
    token in the training text, or -1.
    """

    source: str
    sha256: str
    left_out: dict[str, int]
    tokens: np.ndarray
    table: np.ndarray
    num_unknown: int

    @property
    def num_known(self) -> int:
        """How many symbols are held out."""
        return len(self.tokens) - self.num_unknown

    def first(self, most: int) -> np.ndarray:
        """The first `most` of the symbols that are held out, as tokens of the training text, in memory."""
        found, missing = [self.table[:0]], most
        for piece in _pieces(self.tokens):
            known = self.table[piece]
            found.append(known[known >= 0][:missing])
            missing -= len(found[-1])
            if not missing:
                break
        return np.concatenate(found)


def table_of(symbols: str, known: str) -> np.ndarray:
    """The index in `known` of each of `symbols`, or -1."""
    places = {symbol: place for place, symbol in enumerate(known)}
    return np.array([places.get(symbol, -1) for symbol in symbols], np.int32)


def count_unknown(tokens: np.ndarray, table: np.ndarray) -> int:
    """How many of the tokens the table does not know."""
    unknown = table < 0
    return sum(int(np.count_nonzero(unknown[piece])) for piece in _pieces(tokens)) if unknown.any() else 0


def _pieces(tokens: np.ndarray) -> Iterator[np.ndarray]:
    return (tokens[at : at + PIECE] for at in range(0, len(tokens), PIECE))
