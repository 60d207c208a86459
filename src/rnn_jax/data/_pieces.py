"""The bytes of a file in pieces, so that it may be larger than memory."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import IO

from .._reporting.errors import InputError

PIECE = 2**20  # bytes
SAMPLE = 2**20  # the bytes at the start of a file that guesses look at


class Pieces:
    """The bytes of a file, in pieces. Each iteration reads them again, from the start.

    `sha256` is that of all bytes, once they have been read.
    """

    def __init__(
        self, label: str, size: int, opened: Callable[[], contextlib.AbstractContextManager[IO[bytes]]]
    ) -> None:
        """`label` is what messages call the file, `size` its number of bytes; `opened()` opens it at its start."""
        self.label, self.size, self.opened = label, size, opened
        self.sha256: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        """The pieces.

        Raises:
            InputError: if the file cannot be read, or is not as it was when it was last read.
        """
        digest = hashlib.sha256()
        try:
            with self.opened() as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
                    yield piece
        except OSError as error:
            raise InputError(f"FILE must name readable text, but {self.label} is not: {error.strerror}.") from error
        if self.sha256 not in (None, digest.hexdigest()):
            raise InputError(f"FILE must not change while it is read, but {self.label} has changed: try again.")
        self.sha256 = digest.hexdigest()

    @cached_property
    def head(self) -> bytes:
        """The first `SAMPLE` bytes."""
        head = bytearray()
        for piece in self:
            head += piece
            if len(head) >= SAMPLE:
                break
        return bytes(head[:SAMPLE])
