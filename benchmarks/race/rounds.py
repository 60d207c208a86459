"""One race: the contenders of a shape take turns, in a new order every round, and every one of them is right."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .contenders import find, obstacle
from .machine import rate
from .pool import Absent, Worker, WorkerDied, ask, hear, pool, start, stop
from .problems import SEED, Shape, flops, traffic

PAUSE_S = 0.05  # between turns: the threads of the last one wait a while in a loop before they sleep
LEAST_ROUNDS, ROUNDS_S = 5, 15.0  # no further round after so many, once they have taken this long
WRONG = 1e-3  # a float32 contender further than this from the truth is refused
Say = Callable[[str], None]


class Heat(NamedTuple):
    """A race to run: its series ("race", or the sweep it is a point of), and who takes part."""

    series: str
    shape: Shape
    what: str
    device: str
    names: tuple[str, ...]
    rounds: int

    @property
    def title(self) -> str:
        """What, where, on which shape."""
        return f"{self.what} of {self.shape.name} on {self.device}"


def truth(heat: Heat, folder: Path) -> Path:
    """The file of the float64 result, computed once a shape, on the CPU."""
    path = folder / f"{heat.shape.name}-{heat.what}.npz"
    if not path.exists():
        with pool() as workers:
            workers.append(start("truth", heat.shape, heat.what, "cpu", folder))
            hear(workers[0])
            ask(workers[0], do="prepare", save=str(path))
    return path


def run(heat: Heat, folder: Path, say: Say) -> tuple[list[dict], list[dict]]:
    """The rows of a race, one a contender, and who is not in it and why."""
    rows: dict[str, dict] = {}
    missing: list[dict] = []

    def drop(name: str, why: str) -> None:
        rows.pop(name, None)
        missing.append({"series": heat.series, "shape": heat.shape, "what": heat.what, "device": heat.device})
        missing[-1] |= {"contender": name, "why": why}
        say(f"{name} is not in the {heat.title}: {why}.")

    with pool() as workers:
        for name in heat.names:
            if why := obstacle(name, heat.shape, heat.what, heat.device):
                drop(name, why)
        out = {entry["contender"] for entry in missing}
        names = [name for name in heat.names if name not in out]
        workers += [start(name, heat.shape, heat.what, heat.device, folder) for name in names]
        right = truth(heat, folder) if names else None
        there = [worker for worker in workers if _try(lambda w: hear(w), worker, drop)]
        for worker in there:  # all have been imported: from here on one process works at a time
            if about := _try(lambda w: ask(w, do="prepare", truth=str(right)), worker, drop):
                leaf, error = max(about["errors"].items(), key=lambda entry: entry[1])
                if not error <= WRONG:
                    drop(worker.name, f"its {leaf} is wrong by {error:.1e} of the truth, above {WRONG:.0e}: refused")
                    stop(worker)
                    continue
                rows[worker.name] = _row(heat, worker.name, about, error)
        _rounds(heat, [worker for worker in there if worker.name in rows], rows, drop)
    return list(rows.values()), missing


def _row(heat: Heat, name: str, about: dict, error: float) -> dict:
    row = {"series": heat.series, "shape": heat.shape, "what": heat.what, "device": heat.device, "contender": name}
    row |= {"role": find(name).role, "flops": flops(heat.shape, heat.what), "bytes": traffic(heat.shape, heat.what)}
    kept = ("compile_s", "temp_bytes", "calls")
    return row | {key: about[key] for key in kept} | {"error": error, "seconds": []}


def _rounds(heat: Heat, workers: list[Worker], rows: dict[str, dict], drop: Callable[[str, str], None]) -> None:
    order = random.Random(f"{SEED} {heat.shape.name}")
    start = time.monotonic()
    for done in range(heat.rounds):
        if done >= LEAST_ROUNDS and time.monotonic() - start > ROUNDS_S:
            return
        order.shuffle(workers)
        for worker in workers:
            time.sleep(PAUSE_S)
            if worker.name in rows and (turn := _try(lambda w: ask(w, do="time"), worker, drop)):
                rows[worker.name]["seconds"].append(float(f"{turn['seconds']:.5g}"))


def _try(order: Callable[[Worker], dict], worker: Worker, drop: Callable[[str, str], None]) -> dict | None:
    try:
        return order(worker)
    except (WorkerDied, Absent) as e:
        drop(worker.name, str(e))
        return None


def measure_machine(device: str, folder: Path, turns: int = 5) -> dict:
    """The rates of large products and copies on a device, a list a rate. `Absent` where there is none."""
    rates: dict = {}
    with pool() as workers:
        for name in ("product", "copy"):
            worker = start(name, Shape(1, 1, 1, 1, 1), "gradient", device, folder)
            workers.append(worker)
            rates["kind"] = hear(worker)["device_kind"]
            ask(worker, do="prepare")
            rates[name] = [rate(name, device, ask(worker, do="time")["seconds"]) for _ in range(turns)]
            stop(worker)
    return rates
