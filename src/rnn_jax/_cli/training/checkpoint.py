"""The last checkpoints of a run and the best, by orbax. Each has a checksum, and gets its name when it is whole."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ..._reporting.console import unended, warn
from ..._reporting.errors import InputError
from ..metrics import best_validation
from ..run_folder import CHECKPOINT

WEEK = 7 * 24 * 3600  # seconds; orbax measures its timeouts by a clock that may jump
ONE = ocp.options.MultiprocessingOptions(active_processes={0})  # of several processes, only the first reads and writes
CHECKSUM = "sha256"  # its name among the arrays of a checkpoint; old checkpoints have none


class Restored(NamedTuple):
    """A state, the step it was saved at, and for each newer step the reason why it cannot be used."""

    state: Any
    step: int
    damaged: dict[int, str]


class _Unusable(Exception):
    """Why a checkpoint cannot be used: the words after "step 60 of 'run'"."""


class _Names:
    """The names of steps. Without it, orbax also reads a folder name in digits of another script as a step."""

    standard = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        """The name of a step."""
        return str(self.standard.build_name(step))

    def find_all(self, base_path: Any) -> Iterator[Any]:
        """The steps in a folder."""
        return (found for found in self.standard.find_all(base_path) if _is_step(found.path.name))

    def find_step(self, base_path: Any, step: int) -> Any:
        """One step in a folder."""
        return self.standard.find_step(base_path, step)


class _LastAndBest(NamedTuple):
    """Which checkpoints stay, in the words of orbax: the last `last`, and the best by the metrics in `records`."""

    last: int
    records: list[dict[str, Any]]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether each of these checkpoints, the oldest first, stays."""
        steps, best = [checkpoint.step for checkpoint in checkpoints], best_validation(self.records)
        stay = {*steps[-self.last :], best and best["step"]}
        return [step in stay for step in steps]


@contextlib.contextmanager
def checkpoints(folder: Path, keep: int, records: list[dict[str, Any]]) -> Iterator[ocp.CheckpointManager]:
    """The manager that saves the checkpoints of a run: the last `keep` stay, and the best by the `records`.

    It writes in the background. The next `save`, `wait` or the end of the `with` raises what went wrong there.

    Raises:
        InputError: if the folder cannot hold checkpoints.
        OSError: if a checkpoint cannot be written.
    """
    path = (folder / CHECKPOINT).absolute()
    stay = _LastAndBest(keep, records)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=stay,
        step_name_format=_Names(),
        create=False,  # orbax does not make it for one of several processes
        multiprocessing_options=ONE,
        async_options=ocp.AsyncOptions(timeout_secs=WEEK, create_directories_asynchronously=False),
    )
    try:
        path.mkdir(parents=True, exist_ok=True)
        manager = ocp.CheckpointManager(path, item_handlers=_handler(), options=options)
    except (OSError, ValueError) as error:
        raise InputError(f"RUN must hold a folder of checkpoints, but {str(path)!r} is not one: {error}") from error
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the reason
            manager.close()
        raise
    with _writing():
        manager.close()


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Begin to save `state` as step `step`, every array under its name in the tree, and the checksum of all of them."""
    arrays = jax.device_get(_named_leaves(state))
    with _writing():
        manager.save(step, args=ocp.args.StandardSave(arrays | {CHECKSUM: _checksum(arrays)}))


def wait(manager: ocp.CheckpointManager) -> None:
    """Wait until what was saved is in its place."""
    with _writing():
        manager.wait_until_finished()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Raise an `OSError` where the library that writes raises a `ValueError`, for a full disk for example."""
    try:
        yield
    except ValueError as error:
        raise OSError(f"a checkpoint cannot be written, {str(error).splitlines()[0]}") from error


def _handler() -> ocp.StandardCheckpointHandler:
    return ocp.StandardCheckpointHandler(multiprocessing_options=ONE)


def _is_step(name: str) -> bool:
    """Whether this is the name of a checkpoint."""
    return name.isascii() and name.isdigit() and name == str(int(name))


