"""From settings to the network, its optimizer and its trainer."""

import jax
import optax

from .. import (
    RECURRENT_INITS,
    Trainer,
    TrainState,
    clip_gradients,
    clipped_sgd,
    init_params,
    make_grad_fn,
    make_trainer,
    zero_state,
)
from .config import LEARNING_RATES, TrainConfig


def make_character_trainer(config: TrainConfig) -> Trainer:
    """The trainer of a run: mean cross-entropy over a window, the optimizer of the settings."""
    return make_trainer(make_grad_fn(config.method, loss="cross_entropy"), make_optimizer(config))


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then SGD or Adam, with the learning rate on its schedule over `config.steps`."""
    peak = LEARNING_RATES[config.optimizer] if config.learning_rate is None else config.learning_rate
    rate = {
        "cosine": optax.cosine_decay_schedule(peak, config.steps),
        "linear": optax.linear_schedule(peak, 0.0, config.steps),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if config.optimizer == "sgd":
        return clipped_sgd(rate, momentum=config.momentum, max_norm=config.max_norm, max_value=config.max_value)
    return optax.chain(clip_gradients(max_norm=config.max_norm, max_value=config.max_value), optax.adam(rate))


def initial_state(config: TrainConfig, trainer: Trainer, num_symbols: int) -> TrainState:
    """The state before the first step: drawn from the seed alone."""
    params = init_params(
        jax.random.key(config.seed),
        input_size=num_symbols,
        hidden_size=config.hidden_size,
        output_size=num_symbols,
        num_layers=config.num_layers,
        activation=config.activation,
        recurrent_init=RECURRENT_INITS[config.recurrent_init](config.recurrent_scale),
    )
    return trainer.init(params, zero_state(params, config.streams))
