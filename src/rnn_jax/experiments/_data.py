"""Tasks of real data: digits and sunspots."""

import csv
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .. import Batch
from ..tasks import Task

HORIZONS = (1, 6, 12, 24, 60, 132)  # months ahead
LARGEST = 300.0  # about the largest number of sunspots


class Part(NamedTuple):
    """A part of a data set: a task that draws batches from it, and a function that returns all of it as one batch."""

    task: Task
    everything: Callable[[], Batch]


class Split(NamedTuple):
    """Three parts of the data that do not overlap."""

    train: Part
    validation: Part
    test: Part


def _constant(number: Any) -> Any:
    return lambda **sizes: number


def digits(rows: bool = False, seed: int = 0) -> Split:
    """The 1,797 handwritten digits of scikit-learn, 8 by 8 pixels, read row by row.

    A sequence is one image: one pixel per step (64 steps), or one row per step if `rows` (8 steps). The target is the
    class, at the last step. Three fifths of the images are for training, one fifth for validation and one fifth for
    testing; each part has the same shares of the classes. A batch is drawn without replacement.

    Source: the test set of Alpaydin and Kaynak (1998), optical recognition of handwritten digits, UCI.
    """
    images, classes, parts = digit_parts(seed)

    def of(part: np.ndarray) -> Part:
        pixels = jnp.asarray(images[part].reshape(len(part), 8 if rows else 64, 8 if rows else 1).swapaxes(0, 1))
        labels = jnp.asarray(classes[part])
        counts = np.bincount(classes[part]) / len(part)

        def make(key: Key[Array, ""], *, num_sequences: int) -> Batch:
            _at_most(num_sequences, len(part))
            drawn = jax.random.permutation(key, len(part))[:num_sequences]
            return Batch(pixels[:, drawn], labels[drawn][None])

        entropy = float(-np.sum(counts * np.log(counts)))
        task = Task(make, "cross_entropy", _constant(8 if rows else 1), _constant(10), _constant(entropy), {})
        return Part(task, lambda: Batch(pixels, labels[None]))

    return Split(*map(of, parts))


def digit_parts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`(images, classes, (train, validation, test))`: pixels in [0, 1], and the indices of the three parts."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    classes = found.target.astype(np.int32)
    train, rest = train_test_split(np.arange(len(classes)), test_size=0.4, stratify=classes, random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, stratify=classes[rest], random_state=seed)
    return (found.images / 16).astype(np.float32), classes, (train, validation, test)


def _at_most(num_sequences: int, there_are: int) -> None:
    if not 1 <= num_sequences <= there_are:
        raise ValueError(f"`num_sequences` must be from 1 to {there_are}, the number of images, got {num_sequences}.")


def sunspots() -> tuple[list[str], np.ndarray]:
    """`(months, numbers)`: monthly mean sunspot numbers, January 1749 to December 2008.

    Source: National Geophysical Data Center, public domain.
    """
    text = files(__package__).joinpath("sunspots_monthly.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))[1:]
    return [month for month, _ in rows], np.array([float(number) for _, number in rows])


def sunspot_split() -> dict[str, tuple[int, int]]:
    """For each part, the first month from which forecasts are made, and the one after the last, as indices.

    All targets of a part lie inside that part.
    """
    months, _ = sunspots()
    year = {int(month[:4]): i for i, month in reversed(list(enumerate(months)))}
    reach = max(HORIZONS)
    return {
        "train": (0, year[1920] - reach),
        "validation": (year[1920], year[1960] - reach),
        "test": (year[1960], len(months) - reach),
    }


def scale(numbers: np.ndarray) -> np.ndarray:
    """Sunspot numbers as the network reads them: square roots, scaled to about [0, 1].

    The spread of the square roots hardly depends on their level.
    """
    return np.sqrt(np.asarray(numbers) / LARGEST)


def forecasting(window: int) -> Task:
    """The task of forecasting sunspots of the training part: after each month, the numbers `HORIZONS` months ahead.

    Windows of `window` months begin at random months. The first quarter of each window has no targets.
    """
    _, numbers = sunspots()
    first, last = sunspot_split()["train"]
    if not 1 <= window <= last - first:
        raise ValueError(f"`window` must be from 1 to {last - first} months, got {window}.")
    series = jnp.asarray(scale(numbers), jnp.float32)
    read = window - window // 4

    def make(key: Key[Array, ""], *, num_sequences: int) -> Batch:
        starts = jax.random.randint(key, (num_sequences,), first, last - window + 1)
        at = starts[None, :] + jnp.arange(window)[:, None]
        targets = jnp.stack([series[at[-read:] + horizon] for horizon in HORIZONS], -1)
        return Batch(series[at][..., None], targets)

    begins = np.arange(first, last - window + 1)[:, None] + np.arange(window - read, window)
    spread = sum(float(np.mean(np.var(scale(numbers)[begins + horizon], axis=0))) for horizon in HORIZONS)
    sizes = _constant(1), _constant(len(HORIZONS)), _constant(spread)
    return Task(make, "squared_error", *sizes, {})
