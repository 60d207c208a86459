"""What truncation costs: how far the gradient is from the full one, how it decays with the lag, time and memory."""

import time as clock
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from .._batches import check_call
from .._gradients.methods import make_grad_fn
from .._gradients.truncation.truncated import Truncated
from .._require import require_sizes, require_values
from .._types import Batch, GradFn, Loss, Params, States
from ._anatomy import anatomy
from ._lag_grid import mean_over_steps


class Distance(NamedTuple):
    """How far a gradient is from the full one: `error`, `‖g - full‖ / ‖full‖`, and `cosine`, of their angle."""

    error: float
    cosine: float


class TruncationRow(NamedTuple):
    """One pair of windows and reach.

    `k1`, `k2`        window length and reach, in steps.
    `whole`           the distance of all weights together from the full gradient.
    `leaves`          the distance of each leaf.
    `seconds`         of one call, the median of five.
    `temporary_bytes` of the compiled program; None where XLA does not tell.
    """

    k1: int
    k2: int
    whole: Distance
    leaves: dict[str, Distance]
    seconds: float
    temporary_bytes: int | None


class TruncationReport(NamedTuple):
    """What `truncation_report` found; `print` shows it as a table.

    `rows`        a `TruncationRow` for each pair of k1 and k2.
    `full`        the same for the full gradient.
    `lag_norms`   `lag_norms[lag]` is the mean of `‖∂L_t/∂h_{t-lag}‖`, with all layers in one norm, over the steps t
                  that have at least `lag` steps before them.
    `decay`       the factor per step of lag, from the least-squares line through the logarithms, from lag 1 on.
    `decay_error` its standard error.
    """

    rows: tuple[TruncationRow, ...]
    full: TruncationRow
    lag_norms: np.ndarray
    decay: float
    decay_error: float

    def __str__(self) -> str:
        rate = f"{self.decay:.3g}" + (f" ± {self.decay_error:.1g}" if np.isfinite(self.decay_error) else "")
        per_step = f"‖∂L_t/∂h_(t-lag)‖ changes by a factor of {rate} with each step back"
        if np.isnan(self.decay):
            per_step = "Too few lags to see a decay"
        lines = [f"{per_step} (over {len(self.lag_norms) - 1} steps).", "", _HEAD]
        for row in (*self.rows, self.full):
            worst = max(row.leaves, key=lambda name: row.leaves[name].error)
            memory = "-" if row.temporary_bytes is None else f"{row.temporary_bytes / 1e6:.2f}"
            lines.append(
                f"{row.k1:>6}  {row.k2:>6}  {row.whole.error:>9.2e}  {row.whole.cosine:>7.4f}  "
                f"{row.leaves[worst].error:>9.2e} "
                f"{worst:<16}  {row.seconds * 1e3:>8.2f}  {memory:>8}"
            )
        return "\n".join(lines)


_HEAD = f"{'k1':>6}  {'k2':>6}  {'error':>9}  {'cosine':>7}  {'worst leaf':<26}  {'ms':>8}  {'MB temp':>8}"