def saved_steps(folder: Path) -> list[int]:
    """The steps of a run that have a checkpoint, the newest first, whether they can be read or not."""
    path = folder / CHECKPOINT
    names = (entry.name for entry in path.iterdir()) if path.is_dir() else ()
    return sorted((int(name) for name in names if _is_step(name)), reverse=True)


def restore(folder: Path, template: Any, only: int | None = None) -> Restored:
    """The newest undamaged state, as a tree like `template`; shapes and dtypes must be those of `template`.

    If `only` is given, it is the state of this step, or none.

    No file is changed: another process may be training this run.

    Raises:
        InputError: if there is no checkpoint, none can be read, or they are of another model.
    """
    path, name, damaged = (folder / CHECKPOINT).absolute(), repr(str(folder)), dict[int, str]()
    for step in saved_steps(folder) if only is None else [only]:
        try:
            return Restored(_read(path / str(step), template, step), step, damaged)
        except _Unusable as error:
            damaged[step] = str(error)
        unended.set()
    if not damaged:
        raise InputError(f"RUN must hold a checkpoint, but {name} has none yet: train it again.")
    told = "; ".join(f"step {step} {reason}" for step, reason in damaged.items())
    raise InputError(f"RUN must hold a checkpoint that can be read, but in {name} {told}.")


def warn_of_damage(folder: Path, restored: Restored) -> None:
    """Say which steps are damaged, and which one is used instead."""
    for step, reason in restored.damaged.items():
        warn(
            f"step {step} of {str(folder)!r} {reason}. Continuing from step {restored.step}, the newest undamaged one."
        )


def set_aside(folder: Path, steps: Iterable[int]) -> None:
    """Rename damaged checkpoints to names like `60.damaged`, so that these steps can be saved again."""
    for step in steps:
        path = folder / CHECKPOINT / str(step)
        names = itertools.chain([f"{step}.damaged"], (f"{step}.damaged-{again}" for again in itertools.count(2)))
        path.rename(next(aside for aside in map(path.with_name, names) if not aside.exists()))


def _read(path: Path, template: Any, step: int) -> Any:
    """The state in the checkpoint of a step. A manager would remove what another process is writing, so none is used.

    Raises:
        _Unusable: if it cannot be read, is not what was saved, or is of another model.
    """
    if not path.is_dir():
        raise _Unusable("is damaged: it is not a folder")
    path, handler, wanted = path / "default", _handler(), _named_leaves(template)
    try:
        found = {leaf: (array.shape, array.dtype) for leaf, array in handler.metadata(path).items()}
    except Exception as error:  # orbax raises many kinds of errors for damaged folders
        raise _Unusable("is damaged: its list of arrays cannot be read") from error
    for leaf, array in wanted.items():
        if found.get(leaf) != (array.shape, array.dtype):
            came = "{1} of shape {0}".format(*found[leaf]) if leaf in found else "missing"
            expected = f"{array.dtype} of shape {array.shape}"
            raise _Unusable(f"is not of the model in its settings: `{leaf}` is {came}, expected {expected}")
    if more := found.keys() - wanted.keys() - {CHECKSUM}:
        raise _Unusable(f"is not of the model in its settings, which has no `{min(more)}`")
    if CHECKSUM in found:
        wanted[CHECKSUM] = jax.ShapeDtypeStruct(*found[CHECKSUM])
    try:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # they may have been saved on several devices
        here = {leaf: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one) for leaf, x in wanted.items()}
        arrays = jax.device_get(handler.restore(path, args=ocp.args.StandardRestore(here)))
    except Exception as error:
        raise _Unusable("is damaged: its arrays cannot be read") from error
    checksum = arrays.pop(CHECKSUM, None)
    if checksum is not None and not np.array_equal(checksum, _checksum(arrays)):
        raise _Unusable("is damaged: its arrays do not match their checksum")
    leaves = [jnp.asarray(arrays[leaf]) for leaf in _named_leaves(template)]  # not bound to a device
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    if int(state.num_steps) != step:
        raise _Unusable(f"is damaged: it holds the state of step {int(state.num_steps)}")
    return state


def _checksum(arrays: dict[str, Any]) -> np.ndarray:
    """SHA-256 of the names, dtypes, shapes and bytes of all arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(jax.device_get(arrays).items()):
        array = np.asarray(array)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
