"""The coding exercises of the teaching notebooks: numbers, a sine wave, "hello world", a classifier."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ... import (
    Batch,
    Params,
    apply,
    clipped_sgd,
    feedback,
    generate,
    greedy,
    init_params,
    make_grad_fn,
    squared_error,
    zero_state,
)
from ..._reporting.html_page import Section, png, subplots
from ...data import decode, encode, symbols_of
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import measures
from .._pictures import learning_curves
from .._report import summary
from .._statistics import quartiles, share
from .._training import Metrics, Training
from .._trials import Setting, Trial

NUMBERS, SINE, HELLO, CLASSIFIER = "number sequence", "sine wave", "hello world", "random classifier"
LAST_NUMBER, SHOWN_NUMBERS = 11, 20
PERIOD, LEARNED, FREE = 25, 100, 75  # steps; free-running for three periods
TEXT = "hello world"
ONE_SEQUENCE = 0.0  # chance if there is only one sequence: the step alone determines the answer


def settings(quick: bool) -> Sequence[Setting]:
    """One setting per exercise. `quick` keeps all of them, because each is short."""
    return [
        {"exercise": NUMBERS, "hidden_size": 10, "num_steps": 6000},
        {"exercise": SINE, "hidden_size": 32, "num_steps": 6000},
        {"exercise": HELLO, "hidden_size": 16, "num_steps": 400},
        {"exercise": CLASSIFIER, "hidden_size": 16, "num_steps": 1000},
    ]


def make(setting: Setting) -> Training:
    """The training of an exercise, by its name: clipped SGD, each step from a state of zero."""
    exercise = {NUMBERS: numbers, SINE: sine, HELLO: hello, CLASSIFIER: classifier}[str(setting["exercise"])]
    return exercise(int(setting["hidden_size"]), int(setting["num_steps"]))


def numbers(hidden_size: int, num_steps: int) -> Training:
    """Counting: after 1..10 come 2..11. The network is also tested beyond this range."""
    count = jnp.arange(1.0, LAST_NUMBER + 1)[:, None]
    batch = Batch(count[:-1], count[1:])
    further = jnp.arange(1.0, SHOWN_NUMBERS + 1)[:, None]

    def says(params: Params) -> jax.Array:
        return apply(params, zero_state(params), further)[0][:, 0]

    def evaluate(params: Params) -> Metrics:
        ys = says(params)
        learned = LAST_NUMBER - 1
        values, _ = squared_error(ys[:learned, None], batch.targets)
        return {
            "loss": jnp.mean(values),
            "error": jnp.abs(ys[2] - 4),
            "error_beyond": jnp.abs(ys[-1] - (SHOWN_NUMBERS + 1)),
        }

    return Training(
        init=lambda key: init_params(key, input_size=1, hidden_size=hidden_size, output_size=1),
        batch=lambda key, step: batch,
        grad_fn=make_grad_fn("bptt", loss="squared_error"),
        optimizer=clipped_sgd(0.01, momentum=0.9, max_norm=1.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 40,
        chance=ONE_SEQUENCE,
        show=lambda params: {"says": says(params)},
    )


def sine(hidden_size: int, num_steps: int) -> Training:
    """A sine wave with 25 steps per period: one step ahead, then free-running on the network's own outputs."""
    wave = jnp.sin(2 * jnp.pi / PERIOD * jnp.arange(LEARNED + FREE + 1.0))[:, None]
    batch = Batch(wave[:LEARNED], wave[1 : LEARNED + 1])
    burn_in = 10  # steps from a state of zero that the network needs to know where in the wave it is

    def free(params: Params) -> jax.Array:
        heard = wave[: LEARNED + 1]
        return generate(jax.random.key(0), params, heard, FREE, draw=feedback)[0][:, 0]

    def evaluate(params: Params) -> Metrics:
        ys, _ = apply(params, zero_state(params), batch.inputs)
        values, _ = squared_error(ys, batch.targets)
        return {
            "loss": jnp.mean(values),
            "error": jnp.sqrt(jnp.mean(values[burn_in:])),
            "error_beyond": jnp.sqrt(jnp.mean((free(params) - wave[LEARNED + 1 :, 0]) ** 2)),
        }

    return Training(
        init=lambda key: init_params(key, input_size=1, hidden_size=hidden_size, output_size=1),
        batch=lambda key, step: batch,
        grad_fn=make_grad_fn("bptt", loss="squared_error"),
        optimizer=clipped_sgd(0.02, momentum=0.9, max_norm=1.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 40,
        chance=ONE_SEQUENCE,
        show=lambda params: {"free": free(params)},
    )


def hello(hidden_size: int, num_steps: int) -> Training:
    """Spell "hello world" from its "h"."""
    symbols = symbols_of(TEXT)
    tokens = jnp.asarray(encode(symbols, TEXT))
    batch = Batch(tokens[:-1], tokens[1:])

    def spells(params: Params) -> jax.Array:
        return generate(jax.random.key(0), params, tokens[:1], len(TEXT) - 1, draw=greedy)[0]

    def evaluate(params: Params) -> Metrics:
        wrong = jnp.sum(spells(params) != tokens[1:])
        return measures("cross_entropy", params, batch) | {"error": wrong.astype(float)}

    return Training(
        init=lambda key: init_params(key, input_size=len(symbols), hidden_size=hidden_size, output_size=len(symbols)),
        batch=lambda key, step: batch,
        grad_fn=make_grad_fn("bptt", loss="cross_entropy"),
        optimizer=clipped_sgd(0.5, max_value=5.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 40,
        chance=ONE_SEQUENCE,
        show=lambda params: {"spells": spells(params)},
    )


def classifier(hidden_size: int, num_steps: int) -> Training:
    """Memorise the classes of random sequences, read out at the last step."""
    xkey, ykey = jax.random.split(jax.random.key(1))
    batch = Batch(jax.random.normal(xkey, (10, 32, 3)), jax.random.randint(ykey, (1, 32), 0, 4))
    counts = np.bincount(np.asarray(batch.targets)[0], minlength=4) / 32

    def evaluate(params: Params) -> Metrics:
        found = measures("cross_entropy", params, batch)
        return found | {"error": 1 - found["accuracy"]}

    return Training(
        init=lambda key: init_params(key, input_size=3, hidden_size=hidden_size, output_size=4),
        batch=lambda key, step: batch,
        grad_fn=make_grad_fn("bptt", loss="cross_entropy"),
        optimizer=clipped_sgd(0.1, momentum=0.9, max_norm=1.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 40,
        chance=float(-np.sum(counts * np.log(counts))),
    )


GOALS = {
    NUMBERS: ("|output after 1, 2, 3 - 4|", 0.05),
    SINE: ("RMSE one step ahead, of the learned wave after its first 10 steps", 0.01),
    HELLO: ("wrong letters of ten", 0.0),
    CLASSIFIER: ("share of sequences wrong", 0.0),
}


def verdict(trials: Sequence[Trial]) -> list[str]:
    """The result of each exercise, compared with its goal."""
    lines = []
    for trial in trials:
        exercise = str(trial.setting["exercise"])
        words, goal = GOALS[exercise]
        reached = share(trial.final("error") <= goal)
        lines.append(f"{exercise}: {words} {quartiles(trial.final('error'))}; at most {goal:g} in {reached} seeds.")
    by_name = {trial.setting["exercise"]: trial for trial in trials}
    beyond = quartiles(by_name[NUMBERS].final("error_beyond"))
    lines.append(f"Beyond the numbers that it learned, the network is wrong by {beyond} after {SHOWN_NUMBERS}.")
    free = quartiles(by_name[SINE].final("error_beyond"))
    lines.append(f"Free-running for three periods, the wave has an RMSE of {free}.")
    symbols = symbols_of(TEXT)
    spelled = {TEXT[0] + decode(symbols, row.astype(int)) for row in by_name[HELLO].shown["spells"]}
    return [*lines, f"From {TEXT[0]!r} the networks spell {', '.join(sorted(map(repr, spelled)))}."]


def counting(trials: Sequence[Trial]) -> Section:
    """The outputs of the counting network, inside and outside the range that it learned."""
    trial = next(trial for trial in trials if trial.setting["exercise"] == NUMBERS)
    said = trial.shown["says"]
    x = np.arange(1, SHOWN_NUMBERS + 1)
    low, middle, high = np.quantile(said, (0, 0.5, 1), axis=0)
    figure, axes = subplots(figsize=(9, 4))
    axes.plot(x, x + 1, color="0.5", ls=":", label="right")
    axes.axvspan(1, LAST_NUMBER - 1, color="0.93", label="learned")
    axes.plot(x, middle, "o-", ms=4, label="median over seeds")
    axes.fill_between(x, low, high, alpha=0.2, lw=0, label="all seeds")
    axes.set(xlabel="last number that it read", ylabel="next number that it says", xticks=x)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    errors = np.median(np.abs(said - (x + 1)), 0)
    return Section(
        "Counting, and beyond",
        png(figure),
        "The network is right within the range that it learned. Beyond that range its units saturate, and "
        "it stops counting.",
        ("after", "median output", "median error"),
        list(zip(x, middle, errors, strict=True)),
    )


def free_running(trials: Sequence[Trial]) -> Section:
    """The wave, free-running."""
    trial = next(trial for trial in trials if trial.setting["exercise"] == SINE)
    said, x = trial.shown["free"], np.arange(FREE)
    right = np.sin(2 * np.pi / PERIOD * (LEARNED + 1 + x))
    low, middle, high = np.quantile(said, (0, 0.5, 1), axis=0)
    figure, (above, below) = subplots(2, 1, figsize=(9, 5), sharex=True)
    above.plot(x, right, color="0.5", ls=":", label="right")
    above.plot(x, middle, label="median over seeds")
    above.fill_between(x, low, high, alpha=0.2, lw=0, label="all seeds")
    figure.legend(loc="outside upper center", frameon=False, ncols=3)
    above.set_ylabel("wave")
    errors = np.quantile(np.abs(said - right), (0.25, 0.5, 0.75), axis=0)
    below.plot(x, errors[1])
    below.fill_between(x, errors[0], errors[2], alpha=0.2, lw=0)
    below.set(xlabel="steps on its own outputs", ylabel="|error|, quartiles", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    rows = [(int(t), errors[1][t]) for t in (0, 24, 49, 74)]
    reading = "The network reads its own outputs. Its error grows slowly: the phase drifts."
    return Section(
        "A sine wave, free-running for three periods", png(figure), reading, ("step", "median |error|"), rows
    )


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Counting, the wave, gradient norms, losses, the table, and how many seeds a difference needs."""
    return [
        counting(trials),
        free_running(trials),
        learning_curves(
            trials, "grad_norm", by="exercise", title="Gradient norms during training", ylabel="‖gradient‖"
        ),
        learning_curves(trials, by="exercise", title="Losses during training"),
        summary(trials, ("error", "error_beyond", "grad_norm")),
        seeds_needed(trials, by=("exercise",)),
    ]


EXPERIMENT = Experiment(
    "notebooks",
    "Which goals do the exercises of the teaching notebooks reach when they are done right, and from how many seeds?",
    settings,
    make,
    sections,
    verdict,
    10,
    4,
    fixed="one layer of tanh units, clipped SGD (with momentum, except hello world), all of the data at each step",
)
