"""What `rnn-jax train --watch` costs: the time of a look beside that of a step of training, taking turns.

python benchmarks/watch.py            # prints the table
python benchmarks/watch.py --save     # and keeps it in benchmarks/results/watch.json
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax

from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training.model import initial_state, make_character_trainer, make_gradient
from rnn_jax._cli.training.steps import MOST, make_dispatch, make_next_batch, num_windows, windows_at
from rnn_jax._cli.training.watch import make_watch
from rnn_jax._reporting.machine import machine_record
from rnn_jax.data._corpus import read_corpus
from rnn_jax.data._held_out import prepare

RESULTS = Path(__file__).parent / "results" / "watch.json"
ROUNDS = 9


def look(num_layers):
    """Medians over rounds: milliseconds of a step and of a look, for the default run of so many layers."""
    config = TrainConfig(num_layers=num_layers)
    data = prepare(read_corpus(()), config.streams, config.window)
    size = len(data.symbols)
    trainer = make_character_trainer(config, size)
    state = jax.jit(lambda: initial_state(config, trainer, size))()
    next_batch = make_next_batch(config, num_windows(data.streams, config.window))
    dispatch = make_dispatch(trainer, next_batch)
    watch = make_watch(config, make_gradient(config, size), next_batch)
    windows = windows_at(data.streams, 0, MOST, config.window)
    steps, looks = [], []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(dispatch(state, windows))
        steps.append((time.perf_counter() - start) / MOST)
        start = time.perf_counter()
        watch(state, windows[0])
        looks.append(time.perf_counter() - start)
    step, of_look = statistics.median(steps[1:]), statistics.median(looks[1:])  # the first ones compile
    return {
        "ms a step": 1e3 * step,
        "ms a look": 1e3 * of_look,
        "steps a look": of_look / step,
        "share of the training": of_look / (step * config.watch_every),
    }


def main():
    """Time one and two layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    results = {f"{layers} x 256": look(layers) for layers in (1, 2)}
    for name, row in results.items():
        print(name, {key: round(value, 3) for key, value in row.items()})
    if save:
        found = {"machine": machine_record(), "results": results}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
