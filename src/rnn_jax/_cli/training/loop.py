"""The training loop: many steps per call; saves, validates and plots at intervals; a signal ends it cleanly."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from ... import Params
from ..._reporting import files
from ..._reporting.console import say, warn
from ..._reporting.errors import TrainingFailed
from ...data._held_out import BITS, TextData, make_validate
from ...typing import StepInfo, Trainer, TrainState
from .. import run_folder
from ..metrics import append_metrics, is_planned, lacks_validation, no_longer_improves
from ..plots import learning_curve, watched
from ..settings.training import TrainConfig
from ..trained.sample import default_prompt, make_writer
from .advice import remedy, what_is_wrong
from .board import board
from .checkpoint import save, wait
from .diagnosis import diagnosis, history
from .model import compute_dtype_of, make_gradient
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

SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 200, 0.8  # of the samples during training
MINUTE = 60.0  # seconds


class Run(NamedTuple):
    """A run in progress; `records` grows."""

    folder: Path
    config: TrainConfig
    data: TextData
    facts: dict[str, Any]
    records: list[dict[str, Any]]


def train_until(
    run: Run, trainer: Trainer, state: TrainState, manager: ocp.CheckpointManager, received: list[int]
) -> TrainState:
    """Train to the last step, until a signal is in `received`, or until validation no longer improves.

    Raises:
        TrainingFailed: after `config.max_skipped` steps in a row that are not finite; what was saved before is kept.
    """
    config, records, streams = run.config, run.records, run.data.streams
    grad_fn = make_gradient(config, len(run.data.symbols))
    next_batch = make_next_batch(config, num_windows(streams, config.window))
    dispatch = make_dispatch(trainer, next_batch)
    window = config.window if config.memory is None else min(config.window, 50)  # validation keeps all states
    validate = make_validate(run.data, config.method, window, compute_dtype_of(config))
    watch = make_watch(config, grad_fn, next_batch) if config.watch else None
    write = make_writer(
        config.vocab, run.data.symbols, default_prompt(run.data.symbols), SAMPLE_LENGTH, SAMPLE_TEMPERATURE
    )
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
        append_metrics(run.folder, records[-1])
        show(records[-1])

    def read_held_out() -> None:
        validation_bits = float(validate(state.params))
        if not np.isfinite(validation_bits):
            raise failure()
        record(validation_bits=validation_bits)
        with tqdm.external_write_mode():
            _show(run, state, write)

    def failure() -> TrainingFailed:
        found = diagnosis(trainer, grad_fn, next_batch, state, windows_at(streams, step, 1, config.window)[0])
        words = _not_finite(step, skipped, manager.latest_step(), run) + "\n" + found + history(records)
        files.write(run.folder / run_folder.DIAGNOSIS, words)
        return TrainingFailed(words.rstrip())

    shown = board(run.folder, step) if config.tensorboard else contextlib.nullcontext(lambda _: None)
    with (
        shown as show,
        tqdm(
            total=config.steps * characters_per_step,
            initial=step * characters_per_step,
            unit=f" {config.vocab}s",
            unit_scale=True,
            smoothing=0.05,
            disable=None,  # no bar in a file or a pipe
        ) as bar,
    ):
        stopping = False
        if lacks_validation(records, step, config):
            read_held_out()
            stopping = step == config.steps or no_longer_improves(records, config)
        while not stopping:
            # The boundaries do not depend on interruptions, so the programs and the bits of the result do not either.
            boundaries = (step - step % every + every for every in intervals)
            num_steps = min(*boundaries, config.steps) - step
            windows = windows_at(streams, step, num_steps, config.window)
            if watch is not None and step % config.watch_every == 0 and step not in watched_at:
                record(watch=watch(state, windows[0]))
            state, infos = dispatch(state, windows)
            infos = jax.device_get(infos)
            step += num_steps
            finite = np.asarray(is_finite(infos))
            skipped = num_skipped_in_a_row(finite, skipped)
            record(**_means(infos, finite))
            if skipped >= config.max_skipped:
                raise failure()
            if finite.any():
                bar.set_postfix_str(f"{records[-1]['bits']:.3f} bits/{config.vocab}", refresh=False)
            bar.update(num_steps * characters_per_step)
            came = tuple(received)  # looked at once per turn, so that a run that stops is saved
            stopping = step == config.steps or bool(came)
            if came:
                save(manager, step, state)  # at once: who sends SIGTERM waits only a few seconds
                wait(manager)
            if is_planned(step, config) or signal.SIGINT in came:
                read_held_out()
                stopping = stopping or no_longer_improves(records, config)
            is_due = stopping or step % config.eval_every == 0 or _minutes(saved_at) >= config.save_minutes
            if is_due and not came:
                save(manager, step, state)
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


def _show(run: Run, state: TrainState, write: Callable[[Params, int], str]) -> None:
    """Print the validation and a sample, and leave sample and picture in the run folder."""
    step, bits = int(state.num_steps), run.records[-1]["validation_bits"]
    text = write(state.params, (run.config.seed + step) % 2**32)
    files.write(run.folder / run_folder.SAMPLE, text + "\n")
    picture, unit = run.folder / run_folder.PICTURE, run.config.vocab
    learning_curve(picture, run.records, run.facts["baselines"], run.facts["text"], unit)
    watched(run.folder / run_folder.WATCHED, run.records, run.facts["text"])
    lines = "".join(f"    {line}\n" for line in text.removesuffix("\n").split("\n"))
    say(f"step {step:,}: {bits:.3f} bits per {unit} on the held-out text. It writes:\n{lines}")
    if wrong := what_is_wrong(run.config, run.records, len(run.data.symbols)):
        warn(f"step {step:,}: {wrong}")


def _not_finite(step: int, skipped: int, saved: int | None, run: Run) -> str:
    kept = f"step {saved} is saved in {str(run.folder)!r}" if saved is not None else "nothing was saved yet"
    told = f"{skipped:,} steps in a row were skipped" if skipped else "the held-out text was read"
    return f"loss, gradient or update became infinite or NaN: {told} up to step {step:,}; {kept}. {remedy(run.config)}"
