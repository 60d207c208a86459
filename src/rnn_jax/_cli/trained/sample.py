"""`rnn-jax sample`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from ... import Params, categorical, generate, greedy
from ..._reporting.console import say
from ..._reporting.errors import InputError
from ...data import decode, encode
from ...data._vocab import as_text, spelled
from ..metrics import best_validation, read_metrics
from ..settings.commands import SampleConfig
from ..settings.training import TrainConfig
from ..training.checkpoint import Restored, restore, saved_steps, warn_of_damage
from ..training.model import initial_state, make_character_trainer


def sample(config: SampleConfig, settings: TrainConfig, symbols: str) -> int:
    """Print the prompt and what the model writes after it; returns the exit status."""
    prompt = config.prompt or default_prompt(symbols)
    write = make_writer(settings.vocab, symbols, prompt, config.length, config.temperature)
    params = trained(config.run, settings, symbols, best=config.best)
    say(prompt + write(params, config.seed), raw=config.raw)
    return 0


def trained(run: Path, settings: TrainConfig, symbols: str, *, best: bool = False) -> Params:
    """The parameters of the newest undamaged checkpoint of a run, or of the `best` by validation.

    A warning names damaged checkpoints.
    """
    restored = last_state(run, settings, symbols, only=_best_saved(run) if best else None)
    warn_of_damage(run, restored)
    params: Params = restored.state.params
    return params


def _best_saved(run: Path) -> int:
    """The step with the best validation of those that have a checkpoint.

    Raises:
        InputError: if none of them was validated.
    """
    steps = saved_steps(run)
    best = best_validation([record for record in read_metrics(run, max(steps, default=0)) if record["step"] in steps])
    if best is None:
        raise InputError(
            f"RUN must hold a checkpoint that was validated, for --best, but {str(run)!r} has none: leave --best out."
        )
    return int(best["step"])


def last_state(run: Path, settings: TrainConfig, symbols: str, only: int | None = None) -> Restored:
    """The newest undamaged state of a run, or that of the step `only`, on one device."""
    settings = dataclasses.replace(settings, memory=None)  # this concerns only the training
    trainer = make_character_trainer(settings, len(symbols))
    return restore(run, jax.eval_shape(lambda: initial_state(settings, trainer, len(symbols))), only)


def default_prompt(symbols: str) -> str:
    """A line break, or the first symbol the model knows."""
    return "\n" if "\n" in symbols else symbols[0]


def make_writer(vocab: str, symbols: str, prompt: str, length: int, temperature: float) -> Callable[[Params, int], str]:
    """A function from parameters and a seed to what the model writes after `prompt`; compiled once."""
    tokens = jnp.asarray(encode(symbols, spelled(vocab, prompt)))
    draw = categorical(temperature) if temperature else greedy
    run = jax.jit(lambda params, key: generate(key, params, tokens, length, draw=draw)[0])
    return lambda params, seed: as_text(vocab, decode(symbols, run(params, jax.random.key(seed))))
