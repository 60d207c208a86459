"""What `rnn-jax anatomy` looks at, and what it finds."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ... import Batch, CellParams, Params, init_params, unroll, zero_state
from ..._cells.protocol import hidden
from ..._reporting.errors import InputError
from ...analysis import Anatomy, TruncationReport, anatomy, truncation_report
from ...data import window_batch
from ...data._corpus import Corpus
from ...data._held_out import held_out_of_run
from ...dynamics import kaplan_yorke, log_singular_values, lyapunov_exponents, step_jacobians
from ...initializers import RECURRENT_INITS
from ...typing import States
from ..settings.commands import AnatomyConfig, units_of
from ..settings.training import TrainConfig
from ..trained.sample import trained

CHAOS_STEPS, CHAOS_SKIP, MOST_EXPONENTS = 1000, 100, 64
LEAST_HELD_OUT = 2 * CHAOS_SKIP
RUN_GAINS, RANDOM_GAINS = (0.5, 1.0, 1.5), (0.5, 0.9, 1.0, 1.1, 1.5)


class Subject(NamedTuple):
    """A network on its data; `driving` is a longer sequence of inputs, for the exponents."""

    name: str
    params: Params
    batch: Batch
    h_0: States
    driving: jax.Array


class Spectrum(NamedTuple):
    """The leading Lyapunov exponents at one gain."""

    exponents: np.ndarray
    errors: np.ndarray
    dimension: float


class Findings(NamedTuple):
    """What the page shows: the profile of the last loss and the exponents for every gain, the rest for one gain."""

    subject: Subject
    gains: tuple[float, ...]
    detailed: float
    profiles: list[np.ndarray]  # of each gain: (layer, time), of the loss of the last step alone
    spectra: list[Spectrum]
    whole: Anatomy
    product_lags: list[int]
    singular_values: list[np.ndarray]  # of each layer: (lags, hid), natural logs
    eigenvalues: list[np.ndarray]  # of (1 - α) I + α W_hh; none for layers with gates, which have no such step
    w_hh_norms: list[float]
    truncation: TruncationReport  # of one k2, see `reach`
    num_counted: int  # steps that the exponents are averages of


def random_subject(config: AnatomyConfig) -> Subject:
    """A network with random weights, driven by independent normal inputs; the targets are random classes."""
    key, xkey, ykey, dkey = jax.random.split(jax.random.key(config.seed), 4)
    params = init_params(
        key,
        input_size=8,
        hidden_size=config.hidden_size,
        output_size=8,
        num_layers=config.num_layers,
        cell=config.cell,
        activation=config.activation,
        leak=config.leak,
        recurrent_init=RECURRENT_INITS[config.recurrent_init](1.0),
    )
    inputs = jax.random.normal(xkey, (config.window, config.streams, 8))
    batch = Batch(inputs, jax.random.randint(ykey, inputs.shape[:2], 0, 8))
    name = f"{units_of(config)}, W_hh drawn {config.recurrent_init}, driven by noise"
    driving = jax.random.normal(dkey, (CHAOS_STEPS + CHAOS_SKIP, 8))
    return Subject(name, params, batch, zero_state(params, config.streams), driving)


def trained_subject(
    config: AnatomyConfig, run: Path, settings: TrainConfig, facts: dict[str, Any], corpus: Corpus
) -> Subject:
    """The network of a run on its held-out text."""
    tokens, streams = held_out_of_run(corpus, config.window, config.streams)
    driving = jnp.asarray(tokens[: CHAOS_STEPS + CHAOS_SKIP], jnp.int32)
    if len(driving) < LEAST_HELD_OUT:
        raise InputError(f"{str(run)!r} must hold out at least {LEAST_HELD_OUT} {corpus.vocab}s, got {len(driving)}.")
    params = trained(run, settings, facts["symbols"])
    name = f"{run}: {units_of(settings)}, on text {corpus.held_out_words}"
    batch = window_batch(streams, 0, config.window)
    return Subject(name, params, batch, zero_state(params, config.streams), driving)


def scaled(params: Params, gain: float) -> Params:
    """The network with every `W_hh` times `gain`."""
    return params._replace(cells=tuple(dataclasses.replace(cell, w_hh=gain * cell.w_hh) for cell in params.cells))


def reach(exponent: float, time: int) -> int:
    """The k2 that truncation is measured at: the steps after which 1 % is left, at most half of the sequence."""
    half = max(time // 2, 1)
    return max(min(math.ceil(math.log(100) / -exponent), half), 1) if exponent < 0 else half


def window_of_run(num_held_out: int) -> int:
    """The default window, or a shorter one that fits so many held-out symbols; 0 if they are too few."""
    most = min(num_held_out // AnatomyConfig.streams - 1, AnatomyConfig.window)
    return most if num_held_out >= LEAST_HELD_OUT else 0


def examine(subject: Subject, gains: tuple[float, ...], lags: int, seed: int) -> Findings:
    """All that the page shows."""
    params, batch, h_0 = subject.params, subject.batch, subject.h_0
    detailed = 1.0 if 1.0 in gains else gains[len(gains) // 2]
    time = batch.inputs.shape[0]
    last_only = batch._replace(targets=batch.targets[-1:])
    look = jax.jit(anatomy)
    num = min(sum(h.shape[-1] for h in h_0), MOST_EXPONENTS)
    lyapunov = jax.jit(partial(lyapunov_exponents, num=num, skip=CHAOS_SKIP))
    profiles, spectra = [], []
    with tqdm(total=len(gains) + 3, unit="look", disable=None) as bar:
        for gain in gains:
            network = scaled(params, gain)
            layers = look(network, last_only, h_0).layers
            profiles.append(
                np.stack([np.linalg.norm(np.asarray(layer.d_h_norms, np.float64), axis=1) for layer in layers])
            )
            found = lyapunov(jax.random.key(seed), network, tuple(h[0] for h in h_0), subject.driving)
            exponents, errors, _ = (np.asarray(x, np.float64) for x in found)
            spectra.append(Spectrum(exponents, errors, float(kaplan_yorke(found.exponents))))
            bar.update()
        network = scaled(params, detailed)
        whole = jax.device_get(jax.jit(partial(anatomy, lags=min(lags, time)))(network, batch, h_0))
        bar.update()
        product_lags = sorted({min(round(1.5**i), time) for i in range(30)})
        singular_values, xs = [], batch.inputs[:, 0]
        for cell, h in zip(network.cells, h_0, strict=True):
            jacobians = step_jacobians(cell, h[0], xs)
            singular_values.append(np.asarray(log_singular_values(jacobians, product_lags), np.float64))
            xs = hidden(cell, unroll(cell, h[0], xs))
        bar.update()
        k2 = reach(spectra[gains.index(detailed)].exponents[0], time)
        truncated = truncation_report(network, batch, h_0, [k2], lags=1)
        bar.update()
    w_hhs = [np.asarray(cell.w_hh, np.float64) for cell in network.cells]
    plain = [(cell.leak, w) for cell, w in zip(network.cells, w_hhs, strict=True) if isinstance(cell, CellParams)]
    return Findings(
        subject,
        gains,
        detailed,
        profiles,
        spectra,
        whole,
        product_lags,
        singular_values,
        [(1 - leak) + leak * np.linalg.eigvals(w) for leak, w in plain],
        [float(np.linalg.norm(w, 2)) for w in w_hhs],
        truncated,
        len(subject.driving) - CHAOS_SKIP,
    )
