"""What a run leaves behind while it trains. Of several processes, only the first writes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from ... import Params
from ..._reporting import files
from ..._reporting.console import say, warn
from ..._reporting.errors import TrainingFailed
from ...data._held_out import TextData
from ...typing import TrainState
from .. import run_folder
from ..metrics import append_metrics
from ..plots import learning_curve, watched
from ..processes.placement import ONE, Placement
from ..settings.training import TrainConfig
from ..trained.sample import default_prompt, make_writer
from .advice import remedy, what_is_wrong
from .board import board
from .checkpoint import save, wait

SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 200, 0.8  # of the samples during training


class Run(NamedTuple):
    """A run in progress; `records` grows. `folder` and `facts` are those of the process that writes."""

    folder: Path
    config: TrainConfig
    data: TextData
    facts: dict[str, Any]
    records: list[dict[str, Any]]
    placement: Placement = ONE


class Outputs(NamedTuple):
    """What a run leaves behind, as functions. Those of a process that does not write do nothing.

    `record(record)`          add a record to the metrics.
    `save(step, state)`       begin to save a checkpoint.
    `wait()`                  wait until what was saved is in its place.
    `show(state)`             after a validation: a sample, the pictures, and words.
    `give_up(skipped, more)`  end a run that is not finite; `more` says what it found.

    `give_up` raises a `TrainingFailed`.
    """

    record: Callable[[dict[str, Any]], None]
    save: Callable[[int, TrainState], None]
    wait: Callable[[], None]
    show: Callable[[TrainState], None]
    give_up: Callable[[int, Callable[[], str]], None]


def _nothing(*_: Any) -> None:
    pass


NOTHING = Outputs(*[_nothing] * len(Outputs._fields))


@contextlib.contextmanager
def outputs_of(run: Run, manager: ocp.CheckpointManager, step: int) -> Iterator[Outputs]:
    """The outputs of a run that goes on after `step`, for the process that writes."""
    symbols = run.data.symbols
    write = make_writer(run.config.vocab, symbols, default_prompt(symbols), SAMPLE_LENGTH, SAMPLE_TEMPERATURE)

    def record(values: dict[str, Any]) -> None:
        append_metrics(run.folder, values)
        show_on_board(values)

    def give_up(skipped: int, more: Callable[[], str]) -> None:
        words = _not_finite(run, skipped, manager.latest_step()) + "\n" + more()
        files.write(run.folder / run_folder.DIAGNOSIS, words)
        raise TrainingFailed(words.rstrip())

    with board(run.folder, step) if run.config.tensorboard else contextlib.nullcontext(_nothing) as show_on_board:
        yield Outputs(
            record,
            lambda step, state: save(manager, step, state),
            lambda: wait(manager),
            lambda state: _show(run, run.placement.own(state), write),
            give_up,
        )


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


def _not_finite(run: Run, skipped: int, saved: int | None) -> str:
    step = run.records[-1]["step"]
    kept = f"step {saved} is saved in {str(run.folder)!r}" if saved is not None else "nothing was saved yet"
    told = f"{skipped:,} steps in a row were skipped" if skipped else "the held-out text was read"
    return f"loss, gradient or update became infinite or NaN: {told} up to step {step:,}; {kept}. {remedy(run.config)}"
