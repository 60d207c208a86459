"""`rnn-jax truncation`."""

from typing import Any

from .. import TruncationReport, truncation_report, window_batch, zero_state
from .config import TrainConfig, TruncationConfig
from .console import say
from .corpus import Corpus
from .data import held_out_of_run
from .errors import InputError
from .run_folder import TRUNCATION
from .sample import trained

MOST_LOST = 0.05  # ‖truncated - full‖ / ‖full‖


def truncation(config: TruncationConfig, settings: TrainConfig, facts: dict[str, Any], corpus: Corpus) -> int:
    """Print the report of a trained network on its held-out text, and leave its picture; returns the exit status."""
    _, streams = held_out_of_run(config.run, facts, corpus, config.window, config.streams)
    params = trained(config.run, settings, facts["symbols"])
    batch = window_batch(streams, 0, config.window)
    ks = [k for k in config.ks if k < config.window]
    if not ks:
        raise InputError(f"--ks must hold a number below the {config.window} of --window, got {config.ks}.")
    report = truncation_report(params, batch, zero_state(params, config.streams), ks)
    say(f"{config.streams} streams of {config.window} steps, held out of {corpus.source}")
    say("windows of k1 steps that reach back k2\n")
    say(f"{report}\n")

    from . import plots

    picture = config.run / TRUNCATION if config.picture is None else config.picture
    plots.truncation(
        picture, report, f"{config.run}: {settings.num_layers} x {settings.hidden_size} {settings.activation}"
    )
    say(f"picture: {picture}")
    say(advice(report, settings.window))
    return 0


def advice(report: TruncationReport, window: int) -> str:
    """The cheapest truncation that was measured to lose little, with the options that train with it; or that none does.

    Cheapest: the fewest steps back for each step, k2 / k1, then the shortest reach.
    """
    kept = [row for row in report.rows if row.whole.error <= MOST_LOST]
    if not kept:
        return f"None of these loses at most {MOST_LOST:.0%}: try larger --ks, or keep the full gradient."
    row = min(kept, key=lambda row: (row.k2 / row.k1, row.k2))
    return (
        f"The cheapest of these that loses at most {MOST_LOST:.0%} is k1 = {row.k1}, k2 = {row.k2}: it loses "
        f"{row.whole.error:.1%} of this gradient.\n"
        f"next: rnn-jax train --window {max(window, row.k2)} --k1 {row.k1} --k2 {row.k2}"
    )
