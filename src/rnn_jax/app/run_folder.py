"""What a run leaves behind: settings, metrics, checkpoints, picture, sample."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from .config import TrainConfig
from .errors import InputError

SETTINGS, METRICS, PICTURE, SAMPLE = "settings.json", "metrics.jsonl", "learning-curve.png", "sample.txt"
FORMAT = 1


def check_free(config: TrainConfig) -> None:
    """Raise an `InputError` if a run cannot begin in the folder the settings name: nothing is replaced unasked."""
    folder = config.run
    if folder is None or not folder.exists():
        return
    name = repr(str(folder))
    if not folder.is_dir():
        raise InputError(f"--run must name a folder, but {name} is a file.")
    if any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise InputError(f"--run must name a new or empty folder, but {name} holds other things than a run.")
    if any(folder.iterdir()) and not config.overwrite:
        raise InputError(
            f"--run must name a new folder, but {name} holds a run: take another name, or give --overwrite, "
            f"or go on with it by --resume."
        )


def create(config: TrainConfig, facts: dict[str, Any]) -> Path:
    """Make the folder of a new run and write its settings; `facts` are what the settings cannot tell."""
    check_free(config)
    folder = config.run or _first_free()
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        write_settings(folder, config, facts)
    except OSError as error:
        raise InputError(
            f"--run must name a folder that can be written, but {str(folder)!r} cannot: {error.strerror}."
        ) from error
    return folder


def _first_free() -> Path:
    number = 1
    while (folder := Path("runs") / f"char-{number}").exists():
        number += 1
    return folder


def write_settings(folder: Path, config: TrainConfig, facts: dict[str, Any]) -> None:
    """Write `settings.json`: the settings as given, then the facts."""
    settings = dataclasses.asdict(config)
    for name in ("run", "overwrite", "resume"):
        del settings[name]
    settings["files"] = [name if name == "-" else str(Path(name).absolute()) for name in config.files]
    write(folder / SETTINGS, json.dumps({"format": FORMAT, "settings": settings, **facts}, indent=1) + "\n")


def read_settings(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and facts of the run in `folder`.

    Raises:
        InputError: if there is no run, or its settings cannot be read.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"RUN must be a folder left by `rnn-jax train`, but {str(folder)!r} has no {SETTINGS}.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        settings = facts.pop("settings")
        settings["files"] = tuple(settings["files"])
        config = TrainConfig(**settings)
        if facts.pop("format") != FORMAT:
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"RUN must hold readable settings, but {str(path)!r} does not: {error}.") from error
    return config, facts


def write(path: Path, text: str) -> None:
    """Write a whole file or, if we are stopped, nothing of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def read_metrics(folder: Path, up_to: int) -> list[dict[str, Any]]:
    """The metrics up to step `up_to`; a line cut short by a crash ends them."""
    records = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["step"] <= up_to:
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


def checkpoints(folder: Path) -> ocp.CheckpointManager:
    """The checkpoints of a run, the last two kept. Orbax renames a finished one into place."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    path = (folder / "checkpoint").absolute()
    return ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler(), options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Save `state` as step `step`, every array under its name in the tree."""
    manager.save(step, args=ocp.args.StandardSave(_named_leaves(state)))


def restore(folder: Path, manager: ocp.CheckpointManager, template: Any) -> Any:
    """The newest saved state, in the tree of `template`, whose shapes and dtypes it must have.

    Raises:
        InputError: if there is none, or it is of another model.
    """
    step, name = manager.latest_step(), repr(str(folder))
    if step is None:
        raise InputError(f"RUN must hold a checkpoint, but {name} has none yet: train it anew.")
    wanted = _named_leaves(template)
    try:
        saved = manager.item_metadata(step)
        found = {leaf: (array.shape, array.dtype) for leaf, array in saved.items()}
    except Exception as error:  # orbax raises of many kinds, for a folder damaged in many ways
        raise InputError(f"RUN must hold a readable checkpoint, but step {step} of {name} is not one.") from error
    for leaf, array in wanted.items():
        if found.get(leaf) != (array.shape, array.dtype):
            raise InputError(
                f"RUN must hold a checkpoint of the model in its settings, but in step {step} of {name} `{leaf}` has "
                f"shape {found.get(leaf, ('none',))[0]}, expected {array.shape}."
            )
    arrays = manager.restore(step, args=ocp.args.StandardRestore(wanted))
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[leaf] for leaf in wanted])


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
