"""One process at a time in a folder. Imports no jax."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

if sys.platform != "win32":  # on Windows, nothing is locked
    import fcntl

LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is trained in. The kernel releases it when the process ends, even by kill -9.

    Raises:
        InputError: if another process holds it, which the message names, or the lock cannot be made.
    """
    try:
        file = open(folder / LOCK, "a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(folder)!r} must be a folder to write in, but it is not: {error.strerror}.") from error
    with file:
        try:
            _lock(file.fileno())
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{str(folder)!r} must not be in training already, but {holder} trains it: wait until that ends, or "
                "end it."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(descriptor: int) -> None:
    """Take the lock; on a file system without locks, nothing is locked."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
