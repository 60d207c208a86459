"""Writes that leave the old file or the new one, and names that a file can have."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write(path: Path, text: str) -> None:
    """Write the whole file, or nothing if we are stopped."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which becomes `path` when it is whole; if that fails, `path` stays as it was."""
    draft = path.with_name(path.name + ".new")
    try:
        with open(draft, "wb") as file:
            yield file
        os.replace(draft, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError) and error.filename == str(draft):
            error.filename = str(path)  # the name that the user knows
        raise


def is_unicode(text: str) -> bool:
    """Whether a text is free of halves of surrogate pairs, which Python puts into file names that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
