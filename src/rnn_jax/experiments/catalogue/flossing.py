"""Gradient flossing on delayed XOR, Engelken (2023): how far back does a vanilla network learn to look?"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from ... import Batch, Params, zero_state
from ..._reporting.html_page import Section
from ...dynamics import lyapunov_exponents
from ...tasks import TASKS
from .._experiment import Experiment
from .._flossing import FLOSS_LENGTH, FLOSS_NUM, FLOSS_RATE, floss, flossed, flossed_at_intervals
from .._parts import TEST_KEY, Init, Sizes, adam, normal_tanh, on_task, orthogonal_tanh, sizes_of
from .._pictures import against, learning_curves, panels, shares
from .._report import summary
from .._training import Metrics, Training
from .._trials import Setting, Trial

HIDDEN, BATCH, MAX_NORM, SMALL_INPUTS, NUM_TESTED, RIGHT = 64, 16, 0.1, 0.1, 256, 0.95
FLOSS_STEPS, NUM_EPISODES, EPISODE_STEPS = 300, 4, 50
PLACES = (1, 16, 32, 48, 64)  # which exponents are measured; 1 is the largest


def bits(key: Key[Array, ""], **sizes: int) -> Batch:
    """Delayed XOR with bits that are numbers, 0 and 1: one feature, as in the paper, not two tokens."""
    batch = TASKS["delayed_xor"].make(key, **sizes)
    return batch._replace(inputs=batch.inputs.astype(float)[..., None])


XOR = TASKS["delayed_xor"]._replace(make=bits, input_size=lambda **sizes: 1)


def noise(key: Key[Array, ""]) -> Array:
    """One sequence of fair bits, along which networks are flossed. It does not depend on the delay."""
    return bits(key, num_sequences=1, time=FLOSS_LENGTH, delay=2).inputs


class Start(NamedTuple):
    """One of the starts: its weights, its learning rate, and how often it is flossed during training."""

    init: Callable[[Sizes], Init]
    rate: float
    num_episodes: int = 0


def flossed_normal(sizes: Sizes) -> Init:
    """Normal weights, flossed."""
    return flossed(normal_tanh(sizes), floss(noise, FLOSS_STEPS))


def small_orthogonal(sizes: Sizes) -> Init:
    """An orthogonal matrix and small inputs: exponents near zero from the start."""
    return orthogonal_tanh(sizes, SMALL_INPUTS)


def flossed_orthogonal(sizes: Sizes) -> Init:
    """Orthogonal weights and small inputs, flossed."""
    return flossed(small_orthogonal(sizes), floss(noise, FLOSS_STEPS))


STARTS = {  # the rates are the best of 0.0003, 0.001 and 0.003 at delays of 16 and 32, on three other seeds
    "normal": Start(normal_tanh, 1e-3),
    "normal, flossed before": Start(flossed_normal, 1e-3),
    "normal, flossed before and during": Start(flossed_normal, 1e-3, NUM_EPISODES),
    "orthogonal": Start(small_orthogonal, 3e-4),
    "orthogonal, flossed before": Start(flossed_orthogonal, 1e-3),
}


def settings(quick: bool) -> Sequence[Setting]:
    """Delays by starts."""
    if quick:
        return [{"delay": 10, "start": start, "num_steps": 400} for start in list(STARTS)[:3:2]]
    return [{"delay": delay, "start": start, "num_steps": 2000} for delay in (10, 20, 30, 40, 50) for start in STARTS]


def optimizer_of(start: Start, num_steps: int) -> optax.GradientTransformation:
    """Adam. If the start has episodes of flossing, training is divided into equal parts that begin with one."""
    optimizer = adam(start.rate, MAX_NORM)
    if not start.num_episodes:
        return optimizer
    return flossed_at_intervals(optimizer, floss(noise, EPISODE_STEPS), num_steps // start.num_episodes)


def exponents(params: Params, batch: Batch) -> Metrics:
    """The Lyapunov exponents at `PLACES`, along one fixed sequence of bits."""
    del batch  # its length is that of the delay
    xs = bits(jax.random.key(TEST_KEY), num_sequences=1, time=150, delay=2).inputs
    found = lyapunov_exponents(jax.random.key(0), params, zero_state(params, 1), xs, skip=50).exponents[0]
    return {f"exponent_{place}": found[place - 1] for place in PLACES}


def make(setting: Setting) -> Training:
    """Sequences twice as long as the delay; all seeds make all steps, even if they have learned the task."""
    start, num_steps, delay = STARTS[str(setting["start"])], int(setting["num_steps"]), int(setting["delay"])
    sizes = {"time": 2 * delay, "delay": delay}
    return on_task(
        XOR,
        sizes,
        start.init(sizes_of(XOR, sizes, HIDDEN)),
        optimizer_of(start, num_steps),
        num_steps=num_steps,
        eval_every=num_steps // 10,
        batch_size=BATCH,
        num_tested=NUM_TESTED,
        more=exponents,
    )


def right(trial: Trial) -> np.ndarray:
    """Which seeds have learned the task."""
    found: np.ndarray = trial.final("accuracy") > RIGHT
    return found


def verdict(trials: Sequence[Trial]) -> list[str]:
    """How many seeds of each start have learned each delay."""
    return [
        f"{start}: seeds with an accuracy above {RIGHT:g}: "
        + ", ".join(f"{right(trial).sum()} of {len(trial.seeds)} at delay {trial.setting['delay']}" for trial in mine)
        + "."
        for start, mine in panels(trials, "start").items()
    ]


def spectra(trials: Sequence[Trial]) -> Section:
    """The exponents at the start of training, by their place; they are the same for all delays."""
    first = panels(trials, "delay")[trials[0].setting["delay"]]
    placed = [trial._replace(setting={**trial.setting, "exponent": place}) for trial in first for place in PLACES]
    return against(
        placed,
        "exponent",
        lambda trial: trial.curves[f"exponent_{trial.setting['exponent']}"][0],
        lines="start",
        title="Lyapunov exponents at the start of training",
        ylabel="exponent (nats per step)",
        reading=f"Exponents along random bits; 1 is the largest of {HIDDEN}, and the first {FLOSS_NUM} are flossed. "
        "Each dot is a seed. The two starts with flossed normal weights begin with the same weights.",
        level=0.0,
    )


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Accuracy and success against the delay, the exponents, curves, the table."""
    return [
        against(
            trials,
            "delay",
            lambda trial: trial.final("accuracy"),
            lines="start",
            title="Accuracy at the end",
            ylabel="accuracy on new sequences",
            reading="Lines join medians over seeds; each dot is a seed. Guessing reaches 0.5.",
            level=0.5,
        ),
        shares(
            trials,
            "delay",
            right,
            lines="start",
            title="Success against the delay",
            ylabel="share of seeds",
            reading=f"A seed has learned the task when at the end more than {RIGHT:.0%} of answers are right. Bars are "
            "95 % intervals.",
        ),
        spectra(trials),
        learning_curves(trials, "accuracy", by="delay", log=False, title="Accuracy during training"),
        learning_curves(
            trials,
            f"exponent_{FLOSS_NUM}",
            by="delay",
            log=False,
            title=f"Exponent {FLOSS_NUM} during training",
            ylabel="nats per step",
        ),
        summary(trials, ("accuracy", *(f"exponent_{place}" for place in PLACES))),
    ]


EXPERIMENT = Experiment(
    "flossing",
    "How far back can a vanilla network learn to look when its Lyapunov exponents are brought to zero?",
    settings,
    make,
    sections,
    verdict,
    6,
    fixed=f"delayed XOR on sequences twice as long as the delay, bits as numbers; one layer of {HIDDEN} tanh units; "
    f"normal: gain 1, orthogonal: inputs scaled by {SMALL_INPUTS:g}; Adam at 0.001, orthogonal not flossed 0.0003, on "
    f"batches of {BATCH} new sequences, clipped to norm {MAX_NORM:g}; flossed: {FLOSS_NUM} exponents by {FLOSS_STEPS} "
    f"steps of Adam at {FLOSS_RATE:g} over {FLOSS_LENGTH} steps of time, not counted; during: {EPISODE_STEPS} more at "
    f"the beginning of each of {NUM_EPISODES} parts; tested on {NUM_TESTED} sequences",
)
