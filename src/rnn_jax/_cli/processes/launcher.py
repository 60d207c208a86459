"""Whether a launcher has started this process, and a launcher for trying it on one machine. Imports no jax."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from ..._reporting.console import warn
from ..._reporting.errors import InputError
from ..._reporting.signals import handled

ADDRESS, SIZE, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
LOCAL_DEVICES = "JAX_LOCAL_DEVICE_IDS"  # jax.distributed reads it; a CPU has all its devices all the same
PARENT = "RNN_JAX_PARENT"  # of the processes of `start`: who started them
OF_LAUNCHERS = ("SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST")  # jax.distributed knows them
OF_THE_OTHERS = {0, 1, -signal.SIGABRT}  # statuses of a process that ends because another one has: JAX may abort it
LAST_WORDS = 5.0  # seconds that the others have after one has failed


def may_be_launched() -> bool:
    """Whether a variable says that a launcher has started this process; `jax.distributed` then looks closer."""
    return any(name in os.environ for name in (ADDRESS, SIZE, INDEX, *OF_LAUNCHERS))


def place_in_variables() -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` in the variables; none if a launcher is to be asked.

    Raises:
        InputError: if some of the variables are missing, or are not numbers that fit each other.
    """
    if SIZE not in os.environ and INDEX not in os.environ:
        return {}
    if missing := [name for name in (ADDRESS, SIZE, INDEX) if not os.environ.get(name)]:
        raise InputError(f"{ADDRESS}, {SIZE} and {INDEX} must be set together, but {missing[0]} is missing.")
    try:
        size, index = int(os.environ[SIZE]), int(os.environ[INDEX])
    except ValueError:
        size = index = -1
    if not 0 <= index < size:
        raise InputError(
            f"{SIZE} must be a number above 0 and {INDEX} one below it, got {os.environ[SIZE]!r} and "
            f"{os.environ[INDEX]!r}."
        )
    host, _, port = os.environ[ADDRESS].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"{ADDRESS} must be like 10.0.0.1:1234, got {os.environ[ADDRESS]!r}.")
    return {"coordinator_address": os.environ[ADDRESS], "num_processes": size, "process_id": index}


def start(size: int, devices: int) -> int:
    """Start the command of this process `size` times, and wait for all; returns the first status that is not 0.

    Each process gets `devices` devices and its part of the cores. When one has failed, the others are ended. A
    signal is passed on to all.
    """
    variables = os.environ | {ADDRESS: f"127.0.0.1:{_free_port()}", SIZE: str(size), PARENT: str(os.getpid())}
    command, processes = [sys.executable, "-m", "rnn_jax", *sys.argv[1:]], list[subprocess.Popen[bytes]]()
    with _passed_on(processes):
        for index, part in enumerate(_parts_of_the_cores(size)):
            ids = ",".join(str(index * devices + number) for number in range(devices))
            with part:
                own = variables | {INDEX: str(index), LOCAL_DEVICES: ids}
                processes.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True))
        return _first_failure(processes)


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or one has failed; then end the others."""
    while not (failed := [index for index, one in enumerate(processes) if one.poll()]):
        if all(one.returncode == 0 for one in processes):
            return 0
        time.sleep(0.05)
    killed = [index for index in failed if processes[index].returncode not in OF_THE_OTHERS]
    first = (killed or failed)[0]
    status: int = processes[first].returncode
    if status < 0:
        warn(f"process {first} of {len(processes)} was ended by {signal.Signals(-status).name}, so the others end too.")
    deadline = time.monotonic() + LAST_WORDS
    while any(one.poll() is None for one in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for one in processes:
        one.kill()  # ended ones are left alone
        one.wait()
    return status if status > 0 else 1


@contextlib.contextmanager
def _passed_on(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to all processes. They are in sessions of their own, so a terminal reaches only us."""

    def receive(number: int, frame: Any) -> None:
        for one in processes:
            one.send_signal(number)

    with handled(receive):
        yield


def _parts_of_the_cores(size: int) -> Iterator[contextlib.AbstractContextManager[None]]:
    """For each process, a context in which it starts on its part of the cores; on all, where there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // size
    for index in range(size):
        yield _on_cores(cores, cores[index * each : (index + 1) * each] or cores)


@contextlib.contextmanager
def _on_cores(all_cores: list[int], part: list[int]) -> Iterator[None]:
    """What is started here runs on a part of the cores; on a system that does not tell them, on all."""
    if not all_cores:
        yield
        return
    os.sched_setaffinity(0, part)
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
