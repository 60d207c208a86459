"""At which time steps a gradient goes wrong: what each leaf takes from each step, and what it should take."""

from typing import Any

import numpy as np

from .._cells.vanilla import CellParams
from .._checks import steps_shape
from .._types import GradFn, Params
from ._clock import rows_of_steps, with_clock, without_flags
from ._differences import TOLERANCE, at_entries, largest, slopes
from ._findings import about_steps
from ._report import StepReport
from ._subject import of_grad_fn

CLOCK_STEPS, CLOCK_UNITS = 256, 8


def by_steps(
    fn: GradFn, witness: GradFn | None, args: tuple[Any, ...], unexplained: set[str]
) -> tuple[list[StepReport], list[str]]:
    """What each leaf takes from each step and what it should take; in words for the leaves in `unexplained`."""
    params, batch, _ = args
    time = steps_shape(batch.inputs)[0]
    if not isinstance(params, Params):
        return [], ["The wrong steps cannot be located: that needs `params` of the type Params."]
    if not all(isinstance(cell, CellParams) and cell.leak == 1 for cell in params.cells):
        return [], ["The wrong steps cannot be located: that needs CellParams without leak."]
    if batch.drop is not None:
        return [], ["The wrong steps cannot be located: that needs a batch without dropout masks."]
    if not 1 <= time <= CLOCK_STEPS:
        return [], [f"The wrong steps cannot be located among {time}, only among 1 to {CLOCK_STEPS} steps."]
    problems = [("With features and a clock", args)]
    if batch.mask is not None or batch.reset is not None:  # without them the pattern is clearer, if it remains
        problems.insert(0, ("Without mask and reset", without_flags(*args)))
    said: list[str] = []
    for where, problem in problems:
        clocked = with_clock(*problem)
        try:
            steps, words = _counted_by_clock(fn, witness, clocked, params, unexplained)
        except Exception as error:  # the caller's function, on a problem that it was not made for
            said.append(f"{where}, `fn` raises {type(error).__name__}, so the wrong steps cannot be located.")
            if problem is args:  # `fn` assumes fixed sizes
                said.append("The clock adds inputs and units: take all sizes from the arguments.")
            continue
        if words:
            return steps, words + said
        said.append(f"{where}, every step is right.")
    return [], said


def _counted_by_clock(
    fn: GradFn, witness: GradFn | None, clocked: tuple[Any, ...], params: Params, unexplained: set[str]
) -> tuple[list[StepReport], list[str]]:
    subject = of_grad_fn(fn, *clocked)
    values = at_entries(subject.value, subject.theta.size)(subject.theta)
    numbers = rows_of_steps(params, subject.unravel(np.arange(len(subject.theta), dtype=float)))
    right = {} if witness is None else rows_of_steps(params, witness(*clocked)[1])
    steps, words = [], []
    for name, rows in numbers.items():
        units = np.unique(np.linspace(0, rows.shape[1] - 1, CLOCK_UNITS).astype(int))
        at = rows[:, units].astype(int)
        analytic = subject.gradient[at]
        if right:
            numeric = right[name][:, units]
        else:
            numeric = slopes(values, at.ravel(), np.ones(at.size), TOLERANCE * largest(analytic)).slope.reshape(
                at.shape
            )
        steps.append(StepReport(name, analytic, numeric))
        said = about_steps(name, analytic, numeric) if name in unexplained else ""
        words += [said] if said else []
    return steps, words
