"""Truncation at random places, made up for by larger gradients where it did not happen: unbiased.

At every step t of every sequence, but the first, the gradient is cut between `h_{t-1}` and `x_t` with probability
`c = 1 / mean_reach`, and divided by `1 - c` where it is not. The expectation of what step t sends back is what it sends
in full backpropagation, so by induction every gradient is right on average (Tallec and Ollivier 2017, arXiv:1705.08209;
they also let c depend on where the last cut was).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._blocked import blocked
from ._bptt import bptt
from ._checks import steps_shape
from ._losses import Objective
from ._plan import Plan
from ._types import Batch, Gradients, Params, Scalar, States, accumulation_dtype


def randomised(
    mean_reach: float | Array, plan: Plan | None, objective: Objective, params: Params, batch: Batch, h_0: States
) -> tuple[tuple[Scalar, States], Gradients]:
    """The loss, the last states, and gradients that are right in expectation over `batch.key`."""
    sent = cuts(mean_reach, batch, h_0[0].dtype)
    return blocked(bptt(), plan, objective, params, batch, h_0, sent)


def cuts(mean_reach: float | Array, batch: Batch, dtype: Any) -> Array:
    """For every step what is multiplied to the gradient it sends back: 0, or 1 / (1 - c). `(time, *batch)`.

    Raises:
        ValueError: if the batch has no key.
    """
    if batch.key is None:
        raise ValueError("`batch.key` must be given: it is what the gradient method 'randomised' draws from.")
    enlarged = jnp.asarray(1 / (1 - 1 / mean_reach), dtype)
    keep = 1 / enlarged.astype(accumulation_dtype(dtype))  # of the number as it is rounded, or the mean would be off
    sent = jax.random.bernoulli(batch.key, keep, steps_shape(batch.inputs)).astype(dtype) * enlarged
    return jnp.concatenate([jnp.ones_like(sent[:1]), sent[1:]])  # there is nothing to save by cutting h_0 off
