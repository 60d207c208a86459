"""The runs of a sweep as trials of an experiment: the table over the seeds, and which combination is best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...experiments._differences import Difference, in_words, of_pairs
from ...experiments._statistics import interval, margin, mean, moments
from ...experiments._trials import Trial, label
from ..comparison.runs import Validation, read_run
from ..comparison.tables import NONE, Table, in_bits, in_seconds
from ..metrics import is_planned
from .grid import Cell

LOWEST = "lowest_loss"
ALONE = "all seeds"  # the name of the only combination of a sweep without --over


class Result(NamedTuple):
    """What a run has reached.

    Attributes:
        validations: those that a run has if nothing interrupts it. Ctrl-C adds one, which would be one more chance.
        seconds: the time of the training.
        num_parameters: the number of weights and biases.
    """

    validations: tuple[Validation, ...]
    seconds: float
    num_parameters: int

    @property
    def best(self) -> float:
        """The lowest bits per symbol of the held-out text."""
        return min(validation.bits for validation in self.validations)

    @property
    def last(self) -> float:
        """The last bits per symbol of the held-out text."""
        return self.validations[-1].bits


def result_of(cell: Cell) -> Result:
    """What the run of a cell has reached."""
    run = read_run(cell.folder)
    planned = tuple(one for one in run.validations if is_planned(one.step, cell.config))
    return Result(planned, run.seconds, run.num_parameters)


def trial_of(cells: Sequence[Cell], results: Sequence[Result | None], unigram: float) -> Trial:
    """The runs of one combination.

    `loss` is the bits per symbol of the held-out text, `lowest_loss` the lowest until then, and `seconds` the time.
    A run that --patience ended keeps its last numbers. A run that failed, whose result is None, has none.

    Args:
        cells: the cells of the combination, one for each seed.
        results: what each has reached, None if it failed.
        unigram: the bits of the unigram model, the best answer that ignores the inputs.
    """
    ended = [result for result in results if result is not None]
    steps = sorted({one.step for result in ended for one in result.validations}) or [cells[0].config.steps]
    columns = [_at(result, steps) for result in results]
    loss, seconds = (np.array([column[row] for column in columns], float).T for row in range(2))
    return Trial(
        setting=cells[0].setting,
        seeds=[cell.config.seed for cell in cells],
        chance=unigram,
        steps=np.array(steps),
        curves={
            "loss": loss,
            LOWEST: np.minimum.accumulate(loss),
            "seconds": seconds,
            "finite": np.isfinite(loss).astype(float),
        },
        seconds=sum(result.seconds for result in ended),
        compile_seconds=0.0,  # part of the seconds of a run
        shown={},
        facts={"parameters": float(ended[0].num_parameters)} if ended else {},
    )


def _at(result: Result | None, steps: Sequence[int]) -> tuple[list[float], list[float]]:
    """The bits and the seconds of a run at these steps."""
    if result is None:
        return [np.nan] * len(steps), [np.nan] * len(steps)
    by_step = {one.step: one for one in result.validations}
    found, last = [], None
    for step in steps:
        last = by_step.get(step, last)
        found.append((np.nan, np.nan) if last is None else (last.bits, last.seconds))
    bits, seconds = zip(*found, strict=True)
    return list(bits), [*seconds[:-1], result.seconds]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, the best first: by the number of failed seeds, then by the mean of the lowest bits."""

    def rank(trial: Trial) -> tuple[int, float]:
        found = moments(trial.final(LOWEST))
        return len(trial.seeds) - found.num, found.mean if found.num else np.inf

    return sorted(trials, key=rank)


def named(trial: Trial) -> str:
    """The combination, for people."""
    return label(trial.setting, list(trial.setting)) or ALONE


def table(trials: Sequence[Trial]) -> Table:
    """A row for each combination, the best first."""
    header = ["", "best bits [95 %]", "last bits [95 %]", "more than the best [95 %]", "seconds", "parameters"]
    header += ["seeds", "failed", "setting"]
    rows = []
    for number, trial in enumerate(ordered := ranked(trials), 1):
        failed = int(np.isnan(trial.final(LOWEST)).sum())
        seconds = moments(trial.final("seconds"))
        more = of_pairs(trial.final(LOWEST), ordered[0].final(LOWEST)).words if number > 1 else NONE
        rows.append(
            [
                str(number),
                mean(trial.final(LOWEST)),
                mean(trial.final("loss")),
                more,
                in_seconds(seconds.mean) if seconds.num else NONE,
                f"{trial.facts['parameters']:,.0f}" if trial.facts else NONE,
                str(len(trial.seeds)),
                str(failed) if failed else NONE,
                named(trial),
            ]
        )
    return Table(header, rows)


def verdict(trials: Sequence[Trial], unit: str, bytes_per_character: float | None) -> list[str]:
    """Which combination is best, and whether its difference to the second is more than chance.

    Args:
        trials: one for each combination.
        unit: what the bits are bits of, a character or a byte.
        bytes_per_character: of the held-out text, if the unit is a byte; otherwise None.
    """
    first, *others = ranked(trials)
    found = moments(first.final(LOWEST))
    over = f" on average over {found.num} seeds" if found.num > 1 else ", from one seed"
    also = f" ({in_bits(found.mean * bytes_per_character)} per character)" if bytes_per_character else ""
    said = [f"Best: {named(first)}, {interval(found.mean, margin(found))} bits per {unit}{also}{over}."]
    if others:
        difference = of_pairs(others[0].final(LOWEST), first.final(LOWEST))
        said.append(f"The second, {named(others[0])}, {_compared(difference)}")
    return said


def _compared(found: Difference) -> str:
    if found.there < 2:
        return "cannot be compared: that needs two or more seeds with which both were trained to the end."
    needs = f"needs {found.words} bits more, seed by seed"
    if found.excludes_zero:
        return f"{needs}: that is more than chance (paired t-test at 5 %)."
    return f"{needs}: that may be chance (paired t-test at 5 %). To tell: {in_words(found)}."
