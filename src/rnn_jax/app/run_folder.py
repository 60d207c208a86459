"""What a run leaves behind, but for its checkpoints. Imports no jax: bad input is answered at once."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .errors import InputError
from .limits import check_train_config
from .lock import LOCK, locked

SETTINGS, METRICS, PICTURE, SAMPLE, CHECKPOINT = (
    *("settings.json", "metrics.jsonl", "learning-curve.png", "sample.txt"),
    "checkpoint",
)
WATCHED, TRUNCATION, ANATOMY = "watch.png", "truncation.png", "anatomy.html"
OWNED = {LOCK, SETTINGS, METRICS, PICTURE, SAMPLE, CHECKPOINT, WATCHED, TRUNCATION, ANATOMY}
FORMAT = 1
MOST_BYTES = 2**24  # of settings: a million symbols are less
BASELINES = {"unigram", "bigram", "trigram"}
FACTS = {"text": str, "text_sha256": str, "symbols": str, "baselines": dict}


def check_free(config: TrainConfig) -> None:
    """Raise an `InputError` if a run cannot begin in the folder the settings name: nothing is replaced unasked."""
    if config.run is None:
        return
    folder, name = config.run.resolve(), repr(str(config.run))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run must name a folder, but {name} is a file.")
    if _aside(folder).exists():
        raise InputError(
            f"--run must name a folder whose replacement is not under way, but {str(_aside(folder))!r} holds "
            f"what {name} was before: move it back or remove it."
        )
    if folder.is_dir() and _contents(folder):
        if not _is_run(folder):
            raise InputError(f"--run must name a new or empty folder, but {name} holds other things than a run.")
        if not config.overwrite:
            raise InputError(
                f"--run must name a new folder, but {name} holds a run: take another name, or give --overwrite, "
                f"or go on with it by --resume."
            )
        if Path.cwd().is_relative_to(folder):
            raise InputError(f"--run must not name the folder you stand in when it is to be replaced, got {name}.")
    parent = next(parent for parent in folder.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--run must name a folder that can be made, but {str(parent)!r} is no folder to write in.")


def _contents(folder: Path) -> set[str]:
    """The names of what is in a folder, but for the lock, which a run leaves that was killed before it began."""
    return {path.name for path in folder.iterdir()} - {LOCK}


def _is_run(folder: Path) -> bool:
    """Whether the folder holds a run of ours and nothing else."""
    if {path.name.removesuffix(".new") for path in folder.iterdir()} - OWNED:
        return False
    try:
        return "format" in _read_json(folder / SETTINGS)
    except (OSError, ValueError, TypeError):
        return False


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".replaced")


@contextlib.contextmanager
def new_folder(config: TrainConfig) -> Iterator[Path]:
    """The folder of a new run, locked. A run that it replaces is put aside, and comes back unless a checkpoint is made.

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
    """The first of runs/char-1, runs/char-2, … that is not there, made; of two processes each gets one of its own."""
    for number in itertools.count(1):
        folder = Path("runs") / f"char-{number}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("the numbers do not end")


def write_settings(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """Write `settings.json`: the settings, and what they cannot tell, `facts`."""
    settings = dataclasses.asdict(config)
    for name in ("run", "overwrite", "resume"):
        del settings[name]
    settings["files"] = [name if name == "-" else str(Path(name).absolute()) for name in config.files]
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
        facts = _read_json(path)
        if facts.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        settings = facts.pop("settings")
        if not isinstance(settings["files"], list):
            raise ValueError(f"files is {settings['files']!r}")
        config = TrainConfig(**settings | {"files": tuple(settings["files"])})
        for name, hint in typing.get_type_hints(TrainConfig).items():
            if not _has_type(getattr(config, name), hint):
                raise ValueError(f"{name} is {getattr(config, name)!r}")
        for name, kind in FACTS.items():
            if not isinstance(facts[name], kind) or not facts[name]:
                raise ValueError(f"{name} is {facts[name]!r}")
        _check_facts(facts)
        _check_names(config.files)
        check_train_config(config)
    except KeyError as error:
        raise InputError(f"RUN must hold readable settings, but {str(path)!r} does not: no {error}.") from error
    except (OSError, ValueError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"RUN must hold readable settings, but {str(path)!r} does not: {error}") from error
    return config, facts


def _read_json(path: Path) -> Any:
    """What a file of settings holds.

    Raises:
        OSError, ValueError: if it cannot be read; however it is damaged, of these two.
    """
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise a `ValueError` for the first fact that `rnn-jax train` cannot have written."""
    symbols, baselines = facts["symbols"], facts["baselines"]
    for name in ("symbols", "text"):
        if not _is_unicode(facts[name]):
            raise ValueError(f"{name} holds half of a surrogate pair")
    if list(symbols) != sorted(set(symbols)):
        raise ValueError("symbols must be sorted and without repeats")
    if not re.fullmatch("[0-9a-f]{64}", facts["text_sha256"]):
        raise ValueError(f"text_sha256 is {facts['text_sha256']!r}")
    if set(baselines) != BASELINES or not all(_is_number(bits) and bits >= 0 for bits in baselines.values()):
        raise ValueError(f"baselines must be numbers for {', '.join(sorted(BASELINES))}, got {baselines!r}")


def _check_names(names: tuple[str, ...]) -> None:
    """Raise a `ValueError` for a name that no file can have."""
    for name in names:
        if not name or "\0" in name or not _is_unicode(name):
            raise ValueError(f"files holds {name!r}")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= symbol <= "\udfff" for symbol in text)


def _is_number(value: Any) -> bool:
    """Whether this is a finite number of JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_measured(value: Any) -> bool:
    """Whether this is a number, none that is known, or a list of such."""
    return all(map(_is_measured, value)) if isinstance(value, list) else value is None or _is_number(value)


def _is_record(record: Any, up_to: int) -> bool:
    """Whether this is a line that a run of `up_to` steps writes into its metrics."""
    if not isinstance(record, dict) or not {"step", "characters", "seconds"} <= record.keys():
        return False
    if not all(_is_number(value) for name, value in record.items() if name != "watch"):
        return False
    look = record.get("watch", {})
    watched = isinstance(look, dict) and all(map(_is_measured, look.values()))
    return watched and isinstance(record["step"], int) and 0 <= record["step"] <= up_to


def resumed(config: TrainConfig, given: set[str]) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and facts of the run in `config.resume`, with `config.steps` if that is among the options `given`.

    Raises:
        InputError: if another option is, or there is no run.
    """
    assert config.resume is not None
    for name in sorted(given - {"resume", "steps", "files"}):
        raise InputError(
            f"--resume must be given alone, with --steps or with FILE, since the other settings come from the run; "
            f"got --{name.replace('_', '-')} too."
        )
    stored, facts = read_settings(config.resume)
    steps = config.steps if "steps" in given else stored.steps
    return dataclasses.replace(stored, resume=config.resume, steps=steps), facts


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a setting has the type of its annotation."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_has_type(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(item, args[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def write(path: Path, text: str) -> None:
    """Write a whole file or, if we are stopped, nothing of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def read_metrics(folder: Path, up_to: int) -> list[dict[str, Any]]:
    """The metrics up to step `up_to`; a line that is none, cut short by a crash say, is left out."""
    records: list[dict[str, Any]] = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_record(record, up_to):
            records.append(record)
    return records


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write all metrics anew."""
    write(folder / METRICS, "".join(map(_line, records)))


def append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to the metrics."""
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
