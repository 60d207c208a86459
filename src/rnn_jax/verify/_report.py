"""The outcome of a gradient check."""

from typing import NamedTuple

import numpy as np


class LeafReport(NamedTuple):
    """One leaf, its worst entry, and how far that is off relative to the largest entry of the leaf.

    `num_kinks` entries stand on a kink of the loss, where any slope between those of both sides and zero is a right
    one; for `num_shortened` a kink or a sharp bend close by asked for a shorter step; `num_next_to` are no places for
    differences, and right because the gradient is right next to them and they are a limit of it. If no step fits there
    either, the leaf is not `decided`, and has not `passed`. The smallest relative error that
    would have been noticed everywhere is `resolved`. `errors` are those of every entry checked.
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
    """What the gradient of one leaf takes from each time step, a row each, beside what it should.

    Of `w_xh` the rows are `d_a_1..d_a_T`; of `w_hh` the same as paired with `h_0..h_{T-1}`, and what is paired with
    `h_T`: zero; of `w_hy` they are `d_y_0..d_y_T`, zero where nothing is read out. All are summed over the batch.
    """

    name: str
    analytic: np.ndarray
    numeric: np.ndarray


class Report(NamedTuple):
    """The outcome of `check_gradients`; `str` makes a table of it.

    `findings` say in words what is wrong and, from `steps`, which a right gradient has not, at which time steps.
    `tolerance` is relative to the largest entry of the leaf.
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
        """The names of the leaves of which differences cannot tell whether they are right."""
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
            note += f"  ({leaf.num_next_to} told next to it)" if leaf.num_next_to else ""
            note += "  (below what differences resolve)" if leaf.resolved > 1e-4 else ""
            note += f"  ({leaf.num_shortened} near a kink or bend)" if leaf.num_shortened else ""
            numbers = f"{leaf.analytic:14.6e}{leaf.numeric:14.6e}"
            lines.append(f"{leaf.name:{width}}  {checked:>12}  {leaf.error:7.0e}  {leaf.entry:14}{numbers}{note}")
        return "\n".join([*lines, *self.findings, self.settings])
