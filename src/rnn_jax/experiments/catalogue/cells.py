"""Tanh units, GRU and LSTM with equal numbers of parameters: after equal numbers of steps, and after equal times."""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from ... import Params, init_params
from ..._reporting.html_page import Section, png, subplots
from ...initializers import chrono
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import Init, adam
from .._pictures import panels
from .._report import summary
from .._statistics import quartiles
from .._tables import best
from .._training import Training
from .._trials import Setting, Trial, short
from . import digits, forecast, long_memory, text

CELLS = ("tanh", "GRU", "LSTM")


class Compared(NamedTuple):
    """A training of another experiment, and what is compared of it.

    Attributes:
        make: makes the training, from `setting` and the number of steps.
        setting: the setting of the other experiment, without its number of steps.
        num_steps: the number of updates.
        choose: the metric by which the learning rate is chosen.
        show: the metric that is compared.
        factor: what the metric is multiplied by.
        about: what it is then, in words.
        lowest: whether lower is better.
        memory: the time scales of gated cells reach up to this number of steps (`chrono`); 0 leaves the usual start.
    """

    make: Callable[[Setting], Training]
    setting: dict[str, Any]
    num_steps: int
    choose: str
    show: str
    factor: float
    about: str
    lowest: bool = True
    memory: int = 0


def adding(length: int) -> Compared:
    """The adding problem at a length."""
    setting = {"task": "adding", "length": length, "start": long_memory.ORTHOGONAL, "clipping": "norm"}
    return Compared(long_memory.make, setting, 1500, "loss", "loss", 1, "squared error", memory=length)


TASKS = {
    "text": Compared(text.make, {"hidden_size": 256}, 600, "validation_bits", "test_bits", 1, "bits per character"),
    "digits by pixels": Compared(
        digits.make,
        {"reading": "pixels", "hidden_size": 128, "start": "orthogonal"},
        1200,
        "validation_accuracy",
        "test_accuracy",
        100,
        "% of test images right",
        lowest=False,
    ),
    "sunspots": Compared(
        forecast.make,
        {"window": 256, "hidden_size": 64},
        600,
        "validation_rmse",
        "test_rmse_12",
        1,
        "RMSE, 12 months ahead",
    ),
} | {f"adding, T = {length}": adding(length) for length in (50, 200, 750)}


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of task, cell and learning rate."""
    tasks, rates = (["sunspots"], [3e-3]) if quick else (list(TASKS), [1e-3, 3e-3])
    return [
        {"task": task, "cell": cell, "rate": rate, "num_steps": 120 if quick else TASKS[task].num_steps}
        for task in tasks
        for cell in CELLS
        for rate in rates
    ]


def make(setting: Setting) -> Training:
    """The training of another experiment with other cells, and a constant rate, so that it can be read at any time."""
    task, num_steps = TASKS[str(setting["task"])], int(setting["num_steps"])
    training = task.make({**task.setting, "rate": setting["rate"], "num_steps": num_steps})
    if setting["cell"] != "tanh":
        training = training._replace(init=as_large(str(setting["cell"]).lower(), training.init, task.memory))
    return training._replace(
        optimizer=adam(float(setting["rate"]), 1.0), eval_every=num_steps // 10, show=None, facts=size_of
    )


def as_large(cell: str, vanilla: Init, memory: int) -> Init:
    """The first weights of a network of gated cells that has as many parameters as a vanilla one, or a few less."""
    params = jax.eval_shape(vanilla, jax.random.key(0))
    (num_inputs, num_units), num_outputs = params.cells[0].w_xh.shape, params.readout.b_y.size

    def init(key: Key[Array, ""], size: int) -> Params:
        first = init_params(key, cell=cell, input_size=num_inputs, hidden_size=size, output_size=num_outputs)
        return chrono(jax.random.fold_in(key, 1), first, memory) if memory else first

    def count(size: int) -> int:
        return num_parameters(jax.eval_shape(lambda key: init(key, size), jax.random.key(0)))

    sizes = range(1, num_units + 1)
    size = sizes[bisect.bisect_right(sizes, num_parameters(params), key=count) - 1]
    return lambda key: init(key, size)


def num_parameters(params: Params) -> int:
    """The number of weights."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def size_of(params: Params) -> dict[str, float]:
    """The number of units and of parameters."""
    return {"units": params.cells[0].w_hh.shape[0], "parameters": num_parameters(params)}


def chosen(trials: Sequence[Trial]) -> dict[str, dict[str, Trial]]:
    """For each task and cell, the trial with the better learning rate."""
    return {
        str(name): {str(cell): better(TASKS[str(name)], of_cell) for cell, of_cell in panels(of_task, "cell").items()}
        for name, of_task in panels(trials, "task").items()
    }


def better(task: Compared, trials: Sequence[Trial]) -> Trial:
    """The trial that solved the task first; if none did, the best by the metric that chooses."""
    if any(trial.solved.any() for trial in trials):
        return best(trials, "solved_at", lowest=True)
    return best(trials, task.choose, lowest=task.lowest)


