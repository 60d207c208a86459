"""The checkpoints of a run, by orbax: the last two, each renamed into place when it is whole."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from .errors import InputError
from .run_folder import CHECKPOINT


def checkpoints(folder: Path) -> ocp.CheckpointManager:
    """The manager of a run's checkpoints, to be used in a `with`."""
    path = (folder / CHECKPOINT).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    try:
        return ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler(), options=options)
    except (OSError, ValueError) as error:
        raise InputError(f"RUN must hold a folder of checkpoints, but {str(path)!r} is none: {error}") from error


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Save `state` as step `step`, every array under its name in the tree."""
    manager.save(step, args=ocp.args.StandardSave(_named_leaves(state)))


def restore(folder: Path, manager: ocp.CheckpointManager, template: Any) -> Any:
    """The newest saved state, in the tree of `template`, whose shapes and dtypes it must have.

    Raises:
        InputError: if there is none, it cannot be read, or it is of another model.
    """
    step, name = manager.latest_step(), repr(str(folder))
    if step is None:
        raise InputError(f"RUN must hold a checkpoint, but {name} has none yet: train it anew.")
    unreadable = InputError(f"RUN must hold a readable checkpoint, but step {step} of {name} is not one.")
    wanted = _named_leaves(template)
    try:
        found = {leaf: (array.shape, array.dtype) for leaf, array in manager.item_metadata(step).items()}
    except Exception as error:  # orbax raises of many kinds, for a folder damaged in many ways
        raise unreadable from error
    for leaf, array in wanted.items():
        if found.get(leaf) != (array.shape, array.dtype):
            raise InputError(
                f"RUN must hold a checkpoint of the model in its settings, but in step {step} of {name} `{leaf}` has "
                f"shape {found.get(leaf, ('none',))[0]}, expected {array.shape}."
            )
    try:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # on however many devices they were saved
        here = {leaf: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one) for leaf, x in wanted.items()}
        arrays = manager.restore(step, args=ocp.args.StandardRestore(here))
    except Exception as error:
        raise unreadable from error
    leaves = [jnp.asarray(jax.device_get(arrays[leaf])) for leaf in wanted]  # bound to no device
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
