"""Folders of files that can be made again: where they are, and how they stay small. Imports no jax."""

import contextlib
import errno
import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `rnn_jax/NAME` in $XDG_CACHE_HOME, which is ~/.cache by default. It need not exist.

    Raises:
        OSError: if the user has no home folder.
    """
    named, home = Path(os.environ.get("XDG_CACHE_HOME", "")), Path(os.path.expanduser("~"))
    if not named.is_absolute() and not home.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home folder")
    return (named if named.is_absolute() else home / ".cache") / "rnn_jax" / name


def remove_old(folder: Path, *, most_files: int, most_bytes: int, but: Path | None = None) -> None:
    """Remove the files that have not changed for longest, until the others are few and small enough; `but` stays."""
    entries = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process has removed it
            status = entry.stat()
            entries.append((entry != but, -status.st_mtime, status.st_size, entry))
    total = 0
    for number, (is_other, _, size, entry) in enumerate(sorted(entries)):
        total += size
        if is_other and (number >= most_files or total > most_bytes):
            with contextlib.suppress(OSError):
                entry.unlink()
