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
from ...typing import Trainer, TrainState
from .. import run_folder
from ..anatomy.examine import window_of_run
from ..metrics import best_validation, lacks_validation, read_metrics, write_metrics
from ..settings.commands import AnatomyConfig, units_of
from ..settings.training import TrainConfig
from .checkpoint import checkpoints, restore, saved_steps, set_aside, warn_of_damage
from .loop import Run, train_until
from .model import initial_state, make_character_trainer, make_gradient, make_plan, method_of

ROUNDING = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 0.1}  # a smaller difference is only rounding


def train(config: TrainConfig, facts: dict[str, Any], corpus: Corpus) -> int:
    """Train from the start or, with the facts of a run, from where it stopped; returns the exit status."""
    data = prepare(corpus, config.streams, config.window)
    if facts and facts["symbols"] != data.symbols:
        raise InputError("--resume must find the same symbols in the text and in the run's settings, but they differ.")
    of_text = f"{corpus.source}: {len(corpus.tokens):,} {corpus.vocab}s, {len(data.symbols)} symbols"
    _say("text", f"{of_text}, the end held out" if corpus.validation is None else of_text)
    _say_left_out(corpus.left_out)
    if corpus.validation is not None:
        _say_validation(corpus.validation, corpus.vocab)
    facts = facts or _facts(corpus, data)
    baselines = facts["baselines"]
    _say("baselines", ", ".join(f"{name} {bits:.3f}" for name, bits in baselines.items()) + f" bits per {corpus.vocab}")
    for words in _not_all(corpus, data):
        _say("", words)

    trainer = make_character_trainer(config, len(data.symbols))
    state = jax.jit(lambda: initial_state(config, trainer, len(data.symbols)))()
    with run_folder.new_folder(config) if config.resume is None else contextlib.nullcontext(config.resume) as folder:
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        _say("network", f"{units_of(config)}, {size:,} parameters")
        _say("gradient", _compare_with_autodiff(config, data, state.params))
        if config.memory is not None:
            _say("memory", "; ".join(map(str, make_plan(config, len(data.symbols)))))
        try:
            return _train_in(folder, config, facts, data, trainer, state)
        except OSError as error:
            raise TrainingFailed(f"the run in {str(folder)!r} cannot be written: {error}.") from error


def _train_in(
    folder: Path, config: TrainConfig, facts: dict[str, Any], data: TextData, trainer: Trainer, state: TrainState
) -> int:
    """Train, and keep everything in `folder`; nothing in it changes before all is checked."""
    records: list[dict[str, Any]] = []
    if config.resume is not None and saved_steps(folder):  # killed before its first checkpoint, a run starts anew
        restored = restore(folder, jax.eval_shape(lambda: state))
        warn_of_damage(folder, restored)
        state = restored.state
        records = read_metrics(folder, restored.step)
        if restored.step >= config.steps and not lacks_validation(records, restored.step, config):
            raise InputError(
                f"--steps must be above the {restored.step} that {str(folder)!r} has done, got {config.steps}."
            )
        set_aside(folder, restored.damaged)
    with checkpoints(folder, config.keep, records) as manager:
        run_folder.write_settings(folder, config, facts)
        write_metrics(folder, records)
        _say("run", f"{folder}, from step {int(state.num_steps):,} to {config.steps:,}; Ctrl-C saves and ends it\n")
        run = Run(folder, config, data, facts, records)
        with signals() as received:
            state = train_until(run, trainer, state, manager, received)
    _summarise(run, int(state.num_steps))
    return 128 + received[0] if received else 0


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


def _compare_with_autodiff(config: TrainConfig, data: TextData, params: Params) -> str:
    """The largest difference between the hand-written gradient and autodiff's on the first batch, in words."""
    if config.method == "autodiff":
        config = dataclasses.replace(config, method="bptt")
    method = method_of(config)
    window = config.window if config.memory is None else min(config.window, 50)  # autodiff keeps all states
    tokens = jnp.asarray(data.streams[: window + 1], jnp.int32)
    batch, h_0 = window_batch(tokens, 0, window), zero_state(params, config.streams)
    grad_fns = (
        make_gradient(config, len(data.symbols)),
        make_grad_fn(method.reference, loss="cross_entropy"),
    )
    by_hand, reference = (jax.device_get(jax.jit(fn)(params, batch, h_0)[1].params) for fn in grad_fns)
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
    say(f"      rnn-jax train --resume {folder}{more}{text}")


def _say(what: str, words: str) -> None:
    say(f"{what:<10}{words}")
