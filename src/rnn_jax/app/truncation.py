"""`rnn-jax truncation`."""

from typing import Any

from .. import truncation_report, window_batch, zero_state
from .config import TrainConfig, TruncationConfig
from .console import say
from .corpus import Corpus
from .data import held_out_of_run
from .errors import InputError
from .run_folder import TRUNCATION
from .sample import trained


def truncation(config: TruncationConfig, settings: TrainConfig, facts: dict[str, Any], corpus: Corpus) -> int:
    """Print the report of a trained network on its held-out text, and leave its picture; returns the exit status."""
    _, streams = held_out_of_run(config.run, facts, corpus, config.window, config.streams)
    params = trained(config.run, settings, facts["symbols"])
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
