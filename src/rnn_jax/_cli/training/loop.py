"""The training loop: many steps per call; saves, validates and plots at intervals; a signal ends it cleanly."""

import signal
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ...data._held_out import BITS, make_validate
from ...typing import StepInfo, Trainer, TrainState
from ..metrics import is_planned, lacks_validation, no_longer_improves
from .diagnosis import diagnosis, history
from .model import compute_dtype_of, make_character_trainer, make_gradient
from .outputs import Outputs, Run
from .steps import (
    is_finite,
    make_dispatch,
    make_next_batch,
    num_skipped_in_a_row,
    num_windows,
    steps_per_call,
    windows_at,
)
from .watch import make_watch

MINUTE = 60.0  # seconds


def train_until(run: Run, trainer: Trainer, state: TrainState, outputs: Outputs, received: list[int]) -> TrainState:
    """Train to the last step, until a signal is in `received`, or until validation no longer improves.

    Several processes take the same steps and stop at the same one, after a signal to any of them.

    Raises:
        TrainingFailed: after `config.max_skipped` steps in a row that are not finite; what was saved before is kept.
    """
    config, records, placement, streams = run.config, run.records, run.placement, run.data.streams
    own_streams, num_symbols = placement.own_streams(streams), len(run.data.symbols)
    own = config, num_symbols, placement.own_devices, max(1, len(placement.devices))
    own_grad_fn = make_gradient(*own)
    next_batch = make_next_batch(config, num_windows(streams, config.window))
    dispatch = make_dispatch(trainer, next_batch, placement)
    window = config.window if config.memory is None else min(config.window, 50)  # validation keeps all states
    validate = make_validate(run.data, config.method, window, compute_dtype_of(config), placement.devices)
    watch = make_watch(config, own_grad_fn, next_batch) if config.watch and placement.group.is_first else None
    characters_per_step = config.streams * config.window
    step, skipped = int(state.num_steps), 0  # skipped: in a row
    most = steps_per_call(config, sum(leaf.size for leaf in jax.tree.leaves(state.params)))
    intervals = [most, config.eval_every] + [config.watch_every] * config.watch
    watched_at = {r["step"] for r in records if "watch" in r}
    saved_at = time.monotonic()
    start = saved_at - (records[-1]["seconds"] if records else 0.0)

    def record(**values: Any) -> None:
        seconds = round(time.monotonic() - start, 3)
        records.append({"step": step, "characters": step * characters_per_step, **values, "seconds": seconds})
        outputs.record(records[-1])

    def found() -> str:
        own_trainer = trainer if placement.group.size == 1 else make_character_trainer(*own)
        tokens = windows_at(streams, step, 1, config.window)[0]
        return diagnosis(own_trainer, own_grad_fn, next_batch, placement.own(state), tokens) + history(records)

    def read_held_out() -> bool:
        with placement.group.exchanging():
            validation_bits = float(validate(state.params))
        if not np.isfinite(validation_bits):
            outputs.give_up(0, found)
            return False
        record(validation_bits=validation_bits)
        with tqdm.external_write_mode():
            outputs.show(state)
        return True

    def is_over() -> bool:
        """Whether to stop after a validation. The first process decides: it has all the records."""
        return bool(placement.largest(placement.group.is_first and no_longer_improves(records, config)))

    with tqdm(
        total=config.steps * characters_per_step,
        initial=step * characters_per_step,
        unit=f" {config.vocab}s",
        unit_scale=True,
        smoothing=0.05,
        disable=None if placement.group.is_first else True,  # None: no bar in a file or a pipe
    ) as bar:
        stopping = False
        if placement.largest(placement.group.is_first and lacks_validation(records, step, config)):
            if not read_held_out():
                return state
            stopping = is_over() or step == config.steps
        while not stopping:
            # The boundaries do not depend on interruptions, so the programs and the bits of the result do not either.
            boundaries = (step - step % every + every for every in intervals)
            num_steps = min(*boundaries, config.steps) - step
            if watch is not None and step % config.watch_every == 0 and step not in watched_at:
                record(watch=watch(placement.own(state), windows_at(streams, step, 1, config.window)[0]))
            with placement.group.exchanging():
                windows = placement.windows(windows_at(own_streams, step, num_steps, config.window))
                state, infos = dispatch(state, windows)
                infos = jax.device_get(infos)
            step += num_steps
            finite = np.asarray(is_finite(infos))
            skipped = num_skipped_in_a_row(finite, skipped)
            record(**_means(infos, finite))
            if skipped >= config.max_skipped:
                outputs.give_up(skipped, found)
                break
            if finite.any():
                bar.set_postfix_str(f"{records[-1]['bits']:.3f} bits/{config.vocab}", refresh=False)
            bar.update(num_steps * characters_per_step)
            came = placement.largest(received[0] if received else 0)  # once per turn, so that a run that stops is saved
            stopping = step == config.steps or came > 0
            if came:
                received[:] = [came]
                outputs.save(step, state)  # at once: who sends SIGTERM waits only a few seconds
                outputs.wait()
            if is_planned(step, config) or came == signal.SIGINT:
                if not read_held_out():
                    break
                stopping = is_over() or stopping
            is_due = stopping or step % config.eval_every == 0 or _minutes(saved_at) >= config.save_minutes
            if is_due and not came:
                outputs.save(step, state)
                saved_at = time.monotonic()
    return state


def _minutes(since: float) -> float:
    return (time.monotonic() - since) / MINUTE  # this clock does not jump


def _means(infos: StepInfo, finite: np.ndarray) -> dict[str, float | int | None]:
    """The means over the steps that are `finite`, and how many are not, if any."""
    bits, norm = (
        float(np.mean(row[finite], dtype=np.float64)) if finite.any() else None for row in (infos.loss, infos.grad_norm)
    )
    means = {"bits": None if bits is None else bits * BITS, "grad_norm": norm}
    return means if finite.all() else means | {"skipped": int(np.sum(~finite))}
