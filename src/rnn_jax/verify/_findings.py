"""What is wrong with a gradient, in words: the patterns of usual mistakes in a leaf or over the time steps."""

from typing import NamedTuple

import numpy as np

SAME = 1e-5  # relative: arrays that differ by less count as equal
TOLD = 1e-6  # rows that are smaller, relative to the largest, are below the errors of differences


class Finding(NamedTuple):
    """What is wrong with a leaf; `explained` says that no search for the wrong steps is needed."""

    leaf: str
    words: str
    explained: bool


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(np.max(np.abs(x - y), initial=0.0) <= SAME * np.max(np.abs(y), initial=0.0))


def pattern(analytic: np.ndarray, right: np.ndarray, along_time: bool) -> str:
    """How `analytic` follows from `right`: zero, a multiple, transposed, another order of time; "" if it does not."""
    if not analytic.size or not np.any(right):
        return ""
    if not np.any(analytic):
        return "is zero, it was dropped"
    size = np.max(np.abs(right))
    factor = np.vdot(right / size, analytic / size) / np.vdot(right / size, right / size)
    if abs(factor - 1) > SAME and _same(analytic, np.asarray(factor * right)):
        return f"is {factor:.7g} times what it should be"
    if analytic.ndim == 2 and analytic.shape[0] == analytic.shape[1] and _same(analytic, right.T):
        return "is transposed"
    if along_time and len(analytic) > 1:
        for moved, words in ((1, "late"), (-1, "early")):
            ours, theirs = (analytic[1:], right[:-1]) if moved == 1 else (analytic[:-1], right[1:])
            if np.any(theirs) and _same(ours, theirs):
                return f"comes one step too {words}"
        if _same(analytic, right[::-1]):
            return "is in reversed time order"
    return ""


def about_leaf(
    leaf: str, analytic: np.ndarray, right: np.ndarray | None, worst: str, gates: tuple[str, ...] = ()
) -> Finding:
    """One sentence on a wrong leaf; `right` is None if not every entry is known, `gates` name groups of columns."""
    if not np.all(np.isfinite(analytic)):
        bad = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
        return Finding(leaf, f"{leaf} is not finite: {analytic[bad]} at {bad}.", explained=False)
    if right is None:
        return Finding(leaf, f"{leaf} is wrong: {worst}.", explained=False)
    if not np.any(right):
        return Finding(leaf, f"{leaf} should be zero and is not: {worst}.", explained=False)
    words = pattern(analytic, right, along_time=leaf == "inputs")
    if words:
        return Finding(leaf, f"{leaf} {words}.", explained=True)
    if len(gates) > 1:
        words, which = _of_gates(analytic, right, gates)
        words = f"{words}." if words else f"is wrong{which}: {worst}."
        return Finding(leaf, f"{leaf} {words}", explained=False)
    where = ""
    wrong, told = _wrong_rows(np.atleast_2d(analytic), np.atleast_2d(right))
    if leaf == "inputs" and len(wrong):
        where = f" {_at_steps(wrong, told)}"
    elif leaf.startswith("h_0") and right.ndim > 1 and 0 < len(wrong) < len(right):
        where = f" in {len(wrong)} of {len(right)} sequences, {_list(wrong)}"
    return Finding(leaf, f"{leaf} is wrong{where}: {worst}.", explained=False)


def _of_gates(analytic: np.ndarray, right: np.ndarray, gates: tuple[str, ...]) -> tuple[str, str]:
    """What is wrong with the columns of some gates, "" if no pattern fits; and which gates, "" if it is all."""
    ours, theirs = (np.stack(np.split(x, len(gates), -1)) for x in (analytic, right))
    wrong, _ = _wrong_rows(ours, theirs)
    names = " and ".join(gates[i] for i in wrong)
    if len(wrong) == 2 and _same(ours[wrong], theirs[wrong[::-1]]):
        return f"has the columns of the gates {names} exchanged", ""
    which = f" in the columns of {names}" if 0 < len(wrong) < len(gates) else ""
    words = pattern(ours[wrong[0]], theirs[wrong[0]], along_time=False) if len(wrong) == 1 else ""
    return (f"{words}{which}" if words else ""), which


def about_steps(leaf: str, analytic: np.ndarray, right: np.ndarray) -> str:
    """One sentence on what the gradient of a leaf takes from each step (`StepReport`); "" if all is right."""
    wrong, told = _wrong_rows(analytic, right)
    if not len(wrong):
        return ""
    words = pattern(analytic, right, along_time=True)
    if leaf.endswith("w_hh") and words == "comes one step too late":
        return f"{leaf} pairs d_a_t with h_t, the state after the step; it should be h_(t-1), the state before."
    what, first = ("d_y_t", 0) if leaf.endswith("w_hy") else ("d_a_t", 1)
    if words:
        return f"In {leaf}, {what} {words}."
    return f"In {leaf}, {what} is wrong {_at_steps(wrong, told, first, what == 'd_a_t')}."


def _wrong_rows(analytic: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are wrong, relative to their own size, and the rows that are large enough to decide."""

    def size(x: np.ndarray) -> np.ndarray:
        largest: np.ndarray = np.max(np.abs(x), axis=tuple(range(1, x.ndim)), initial=0.0)
        return largest

    own = np.fmax(size(analytic), size(right))
    told = ~(own <= TOLD * np.max(size(right), initial=0.0))  # NaN is told
    wrong = told & ~(size(analytic - right) <= 10 * SAME * own)
    return np.flatnonzero(wrong), np.flatnonzero(told)


def _at_steps(wrong: np.ndarray, told: np.ndarray, first: int = 1, hint: bool = False) -> str:
    """Where the wrong steps are. Steps count from 1, as in the equations; only decided steps are called right."""
    steps, right = wrong + first, np.setdiff1d(told, wrong) + first
    if not len(right):
        return "at every step" if len(told) == told[-1] - told[0] + 1 and told[0] == 0 else f"from t = {steps[0]} on"
    if len(steps) > 1 and steps[-1] < right[0]:
        k = int(right[0])
        look = f": look at what step {k} sends back to step {k - 1}" if hint else ""
        return f"up to t = {steps[-1]} and right from t = {k} on{look}"
    return f"at t = {_list(steps)} only"


def _list(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (", …" if len(numbers) > 8 else "")
