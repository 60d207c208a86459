"""The training loop: many steps per call; saves, validates and plots at intervals; a signal ends it cleanly."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from tqdm import tqdm

from ... import Batch, Params, drop_units
from ..._reporting import files
from ..._reporting.console import say, warn
from ..._reporting.errors import TrainingFailed
from ...data import window_batch
from ...data._held_out import BITS, TextData, make_validate
from ...typing import States, StepInfo, Trainer, TrainState
from .. import run_folder
from ..metrics import append_metrics
from ..plots import learning_curve, watched
from ..settings.training import TrainConfig
from ..trained.sample import default_prompt, make_writer
from .advice import remedy, what_is_wrong
from .checkpoint import save
from .model import compute_dtype_of, make_gradient
from .watch import make_watch

DISPATCH = 50  # steps in one call of the compiled program: about half a second with the defaults
DROPPING = 2**31  # makes the randomness of dropout independent of that of the weights
SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 200, 0.8  # of the samples during training


class Run(NamedTuple):
    """A run in progress; `records` grows."""

    folder: Path
    config: TrainConfig
    data: TextData
    facts: dict[str, Any]
    records: list[dict[str, Any]]


def make_next_batch(config: TrainConfig) -> Callable[[TrainState, jax.Array], tuple[States, Batch]]:
    """`(state, streams) -> (h_0, batch)` of the next step.

    The number of the step decides which window it reads and which units it drops. At the start of the streams the
    state is zero.
    """
    window = config.window

    def next_batch(state: TrainState, streams: jax.Array) -> tuple[States, Batch]:
        at = state.num_steps % ((streams.shape[0] - 1) // window)
        h_0 = jax.tree.map(lambda h: jnp.where(at == 0, jnp.zeros_like(h), h), state.h_0)
        batch = window_batch(streams, at * window, window)
        if config.drop_between or config.drop_recurrent:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), DROPPING), state.num_steps)
            rates = {"between": config.drop_between, "recurrent": config.drop_recurrent}
            batch = drop_units(state.params, batch._replace(key=key), **rates)
        return h_0, batch

    return next_batch


def make_dispatch(trainer: Trainer, config: TrainConfig) -> Callable[..., tuple[TrainState, StepInfo]]:
    """`(state, streams, num_steps) -> (state, infos)`: `num_steps` steps in one compiled call; the state is donated."""
    next_batch = make_next_batch(config)

    @partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, streams: jax.Array, num_steps: int) -> tuple[TrainState, StepInfo]:
        def body(state: TrainState, _: None) -> tuple[TrainState, StepInfo]:
            h_0, batch = next_batch(state, streams)
            return trainer.step(state._replace(h_0=h_0), batch)

        return lax.scan(body, state, length=num_steps)

    return dispatch


def train_until(
    run: Run, trainer: Trainer, state: TrainState, manager: ocp.CheckpointManager, received: list[int]
) -> TrainState:
    """Train to the last step, or until a signal is in `received`. Saves at every validation and at the end.

    Raises:
        TrainingFailed: if loss, gradient or update is not finite; what was saved before is kept.
    """
    config, records = run.config, run.records
    dispatch = make_dispatch(trainer, config)
    window = config.window if config.memory is None else min(config.window, 50)  # validation keeps all states
    validate = make_validate(run.data, config.method, window, compute_dtype_of(config))
    watch = (
        make_watch(config, make_gradient(config, len(run.data.symbols)), make_next_batch(config))
        if config.watch
        else None
    )
    write = make_writer(run.data.symbols, default_prompt(run.data.symbols), SAMPLE_LENGTH, SAMPLE_TEMPERATURE)
    characters_per_step = config.streams * config.window
    step = int(state.num_steps)
    intervals = [DISPATCH, config.eval_every] + [config.watch_every] * config.watch
    watched_at = {r["step"] for r in records if "watch" in r}
    start = time.monotonic() - (records[-1]["seconds"] if records else 0.0)

    def record(**values: Any) -> None:
        seconds = round(time.monotonic() - start, 3)
        records.append({"step": step, "characters": step * characters_per_step, **values, "seconds": seconds})
        append_metrics(run.folder, records[-1])

    with tqdm(
        total=config.steps * characters_per_step,
        initial=step * characters_per_step,
        unit=" characters",
        unit_scale=True,
        smoothing=0.05,
        disable=None,  # no bar in a file or a pipe
    ) as bar:
        stopping = False
        while not stopping:
            # The boundaries do not depend on interruptions, so the programs and the bits of the result do not either.
            boundaries = (step - step % every + every for every in intervals)
            num_steps = min(*boundaries, config.steps) - step
            if watch is not None and step % config.watch_every == 0 and step not in watched_at:
                record(watch=watch(state, run.data.streams))
            state, infos = dispatch(state, run.data.streams, num_steps)
            infos = jax.device_get(infos)
            if not all(np.isfinite(values).all() for values in infos):
                raise TrainingFailed(_not_finite(step, num_steps, manager.latest_step(), run))
            step += num_steps
            bits = float(np.mean(infos.loss, dtype=np.float64)) * BITS
            record(bits=bits, grad_norm=float(np.mean(infos.grad_norm, dtype=np.float64)))
            bar.set_postfix_str(f"{bits:.3f} bits/character", refresh=False)
            bar.update(num_steps * characters_per_step)
            stopping = step == config.steps or bool(received)  # checked once per turn, so that a stopped run is saved
            if stopping or step % config.eval_every == 0:
                validation_bits = float(validate(state.params))
                if not np.isfinite(validation_bits):
                    raise TrainingFailed(_not_finite(step - num_steps, num_steps, manager.latest_step(), run))
                record(validation_bits=validation_bits)
                save(manager, step, state)
                with tqdm.external_write_mode():
                    _show(run, state, write)
    return state


def _show(run: Run, state: TrainState, write: Callable[[Params, int], str]) -> None:
    """Print the validation and a sample, and leave sample and picture in the run folder."""
    step, bits = int(state.num_steps), run.records[-1]["validation_bits"]
    text = write(state.params, (run.config.seed + step) % 2**32)
    files.write(run.folder / run_folder.SAMPLE, text + "\n")
    learning_curve(run.folder / run_folder.PICTURE, run.records, run.facts["baselines"], run.facts["text"])
    watched(run.folder / run_folder.WATCHED, run.records, run.facts["text"])
    lines = "".join(f"    {line}\n" for line in text.removesuffix("\n").split("\n"))
    say(f"step {step:,}: {bits:.3f} bits per character on the held-out text. It writes:\n{lines}")
    if wrong := what_is_wrong(run.config, run.records, len(run.data.symbols)):
        warn(f"step {step:,}: {wrong}")


def _not_finite(step: int, num_steps: int, saved: int | None, run: Run) -> str:
    kept = f"step {saved} is saved in {str(run.folder)!r}" if saved is not None else "nothing was saved yet"
    return (
        f"loss, gradient or update became infinite or NaN in steps {step + 1} to {step + num_steps}; {kept}. "
        f"{remedy(run.config)}"
    )


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that receives the first Ctrl-C or SIGTERM; a second one interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