def seconds(trial: Trial) -> np.ndarray:
    """The training time of one seed until each evaluation."""
    times: np.ndarray = trial.steps * (trial.seconds / max(trial.steps[-1], 1) / len(trial.seeds))
    return times


def after(trial: Trial, metric: str, time: float) -> np.ndarray:
    """A metric at the last evaluation within `time` seconds of training per seed, `(seeds,)`."""
    values: np.ndarray = trial.curves[metric][np.searchsorted(seconds(trial), time * (1 + 1e-9), side="right") - 1]
    return values


def equal_time(of_cells: dict[str, Trial]) -> float:
    """The time in which all cells of a task are compared: that of the one that finished its training first."""
    return min(float(seconds(trial)[-1]) for trial in of_cells.values())


def verdict(trials: Sequence[Trial]) -> list[str]:
    """For each task, what each cell reached."""
    lines = []
    for name, of_cells in chosen(trials).items():
        task, time = TASKS[name], equal_time(of_cells)
        reached = "; ".join(
            f"{cell} {np.median(task.factor * trial.final(task.show)):.4g}, after {time:.2g} s "
            f"{np.median(task.factor * after(trial, task.show, time)):.4g}"
            for cell, trial in of_cells.items()
        )
        lines.append(f"{name}, {task.about}: {reached}.")
    return lines


def compared(trials: Sequence[Trial]) -> Section:
    """The table: size, learning rate, result at the end and after equal time, and the time of a step."""
    rows = []
    for name, of_cells in chosen(trials).items():
        task, time = TASKS[name], equal_time(of_cells)
        for cell, trial in of_cells.items():
            ends, early = task.factor * trial.final(task.show), task.factor * after(trial, task.show, time)
            per_step = 1e3 * seconds(trial)[-1] / trial.steps[-1]
            sizes = (f"{trial.facts['units']:.0f}", f"{trial.facts['parameters']:,.0f}")
            solved = f"{trial.solved.sum()} of {len(trial.seeds)}" if task.memory else "-"
            numbers = (quartiles(ends), f"{trial.steps[-1]}", quartiles(early), f"{time:.1f}")
            rows.append(
                (name, task.about, cell, *sizes, short(trial.setting["rate"]), *numbers, solved, f"{per_step:.3g}")
            )
    header = (
        *("task", "measured", "cell", "units", "parameters", "rate"),
        *("at the end", "steps", "after equal time", "seconds", "solved", "ms per step"),
    )
    reading = (
        "Medians over seeds, with quartiles. Of two learning rates the better one is shown: by validation; for adding, "
        "the one that solves it first, or the lower tested loss if none does. Equal time is that of the cell that "
        "finished first. Times are of one seed, without compiling, with evaluations. Training ends early when all "
        "seeds have solved the adding problem."
    )
    return Section("At equal numbers of parameters", None, reading, header, rows)


def against_time(trials: Sequence[Trial]) -> Section:
    """What is measured against the time of training, one panel per task."""
    found = chosen(trials)
    columns = min(len(found), 3)
    lines = -(-len(found) // columns)
    figure, grid = subplots(lines, columns, figsize=(max(4.0 * columns, 7), 3.2 * lines), squeeze=False)
    for ax, (name, of_cells) in zip(grid.ravel(), found.items(), strict=True):
        task = TASKS[name]
        for cell, trial in of_cells.items():
            times, values = seconds(trial)[1:], task.factor * trial.curves[task.show][1:]
            low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=1)
            color = f"C{CELLS.index(cell)}"
            ax.plot(times, middle, color=color, label=cell)
            ax.fill_between(times, low, high, color=color, alpha=0.18, lw=0)
        ax.axvline(equal_time(of_cells), color="0.5", ls=":", lw=1.2, label="equal time")
        ax.set(title=name, xlabel="seconds of training", ylabel=task.about, yscale="log" if task.memory else "linear")
        ax.grid(alpha=0.25)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    reading = (
        "Lines are medians over seeds, bands reach from the lower to the upper quartile. They begin after a tenth of "
        "the steps."
    )
    return Section("Against the time of training", png(figure), reading)


def sections(trials: Sequence[Trial]) -> list[Section]:
    """The comparison, curves against time, all settings, and how many seeds a difference needs."""
    return [compared(trials), against_time(trials), summary(trials), seeds_needed(trials, by=("task",))]


EXPERIMENT = Experiment(
    "cells",
    "When are gated cells worth it: tanh units, GRU and LSTM with equal numbers of parameters?",
    settings,
    make,
    sections,
    verdict,
    4,
    needs=("sklearn",),
    fixed="one layer; the tasks, batches and sizes of tanh as in the experiments text, digits, forecast and "
    "long-memory; W_hh orthogonal, for each gate; the forget gate of the LSTM starts at 1, in the adding problem gated "
    "cells start with time scales up to its length (chrono); Adam at a constant rate, clipped to norm 1",
)
