"""`rnn-jax train`."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import GRADIENTS, Params, make_grad_fn, zero_state
from ..._reporting.console import pasted, say
from ..._reporting.errors import InputError, TrainingFailed
from ..._reporting.machine import machine_record
from ..._reporting.signals import signals
from ...data import window_batch
from ...data._corpus import Corpus
from ...data._held_out import MOST_READ, TextData, predicted_positions, prepare
from ...data._ngrams import MOST_COUNTED, ngram_bits
from ...data._validation import Validation
from ...data._vocab import bytes_per_character
from ...typing import GradFn, Trainer, TrainState
from .. import run_folder
from ..anatomy.examine import window_of_run
from ..metrics import best_validation, lacks_validation, read_metrics, write_metrics
from ..processes.group import ALONE, Group
from ..processes.placement import EVERYWHERE, Placement, place
from ..settings.commands import AnatomyConfig, units_of
from ..settings.training import TrainConfig
from .checkpoint import checkpoints, restore, saved_steps, set_aside, warn_of_damage
from .loop import train_until
from .model import initial_state, make_character_trainer, make_gradient, make_plan, method_of
from .outputs import NOTHING, Run, outputs_of
from .steps import windows_at

ROUNDING = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 0.1}  # a smaller difference is only rounding


def train(config: TrainConfig, facts: dict[str, Any], corpus: Corpus, group: Group = ALONE) -> int:
    """Train from the start or, with the facts of a run, from where it stopped; returns the exit status."""
    data, placement = prepare(corpus, config.streams, config.window), place(group, config.devices)
    if facts and facts["symbols"] != data.symbols:
        raise InputError("--resume must find the same symbols in the text and in the run's settings, but they differ.")
    if group.is_first:
        _say_text(corpus)
        facts = facts or _facts(corpus, data)
        bits = ", ".join(f"{name} {bits:.3f}" for name, bits in facts["baselines"].items())
        _say("baselines", f"{bits} bits per {corpus.vocab}")
        for words in _not_all(corpus, data):
            _say("", words)

    trainer = make_character_trainer(config, len(data.symbols), placement.devices)
    make_state = jax.jit(
        lambda: initial_state(config, trainer, len(data.symbols)), out_shardings=placement.sharding(EVERYWHERE)
    )
    state = make_state()
    run = Run(config.resume or Path(), config, data, facts | {"processes": group.size}, [], placement)
    if not group.is_first:
        _compare_with_autodiff(run, state.params)
        return _train_along(run, trainer, state)
    with run_folder.new_folder(config) if config.resume is None else contextlib.nullcontext(config.resume) as folder:
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        _say("network", f"{units_of(config)}, {size:,} parameters")
        _say("gradient", _compare_with_autodiff(run, state.params))
        if config.memory is not None:
            _say("memory", "; ".join(map(str, make_plan(config, len(data.symbols), len(placement.devices)))))
        before = group.size if config.resume is None else facts.get("processes", 1)
        if group.size > 1 or before > 1:
            _say("processes", _in_words(placement, before))
        try:
            return _train_in(run._replace(folder=folder), trainer, state)
        except OSError as error:
            raise TrainingFailed(f"the run in {str(folder)!r} cannot be written: {error}.") from error


def _train_in(run: Run, trainer: Trainer, state: TrainState) -> int:
    """Train, and keep everything in the folder of the run; nothing in it changes before all is checked."""
    folder, config = run.folder, run.config
    if config.resume is not None:
        if saved_steps(folder):  # killed before its first checkpoint, a run starts anew
            restored = restore(folder, jax.eval_shape(lambda: state))
            warn_of_damage(folder, restored)
            run.records.extend(read_metrics(folder, restored.step))
            if restored.step >= config.steps and not lacks_validation(run.records, restored.step, config):
                raise InputError(
                    f"--steps must be above the {restored.step} that {str(folder)!r} has done, got {config.steps}."
                )
            state = restored.state
            set_aside(folder, restored.damaged)
        state = run.placement.from_first(state)
    step = int(state.num_steps)
    with checkpoints(folder, config.keep, run.records) as manager, outputs_of(run, manager, step) as outputs:
        run_folder.write_settings(folder, config, run.facts)
        write_metrics(folder, run.records)
        _say("run", f"{folder}, from step {step:,} to {config.steps:,}; Ctrl-C saves and ends it\n")
        with signals() as received:
            state = train_until(run, trainer, state, outputs, received)
    _summarise(run, int(state.num_steps))
    return 128 + received[0] if received else 0


def _train_along(run: Run, trainer: Trainer, state: TrainState) -> int:
    """Train with the first process, which writes."""
    if run.config.resume is not None:
        state = run.placement.from_first(state)
    with signals() as received:
        train_until(run, trainer, state, NOTHING, received)
    return 128 + received[0] if received else 0


def _in_words(placement: Placement, before: int) -> str:
    """The processes of a run that has had as many `before`."""
    size, devices = placement.group.size, len(placement.devices)
    shared = f"{size} with {devices} device{'s' if devices > 1 else ''} in all, which share the streams"
    if before == size:
        return shared
    return f"{shared}. Before, the run had {before}: it goes on with the same mathematics, but other rounding"


def _say_text(corpus: Corpus) -> None:
    of_text = f"{corpus.source}: {len(corpus.tokens):,} {corpus.vocab}s, {len(corpus.symbols)} symbols"
    _say("text", f"{of_text}, the end held out" if corpus.validation is None else of_text)
    _say_left_out(corpus.left_out)
    if corpus.validation is not None:
        _say_validation(corpus.validation, corpus.vocab)


def _say_left_out(left_out: dict[str, int]) -> None:
    if found := [f"{count:,} {name.replace('_', ' ')}" for name, count in left_out.items() if count]:
        _say("left out", " and ".join(found))


def _say_validation(validation: Validation, unit: str) -> None:
    """Say what is held out, and how much of it the training text does not have."""
    num = len(validation.tokens)
    _say("held out", f"{validation.source}: {num:,} {unit}s")
    _say_left_out(validation.left_out)
    if validation.num_unknown:
        share = f"{validation.num_unknown:,} of these {num:,} {unit}s, {validation.num_unknown / num:.2%}"
        _say("unknown", f"{share}, do not occur in the text: they are left out, neither read nor predicted")


def _not_all(corpus: Corpus, data: TextData) -> list[str]:
    """What validation and the baselines do not read of a long text, in words."""
    num_held_out = len(data.rest) if corpus.validation is None else corpus.validation.num_known
    parts = (
        ("the baselines count the last", MOST_COUNTED, len(data.train), "training text"),
        ("validation reads the first", MOST_READ, num_held_out, "held-out text"),
    )
    return [
        f"{read} {most:,} of the {num:,} {corpus.vocab}s of the {part}" for read, most, num, part in parts if num > most
    ]


def _facts(corpus: Corpus, data: TextData) -> dict[str, Any]:
    """What the settings do not contain: the text, its baselines, the versions, the machine."""
    record, validation = machine_record(), corpus.validation
    of_validation = (
        {
            "validation_text": validation.source,
            "validation_sha256": validation.sha256,
            "validation_left_out": validation.left_out,
            "validation_length": len(validation.tokens),
            "validation_unknown": validation.num_unknown,
        }
        if validation is not None
        else {}
    )
    of_bytes = {"bytes_per_character": bytes_per_character(data.held_out)} if corpus.vocab == "byte" else {}
    kept = ("cpu", "cores", "memory_mib", "system", "commit", "date")
    return {
        "command": " ".join(["rnn-jax", *sys.argv[1:]]),
        "text": corpus.source,
        "text_sha256": corpus.sha256,
        "left_out": corpus.left_out,
        f"num_{corpus.vocab}s": len(corpus.tokens),
        **of_validation,
        **of_bytes,
        "symbols": data.symbols,
        "baselines": ngram_bits(data.train, data.rest, len(data.symbols), predicted_positions(data)),
        "versions": {"python": record["python"]} | record["versions"],
        "machine": {"device": jax.devices()[0].device_kind} | {name: record[name] for name in kept},
    }


def _compare_with_autodiff(run: Run, params: Params) -> str:
    """The largest difference between the hand-written gradient and autodiff's on the first batch, in words."""
    config, data, placement = run.config, run.data, run.placement
    if config.method == "autodiff":
        config = dataclasses.replace(config, method="bptt")
    method = method_of(config)
    window = config.window if config.memory is None else min(config.window, 50)  # autodiff keeps all states
    windows = placement.windows(windows_at(placement.own_streams(data.streams), 0, 1, window))

    def d_params(grad_fn: GradFn) -> Params:
        def first(params: Params, windows: Any) -> Params:
            batch = window_batch(windows[0].astype(jnp.int32), 0, window)
            found: Params = grad_fn(params, batch, zero_state(params, config.streams))[1].params
            return found

        with placement.group.exchanging():
            compiled = jax.jit(first, out_shardings=placement.sharding(EVERYWHERE))
            found: Params = jax.device_get(compiled(params, windows))
            return found

    by_hand = d_params(make_gradient(config, len(data.symbols), placement.devices))
    reference = d_params(make_grad_fn(method.reference, loss="cross_entropy"))
    difference = max(
        float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), np.finfo(y.dtype).tiny))
        for x, y in zip(jax.tree.leaves(by_hand), jax.tree.leaves(reference), strict=True)
    )
    name = next(name for name, named in GRADIENTS.items() if named.kind is type(method))
    options = [f"{field} = {getattr(method, field)}" for field in ("k1", "k2", "bias") if hasattr(method, field)]
    named = ", ".join([name, *options])
    beside = "its definition by autodiff" if options else "by autodiff"
    words = f"by hand ({named}) and {beside} differ by at most {difference:.1e} (relative) on the first batch"
    return words if difference < ROUNDING[config.dtype] else f"{words}: MORE THAN ROUNDING, do not trust this run"


