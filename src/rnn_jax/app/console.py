"""Words for the person who looks."""

import os
import sys


def be_printable() -> None:
    """Let no character that the terminal cannot show end the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(words: str) -> None:
    """Print at once; when nobody reads any more (`| head`), go on in silence."""
    try:
        print(words, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(words: str) -> None:
    """Say on standard error what a person should know, but what stops nothing."""
    print(f"rnn-jax: {words}", file=sys.stderr, flush=True)
