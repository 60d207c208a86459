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
    """Between a gradient and the full one: `‖g - full‖ / ‖full‖`, and the cosine of their angle."""

    error: float
    cosine: float


class TruncationRow(NamedTuple):
    """Windows of `k1` steps that reach back `k2`. Seconds a call, and bytes of temporaries where XLA tells them."""

    k1: int
    k2: int
    whole: Distance
    leaves: dict[str, Distance]
    seconds: float
    temporary_bytes: int | None


class TruncationReport(NamedTuple):
    """What `truncation_report` found; `print` shows it as a table.

    `lag_norms[lag]` is the mean of `‖∂L_t/∂h_{t-lag}‖` over the steps t that have so many before them, with all layers
    in one norm; it falls by `decay ± decay_error` a step (the least-squares line through the logarithms, from lag 1
    on).
    """

    rows: tuple[TruncationRow, ...]
    full: TruncationRow
    lag_norms: np.ndarray
    decay: float
    decay_error: float

    def __str__(self) -> str:
        rate = f"{self.decay:.3g}" + (f" ± {self.decay_error:.1g}" if np.isfinite(self.decay_error) else "")
        per_step = f"‖∂L_t/∂h_(t-lag)‖ is {rate} times what it was, each step back"
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
    """What windows of k1 steps that reach back k2 would cost on this batch, compared with the full gradient.

    The k2 are `ks`; for each, k1 is k2, half of it, and 1: with k1 = k2 the first step of each window reaches back to
    nothing, with k1 = 1 every step reaches back k2. `Truncated(k1=k1, k2=k2)` is compiled, timed (the
    median of five calls) and compared with `"blocked"`: weights only, leaf by leaf and all in one. `lags` is how many
    steps back the decay is measured, by default the largest k; that takes as many passes over the sequence.

    Raises:
        ValueError: for a k below 1, no k at all, or what `make_grad_fn` refuses.

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
    decay = (float(np.asarray(x, np.float64)) for x in (found.decay, found.decay_error))  # of None it is NaN
    return TruncationReport(tuple(rows), _row(steps, steps, full, full[0]), norms, *decay)


def _measured(grad_fn: GradFn, *arguments: Any) -> tuple[Params, float, int | None]:
    with jax.disable_jit(False):  # it is the compiled program whose time and memory are told
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
