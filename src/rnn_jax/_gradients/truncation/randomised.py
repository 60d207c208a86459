"""Truncation at random steps, with larger gradients at the others to make up for it: unbiased.

At every step t of every sequence except the first step, the gradient is cut between `h_{t-1}` and `x_t` with
probability `c = 1 / mean_reach`, and divided by `1 - c` where it is not cut. So the expectation of what step t sends
back is what it sends in full backpropagation. By induction, every gradient is right on average (Tallec and Ollivier
2017, arXiv:1705.08209; they also let c depend on the place of the last cut).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._checks import steps_shape
from ..._require import Number, Range, require_number
from ..._types import Batch, Objective, Params, Result, States, accumulation_dtype
from ..blocked import Problem, WayBack, planned, there_and_back
from ..plan import Plan, check_plan
from .references import SentOn

REACH = Range("a finite number of steps above 1", lambda x: x > 1)


@dataclasses.dataclass(frozen=True)
class Cuts:
    """`cuts` for a given mean reach."""

    mean_reach: Number

    def __call__(self, batch: Batch, dtype: Any) -> Array:
        """The factor on what each step sends back, `(time, *batch)`."""
        return cuts(self.mean_reach, batch, dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Randomised:
    """The gradient is cut at random steps and enlarged at all others: right on average over keys. Not exact.

    At each step of each sequence, the gradient is cut with probability `c = 1 / mean_reach`, and divided by `1 - c`
    where it is not cut. The loss covers all steps. The batch needs a `key`.

    Args:
        mean_reach: the mean distance between cuts, in steps; above 1. It may be traced: then its range is not checked.
        plan: a `Plan`, as in `Blocked`.

    Raises:
        TypeError: if `mean_reach` is not a number, or `plan` is not a `Plan`.
        ValueError: if `mean_reach` is not above 1; in a call, if the batch has no key.

    References: Tallec and Ollivier (2017), arXiv:1705.08209.

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Randomised(mean_reach=20.0), loss="cross_entropy")
    """

    mean_reach: Number
    plan: Plan | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean_reach", require_number("mean_reach", self.mean_reach, REACH))
        if self.plan is not None:
            check_plan(self.plan)

    @property
    def reference(self) -> SentOn:
        """The same factors on what each step sends back, by `stop_gradient`."""
        return SentOn(Cuts(self.mean_reach))

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, the last states, and gradients that are right in expectation."""
        sent = cuts(self.mean_reach, batch, h_0[0].dtype)
        problem = Problem(WayBack(), objective, params, batch, sent)
        return there_and_back(problem, planned(self.plan, problem), h_0)


def cuts(mean_reach: Number, batch: Batch, dtype: Any) -> Array:
    """The factor on the gradient that each step sends back: 0, or 1 / (1 - c). `(time, *batch)`.

    Raises:
        ValueError: if the batch has no key.
    """
    if batch.key is None:
        raise ValueError(
            "`batch.key` must be given, because the gradient method 'randomised' draws from it: "
            "`batch._replace(key=jax.random.key(0))`."
        )
    enlarged = jnp.asarray(1 / (1 - 1 / mean_reach), dtype)
    keep = 1 / enlarged.astype(accumulation_dtype(dtype))  # from the rounded number, otherwise the mean is wrong
    sent = jax.random.bernoulli(batch.key, keep, steps_shape(batch.inputs)).astype(dtype) * enlarged
    return jnp.concatenate([jnp.ones_like(sent[:1]), sent[1:]])  # a cut before h_0 would save nothing
