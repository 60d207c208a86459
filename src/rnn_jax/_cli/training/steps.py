"""The steps of a run: which windows they read, many of them in one call, and what happens to one that is not finite."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from ... import Batch, drop_units
from ...typing import States, StepInfo, Trainer, TrainState
from ..processes.placement import EVERYWHERE, OF_WINDOWS, ONE, Placement
from ..settings.training import TrainConfig

WORK = 6e10  # floating-point operations of one call: about half a second on two cores
MOST = 50  # steps of one call
DROPPING = 2**31  # makes the randomness of dropout independent of that of the weights


def steps_per_call(config: TrainConfig, num_parameters: int) -> int:
    """How many steps one call of the compiled program makes, at most.

    It follows from the sizes, not from the speed of a machine, so the metrics and the last step before a signal are
    the same everywhere. A step takes about 6 operations for each parameter and token.
    """
    return max(1, min(MOST, int(WORK // (6 * num_parameters * config.window * config.streams))))


def num_windows(streams: np.ndarray, window: int) -> int:
    """How many windows, each with the target of its last step, the streams (time, streams) hold."""
    return int(streams.shape[0] - 1) // window


def windows_at(streams: np.ndarray, step: int, num_steps: int, window: int) -> np.ndarray:
    """The windows that `num_steps` steps read from step `step` on, (num_steps, window + 1, streams)."""
    starts = (step + np.arange(num_steps)) % num_windows(streams, window) * window
    return np.stack([streams[start : start + window + 1] for start in starts])


def make_next_batch(config: TrainConfig, windows: int) -> Callable[[TrainState, Array], tuple[States, Batch]]:
    """`(state, tokens of its window) -> (h_0, batch)` of the next step, where streams have so many windows.

    The number of the step decides which units it drops. At the start of the streams the state is zero.
    """

    def next_batch(state: TrainState, tokens: Int[Array, "time streams"]) -> tuple[States, Batch]:
        is_start = state.num_steps % windows == 0
        h_0 = jax.tree.map(lambda h: jnp.where(is_start, jnp.zeros_like(h), h), state.h_0)
        tokens = tokens.astype(jnp.int32)
        batch = Batch(tokens[:-1], tokens[1:])
        if config.drop_between or config.drop_recurrent:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), DROPPING), state.num_steps)
            rates = {"between": config.drop_between, "recurrent": config.drop_recurrent}
            batch = drop_units(state.params, batch._replace(key=key), **rates)
        return h_0, batch

    return next_batch


def is_finite(info: StepInfo) -> Bool[Array, "*steps"]:
    """Whether loss, gradient and update of a step are finite."""
    return jnp.isfinite(info.loss) & jnp.isfinite(info.grad_norm) & jnp.isfinite(info.update_norm)


def num_skipped_in_a_row(finite: np.ndarray, before: int) -> int:
    """How many steps at the end are not finite, with those `before` if all are not."""
    return int(np.argmax(finite[::-1])) if finite.any() else before + len(finite)


def unless_finite(before: TrainState, after: TrainState, info: StepInfo) -> TrainState:
    """`after`, but with the weights and the optimizer of `before` where loss, gradient or update is not finite.

    The trainer carries only finite states, and counts the step. `optax.apply_if_finite` looks at the gradient alone,
    and applies an update that is not finite after too many in a row.
    """
    skipped = after._replace(params=before.params, opt_state=before.opt_state)
    kept: TrainState = jax.tree.map(partial(jnp.where, is_finite(info)), after, skipped)
    return kept


def make_dispatch(
    trainer: Trainer,
    next_batch: Callable[[TrainState, Array], tuple[States, Batch]],
    placement: Placement = ONE,
) -> Callable[..., tuple[TrainState, StepInfo]]:
    """`(state, windows) -> (state, infos)`: one step for each window, in one compiled call; the state is donated.

    Between the steps of a call, XLA leaves the hidden states on the devices of their streams, where `Sharded` has them;
    what is returned is everywhere.
    """

    everywhere, of_windows = map(placement.sharding, (EVERYWHERE, OF_WINDOWS))

    @partial(jax.jit, donate_argnums=0, in_shardings=(everywhere, of_windows), out_shardings=everywhere)
    def dispatch(state: TrainState, windows: Int[Array, "steps time streams"]) -> tuple[TrainState, StepInfo]:
        def body(before: TrainState, tokens: Array) -> tuple[TrainState, StepInfo]:
            h_0, batch = next_batch(before, tokens)
            after, info = trainer.step(before._replace(h_0=h_0), batch)
            after = unless_finite(before, after, info)
            # To count what is not carried, over all devices, would be a second reduction a step.
            info = info._replace(num_not_carried=None)  # type: ignore[arg-type]
            return after, info

        return lax.scan(body, state, windows)

    return dispatch
