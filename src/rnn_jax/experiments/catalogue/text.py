"""Bits per character of a text, compared with n-gram models of the same text."""

from collections.abc import Sequence
from functools import cache

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from ... import Batch, Params, make_grad_fn
from ..._reporting.html_page import Section, png, subplots
from ...data import make_streams, window_batch
from ...data._corpus import corpus_of_text, read_corpus
from ...data._held_out import BITS, TextData, make_validate, predicted_positions, prepare
from ...data._ngrams import NAMES, ngram_bits
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import adam, orthogonal_tanh
from .._pictures import learning_curves
from .._report import summary
from .._statistics import quartiles
from .._tables import best
from .._training import Metrics, Training
from .._trials import Setting, Trial, label

ORDERS = (*NAMES, "4-gram", "5-gram")
STYLES = ("-", "--", ":", "-.", (0, (1, 5)))  # of the lines of the n-gram models
STREAMS, WINDOW, MOST = 32, 50, 2_000_000  # characters


def settings(quick: bool) -> Sequence[Setting]:
    """A short search, and a longer training near its best setting."""
    if quick:
        return [{"hidden_size": 64, "rate": 3e-3, "num_steps": 200}]
    search = [{"hidden_size": size, "rate": rate, "num_steps": 500} for size in (256, 512) for rate in (1e-3, 3e-3)]
    return [*search, {"hidden_size": 512, "rate": 2e-3, "num_steps": 2500}]


@cache
def parts() -> tuple[TextData, TextData, TextData]:
    """The training, validation and test part of the text. The last two are the halves of its end."""
    data = prepare(corpus_of_text(read_corpus(()).text[:MOST]), STREAMS, WINDOW)
    held_out = data.rest.astype(np.int32)
    middle = len(held_out) // 2
    halves = [make_streams(half, STREAMS) for half in (held_out[:middle], held_out[middle:])]
    return data, data._replace(held_out=halves[0]), data._replace(held_out=halves[1])


def make(setting: Setting) -> Training:
    """Windows of parallel streams, the state carried from window to window; Adam, its rate falling along a cosine."""
    data, validation, test = parts()
    streams = jnp.asarray(data.streams, jnp.uint8 if len(data.symbols) < 256 else jnp.int32)
    num_steps, num_windows = int(setting["num_steps"]), (streams.shape[0] - 1) // WINDOW
    size = len(data.symbols)
    sizes = {"input_size": size, "hidden_size": int(setting["hidden_size"]), "output_size": size}

    def batch(key: Key[Array, ""], step: Array) -> Batch:
        at = step % num_windows
        now = window_batch(streams, at * WINDOW, WINDOW)
        begins = jnp.zeros((WINDOW, STREAMS), bool).at[0].set(at == 0)  # the streams begin again: reset the state
        return now._replace(inputs=now.inputs.astype(jnp.int32), targets=now.targets.astype(jnp.int32), reset=begins)

    validate, try_out = (make_validate(part, "blocked", WINDOW) for part in (validation, test))

    def evaluate(params: Params) -> Metrics:
        bits = validate(params)
        return {"loss": bits / BITS, "validation_bits": bits, "test_bits": try_out(params)}

    counts = np.bincount(data.train) / len(data.train)
    return Training(
        init=orthogonal_tanh(sizes),
        batch=batch,
        grad_fn=make_grad_fn("blocked", loss="cross_entropy"),
        optimizer=adam(optax.cosine_decay_schedule(float(setting["rate"]), num_steps), max_norm=1.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 10,
        chance=float(-np.sum(counts * np.log(np.maximum(counts, 1e-300)))),
        keep_state=True,
    )


@cache
def baselines() -> dict[str, float]:
    """Bits per character of n-gram models on the characters that are tested."""
    data, _, test = parts()
    tested = len(data.rest) // 2 + predicted_positions(test)
    return ngram_bits(data.train, data.rest, len(data.symbols), tested, ORDERS)


def verdict(trials: Sequence[Trial]) -> list[str]:
    """Bits of the chosen network and of the baselines."""
    trial = best(trials, "validation_bits", lowest=True)
    data, _, _ = parts()
    others = ", ".join(f"{name} {bits:.3f}" for name, bits in baselines().items())
    length = len(data.train) + len(data.rest)
    return [
        f"{quartiles(trial.final('test_bits'))} bits per character on the test part, the end of the text; "
        "validation chose "
        f"{label(trial.setting, ['hidden_size', 'rate', 'num_steps'])}.",
        f"N-gram models: {others}.",
        f"Text: {read_corpus(()).source}, its first {length:,} characters of {len(data.symbols)} symbols.",
    ]


def compared_with_baselines(trials: Sequence[Trial]) -> Section:
    """Bits of every setting and of the baselines."""
    figure, axes = subplots(figsize=(9, 3.4))
    ordered = sorted(trials, key=lambda trial: -float(np.median(trial.final("test_bits"))))
    names = [label(trial.setting, ["hidden_size", "rate", "num_steps"]) for trial in ordered]
    for i, trial in enumerate(ordered):
        axes.plot(trial.final("test_bits"), np.full(len(trial.seeds), i), "o", color="C0")
    for i, (name, bits) in enumerate(baselines().items()):
        axes.axvline(bits, color="0.5", ls=STYLES[i], lw=1.2, label=name)
    axes.set(xlabel="bits per character", yticks=range(len(names)), yticklabels=names)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    rows = [(name, quartiles(trial.final("test_bits"))) for name, trial in zip(names, ordered, strict=True)]
    rows += [(name, f"{bits:.4f}") for name, bits in baselines().items()]
    return Section("On the test text", png(figure), "Each dot is a seed.", ("model", "bits per character"), rows)


def sections(trials: Sequence[Trial]) -> list[Section]:
    """The baselines, curves, the search, and how many seeds a difference needs."""
    curves = learning_curves(trials, "validation_bits", log=False, title="Bits in validation during training")
    table = summary(trials, ("validation_bits", "test_bits"), title="The search")
    return [compared_with_baselines(trials), curves, table, seeds_needed(trials, "validation_bits")]


EXPERIMENT = Experiment(
    "text",
    "How many bits per character does a network need, compared with n-gram models?",
    settings,
    make,
    sections,
    verdict,
    2,
    fixed=f"one layer of tanh units, an orthogonal start; {STREAMS} streams in windows of {WINDOW}, the state carried "
    "over; Adam, its rate falling to zero along a cosine, clipped to norm 1",
)
