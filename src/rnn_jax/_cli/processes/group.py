"""Joining the other processes that train the same network, and leaving them."""

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import jax

from ..._reporting.console import warn
from ..._reporting.errors import InputError, TrainingFailed
from ..._reporting.signals import signals
from ..outcome import outcome
from . import messages
from .alive import Alive, Failure
from .launcher import place_in_variables


class Group(NamedTuple):
    """The processes that train one network: how many, and the number of this one."""

    size: int = 1
    process: int = 0
    alive: Alive | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.process == 0

    @contextlib.contextmanager
    def exchanging(self) -> Iterator[None]:
        """Where the processes exchange arrays. If another one does not come in time, all end.

        Raises:
            TrainingFailed: if the exchange fails, because another process has died.
        """
        if self.alive is None:
            yield
            return
        with _connected(), self.alive.waiting():
            yield


ALONE = Group()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Raise a `TrainingFailed` if another process has gone."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if outcome(error) is not None:  # too little memory, for example
            raise
        reason = str(error).splitlines()[0][:200]
        raise TrainingFailed(f"the connection to another process broke, so the run ends: {reason}") from error


@contextlib.contextmanager
def joined(seconds: float) -> Iterator[Group]:
    """The group that a launcher has started, or one process alone if there is no launcher.

    Only the first process prints. A process that fails, has died or hangs ends all others, after `seconds` at most.

    Raises:
        InputError: if the others do not start within `seconds`.
    """
    _initialize(seconds)
    size, process = messages.size_and_index()
    if size == 1:
        yield ALONE
        return
    alive = Alive(size, process, seconds)
    try:
        with contextlib.nullcontext() if process == 0 else _unheard():
            yield Group(size, process, alive)
            with _connected(), signals():  # the signal that ended this run may come late to this process
                messages.wait_for_all("end")
    except BaseException as error:
        alive.fail(_failure(process, error))
    alive.end()
    jax.distributed.shutdown()


def _initialize(seconds: float) -> None:
    """Start `jax.distributed`, if a launcher is found."""
    place, late = place_in_variables(), threading.Timer(seconds, _late, [seconds])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **place,
            initialization_timeout=int(10 * seconds),  # we are faster, and say what is wrong; JAX would abort
            heartbeat_timeout_seconds=int(10 * seconds),
            shutdown_timeout_seconds=int(seconds),
        )
    except (ValueError, RuntimeError) as error:
        if place or not isinstance(error, ValueError):  # a ValueError: no launcher was found
            raise InputError(f"the processes cannot start together: {str(error).splitlines()[0]}") from error
    finally:
        late.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX's preemption service keeps it to itself


def _late(seconds: float) -> NoReturn:
    warn(
        f"all processes must start within {seconds:g} seconds (--wait-seconds) and reach the first one, but not all "
        "have. To train with one process, add --processes 1."
    )
    os._exit(2)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Print nothing on standard output."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _failure(index: int, error: BaseException) -> Failure:
    """What the other processes hear of an error."""
    found = outcome(error)
    if found is None:
        traceback.print_exception(error)
    return Failure(index, *(found or (1, f"an error that should not happen: {error!r}")))