def _summarise(run: Run, step: int) -> None:
    """Print the result, compared with n-gram models, and the next commands."""
    validated = [record for record in run.records if record.get("validation_bits") is not None]
    if validated and validated[-1]["step"] == step:
        results = {"this network": validated[-1]["validation_bits"]} | dict(reversed(run.facts["baselines"].items()))
        unit = run.config.vocab
        say(f"bits per {unit} on the held-out text after {step:,} of {run.config.steps:,} steps")
        for name, value in results.items():
            say(f"    {name:<14}{value:.3f}")
        if ratio := run.facts.get("bytes_per_character"):
            bits = results["this network"] * ratio
            say(f"that is {bits:.3f} bits per character: the held-out text has {ratio:.3f} bytes per character")
    else:
        say(f"stopped and saved after {step:,} of {run.config.steps:,} steps")
    if skipped := sum(record.get("skipped", 0) for record in run.records):
        steps = "1 step was" if skipped == 1 else f"{skipped:,} steps were"
        say(f"{steps} skipped, because loss, gradient or update was infinite or NaN")
    best = best_validation(run.records)
    if best is not None and best is not validated[-1]:
        words = f"the best validation, {best['validation_bits']:.3f}, was at step {best['step']:,}"
        say(f"{words}: add --best to sample or export it")
    watched = " watch.png," if run.config.watch else ""
    say(f"in {run.folder}: learning-curve.png,{watched} sample.txt, metrics.jsonl, settings.json, checkpoint")
    folder = pasted(run.folder)
    say(f"next: rnn-jax sample {folder} --length 500 --temperature 0.7")
    text = " - < FILE" if "-" in run.config.files else ""  # standard input is not kept
    if window := window_of_run(len(run.data.rest)):
        shorter = "" if window == AnatomyConfig.window else f" --window {window}"
        say(f"      rnn-jax anatomy {folder}{text}{shorter}")
    more = "" if step < run.config.steps else f" --steps {2 * step}"
    more += "" if run.config.processes is None else f" --processes {run.config.processes}"
    say(f"      rnn-jax train --resume {folder}{more}{text}")


def _say(what: str, words: str) -> None:
    say(f"{what:<10}{words}")
