"""Windows of the loss that reach back k2 steps and no further; `windows` defines them."""

import dataclasses

import jax.numpy as jnp

from ..._batches import num_read
from ..._checks import steps_shape
from ..._require import are_numbers, require_sizes
from ..._types import Batch, Gradients, Objective, Params, Result, States
from ..blocked import Problem, WayBack, planned, reach, there_and_back
from ..plan import Plan, check_plan, default_plan
from ..stretches import Stretch, split, stretches_of
from .references import WindowsByAutodiff
from .windows import Windows, whole_windows, window_plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncated:
    """The loss of each window of `k1` steps reaches back `k2` steps. Not exact; the loss is that of all steps.

    Let `L_i` be the loss of window i, which has the steps `(i - 1) k1 < t ≤ e_i`, with `e_i = min(i k1, T)`. The
    gradient is `Σ_i ∂L_i`, with `h_{e_i - k2}` held constant in term i. All windows share one forward pass.

    Args:
        k1: the window length, in steps.
        k2: the reach, in steps; at least `k1`.
        plan: a `Plan`, as in `Blocked`; its lengths must be multiples of `k1`.

    Raises:
        TypeError: if `k1` or `k2` is not an integer, or `plan` is not a `Plan`.
        ValueError: if `k1` is below 1, `k2` is below `k1`, or a length of `plan` is not a multiple of `k1`.

    References: Williams and Peng (1990), Neural Computation 2(4).

    >>> import rnn_jax
    >>> grad_fn = rnn_jax.make_grad_fn(rnn_jax.Truncated(k1=10, k2=20), loss="cross_entropy")
    """

    k1: int
    k2: int
    plan: Plan | None = None

    def __post_init__(self) -> None:
        require_sizes(k1=self.k1, k2=self.k2)
        if self.k2 < self.k1:
            raise ValueError(f"`k2` (reach) must be at least `k1` (window length), got {self.k2} and {self.k1}.")
        if self.plan is not None:
            check_plan(self.plan)
            for size in (self.plan.block, *self.plan.segments):
                if size % self.k1:
                    raise ValueError(f"`plan` must be made of multiples of `k1`, got {size} with k1 = {self.k1}.")

    @property
    def reference(self) -> WindowsByAutodiff:
        """Each window separately, by `stop_gradient` in the plain scan."""
        return WindowsByAutodiff(self.k1, FixedReach(self.k2))

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss of all steps, the last states, and the sum of the gradients of all windows."""
        time, *batch_axes = steps_shape(batch.inputs)
        problem = Problem(WayBack(), objective, params, batch)
        if are_numbers(time) and self.k1 >= time:  # one window, of all steps
            return there_and_back(problem, planned(self.plan, problem), h_0)
        if self.k1 == self.k2 and time % self.k1 == 0 and num_read(batch) == time:
            step = jnp.arange(time).reshape(time, *(1 for _ in batch_axes))
            sent = ((step % self.k1 != 0) | (step == 0)).astype(h_0[0].dtype)
            problem = problem._replace(sent=sent)  # windows apart: one way back, with cuts
            return there_and_back(problem, planned(self.plan, problem), h_0)
        return self.overlapping(problem, h_0)

    def overlapping(self, problem: Problem, h_0: States) -> Result:
        """Windows that go back over the same steps, or of which the last is shorter."""
        k1, k2 = self.k1, self.k2
        time = problem.batch.inputs.shape[0]
        batch = whole_windows(problem.batch, k1, problem.objective.scale.dtype)
        padded, read = batch.inputs.shape[0], num_read(batch)
        first_read = padded - read
        if are_numbers(time, read):
            k2 = min(k2, time)
            passes = max(-(-(k2 + padded - time) // k1), 1)
            first = max(min(first_read + k1, time) - k2, 0) // k1 * k1  # no window reaches the steps before
        else:
            passes, first = -(-(k2 + k1 - 1) // k1), 0  # enough for any number of steps
        windows = Windows(k1=k1, k2=k2, time=time, passes=passes)
        plan = window_plan(default_plan(problem.params, batch), k1) if self.plan is None else self.plan
        problem = problem._replace(way=windows, batch=batch)
        stretches = stretches_of(plan, padded, read, first)
        if first:
            whole = split(plan._replace(segments=()), 0, first, 0, read=False)
            h_0 = reach(problem, Stretch(0, 1, first, 0, whole), 0, h_0)
        later = tuple(jnp.zeros_like(h, shape=(passes, *h.shape)) for h in h_0)
        (loss, h_T), gradients = there_and_back(problem, stretches, h_0, later)
        d_h_0 = tuple(jnp.sum(d_h, 0) for d_h in gradients.h_0)
        d_xs = None if gradients.inputs is None else gradients.inputs[:time]
        return (loss, h_T), Gradients(gradients.params, d_h_0, d_xs)


@dataclasses.dataclass(frozen=True)
class FixedReach:
    """The same k2 for every batch."""

    k2: int

    def __call__(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> int:
        """`k2`, whatever the arguments."""
        del objective, params, batch, h_0
        return self.k2
