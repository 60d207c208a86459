"""A race is measured: the contenders of a shape take turns, in a new order every round, and each of them is right.

Each contender has a process of its own (`worker`), and one process is at work at a time. This one imports no JAX.
"""

import contextlib
import functools
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from .contenders import find, obstacle
from .problems import SEED, Shape, flops, traffic
from .worker import WORK, Result, work

PAUSE_S = 0.05  # between turns: the threads of the last one wait a while in a loop before they sleep
LEAST_ROUNDS, ROUNDS_S = 5, 15.0  # no further round after so many, once they have taken this long
PATIENCE_S = 600.0  # for one answer
WRONG = 1e-3  # a float32 contender further than this from the truth is refused
SPAWN = multiprocessing.get_context("spawn")


class Worker(NamedTuple):
    """A contender's process, the pipe to it, and the file that it prints to."""

    name: str
    process: Any
    pipe: Connection
    log: Any


class WorkerDied(RuntimeError):
    """A process ended, or did not answer in time; the message says how."""


class Absent(RuntimeError):
    """A contender that cannot race here; the message says why."""


@contextlib.contextmanager
def pool() -> Iterator[list[Worker]]:
    """A list to put workers in; all of them are gone when the block is left, however it is left."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            stop(worker)


def start(name: str, cell: str, shape: Shape, what: str, device: str) -> Worker:
    """A new process for a contender."""
    log = tempfile.NamedTemporaryFile(prefix=f"race-{name}-")
    pipe, its = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(its, log.name, name, cell, shape, what, device), daemon=True)
    process.start()
    its.close()
    return Worker(name, process, pipe, log)


def stop(worker: Worker) -> None:
    """End the process, and wait until it has ended."""
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()
    worker.log.close()


def ask(worker: Worker, do: str, truth: Result | None = None) -> dict[str, Any]:
    """Send an order and wait for the answer; raises as `hear` does."""
    with contextlib.suppress(BrokenPipeError):
        worker.pipe.send((do, truth))
    return hear(worker)


def hear(worker: Worker, limit: float = PATIENCE_S) -> dict[str, Any]:
    """The next answer.

    Raises:
        WorkerDied: if the process ends or does not answer in time.
        Absent: if it answers that it cannot take part.
    """
    if not worker.pipe.poll(limit):
        stop(worker)
        raise WorkerDied(f"no answer in {limit:.0f} s")
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        lines = [line.strip() for line in Path(worker.log.name).read_text(errors="replace").splitlines()]
        said = next(filter(None, reversed(lines)), "it said nothing")[:200]
        raise WorkerDied(f"its process ended with {worker.process.exitcode}: {said}") from None
    if "out" in answer:
        raise Absent(answer["out"])
    return answer


@functools.cache
def truth(cell: str, shape: Shape, what: str) -> Result:
    """The float64 result, computed once per cell and shape, on the CPU."""
    with pool() as workers:
        workers.append(start("truth", cell, shape, what, "cpu"))
        hear(workers[0])
        return ask(workers[0], "result")


class Heat(NamedTuple):
    """A race to run: its series ("race", or the sweep it is a point of), and who takes part."""

    series: str
    cell: str
    shape: Shape
    what: str
    device: str
    names: tuple[str, ...]
    rounds: int

    @property
    def title(self) -> str:
        """What, of which cell, on which shape, where."""
        return f"{self.what} of {self.cell} {self.shape.name} on {self.device}"


def run(heat: Heat, say: Callable[[str], None]) -> tuple[list[dict], list[dict]]:
    """The rows of a race, one a contender, and who is not in it and why."""
    problem = heat.cell, heat.shape, heat.what
    of_heat = {"series": heat.series, "cell": heat.cell, "shape": heat.shape, "what": heat.what, "device": heat.device}
    rows: dict[str, dict] = {}
    missing: dict[str, dict] = {}

    def drop(name: str, why: str) -> None:
        rows.pop(name, None)
        missing[name] = of_heat | {"contender": name, "why": why}
        say(f"{name} is not in the {heat.title}: {why}.")

    def attempt(worker: Worker, order: Callable[..., dict], *args: Any) -> dict | None:
        try:
            return order(worker, *args)
        except (WorkerDied, Absent) as e:
            return drop(worker.name, str(e))

    with pool() as workers:
        for name in heat.names:
            if why := obstacle(name, *problem, heat.device):
                drop(name, why)
        names = [name for name in heat.names if name not in missing]
        workers += [start(name, *problem, heat.device) for name in names]
        right = truth(*problem) if names else {}
        there = [worker for worker in workers if attempt(worker, hear)]
        for worker in there:  # all have been imported: from here on one process works at a time
            if about := attempt(worker, ask, "prepare", right):
                leaf, error = max(about["errors"].items(), key=lambda entry: entry[1])
                if error <= WRONG:
                    rows[worker.name] = of_heat | _row(heat, worker.name, about, error)
                    continue
                drop(worker.name, f"its {leaf} is wrong by {error:.1e} of the truth, above {WRONG:.0e}: refused")
                stop(worker)
        racing = [worker for worker in there if worker.name in rows]
        order, begin = random.Random(f"{SEED} {heat.shape.name}"), time.monotonic()
        for done in range(heat.rounds):
            if done >= LEAST_ROUNDS and time.monotonic() - begin > ROUNDS_S:
                break
            order.shuffle(racing)
            for worker in racing:
                time.sleep(PAUSE_S)
                if worker.name in rows and (turn := attempt(worker, ask, "time")):
                    rows[worker.name]["seconds"].append(float(f"{turn['seconds']:.5g}"))
    return list(rows.values()), list(missing.values())


def _row(heat: Heat, name: str, about: dict, error: float) -> dict:
    problem = heat.cell, heat.shape, heat.what
    amount = {"flops": flops(*problem), "bytes": traffic(*problem)}
    kept = {key: about[key] for key in ("compile_s", "temp_bytes", "calls")}
    return {"contender": name, "role": find(name).role} | amount | kept | {"error": error, "seconds": []}


def measure_machine(device: str, turns: int = 5) -> dict[str, Any]:
    """Flop/s of large products and bytes/s of copies on a device, a list each. `Absent` where there is none."""
    rates: dict[str, Any] = {}
    with pool() as workers:
        for name, amount in WORK.items():
            workers.append(worker := start(name, "vanilla", Shape(1, 1, 1, 1, 1), "gradient", device))
            rates["kind"] = hear(worker)["device_kind"]
            ask(worker, "prepare")
            rates[name] = [amount[device] / ask(worker, "time")["seconds"] for _ in range(turns)]
            stop(worker)
    return rates
