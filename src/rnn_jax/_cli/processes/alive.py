"""Whether all processes of a run are alive. A thread of each process says so again and again, and listens."""

import contextlib
import itertools
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from ..._reporting.console import warn
from . import messages
from .launcher import PARENT

LATER = 2.0  # seconds that the service has for an answer, and a silent process to be named before others end by waiting
ENDING = 4.0  # seconds that the first process waits until the others have told that they end
AFTER = 0.5  # seconds that it leaves them to end then
FAILED = "failed"  # the name of the first failure among the messages


class Failure(NamedTuple):
    """Which process has failed, the status of the command, and why."""

    process: int
    status: int
    words: str


class Alive:
    """Ends this process if another one has failed, or has not been heard of for `seconds`.

    The first process listens to all others, they listen to the first, and what it finds it tells them. `fail` does
    the same for an error of this process.
    """

    def __init__(self, size: int, index: int, seconds: float) -> None:
        """Start to speak and to listen."""
        self.size, self.index, self.seconds = size, index, seconds
        self.every = min(1.0, seconds / 10)
        self.answered = time.monotonic()  # when the service has last answered
        self.since: float | None = None  # when the main thread began to wait for the other processes
        self.ended = threading.Event()
        self.leaving = threading.Lock()
        messages.tell(f"host/{index}", platform.node())
        for work in (self._talk, self._guard):
            threading.Thread(target=work, daemon=True).start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where the main thread waits for those of the other processes, for `seconds` at most."""
        self.since = time.monotonic()
        try:
            yield
        finally:
            self.since = None

    def end(self) -> None:
        """Stop speaking and listening: the command has ended well."""
        self.ended.set()

    def fail(self, failure: Failure) -> NoReturn:
        """End all processes, because one has failed; the first of several failures counts."""
        told: list[Failure | None] = []

        def tell() -> None:
            with contextlib.suppress(Exception):  # another one was told before, or the service has gone
                messages.tell(FAILED, json.dumps(failure))
            with contextlib.suppress(Exception):
                told.append(self._told())

        with self.leaving:
            _in_time(tell, LATER)
            first = told[0] if told else None
            self._leave(first or failure, is_heard=first is not None)

    def _talk(self) -> None:
        """Speak and listen, at intervals. The service may not answer, so this thread does nothing else."""
        beats = dict[int, tuple[str | None, float]]()  # of each process: its last beat, and when it was new
        for count in itertools.count():
            if self.ended.wait(self.every):
                return
            self._end_with_parent()
            try:
                messages.tell(f"alive/{self.index}", str(count), again=True)
                told = self._told()
                now = self.answered = time.monotonic()
                if told is not None:
                    with self.leaving:
                        self._leave(told, is_heard=True)
                for process in range(1, self.size) if self.index == 0 else ():
                    beat = messages.heard(f"alive/{process}")
                    if process not in beats or beats[process][0] != beat:
                        beats[process] = beat, now
                silent = [process for process, (_, since) in beats.items() if now - since > self.seconds]
                where = messages.heard(f"host/{silent[0]}") if silent else ""
            except Exception:  # the service does not answer: `_guard` knows since when
                continue
            if silent:
                self.fail(Failure(silent[0], 1, f"on {where}, {self._silence()}"))

    def _guard(self) -> None:
        """End when the main thread waits too long, or the service, which is in the first process, does not answer."""
        while not self.ended.wait(self.every):
            now, since = time.monotonic(), self.since
            if now - self.answered > self.seconds:
                with self.leaving:
                    words = f"process {self.index} of {self.size} ends: process 0 {self._silence()}"
                    self._leave(Failure(self.index, 1, words), is_heard=False)
            if since is not None and now - since > self.seconds + LATER:  # who is silent is named before
                self.fail(Failure(self.index, 1, f"it has waited {self.seconds:g} seconds for another process"))

    def _silence(self) -> str:
        return f"has not been heard of for {self.seconds:g} seconds: it has died, hangs or was stopped"

    def _told(self) -> Failure | None:
        told = messages.heard(FAILED)
        return None if told is None else Failure(*json.loads(told))

    def _end_with_parent(self) -> None:
        """Save and end if the process that started this one, and passes signals on, has gone."""
        parent = os.environ.get(PARENT)
        if parent and parent != str(os.getppid()):
            del os.environ[PARENT]
            os.kill(os.getpid(), signal.SIGTERM)

    def _leave(self, failure: Failure, *, is_heard: bool) -> NoReturn:
        """End. The first process says why, for all; another one does if nobody is heard any more."""
        if self.index == 0 or not is_heard:
            of = f"process {failure.process} of {self.size}: " if failure.process and self.index == 0 else ""
            warn(of + failure.words)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self.index == 0 or is_heard:
            _in_time(self._end_after_the_others, ENDING)
        os._exit(failure.status)  # an ordinary end would wait for the others

    def _end_after_the_others(self) -> None:
        """Tell the first process that this one ends. The first ends last: without its service, JAX aborts all."""
        with contextlib.suppress(Exception):
            if self.index:
                messages.tell(f"ends/{self.index}", "")
            for process in range(1, self.size) if self.index == 0 else ():
                messages.wait_for(f"ends/{process}", ENDING)
            if self.index == 0:
                time.sleep(AFTER)  # they have told it, and end now


def _in_time(work: Callable[[], None], seconds: float) -> None:
    """Do something that asks the service, in `seconds` at most: the service of a process that hangs does not answer."""
    working = threading.Thread(target=work, daemon=True)
    working.start()
    working.join(seconds)
