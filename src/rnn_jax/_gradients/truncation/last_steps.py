"""The gradient of the loss of the last steps only: what a backward loop over "the last k steps" computes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._batches import num_read
from ..._losses import step_weights
from ..._require import are_numbers, require_sizes
from ..._types import Batch, Gradients, Objective, Params, Result, States
from ..blocked import Problem, WayBack, planned, there_and_back
from ..plan import Plan, check_plan
from .references import LastStepsByAutodiff
from .windows import pad_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastSteps:
    """The gradient of the loss of the last `k` steps only. Not exact.

    It is what a backward loop over "the last k steps" computes. It returns the loss of all steps, but the losses before
    the last `k` steps do not enter the gradient, so they are never trained on. `Truncated` trains on every loss and
    only limits how far back each one reaches.

    Args:
        k: the number of steps.
        plan: a `Plan`, as in `Blocked`.

    Raises:
        TypeError: if `k` is not an integer, or `plan` is not a `Plan`.
        ValueError: if `k` is below 1; in a call, if the number of steps is symbolic (`jax.export`).

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.LastSteps(k=20), loss="cross_entropy")
    """

    k: int
    plan: Plan | None = None

    def __post_init__(self) -> None:
        require_sizes(k=self.k)
        if self.plan is not None:
            check_plan(self.plan)

    @property
    def reference(self) -> LastStepsByAutodiff:
        """The same by `stop_gradient` in the plain scan."""
        return LastStepsByAutodiff(self.k)

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss of all steps; the gradients of the loss of the steps `T - k < t ≤ T`, with `h_{T-k}` constant."""
        time, last = batch.inputs.shape[0], num_read(batch)
        if not are_numbers(time, last):
            raise ValueError(
                f"The method 'last_steps' needs a known number of steps, got {time}, {last} of them read: export "
                "it for a fixed number of steps (the batch size may be a symbol)."
            )
        read, k = min(self.k, last), min(self.k, time)
        way = WayBack()
        if k == time:
            problem = Problem(way, objective, params, batch)
            return there_and_back(problem, planned(self.plan, problem), h_0)

        def part(first: int, end: int, weights: Array | None, targets: Any) -> Batch:
            mask, reset = (None if flags is None else flags[first:end] for flags in (batch.mask, batch.reset))
            return Batch(batch.inputs[first:end], targets, weights, mask, reset, drop=batch.drop)

        weights = step_weights(batch, objective.scale.dtype)
        before = part(0, time - k, weights[: last - read], jax.tree.map(lambda x: x[: last - read], batch.targets))
        after = part(time - k, time, weights[last - read :], jax.tree.map(lambda x: x[last - read :], batch.targets))
        first, rest = (Problem(way, objective, params, steps) for steps in (before, after))
        (loss_before, h), _ = there_and_back(first, planned(self.plan, first), h_0)
        (loss, h_T), gradients = there_and_back(rest, planned(self.plan, rest), h)
        d_h_0 = jax.tree.map(jnp.zeros_like, h_0)
        d_xs = None if gradients.inputs is None else pad_steps(gradients.inputs, time - k, 0)
        return (loss_before + loss, h_T), Gradients(gradients.params, d_h_0, d_xs)
