"""`check_gradients`: is this gradient right, and if not, where is it wrong?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from .._require import require_callable, require_sizes
from .._results import require_result, same_structure
from .._types import Batch, GradFn
from ._compared import (
    Beside,
    Sample,
    about,
    compared,
    differences_of,
    doubtful,
    leaf_report,
    worst,
)
from ._differences import STEP, TOLERANCE, largest
from ._findings import Finding, about_leaf
from ._next_to import decided_next_to
from ._report import LeafReport, Report, StepReport
from ._steps import by_steps
from ._subject import Leaf, Subject, gates_of, in_float64, low_precision, of_grad_fn, of_rule

NUM_DIRECTIONS = 3
WITNESS_TOLERANCE = 1e-12  # for a witness that is exact except for rounding


def check_gradients(
    fn: Callable[..., Any], *args: Any, witness: GradFn | None = None, max_entries: int = 512, seed: int = 0
) -> Report:
    """Check the gradient that `fn` gives at `args`, entry by entry, in float64.

    Either `fn` is a `GradFn` and `args` are `params, batch, h_0`; then its gradients are checked. Or `fn` is any
    function of trees with a derivative rule (`custom_vjp`, `custom_jvp`, a primitive, or JAX's own); then `jax.vjp` is
    checked at a seeded random cotangent, with respect to every floating point array in `args`.

    Without a `witness`, the gradient is compared with central differences of the value of `fn`, which is the loss of a
    `GradFn` (the last states are only compared with a witness):

    - Four points `θ ± δ, θ ± 2δ` give a slope and an estimate of its error. `δ` is the fourth root of the machine
      epsilon times the size of the leaf (at least 1), rounded to a power of two. It is shorter where the function
      bends.
    - Where this slope and the gradient disagree, one-sided slopes decide, with steps down to the size of the entry. So
      the second derivative may jump (relu squared at 0), and a domain may end close by (a logarithm). The rounding from
      digits that cancel inside `fn` is measured there, and an error of that size is allowed.
    - On a kink (relu at 0), any slope between those of both sides is right, and the report counts it. If the sides
      differ by more than 1e-4 of the larger, zero is allowed too, because relu'(0) = 0 leaves out what goes through the
      kink.
    - On a kink, or where no step fits (equal values that are sorted, `x^1.1` at 0), the gradient must be right at
      places nearby, and at the place itself it must be a limit of the gradients nearby. If no step fits nearby either,
      the report says that the leaf cannot be decided.
    - Every leaf is also checked along three random directions, because where inputs are equal, each entry may be right
      while their sum is wrong.

    Where the gradient of a `GradFn` is wrong, a clock is built into the problem (see `verify/_clock.py`). It shows what
    `fn` takes from each time step, and the report names the wrong steps.

    Everything is computed in float64; the session's default dtype stays as it is. `fn` is used as it is, compiled or
    not; a jitted `fn` is quicker.

    Args:
        fn: a `GradFn`, or a function of `args` with a derivative rule.
        *args: the arguments of `fn`.
        witness: another `GradFn` to compare with, instead of differences: loss, last states and every entry. A
            truncated method needs one, because it does not return the gradient of its own loss.
        max_entries: how many entries of a larger leaf are checked; the one with the largest gradient is among them.
        seed: the seed of the entries, directions and cotangent that are drawn.

    Returns:
        A `Report`: `report.passed`, `report.findings`, and a table by `print(report)`.

    Raises:
        TypeError: if `fn` is not a function, or cannot be traced and there is no `witness`; if an argument or a result
            is complex; if an argument is traced (under `jit`, `grad`, `vmap`).
        ValueError: if nothing in `args` or in the result is floating point; if the value of `fn` is not finite; if its
            gradient does not have the tree structure and shapes of the arguments.

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
        raise TypeError("`check_gradients` reads values, which do not exist under jit, vmap or grad: call it outside.")
    with jax.enable_x64(True), jax.disable_jit(False):  # thousands of values, which take minutes without jit
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
            settings = "Compared with another gradient function"
        else:
            raise ValueError(
                "`witness` is for a GradFn called with (params, batch, h_0), got another function: leave it out."
            )
        settings += f"; all in float64; tolerance {tolerance:.0e} of the largest entry of each leaf."
        words = [finding.words for finding in found]
        unexplained = {finding.leaf for finding in found if not finding.explained}
        steps: list[StepReport] = []
        dtype = "" if witness is not None or not found else low_precision(subject)
        if dtype:  # then noise would decide which steps are named
            words.insert(0, f"A part of `fn` is computed in {dtype}, but differences need float64 throughout.")
        elif unexplained and is_grad_fn:
            steps, told = by_steps(fn, witness, args, unexplained)
            words += told
        passed = all(leaf.passed for leaf in leaves)
        return Report(passed, tuple(leaves), tuple(steps), tuple(words), tolerance, settings)


def _beside_differences(subject: Subject, max_entries: int, rng: Any) -> tuple[list[LeafReport], list[Finding]]:
    differences = differences_of(subject)
    at_center = float(differences.at_entries(subject.theta)(np.zeros(1, int), np.zeros(1))[0])
    if not np.isfinite(at_center):
        raise ValueError(f"The value of `fn` at `args` must be finite, got {at_center}.")
    leaves, findings = [], []
    for leaf in subject.leaves:
        sample = _sample(leaf, subject.gradient[leaf.entries], max_entries, rng)
        beside = compared(subject, differences, sample)
        report = leaf_report(sample, beside, TOLERANCE)
        finding = None if report.passed else about(subject.gradient, sample, beside, report)
        if doubtful(sample, beside):
            report, finding = decided_next_to(subject, differences, sample, beside, rng)
        leaves.append(report)
        findings += [finding] if finding else []
    return leaves, findings


def _sample(leaf: Leaf, d: np.ndarray, max_entries: int, rng: Any) -> Sample:
    """All entries, or `max_entries` of them with the largest among them; and some random directions."""
    directions = rng.choice([-1.0, 1.0], (NUM_DIRECTIONS if d.size > 1 else 0, d.size)) / np.sqrt(max(d.size, 1))
    if d.size <= max_entries:
        return Sample(leaf, np.arange(d.size), directions)
    drawn = rng.choice(d.size, max_entries, replace=False)
    drawn[0] = np.argmax(np.abs(d))
    return Sample(leaf, np.unique(drawn), directions)


def _beside_witness(fn: GradFn, witness: GradFn, args: tuple[Any, ...]) -> tuple[list[LeafReport], list[Finding]]:
    """Loss, last states and every entry of the gradient."""
    mine, its = require_result(fn(*args), "fn"), require_result(witness(*args), "witness")
    if not same_structure(mine, its):
        raise ValueError("`witness` must return a result with the tree structure of the result of `fn`.")
    everything = max(largest(np.asarray(x)) for x in jax.tree.leaves(its[1]))
    gates = gates_of(args[0])
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
        exact, no_kink = np.zeros(y.size), np.zeros(y.size, bool)
        beside = Beside(x.ravel(), y.ravel(), exact, exact, no_kink, no_kink, np.zeros(1))
        everywhere = Sample(leaf, np.arange(y.size), np.zeros((0, y.size)))
        report = leaf_report(everywhere, beside, WITNESS_TOLERANCE, floor=1e-3 * everything)  # for a leaf of zeros
        leaves.append(report)
        findings += [] if report.passed else [about_leaf(leaf.name, x, y, worst(report), gates.get(leaf.name, ()))]
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