def truncation_report(
    params: Params,
    batch: Batch,
    h_0: States,
    ks: Sequence[int],
    *,
    loss: str | Loss = "cross_entropy",
    reduction: str = "mean",
    lags: int | None = None,
) -> TruncationReport:
    """Measure what windows of k1 steps that reach back k2 cost on this batch, compared with the full gradient.

    For each k2, k1 is k2, half of it, and 1. With k1 = k2, the windows do not overlap, and the first loss of each
    reaches no earlier step; with k1 = 1, every step reaches back k2. `Truncated(k1=k1, k2=k2)` is compiled, timed (the
    median of five calls) and compared with `"blocked"` in the gradients of the weights, leaf by leaf and all together.

    Args:
        params: the network.
        batch: the batch, as for a `GradFn`.
        h_0: the first states, one array per layer.
        ks: the reaches k2, in steps.
        loss: the loss, as in `make_grad_fn`.
        reduction: how the losses of the steps are added up, as in `make_grad_fn`.
        lags: how many steps back the decay is measured, which takes that many passes over the sequence; None for the
            largest of `ks`. At most T.

    Returns:
        A `TruncationReport`; times in seconds, memory in bytes.

    Raises:
        TypeError: under `jit`, `vmap` or `grad`; for a k that is not an integer; for what `make_grad_fn` refuses.
        ValueError: for a k below 1, or no k at all; for what `make_grad_fn` refuses.

    References: Williams and Peng (1990), Neural Computation 2(4), who compare reach and error.

    >>> import jax.numpy as jnp, rnn_jax
    >>> params, batch, h_0 = rnn_jax.verify.make_problem(rnn_jax.verify.Case(time=30), dtype=jnp.float32)
    >>> report = rnn_jax.analysis.truncation_report(params, batch, h_0, [1, 5, 30])
    >>> [(row.k1, row.k2) for row in report.rows]
    [(1, 1), (5, 5), (2, 5), (1, 5), (30, 30), (15, 30), (1, 30)]
    >>> report.rows[-1].whole.error < 1e-5
    True
    """
    require_values("truncation_report", (params, batch, h_0))
    check_call(params, batch, h_0)
    if not isinstance(ks, (Sequence, np.ndarray)) or isinstance(ks, str) or not len(ks):
        raise ValueError(f"`ks` must be a list of at least one number of steps, got {ks!r}.")
    require_sizes(**{f"ks[{i}]": k for i, k in enumerate(ks)})
    steps = batch.inputs.shape[0]
    if lags is not None:
        require_sizes(lags=lags)
    lags = min(int(max(ks)) if lags is None else lags, steps)
    full = _measured(make_grad_fn("blocked", loss=loss, reduction=reduction), params, batch, h_0)
    rows = []
    for k2 in map(int, ks):
        for k1 in sorted({k2, max(k2 // 2, 1), 1}, reverse=True):
            grad_fn = make_grad_fn(Truncated(k1=k1, k2=k2), loss=loss, reduction=reduction)
            rows.append(_row(k1, k2, _measured(grad_fn, params, batch, h_0), full[0]))
    found = jax.jit(partial(anatomy, loss=loss, reduction=reduction, lags=lags))(params, batch, h_0)
    norms = np.asarray(mean_over_steps(found.lag_norms), np.float64)
    decay = (float(np.asarray(x, np.float64)) for x in (found.decay, found.decay_error))  # None becomes NaN
    return TruncationReport(tuple(rows), _row(steps, steps, full, full[0]), norms, *decay)


def _measured(grad_fn: GradFn, *arguments: Any) -> tuple[Params, float, int | None]:
    with jax.disable_jit(False):  # time and memory are those of the compiled program
        compiled = jax.jit(lambda *a: grad_fn(*a)[1].params).lower(*arguments).compile()
        gradient = jax.block_until_ready(compiled(*arguments))
        seconds = []
        for _ in range(5):
            start = clock.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            seconds.append(clock.perf_counter() - start)
    memory = compiled.memory_analysis()
    return gradient, float(np.median(seconds)), None if memory is None else memory.temp_size_in_bytes


def _row(k1: int, k2: int, measured: tuple[Params, float, int | None], full: Params) -> TruncationRow:
    gradient, seconds, memory = measured
    mine, theirs = ([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)] for tree in (gradient, full))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(full)]
    leaves = {name: _distance(x, y) for name, x, y in zip(names, mine, theirs, strict=True)}
    return TruncationRow(k1, k2, _distance(np.concatenate(mine), np.concatenate(theirs)), leaves, seconds, memory)


def _distance(x: np.ndarray, y: np.ndarray) -> Distance:
    of_x, of_y = np.linalg.norm(x), np.linalg.norm(y)
    if of_y == 0:
        return Distance(0.0, 1.0) if of_x == 0 else Distance(np.inf, 0.0)
    return Distance(float(np.linalg.norm(x - y) / of_y), float(x @ y / (of_x * of_y)) if of_x else 0.0)
