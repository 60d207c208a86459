"""The outcome of a gradient check."""

from typing import NamedTuple

import numpy as np


class LeafReport(NamedTuple):
    """One leaf of the gradient, with its worst entry. Errors are relative to the largest entry of the leaf.

    `name`, `shape`     of the leaf.
    `num_checked`       how many entries were checked.
    `error`             the error of the worst entry, at `entry`: its gradient is `analytic` and should be `numeric`.
    `resolved`          the smallest error that would have been noticed at every entry.
    `num_kinks`         entries on a kink of the loss, where any slope between those of both sides and zero is right.
    `num_shortened`     entries that needed a shorter step, because a kink or a sharp bend is close by.
    `num_next_to`       entries where differences cannot decide: they count as right because the gradient is right
                        nearby, and at the entry it is a limit of the gradients nearby.
    `passed`, `decided` whether the leaf is right, and whether that is known. Both are false if no step fits near such
                        an entry either.
    `errors`            the error of every slope checked: entries, then directions.
    """

    name: str
    shape: tuple[int, ...]
    num_checked: int
    error: float
    entry: str
    analytic: float
    numeric: float
    resolved: float
    num_kinks: int
    num_shortened: int
    num_next_to: int
    passed: bool
    decided: bool
    errors: np.ndarray


class StepReport(NamedTuple):
    """What the gradient of one leaf takes from each time step, and what it should take; one row per step.

    The rows of `w_xh` are `d_a_1..d_a_T`. Those of `w_hh` are the same, as paired with `h_0..h_{T-1}`, and one more
    that is paired with `h_T` and should be zero. Those of `w_hy` are `d_y_0..d_y_T`, zero where nothing is read out.
    All are summed over the batch.
    """

    name: str
    analytic: np.ndarray
    numeric: np.ndarray


class Report(NamedTuple):
    """The outcome of `check_gradients`; `print` shows it as a table.

    `passed`    whether every leaf is right.
    `leaves`    a `LeafReport` for each leaf of the gradient.
    `steps`     a `StepReport` for each weight matrix, if the wrong steps had to be found; otherwise empty.
    `findings`  what is wrong, in words, with the time steps if they can be located.
    `tolerance` the error that is allowed, relative to the largest entry of the leaf.
    `settings`  how it was checked, in words.
    """

    passed: bool
    leaves: tuple[LeafReport, ...]
    steps: tuple[StepReport, ...]
    findings: tuple[str, ...]
    tolerance: float
    settings: str

    @property
    def failing(self) -> tuple[str, ...]:
        """The names of the leaves that are wrong."""
        return tuple(leaf.name for leaf in self.leaves if leaf.decided and not leaf.passed)

    @property
    def undecided(self) -> tuple[str, ...]:
        """The names of the leaves for which differences cannot decide whether they are right."""
        return tuple(leaf.name for leaf in self.leaves if not leaf.decided)

    @property
    def verdict(self) -> str:
        """Right, wrong or undecided, in one sentence."""
        if self.failing:
            return f"The gradient is WRONG in {', '.join(self.failing)}."
        return (
            f"The gradient cannot be decided in {', '.join(self.undecided)}."
            if self.undecided
            else "The gradient is right."
        )

    def __str__(self) -> str:
        """The table, the findings, and how it was checked."""
        width = max(len(leaf.name) for leaf in self.leaves)
        lines = [self.verdict]
        lines.append(f"{'leaf':{width}}  {'checked':>12}  {'error':>7}  {'at':14}{'analytic':>14}{'numeric':>14}")
        for leaf in self.leaves:
            checked = f"{leaf.num_checked} of {int(np.prod(leaf.shape))}"
            note = "" if leaf.passed else "  WRONG" if leaf.decided else "  UNDECIDED"
            note += f"  ({leaf.num_kinks} on a kink)" if leaf.num_kinks else ""
            note += f"  ({leaf.num_next_to} decided nearby)" if leaf.num_next_to else ""
            note += "  (below what differences resolve)" if leaf.resolved > 1e-4 else ""
            note += f"  ({leaf.num_shortened} near a kink or bend)" if leaf.num_shortened else ""
            numbers = f"{leaf.analytic:14.6e}{leaf.numeric:14.6e}"
            lines.append(f"{leaf.name:{width}}  {checked:>12}  {leaf.error:7.0e}  {leaf.entry:14}{numbers}{note}")
        return "\n".join([*lines, *self.findings, self.settings])
