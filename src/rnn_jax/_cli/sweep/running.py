"""The cells of a sweep as processes of `rnn-jax train`: progress, failures, Ctrl-C."""

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from ..._reporting.console import say, shown
from ..._reporting.signals import signals
from ..comparison.tables import in_bits, in_seconds
from ..run_folder import DIAGNOSIS, METRICS
from ..settings.file import parsed
from ..settings.training import TrainConfig
from .folder import State, prepare, state_of
from .grid import Cell, dashed
from .results import result_of

POLL = 0.1  # seconds between two looks at the processes
LOOK = 1.0  # seconds between two looks at how far they are
WITH_RESUME = {"validation", "processes", "wait_seconds"}  # what a resumed run may be told again
TAIL = 2**16  # bytes at the end of a file that are read
ENDED = (
    -signal.SIGINT,
    -signal.SIGTERM,
    128 + signal.SIGINT,
    128 + signal.SIGTERM,
)  # statuses of a run that was stopped


class Swept(NamedTuple):
    """What came of the cells.

    Attributes:
        failed: why each cell has no end, by its folder.
        again: the folders of those failed cells that the same command tries again.
        received: the signals that ended the sweep.
    """

    failed: dict[Path, str]
    again: set[Path]
    received: list[int]


class _Running(NamedTuple):
    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    start: int  # where the words of this process begin in the log


def run_cells(cells: Sequence[Cell], texts: dict[str, str | None], jobs: int) -> Swept:
    """Train the cells that are not finished on the `texts` of the sweep, at most `jobs` at the same time.

    On the first Ctrl-C or SIGTERM, the running cells get the same signal once: they save and end. They are in sessions
    of their own, so that a terminal does not send it to them too. A second Ctrl-C interrupts them.

    Raises:
        InputError: if another process trains a cell, or a cell has other settings or texts.
    """
    states = {cell.folder: state_of(cell, texts) for cell in cells}
    swept = Swept({}, set(), [])
    with _progress(cells, states) as bar, signals() as received:
        for cell in cells:
            if states[cell.folder] in ("finished", "failed"):
                _end(cell, states[cell.folder], "", swept, kept=True)
        waiting = [cell for cell in cells if states[cell.folder] in ("new", "begun")]
        for cell in waiting:
            prepare(cell, texts)  # all before the first one begins: a cell may be in use
        running: list[_Running] = []
        try:
            while (waiting and not received) or running:
                while waiting and not received and len(running) < jobs:
                    running.append(_start(waiting.pop(0), texts))
                bar.show([one.cell for one in running])
                time.sleep(POLL)
                if received and not swept.received:
                    swept.received.extend(received)
                    for one in running:
                        one.process.send_signal(received[0])
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _end(one.cell, state_of(one.cell, texts), _why(one), swept)
        finally:
            _stop(running)
        swept.received.extend(received[len(swept.received) :])
    return swept


def _start(cell: Cell, texts: dict[str, str | None]) -> _Running:
    """Begin a run or continue it. What it prints goes to a file next to its folder."""
    state = prepare(cell, texts)
    log = cell.folder.with_name(f"log-{cell.folder.name}.txt")  # seed-* are the runs only
    with open(log, "ab") as file:
        before = file.tell()
        return _Running(cell, _process(words_of(cell.config, state), file), log, before)


def _process(words: Sequence[str], file: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rnn_jax", *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
    )


def _stop(running: Sequence[_Running]) -> None:
    """Interrupt what still runs, because the sweep itself fails or was interrupted twice."""
    for one in running:
        one.process.send_signal(signal.SIGINT)
    for one in running:
        one.process.wait()


def words_of(config: TrainConfig, state: State) -> list[str]:
    """The arguments of `rnn-jax` that begin this run or continue it."""
    words = [] if state == "new" else [f"--resume={config.run}"]
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        is_said = state == "new" or field.name in WITH_RESUME
        if is_said and field.name != "files" and value != field.default:
            words.append(f"--{dashed(field.name)}" if value is True else f"--{dashed(field.name)}={value}")
    return ["train", *config.files, *words]


def _end(cell: Cell, state: State, why: str, swept: Swept, *, kept: bool = False) -> None:
    """Say what came of a cell, and keep why it has no end."""
    with tqdm.external_write_mode():
        if state == "finished":
            found = result_of(cell)
            words = f"best {in_bits(found.best)}, last {in_bits(found.last)} bits per {cell.config.vocab}"
            say(f"{cell.name}: {words}, {in_seconds(found.seconds)} s{' (kept)' if kept else ''}")
            return
        if swept.received and state != "failed":
            say(f"{cell.name}: stopped")
            return
        if state == "failed":
            why = (cell.folder / DIAGNOSIS).read_text(encoding="utf-8").partition("\n")[0]
        else:
            swept.again.add(cell.folder)
        swept.failed[cell.folder] = why
        say(f"{cell.name}: failed{' (kept)' if kept else ''}: {why}")


def _why(one: _Running) -> str:
    """Why a process ended, in its own words: its last error, or its last line."""
    with open(one.log, "rb") as file:
        file.seek(max(one.start, one.log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    status = one.process.returncode
    if status in ENDED:
        return "it was stopped by a signal"
    if status < 0:
        return f"it was killed by signal {-status}"
    said = [line.removeprefix("rnn-jax: ") for line in lines if line.startswith("rnn-jax: ")]
    return shown(said[-1] if said else next((line for line in reversed(lines) if line.strip()), f"status {status}"))


class _Bar:
    """A bar over the steps of all cells; without a terminal there is none."""

    def __init__(self, bar: tqdm, done: dict[Path, int]) -> None:
        self._bar, self._done, self._looked = bar, done, 0.0

    def show(self, cells: Sequence[Cell]) -> None:
        """Show which cells run, and how far all are."""
        if self._bar.disable or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self._done |= {cell.folder: steps_done(cell.folder) for cell in cells}
        self._bar.set_description(shown("; ".join(cell.name for cell in cells)), refresh=False)
        self._bar.n = sum(self._done.values())
        self._bar.refresh()


@contextlib.contextmanager
def _progress(cells: Sequence[Cell], states: dict[Path, State]) -> Iterator[_Bar]:
    done = {
        cell.folder: cell.config.steps if states[cell.folder] in ("finished", "failed") else steps_done(cell.folder)
        for cell in cells
    }
    with tqdm(
        total=sum(cell.config.steps for cell in cells),
        initial=sum(done.values()),  # the time left is estimated from the others
        bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed}, {remaining} left",
        disable=None,  # no bar if the output is a file or a pipe
    ) as bar:
        yield _Bar(bar, done)


def steps_done(folder: Path) -> int:
    """The step of the last line of a run's metrics; 0 if there is none."""
    try:
        with open(folder / METRICS, "rb") as file:
            file.seek(max(0, (folder / METRICS).stat().st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]
        return int(parsed(lines[-1].decode())["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0
