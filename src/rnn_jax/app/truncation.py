"""`rnn-jax truncation`."""

import hashlib
from typing import Any

import jax.numpy as jnp

from .. import encode, make_streams, truncation_report, window_batch, zero_state
from .config import TrainConfig, TruncationConfig
from .console import say
from .corpus import Corpus
from .data import HELD_OUT
from .errors import InputError
from .run_folder import TRUNCATION
from .sample import trained


def truncation(config: TruncationConfig, settings: TrainConfig, facts: dict[str, Any], corpus: Corpus) -> int:
    """Print the report of a trained network on its held-out text, and leave its picture; returns the exit status."""
    if hashlib.sha256(corpus.text.encode()).hexdigest() != facts["text_sha256"]:
        raise InputError(
            f"{str(config.run)!r} must find the text that it was trained on, but {corpus.source} has changed."
        )
    held_out = corpus.text[-max(int(len(corpus.text) * HELD_OUT), 2) :]
    most = len(held_out) // config.streams - 1
    if most < config.window:
        raise InputError(
            f"--window must be at most {most}, what the {len(held_out):,} held-out characters have for --streams "
            f"{config.streams}, got {config.window}."
        )
    params = trained(config.run, settings, facts["symbols"])
    streams = jnp.asarray(make_streams(encode(facts["symbols"], held_out), config.streams))
    batch = window_batch(streams, 0, config.window)
    ks = [k for k in config.ks if k < config.window]
    if not ks:
        raise InputError(f"--ks must hold a number below the {config.window} of --window, got {config.ks}.")
    report = truncation_report(params, batch, zero_state(params, config.streams), ks)
    say(f"{config.streams} streams of {config.window} steps, held out of {corpus.source}; windows of k, reach k\n")
    say(f"{report}\n")

    from . import plots

    picture = config.run / TRUNCATION if config.picture is None else config.picture
    plots.truncation(
        picture, report, f"{config.run}: {settings.num_layers} x {settings.hidden_size} {settings.activation}"
    )
    say(f"picture: {picture}")
    say("next: rnn-jax train --k1 K --k2 K trains with such a gradient, --adaptive-bias SHARE chooses k2 by itself")
    return 0
