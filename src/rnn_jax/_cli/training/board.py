"""`rnn-jax train --tensorboard`: the metrics of a run for TensorBoard, next to metrics.jsonl."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..run_folder import BOARD


@contextlib.contextmanager
def board(folder: Path, step: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one record of metrics. TensorBoard no longer shows what it has of steps after `step`.

    Raises:
        ModuleNotFoundError: if the extra `tensorboard` is not installed.
    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder / BOARD), purge_step=step + 1) as writer:

        def write(record: dict[str, Any]) -> None:
            for name, value in _numbers("", record):
                writer.add_scalar(name, value, record["step"])
            writer.flush()

        yield write


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in a record by their paths, like `watch/saturated/0`."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key not in ("step", "characters"):
                yield from _numbers(f"{name}/{key}".lstrip("/"), one)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _numbers(f"{name}/{index}", one)
    elif value is not None:
        yield name, float(value)
