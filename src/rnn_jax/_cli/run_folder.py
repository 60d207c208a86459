"""The files of a run, except its checkpoints. Imports no jax, so that bad input is refused at once."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._reporting.errors import InputError
from .._reporting.files import write
from .._reporting.lock import LOCK, locked
from ..data._corpus import Corpus
from .settings.file import FORMAT, NOT_STORED, checked, read_json
from .settings.training import TrainConfig

SETTINGS, METRICS, PICTURE, SAMPLE, CHECKPOINT = (
    *("settings.json", "metrics.jsonl", "learning-curve.png", "sample.txt"),
    "checkpoint",
)
WATCHED, TRUNCATION, ANATOMY, DIAGNOSIS = "watch.png", "truncation.png", "anatomy.html", "diagnosis.txt"
BOARD = "tensorboard"
OWNED = {LOCK, SETTINGS, METRICS, PICTURE, SAMPLE, CHECKPOINT, WATCHED, TRUNCATION, ANATOMY, DIAGNOSIS, BOARD}


def check_free(config: TrainConfig) -> None:
    """Raise an `InputError` if a run cannot begin in its folder. It replaces nothing without --overwrite."""
    if config.run is None:
        return
    folder, name = config.run.resolve(), repr(str(config.run))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run must name a folder, but {name} is a file.")
    if _aside(folder).exists():
        raise InputError(
            f"--run must name a folder that is not being replaced, but {str(_aside(folder))!r} holds "
            f"the former contents of {name}: move it back or remove it."
        )
    if folder.is_dir() and _contents(folder):
        if not _is_run(folder):
            raise InputError(
                f"--run must name a new or empty folder, but {name} holds other files than a run's: take another name."
            )
        if not config.overwrite:
            raise InputError(
                f"--run must name a new folder, but {name} holds a run: take another name, replace it with --overwrite "
                f"or continue it with --resume."
            )
        if Path.cwd().is_relative_to(folder):
            raise InputError(f"--run must not name the working folder when --overwrite is given, got {name}.")
    parent = next(parent for parent in folder.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--run must name a folder that can be made, but {str(parent)!r} cannot be written to.")


def _contents(folder: Path) -> set[str]:
    """The names of the files in a folder, without the lock: a run that was killed before it began leaves one."""
    return {path.name for path in folder.iterdir()} - {LOCK}


def _is_run(folder: Path) -> bool:
    """Whether the folder holds a run of ours and nothing else."""
    if {path.name.removesuffix(".new") for path in folder.iterdir()} - OWNED:
        return False
    try:
        found = read_json(folder / SETTINGS)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "format" in found


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".replaced")


@contextlib.contextmanager
def new_folder(config: TrainConfig) -> Iterator[Path]:
    """The folder of a new run, locked. A run that it replaces is moved aside, and moved back if no checkpoint is made.

    Raises:
        InputError: if the folder cannot be made, or another process trains in it.
    """
    check_free(config)
    with contextlib.ExitStack() as locks:
        try:
            folder = config.run or _first_free()
            where, aside = folder.resolve(), _aside(folder.resolve())
            if where.exists() and _contents(where):
                locks.enter_context(locked(folder))
                where.rename(aside)
            where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            name = str(config.run or "runs")
            raise InputError(
                f"--run must name a folder that can be made, but {name!r} cannot: {error.strerror}."
            ) from error
        locks.enter_context(locked(folder))
        if _contents(where):
            raise InputError(
                f"--run must name a new folder, but another process has just made a run in {str(folder)!r}."
            )
        try:
            yield folder
        finally:
            if aside.exists():
                made = any((where / CHECKPOINT).glob("[0-9]*"))
                if not made:
                    shutil.rmtree(where)
                    aside.rename(where)
                else:
                    shutil.rmtree(aside)


def _first_free() -> Path:
    """The first of runs/char-1, runs/char-2, … that is free, made at once: two processes get two folders."""
    for number in itertools.count(1):
        folder = Path("runs") / f"char-{number}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("the numbers do not end")


def write_settings(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """Write `settings.json`: the settings, and the `facts` that are not settings."""
    settings = dataclasses.asdict(config)
    for name in NOT_STORED:
        del settings[name]
    settings["files"] = [name if name == "-" else str(Path(name).absolute()) for name in config.files]
    settings["validation"] = None if config.validation is None else str(Path(config.validation).absolute())
    write(folder / SETTINGS, json.dumps({"format": FORMAT, "settings": settings, **facts}, indent=1) + "\n")


def read_settings(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and facts of the run in `folder`, checked as if they had just been given.

    Raises:
        InputError: if there is no run, or its settings cannot be read.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"RUN must be a folder left by `rnn-jax train`, but {str(folder)!r} has no {SETTINGS}.")
    try:
        return checked(read_json(path))
    except (OSError, ValueError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).removesuffix(".")
        raise InputError(f"RUN must hold readable settings, but {str(path)!r} does not: {reason}.") from error


def resumed(config: TrainConfig, given: set[str]) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and facts of the run in `config.resume`, with what one command may change: steps and processes.

    Raises:
        InputError: if another option is given, or there is no run.
    """
    assert config.resume is not None
    for name in sorted(given - {"resume", "steps", "validation", "files", "processes", "wait_seconds"}):
        raise InputError(
            f"--resume must be given alone or with --steps, --processes, --validation and FILE, since the other "
            f"settings come from the run; got --{name.replace('_', '-')} too: leave it out."
        )
    stored, facts = read_settings(config.resume)
    steps = config.steps if "steps" in given else stored.steps
    of_command = {name: getattr(config, name) for name in ("resume", "processes", "wait_seconds")}
    return dataclasses.replace(stored, **of_command, steps=steps), facts


def with_text(
    config: TrainConfig, facts: dict[str, Any], files: tuple[str, ...], validation: str | None, corpus: Corpus
) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and facts of a run that goes on with `corpus`, read from what was given of `files`, `validation`.

    If standard input is among them, the run keeps its files, because it could not be read again.
    """
    if files and "-" not in files:
        config = dataclasses.replace(config, files=files)
        facts = facts | {"text": corpus.source, "left_out": corpus.left_out}
    if validation is not None and corpus.validation is not None:
        config = dataclasses.replace(config, validation=validation)
        facts = facts | {"validation_text": corpus.validation.source}
    return config, facts
