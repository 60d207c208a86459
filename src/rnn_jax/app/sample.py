"""`rnn-jax sample`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .. import Params, categorical, decode, encode, generate, greedy
from . import run_folder
from .config import SampleConfig
from .errors import InputError
from .model import initial_state, make_character_trainer


def sample(config: SampleConfig) -> int:
    """Print the prompt and what the model writes after it."""
    settings, facts = run_folder.read_settings(config.run)
    symbols = facts["symbols"]
    prompt = config.prompt if config.prompt is not None else default_prompt(symbols)
    unknown = sorted(set(prompt) - set(symbols))
    if unknown:
        raise InputError(
            f"--prompt must hold only symbols that the model saw in training, got {', '.join(map(repr, unknown))}; "
            f"it knows {symbols!r}."
        )
    trainer = make_character_trainer(settings)
    template = jax.eval_shape(lambda: initial_state(settings, trainer, len(symbols)))
    with run_folder.checkpoints(config.run) as manager:
        state = run_folder.restore(config.run, manager, template)
    write = make_writer(symbols, prompt, config.length, config.temperature)
    print(prompt + write(state.params, config.seed))
    return 0


def default_prompt(symbols: str) -> str:
    """A line break, or the first symbol the model knows."""
    return "\n" if "\n" in symbols else symbols[0]


def make_writer(symbols: str, prompt: str, length: int, temperature: float) -> Callable[[Params, int], str]:
    """A function from parameters and a seed to what the model writes after `prompt`; compiled once."""
    tokens = jnp.asarray(encode(symbols, prompt))
    draw = categorical(temperature) if temperature else greedy
    run = jax.jit(lambda params, key: generate(key, params, tokens, length, draw=draw)[0])
    return lambda params, seed: decode(symbols, run(params, jax.random.key(seed)))
