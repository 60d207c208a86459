"""Writes that leave the old file or the new one, and names that a file can have."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a whole file or, if we are stopped, nothing of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, as names of files have in Python for bytes that are not UTF-8."""
    return not any("\ud800" <= symbol <= "\udfff" for symbol in text)
