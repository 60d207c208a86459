"""`check_gradients`: is this gradient right, and if not, where is it wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ._differences import STEP, TOLERANCE, Values, along, at_entries, closer, largest, slopes, steps_to_try
from ._findings import Finding, about_leaf
from ._report import LeafReport, Report, StepReport
from ._require import require_callable, require_sizes
from ._steps import by_steps
from ._subject import Leaf, Subject, in_float64, low_precision, of_grad_fn, of_rule, require_result, same_structure
from ._types import Batch, GradFn

WITNESS_TOLERANCE = 1e-12  # of a witness that is exact but for rounding
UNRESOLVED = 1e-5  # however much a function bends, no larger error is excused by it
SHARP = 1e-4  # how far both sides of a kink are apart, relative to them, where zero is not a wrong gradient
NUM_DIRECTIONS = 3


def check_gradients(
    fn: Callable, *args: Any, witness: GradFn | None = None, max_entries: int = 512, seed: int = 0
) -> Report:
    """Check the gradient that `fn` gives at `args`, entry by entry, in float64.

    Either `fn` is a `GradFn` and `args` are `params, batch, h_0`, or `fn` is any function of trees with a derivative
    rule (`custom_vjp`, `custom_jvp`, a primitive, or JAX's own): then `jax.vjp` is checked at a seeded random
    cotangent, with respect to everything in `args` that is floating point.

    It is set beside central differences of the function's own value (of a `GradFn`, its loss; the last states are
    compared beside a witness only). Each has four points `θ ± δ, θ ± 2δ` and an estimate of its own error; `δ` is the
    fourth root of the machine epsilon times the size of the leaf (at least 1), and shorter where the function bends or
    has a kink within it. Where they disagree with the gradient, slopes of either side alone decide, with steps down to
    the size of the entry: the second derivative may jump (relu squared at 0), a logarithm may end close by. On a kink
    itself (relu at 0) any slope between those of both sides is right, and reported; if they differ by more than 1e-4,
    any between those and zero, for relu'(0) = 0 leaves out what goes through the kink. Where no step fits the
    finding says so. A leaf of more than `max_entries` has that many checked, drawn by `seed`, the largest gradient
    among them, and three directional derivatives of the whole leaf.

    Or it is set beside a `witness`, another `GradFn`, in loss, last states and every entry. A truncated method needs
    one: it is not the gradient of its own loss.

    Where the gradient of a `GradFn` is wrong, a clock built into the problem makes the function itself show what it
    takes from each time step, and the report names the steps.

    Everything is computed in float64, whatever the session's default, which stays as it is. The gradient is that of
    `fn` as it comes, compiled or not; a jitted `fn` is quicker.

    Raises:
        TypeError: if `fn` is not a function, or cannot be traced and there is no `witness`, if an argument or a result
            is complex, or an argument is traced (under `jit`, `grad`, `vmap`).
        ValueError: if nothing in `args` or in the result is floating point, if the value of `fn` is not finite, or if
            its gradient has not the structure and the shapes of what it is a gradient of.

    >>> import jax, rnn_jax
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x * x
    >>> square.defvjp(lambda x: (x * x, x), lambda x, g: (g * x,))  # the factor of two is missing
    >>> report = rnn_jax.check_gradients(square, 3.0)
    >>> report.passed, report.findings
    (False, ('args[0] is 0.5 times what it should be.',))
    """
    require_callable(fn=fn)
    require_sizes(max_entries=max_entries)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        raise TypeError("`check_gradients` reads values, which are not there under jit, vmap or grad: call it outside.")
    with jax.enable_x64(True), jax.disable_jit(False):  # thousands of values: without jit that takes minutes
        args = jax.tree.map(in_float64, args)
        is_grad_fn = len(args) == 3 and isinstance(args[1], Batch)
        if witness is None:
            subject = of_grad_fn(fn, *args) if is_grad_fn else of_rule(fn, args, seed)
            leaves, found = _beside_differences(subject, max_entries, np.random.default_rng(seed))
            tolerance = TOLERANCE
            settings = f"Central differences of four points, δ = {STEP:.1e} times the size of the leaf, or shorter"
        elif is_grad_fn:
            leaves, found = _beside_witness(fn, witness, args)
            tolerance = WITNESS_TOLERANCE
            settings = "Beside another gradient function"
        else:
            raise ValueError("`witness` is for a GradFn called with (params, batch, h_0), got another function.")
        settings += f"; all in float64; tolerance {tolerance:.0e} of the largest entry of each leaf."
        words = [finding.words for finding in found]
        unexplained = {finding.leaf for finding in found if not finding.explained}
        steps: list[StepReport] = []
        dtype = "" if witness is not None or not found else low_precision(subject)
        if dtype:  # then steps would be told by noise
            words.insert(0, f"Something inside is computed in {dtype}, and differences need float64 throughout.")
        elif unexplained and is_grad_fn:
            steps, about = by_steps(fn, witness, args, unexplained)
            words += about
        passed = all(leaf.passed for leaf in leaves)
        return Report(passed, tuple(leaves), tuple(steps), tuple(words), tolerance, settings)


class _Beside(NamedTuple):
    """Entries of one leaf beside what they should be, and how far off that may be, by truncation and by rounding."""

    entries: list[str]
    analytic: np.ndarray
    numeric: np.ndarray
    truncation: np.ndarray
    rounding: np.ndarray
    kink: np.ndarray
    shortened: int


def _beside_differences(subject: Subject, max_entries: int, rng: Any) -> tuple[list[LeafReport], list[Finding]]:
    values = at_entries(subject.value, subject.theta)
    at_center = float(values(np.zeros(1, int), np.zeros(1))[0])
    if not np.isfinite(at_center):
        raise ValueError(f"The value of `fn` at `args` must be finite, got {at_center}.")
    leaves, findings = [], []
    for leaf in subject.leaves:
        d = subject.gradient[leaf.entries]
        index = _entries_to_check(d, max_entries, rng)
        beside = _entrywise(subject, values, leaf, index)
        right = beside.numeric.reshape(leaf.shape) if len(index) == d.size else None
        if right is None:
            beside = _with_directions(beside, subject, leaf, rng)
        report = _leaf_report(leaf, beside, TOLERANCE)
        leaves.append(report)
        if not report.passed:
            finding = about_leaf(leaf.name, d.reshape(leaf.shape), right, _worst(report))
            findings.append(finding._replace(words=finding.words + _unfit(beside, report)))
    return leaves, findings


def _unfit(beside: _Beside, report: LeafReport) -> str:
    """A sentence if the differences at the worst entry are no better than what they find."""
    at = beside.entries.index(report.entry)
    own = beside.truncation[at] + beside.rounding[at]
    if np.isfinite(own) and abs(report.analytic - report.numeric) > 10 * own:
        return ""
    return f" But no step of the differences fits this place, they may be off by {own:.2g} themselves: use a witness."


def _entries_to_check(d: np.ndarray, max_entries: int, rng: Any) -> np.ndarray:
    """All, or as many as asked for, the largest among them."""
    if d.size <= max_entries:
        return np.arange(d.size)
    drawn = rng.choice(d.size, max_entries, replace=False)
    drawn[0] = np.argmax(np.abs(d))
    return np.unique(drawn)


def _entrywise(subject: Subject, values: Values, leaf: Leaf, index: np.ndarray) -> _Beside:
    """The gradient beside central differences at the entries `index` of a leaf."""
    d, theta = subject.gradient[leaf.entries], np.asarray(subject.theta[leaf.entries])
    entries = [_entry(int(k), leaf.shape) for k in index]
    return _beside(entries, d[index], values, leaf.entries.start + index, largest(theta), np.abs(theta[index]), d)


def _beside(
    entries: list[str],
    analytic: np.ndarray,
    values: Values,
    at: np.ndarray,
    leaf_size: float,
    sizes: np.ndarray,
    d: np.ndarray,
) -> _Beside:
    """`analytic`, part of the gradient `d` of a leaf, beside slopes of `values`; `sizes` of what is moved."""
    leaf_sizes = np.full(len(at), leaf_size)
    found = slopes(values, at, leaf_sizes, TOLERANCE / 4 * largest(d))
    steps = steps_to_try(leaf_sizes, sizes)
    again = closer(found, values, at, _suspects(analytic, found.slope), steps, TOLERANCE)
    found = again.found
    sides = np.stack([again.left, again.right])
    sharp = np.abs(again.right - again.left) >= SHARP * np.abs(sides).max(0)
    sides = np.stack([*sides, np.where(sharp, 0, again.left)])  # relu'(0) = 0 leaves out what goes through a kink
    margin = UNRESOLVED * max(largest(d), largest(found.slope))
    kink = again.kinked & (sides.min(0) - margin <= analytic) & (analytic <= sides.max(0) + margin)
    return _Beside(entries, analytic, found.slope, found.truncation, found.rounding, kink, found.shortened)


def _suspects(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~(np.abs(analytic - numeric) <= TOLERANCE * max(largest(analytic), largest(numeric))))


def _with_directions(beside: _Beside, subject: Subject, leaf: Leaf, rng: Any) -> _Beside:
    """The whole leaf at once as well, along random directions of length one."""
    d, theta = subject.gradient[leaf.entries], np.asarray(subject.theta[leaf.entries])
    nearest = np.min(np.abs(theta), initial=np.inf, where=theta != 0)  # to zero, where a domain may end
    size = np.array([nearest * np.sqrt(d.size) if np.isfinite(nearest) else 0.0])
    for number in range(NUM_DIRECTIONS):
        u = np.zeros(len(subject.theta))
        u[leaf.entries] = rng.choice([-1.0, 1.0], d.size) / np.sqrt(d.size)
        values, slope = along(subject.value, subject.theta, u), np.array([u[leaf.entries] @ d])
        more = _beside([f"direction {number + 1}"], slope, values, np.zeros(1, int), largest(theta), size, d)
        beside = _Beside(
            [*beside.entries, *more.entries],
            np.append(beside.analytic, more.analytic),
            np.append(beside.numeric, more.numeric),
            np.append(beside.truncation, more.truncation),
            np.append(beside.rounding, more.rounding),
            np.append(beside.kink, more.kink),
            beside.shortened,
        )
    return beside


def _leaf_report(leaf: Leaf, beside: _Beside, tolerance: float, floor: float = 0.0) -> LeafReport:
    """An entry may be off by the tolerance, by what rounding may do to it, and within bounds by the truncation."""
    num_checked = sum(entry.startswith("(") for entry in beside.entries)
    if not beside.entries:
        return LeafReport(leaf.name, leaf.shape, 0, 0.0, "-", 0.0, 0.0, 0.0, 0, 0, True, np.zeros(0))
    scale = max(largest(beside.analytic), largest(beside.numeric), floor)
    allowed = np.maximum(tolerance * scale, np.minimum(10 * beside.truncation, UNRESOLVED * scale) + beside.rounding)
    off = np.where(beside.kink, 0.0, np.abs(beside.analytic - beside.numeric))
    off = np.where(np.isfinite(off), off, np.inf)
    worst = int(np.argmax(off / np.maximum(allowed, np.finfo(float).tiny)))
    unit = scale or 1.0
    return LeafReport(
        name=leaf.name,
        shape=leaf.shape,
        num_checked=num_checked,
        error=float(off[worst] / unit),
        entry=beside.entries[worst],
        analytic=float(beside.analytic[worst]),
        numeric=float(beside.numeric[worst]),
        resolved=float(np.max(allowed) / unit),
        num_kinks=int(beside.kink.sum()),
        num_shortened=beside.shortened,
        passed=bool(np.all(off <= allowed)),
        errors=off / unit,
    )


def _worst(report: LeafReport) -> str:
    return f"most at {report.entry}, {report.analytic:.6g} where {report.numeric:.6g} is right"


def _entry(flat: int, shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(int(i)) for i in np.unravel_index(flat, shape)) + ")" if shape else "()"


def _beside_witness(fn: GradFn, witness: GradFn, args: tuple) -> tuple[list[LeafReport], list[Finding]]:
    """Loss, last states and every entry of the gradient."""
    mine, its = require_result(fn(*args), "fn"), require_result(witness(*args), "witness")
    if not same_structure(mine, its):
        raise ValueError("`witness` must return a result of the structure that `fn` returns.")
    everything = max(largest(np.asarray(x)) for x in jax.tree.leaves(its[1]))
    leaves, findings = [], []
    for (path, x), y in zip(jax.tree.leaves_with_path(_parts(mine)), jax.tree.leaves(_parts(its)), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.shape != y.shape:
            raise ValueError(f"`witness` must return {_part_name(path)} of shape {x.shape}, as `fn`, got {y.shape}.")
        if not np.all(np.isfinite(y)):
            raise ValueError(
                f"`witness` must return finite numbers, got {y[~np.isfinite(y)][0]} in {_part_name(path)}."
            )
        leaf = Leaf(_part_name(path), y.shape, slice(0, y.size))
        entries, exact = [_entry(k, y.shape) for k in range(y.size)], np.zeros(y.size)
        beside = _Beside(entries, x.ravel(), y.ravel(), exact, exact, exact.astype(bool), 0)
        report = _leaf_report(leaf, beside, WITNESS_TOLERANCE, floor=1e-3 * everything)  # rounding of a leaf of zeros
        leaves.append(report)
        findings += [] if report.passed else [about_leaf(leaf.name, x, y, _worst(report))]
    return leaves, findings


class _Result(NamedTuple):
    loss: Any
    h_T: Any
    gradients: Any


def _parts(result: Any) -> _Result:
    (loss, h_T), gradients = result
    return _Result(loss, h_T, gradients)


def _part_name(path: Any) -> str:
    return jax.tree_util.keystr(path).removeprefix(".gradients").lstrip(".")
