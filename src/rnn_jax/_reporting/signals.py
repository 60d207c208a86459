"""Ctrl-C and SIGTERM, for commands that end by themselves. Imports no jax."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that receives the first Ctrl-C or SIGTERM of this process; a second one interrupts at once.

    What others write into the list does not count: the signal that another process has told may still come here.
    """
    received: list[int] = []
    is_second = False

    def receive(number: int, frame: Any) -> None:
        nonlocal is_second
        if is_second:
            raise KeyboardInterrupt
        is_second = True
        received.append(number)

    with handled(receive):
        yield received


@contextlib.contextmanager
def handled(receive: Callable[[int, Any], None]) -> Iterator[None]:
    """Call `receive(number, frame)` at each Ctrl-C and SIGTERM."""
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
