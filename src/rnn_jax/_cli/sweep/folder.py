"""What a sweep has on disk: its settings, and how far each cell is. Imports no jax."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ..._reporting.errors import InputError
from ..._reporting.files import write
from ..._reporting.lock import LOCK, locked
from ...data._corpus import Corpus
from ..comparison.runs import APART, filled
from ..metrics import no_longer_improves, read_metrics
from ..run_folder import CHECKPOINT, DIAGNOSIS, OWNED, SETTINGS, read_settings
from ..settings.file import of_the_run, read_json
from ..settings.training import TrainConfig
from .grid import Cell, dashed

SWEEP, FORMAT = "sweep.json", 1
State = Literal["new", "begun", "finished", "failed"]


def record_of(cells: Sequence[Cell], corpus: Corpus) -> dict[str, Any]:
    """What all commands that go on with this sweep must have in common: the texts, the options, all other settings."""
    over = list(cells[0].setting)
    apart = {*over, *APART, "seed"}
    common = {name: value for name, value in of_the_run(cells[0].config).items() if name not in apart}
    return {"format": FORMAT, "texts": texts_of(corpus), "over": over, "settings": common}


def texts_of(corpus: Corpus) -> dict[str, str | None]:
    """The SHA-256 of the text and of the validation file of a sweep, by their names in the settings of its runs."""
    validation = corpus.validation
    return {"text_sha256": corpus.sha256, "validation_sha256": None if validation is None else validation.sha256}


def check_folder(folder: Path, record: dict[str, Any]) -> None:
    """Raise an `InputError` if the folder cannot be that of a sweep with this record, since it holds something else."""
    name = repr(str(folder))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run must name a folder, but {name} is a file.")
    path = folder / SWEEP
    if not path.exists():
        if folder.is_dir() and {one.name for one in folder.iterdir()} - {LOCK, f"{SWEEP}.new"}:
            raise InputError(f"--run must name a new folder or that of a sweep, but {name} holds other files.")
        return
    try:
        stored = read_json(path)
        if not isinstance(stored, dict) or stored.get("format") != FORMAT or not isinstance(stored["settings"], dict):
            raise ValueError("it is not a sweep of this version")
        texts, over, settings = stored["texts"], stored["over"], stored["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--run must hold a sweep that can be read, but {str(path)!r} is none: {error}.") from error
    if texts != record["texts"]:
        raise InputError(
            f"--run must name a sweep of the same text and validation file, but {name} was made with others: take a "
            "new folder."
        )
    if over != record["over"]:
        were, are = (", ".join(map(dashed, names)) or "seeds alone" for names in (over, record["over"]))
        raise InputError(f"--run must name a sweep over {are}, but {name} is one over {were}: take a new folder.")
    for option, value in record["settings"].items():
        if (before := settings.get(option, value)) != value:
            raise InputError(
                f"--run must name a sweep with the same settings, but {name} was made with {dashed(option)} {before}, "
                f"not {value}: take a new folder, or leave the option as it was."
            )


@contextlib.contextmanager
def sweep_folder(folder: Path, record: dict[str, Any]) -> Iterator[None]:
    """The folder of a sweep, locked; it is made, and gets its settings, if it is new.

    Raises:
        InputError: if it holds something else, cannot be written, or another process holds its lock.
    """
    check_folder(folder, record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--run must name a folder that can be made, but {str(folder)!r} cannot: {error.strerror}."
        ) from error
    with locked(folder):
        check_folder(folder, record)
        if not (folder / SWEEP).exists():
            write(folder / SWEEP, json.dumps(record, indent=1) + "\n")
        yield


def state_of(cell: Cell, texts: dict[str, str | None]) -> State:
    """How far a cell is. It has failed if its numbers were not finite: it would end in the same way again.

    Args:
        cell: the cell.
        texts: the texts of the sweep, by `texts_of`.

    Raises:
        InputError: if its folder holds a run with other settings or texts, or one that cannot be read.
    """
    folder = cell.folder
    if not (folder / SETTINGS).exists():
        return "new"
    stored, facts = read_settings(folder)
    if any(facts.get(name) != sha256 for name, sha256 in texts.items()):
        raise InputError(
            f"the runs of a sweep must have its text and validation file, but {str(folder)!r} has others: move it to "
            "another place."
        )
    ours, theirs = filled(cell.config), filled(stored)
    for name in (name for name in ours if ours[name] != theirs[name]):
        raise InputError(
            f"the runs of a sweep must have its settings, but {str(folder)!r} has {dashed(name)} {theirs[name]}, not "
            f"{ours[name]}: move it to another place."
        )
    if _has_ended(folder, cell.config):
        return "finished"
    return "failed" if (folder / DIAGNOSIS).exists() else "begun"


def _has_ended(folder: Path, config: TrainConfig) -> bool:
    """Whether the run has the checkpoint and the validation with which it ends."""
    records = read_metrics(folder, config.steps)
    validated = [record["step"] for record in records if record.get("validation_bits") is not None]
    last = max(validated, default=0)
    saved = (folder / CHECKPOINT / str(last)).is_dir()
    return saved and (last == config.steps or no_longer_improves(records, config))


def prepare(cell: Cell, texts: dict[str, str | None]) -> State:
    """Make the folder of a cell that is not finished ready for `rnn-jax train`, and say how far the cell is.

    What a run left before it had settings is removed.

    Raises:
        InputError: if another process trains the cell, or its folder cannot be written.
    """
    try:
        cell.folder.mkdir(parents=True, exist_ok=True)
        with locked(cell.folder):
            if (state := state_of(cell, texts)) == "new":
                for path in cell.folder.iterdir():
                    if path.name.removesuffix(".new") in OWNED - {LOCK}:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise InputError(
            f"--run must name a folder that can be written, but {str(cell.folder)!r} cannot: {error}."
        ) from error
    return state
