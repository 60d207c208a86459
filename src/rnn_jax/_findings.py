"""What is wrong with a gradient, in words: patterns that the usual mistakes leave in a leaf and over the time steps."""

import numpy as np

SAME = 1e-5  # relative: two arrays that differ by less tell the same story


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(np.max(np.abs(x - y), initial=0.0) <= SAME * np.max(np.abs(y), initial=0.0))


def pattern(analytic: np.ndarray, right: np.ndarray, along_time: bool) -> str:
    """How `analytic` follows from what is right, or nothing: zero, a multiple, transposed, another order of time."""
    if not analytic.size or not np.any(right):
        return ""
    if not np.any(analytic):
        return "is zero, it was dropped"
    factor = np.vdot(right, analytic) / np.vdot(right, right)
    if abs(factor - 1) > SAME and _same(analytic, np.asarray(factor * right)):
        return f"is {factor:.4g} times what it should be"
    if analytic.ndim == 2 and analytic.shape[0] == analytic.shape[1] and _same(analytic, right.T):
        return "is transposed"
    if along_time and len(analytic) > 1:
        if _same(analytic, right[::-1]):
            return "is in reversed time order"
        for moved, words in ((1, "late"), (-1, "early")):
            ours, theirs = (analytic[1:], right[:-1]) if moved == 1 else (analytic[:-1], right[1:])
            if np.any(theirs) and _same(ours, theirs):
                return f"comes one step too {words}"
    return ""


def about_leaf(leaf: str, analytic: np.ndarray, right: np.ndarray | None, worst: str) -> str:
    """One sentence on a wrong leaf; `right` is None where not every entry is known."""
    if not np.all(np.isfinite(analytic)):
        where = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
        return f"{leaf} is not finite: {analytic[where]} at {where}."
    if right is not None:
        if not np.any(right):
            return f"{leaf} should be zero and is not: {worst}."
        words = pattern(analytic, right, along_time=leaf == "inputs")
        if words:
            return f"{leaf} {words}."
        if leaf == "inputs":
            return f"{leaf} is wrong {_at_steps(_wrong_rows(analytic, right) + 1, len(right))}: {worst}."
        if leaf.startswith("h_0") and analytic.ndim == 2:
            rows = _wrong_rows(analytic, right)
            if len(rows) < len(right):
                return f"{leaf} is wrong in {len(rows)} of {len(right)} sequences, {_list(rows)}: {worst}."
    return f"{leaf} is wrong: {worst}."


def about_steps(leaf: str, analytic: np.ndarray, right: np.ndarray, num_steps: int) -> str:
    """One sentence on what the gradient of a leaf takes from each step (`StepReport`); nothing if all is right."""
    rows = _wrong_rows(analytic, right)
    if not len(rows):
        return ""
    words = pattern(analytic, right, along_time=True)
    if leaf.endswith("w_hh") and words == "comes one step too late":
        return f"{leaf} pairs d_a_t with h_t, the state that the step left, where h_(t-1), the state it met, belongs."
    what, first = ("d_y_t", 0) if leaf.endswith("w_hy") else ("d_a_t", 1)
    if words:
        return f"What {leaf} takes for {what} {words}."
    where = _at_steps(rows + first, num_steps)
    k = len(rows)
    hint = (
        f": look at what step {k + 1} sends back to step {k}" if what == "d_a_t" and " and right from " in where else ""
    )
    return f"What {leaf} takes for {what} is wrong {where}{hint}."


def _wrong_rows(analytic: np.ndarray, right: np.ndarray) -> np.ndarray:
    off = np.max(np.abs(analytic - right), axis=tuple(range(1, analytic.ndim)))
    return np.flatnonzero(~(off <= SAME * np.max(np.abs(right))))  # NaN is wrong


def _at_steps(steps: np.ndarray, num_steps: int) -> str:
    """Steps count from 1, as in the equations."""
    if len(steps) >= num_steps:
        return "at every step"
    if len(steps) > 1 and np.array_equal(steps, np.arange(1, len(steps) + 1)):
        k = len(steps)
        return f"at t = 1..{k} and right from t = {k + 1} on"
    return f"at t = {_list(steps)} only"


def _list(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown + (", …" if len(numbers) > 8 else "")
