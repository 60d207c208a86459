"""Which part of a batch each device has: the streams are shared, everything else is on all devices."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..._mesh import mesh_of
from ..._reporting.errors import InputError
from .group import ALONE, Group

AXIS = "batch"
EVERYWHERE, OF_ROWS, OF_WINDOWS = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, None, AXIS)

Tree = TypeVar("Tree")


class Placement(NamedTuple):
    """The `devices` that share the streams, in the order of the processes of `group`; each has equally many."""

    group: Group = ALONE
    devices: tuple[jax.Device, ...] = ()

    @property
    def own_devices(self) -> tuple[jax.Device, ...]:
        """The devices of this process."""
        return tuple(device for device in self.devices if device.process_index == jax.process_index())

    def own_streams(self, streams: np.ndarray) -> np.ndarray:
        """The part of the streams (time, streams) that this process reads."""
        each = streams.shape[1] // self.group.size
        return streams[:, self.group.process * each : (self.group.process + 1) * each]

    def sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        """Where an array is. None if there is one device, or none was chosen: JAX decides."""
        if len(self.devices) < 2:
            return None
        return NamedSharding(mesh_of(self.devices, AXIS), spec)

    def windows(self, own: np.ndarray) -> Any:
        """Windows (steps, time, streams) on all devices, from those of this process."""
        if self.group.size == 1:
            return own
        return jax.make_array_from_process_local_data(self.sharding(OF_WINDOWS), own)

    def from_first(self, tree: Tree) -> Tree:
        """A tree of arrays that the first process has, in all; the other trees only have its shapes."""
        if self.group.size == 1:
            return tree
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
        told = np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)  # as bytes, because -0.0 + 0 is 0
        rows = np.zeros((len(self.own_devices), told.size), np.uint8)
        if self.group.is_first:
            rows[0] = told
        data = self._over_all(_sum, rows)
        ends = np.cumsum([array.nbytes for array in arrays])
        parts = np.split(data, ends[:-1])
        leaves = [part.view(array.dtype).reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
        on_all = [jax.make_array_from_callback(x.shape, self.sharding(EVERYWHERE), x.__getitem__) for x in leaves]  # type: ignore[arg-type]
        told_tree: Tree = jax.tree.unflatten(jax.tree.structure(tree), on_all)
        return told_tree

    def own(self, tree: Tree) -> Tree:
        """A tree of arrays that are the same on all devices, as arrays of this process."""
        return tree if self.group.size == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        if self.group.size == 1:
            return number
        return int(self._over_all(_max, np.full((len(self.own_devices), 1), number, np.int32))[0])

    def _over_all(self, reduce: Callable[[jax.Array], jax.Array], rows: np.ndarray) -> np.ndarray:
        """The sum or the maximum over the rows of all devices, from those of this process, one for each device.

        All exchanges of a run are over the same devices, so they use the same connections.
        """
        with self.group.exchanging():
            everywhere = self.sharding(EVERYWHERE)
            of_all = jax.make_array_from_process_local_data(self.sharding(OF_ROWS), rows)
            return np.asarray(jax.jit(reduce, out_shardings=everywhere)(of_all).addressable_data(0))


def _sum(rows: jax.Array) -> jax.Array:
    return jnp.sum(rows, axis=0, dtype=rows.dtype)


def _max(rows: jax.Array) -> jax.Array:
    return jnp.max(rows, axis=0)


ONE = Placement()  # one process, and no choice of devices


def place(group: Group, num_devices: int) -> Placement:
    """Choose `num_devices` devices of each process.

    Raises:
        InputError: if a process has fewer.
    """
    found = jax.devices()
    by_process = [[one for one in found if one.process_index == process] for process in range(group.size)]
    fewest = min(map(len, by_process))
    if fewest < num_devices:
        of = " of each process" if group.size > 1 else ""
        raise InputError(f"--devices must be at most the {fewest} that JAX finds{of}, got {num_devices}.")
    placement = Placement(group, tuple(one for devices in by_process for one in devices[:num_devices]))
    if group.size > 1:
        with _standard_output_closed():
            placement.largest(0)  # the first exchange connects the processes, and gloo prints that
    return placement


@contextlib.contextmanager
def _standard_output_closed() -> Iterator[None]:
    """Discard what compiled code prints."""
    sys.stdout.flush()
    before, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(nowhere)
