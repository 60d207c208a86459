"""The parent's side of the contenders' processes: start, ask, stop. Only one of them is at work at a time."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .problems import Shape

HERE = Path(__file__).parents[1]
PATIENCE_S = 600.0  # for one answer


class Worker(NamedTuple):
    """A contender's process, and the file its messages go to."""

    name: str
    process: subprocess.Popen
    log: Path


class WorkerDied(RuntimeError):
    """A process ended, or did not answer in time; the message says how."""


class Absent(RuntimeError):
    """A contender that cannot race here; the message says why."""


def environment(device: str) -> dict[str, str]:
    """One device, on a GPU every float32 product in full float32, and no compilation from a cache."""
    ours = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "JAX_PLATFORMS": device,
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JAX_TRACEBACK_FILTERING": "off",  # its last line is then what went wrong
    }
    if device == "cuda":
        ours["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    return os.environ | ours


@contextlib.contextmanager
def pool() -> Iterator[list[Worker]]:
    """A list to put workers in; all of them are gone when the block is left, however it is left."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            stop(worker)


def start(name: str, shape: Shape, what: str, device: str, folder: Path) -> Worker:
    """A new process for a contender, in a session of its own, so that Ctrl-C reaches the parent alone."""
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    spec = json.dumps({"contender": name, "shape": shape, "what": what, "device": device})
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "race.worker", spec],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            env=environment(device),
            bufsize=0,
            start_new_session=True,
        )
    return Worker(name, process, log)


def ask(worker: Worker, limit: float = PATIENCE_S, **order) -> dict:
    """Send an order and wait for the answer.

    Raises:
        WorkerDied: if the process ends or does not answer in time.
        Absent: if it answers that it cannot take part.
    """
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(order).encode() + b"\n")
    return hear(worker, limit)


def hear(worker: Worker, limit: float = PATIENCE_S) -> dict:
    """The next answer; raises as `ask` does."""
    line, deadline = b"", time.monotonic() + limit
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([worker.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            stop(worker)
            raise WorkerDied(f"no answer in {limit:.0f} s")
        piece = os.read(worker.process.stdout.fileno(), 65536)
        if not piece:
            code = worker.process.wait()
            raise WorkerDied(f"its process ended with {code}: {last_line(worker.log)}")
        line += piece
    answer = json.loads(line)
    if "out" in answer:
        raise Absent(answer["out"])
    return answer


def last_line(log: Path) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def stop(worker: Worker) -> None:
    """End the process, and wait until it has ended."""
    worker.process.kill()
    worker.process.wait()
    for pipe in (worker.process.stdin, worker.process.stdout):
        pipe.close()
