"""What the command prints."""

import contextlib
import gc
import logging
import os
import re
import shlex
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import OutputFailed

# Control characters except line breaks and tabs; line separators; marks that change the direction of the text.
DRIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

unended = threading.Event()  # whether orbax has left coroutines, which print warnings when they are collected


def be_printable() -> None:
    """Keep the program running if a character cannot be printed or a standard stream is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened would get its number and its output
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the logs of libraries, errors while they clean up, and warnings unless Python was asked for them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the compiled part of JAX reads it at import
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        if unended.is_set():
            gc.collect()
            unended.clear()
        logging.disable(disabled)
        sys.unraisablehook = hook


def shown(words: str) -> str:
    """`words` with everything that controls a terminal, like escape sequences, escaped."""
    return DRIVING.sub(lambda found: ascii(found[0])[1:-1], words)


def pasted(path: Path) -> str:
    """A path as one word of a shell command, whatever characters it has."""
    word = str(path)
    word = f"./{word}" if word.startswith("-") else word
    if shown(word) == word and "\n" not in word and "\t" not in word:
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + re.sub(r"[\n\t]", lambda found: ascii(found[0])[1:-1], shown(plain)) + "'"


def say(words: str, *, raw: bool = False) -> None:
    """Print at once: on a terminal escaped by `shown`, unless `raw`; to a file or a pipe unchanged.

    If the reader has gone (`| head`), go on without printing.

    Raises:
        OutputFailed: if it cannot be written, for example on a full disk.
    """
    try:
        print(words if raw or not sys.stdout.isatty() else shown(words), flush=True)
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        raise OutputFailed(f"standard output cannot be written: {error.strerror}.") from error


def warn(words: str) -> None:
    """Print a warning on standard error, and go on even if it cannot be printed."""
    try:
        print(f"rnn-jax: {shown(words)}", file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Discard what is in the buffer of a stream, and what is printed to it later."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
