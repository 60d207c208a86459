"""`rnn-jax truncation`."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .. import zero_state
from .._reporting.console import pasted, say
from .._reporting.errors import InputError
from ..analysis import TruncationReport, truncation_report
from ..data import window_batch
from ..data._corpus import Corpus
from ..data._held_out import held_out_of_run, least_length
from .run_folder import TRUNCATION
from .settings.commands import TruncationConfig, units_of
from .settings.training import TrainConfig
from .trained.sample import trained

MOST_LOST = 0.05  # ‖truncated - full‖ / ‖full‖
LEAST_REACHES = 3  # a measurement must have this many times k2 steps, so that most of them can reach back k2
ROUNDING = 1e-6
NOTHING = "Nothing is learned through time in this run: no gradient reaches the step before."
OF_ANOTHER = {"files", "run", "overwrite", "resume", "method", "memory", "adaptive_bias"}


def truncation(config: TruncationConfig, settings: TrainConfig, facts: dict[str, Any], corpus: Corpus) -> int:
    """Print the report of a trained network on its held-out text and write its picture; returns the exit status."""
    _, streams = held_out_of_run(corpus, config.window, config.streams)
    params = trained(config.run, settings, facts["symbols"])
    batch = window_batch(streams, 0, config.window)
    ks = [k for k in config.ks if k < config.window]
    if not ks:
        raise InputError(f"--ks must hold a number below --window, which is {config.window}, got {config.ks}.")
    report = truncation_report(params, batch, zero_state(params, config.streams), ks)
    say(f"{config.streams} streams of {config.window} steps, {corpus.held_out_words}")
    say("windows of k1 steps that reach back k2\n")
    say(f"{report}\n")

    from . import plots

    picture = config.run / TRUNCATION if config.picture is None else config.picture
    plots.truncation(picture, report, f"{config.run}: {units_of(settings)}")
    say(f"picture: {picture}")
    files, validation = config.files or settings.files, config.validation or settings.validation
    settings = dataclasses.replace(settings, files=files, validation=validation)
    say(advice(report, settings, len(corpus.tokens)))
    return 0


def advice(report: TruncationReport, settings: TrainConfig, length: int) -> str:
    """The cheapest truncation that loses little, with the command that trains with it; or why there is none.

    Cheapest means: the fewest steps back for each step, k2 / k1, then the smallest k2. With fewer than 3 k2 steps, most
    windows reach the first step before they have gone back k2 steps, so what they lose is not what a long text loses.
    """
    if nothing_through_time(report):
        return f"{NOTHING} There is nothing to advise."
    if not np.isfinite([row.whole.error for row in report.rows]).any():
        return "The gradient of this run is not finite: there is nothing to advise."
    steps, little = report.full.k2, [row for row in report.rows if row.whole.error <= MOST_LOST]
    kept = [row for row in little if LEAST_REACHES * row.k2 <= steps]
    if not kept and little:
        k2 = min(row.k2 for row in little)
        return (
            f"To measure what k2 = {k2} loses takes at least {LEAST_REACHES * k2} steps, got {steps}: give "
            f"--window {LEAST_REACHES * k2}, or smaller --ks."
        )
    if not kept:
        return f"All of these lose more than {MOST_LOST:.0%}: try larger --ks, or keep the full gradient."
    row = min(kept, key=lambda row: (row.k2 / row.k1, row.k2))
    found = (
        f"The cheapest of these that loses at most {MOST_LOST:.0%} has k1 = {row.k1}, k2 = {row.k2}: it loses "
        f"{row.whole.error:.1%} of this gradient."
    )
    window = max(settings.window, LEAST_REACHES * row.k2)
    needed = least_length(settings.streams, window, settings.validation is not None)
    if needed > length:
        return (
            f"{found}\nTraining with it needs --window {window} and, for {settings.streams} streams, {needed:,} "
            f"{settings.vocab}s; this text has {length:,}. Give more text, or fewer --streams."
        )
    return f"{found}\nnext: {train_command(settings, window=window, k1=row.k1, k2=row.k2)}"


def nothing_through_time(report: TruncationReport) -> bool:
    """Whether the gradient at the step before is zero, or only rounding compared with that at the step of the loss."""
    own, *before = report.lag_norms
    return bool(np.isfinite(own) and max(before, default=np.inf) <= ROUNDING * own)


def train_command(settings: TrainConfig, **changed: int) -> str:
    """`rnn-jax train` with the text and the settings of a run, except those `changed`, into a new folder.

    Truncation has its own method and no limit of memory, so these two settings are left out.
    """
    settings = dataclasses.replace(settings, **changed)  # type: ignore[arg-type]
    words = ["rnn-jax train", *("-" if name == "-" else pasted(Path(name)) for name in settings.files)]
    for field in dataclasses.fields(settings):
        value, option = getattr(settings, field.name), f"--{field.name.replace('_', '-')}"
        if field.name not in OF_ANOTHER and value != field.default:
            value = pasted(Path(value)) if field.name == "validation" else value
            words.append(option if value is True else f"{option} {value}")
    return " ".join(words) + (" < FILE" if "-" in settings.files else "")  # standard input is not kept
