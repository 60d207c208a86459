"""The same training with the hand-written gradient and with autodiff: losses, time and memory."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ... import Params, make_grad_fn, zero_state
from ..._reporting.html_page import Section, png, subplots
from ...tasks import TASKS
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import adam, on_task, orthogonal_tanh, sizes_of
from .._pictures import learning_curves
from .._training import Training
from .._trials import Setting, Trial

BATCH, HIDDEN, ROUNDS = 32, 100, 15
SAME = 1e-5  # a relative difference of losses that is too small to see in a curve
SIZES = {"adding": {"time": 100}, "dyck": {"time": 100}}
BY_HAND, AUTODIFF = "blocked", "autodiff"


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of task, number type and method."""
    steps = 60 if quick else 600
    return [
        {"task": task, "dtype": dtype, "method": method, "num_steps": steps}
        for task in SIZES
        for dtype in ("float64", "float32")
        for method in (BY_HAND, AUTODIFF)
        if not quick or (task, dtype) == ("adding", "float64")
    ]


def make(setting: Setting) -> Training:
    """Adam on the task; the seed draws the same weights and sequences for every method."""
    name = str(setting["task"])
    task, sizes = TASKS[name], SIZES[name]
    float64 = setting["dtype"] == "float64"
    num_steps = int(setting["num_steps"])
    grad_fn = make_grad_fn(str(setting["method"]), loss=task.loss)
    return on_task(
        task,
        sizes,
        orthogonal_tanh(sizes_of(task, sizes, HIDDEN)),
        adam(1e-3, max_norm=1.0),
        num_steps=num_steps,
        eval_every=num_steps // 20,
        batch_size=BATCH,
        grad_fn=grad_fn,
        num_tested=200,
        float64=float64,
        facts=partial(takes, name),
    )


def takes(name: str, params: Params) -> dict[str, float]:
    """Milliseconds and temporary MiB of one gradient by each method. The methods take turns; the best round counts."""
    task, sizes = TASKS[name], SIZES[name]
    batch = task.make(jax.random.key(0), num_sequences=BATCH, **sizes)
    h_0 = zero_state(params, BATCH)
    compiled, best, found = {}, {BY_HAND: np.inf, AUTODIFF: np.inf}, {}
    for method in best:
        program = jax.jit(make_grad_fn(method, loss=task.loss)).lower(params, batch, h_0).compile()
        memory: Any = program.memory_analysis()
        compiled[method], found[f"MiB_{method}"] = program, memory.temp_size_in_bytes / 2**20
    for _ in range(ROUNDS):
        for method, fn in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(fn(params, batch, h_0))
            best[method] = min(best[method], time.perf_counter() - start)
    return {f"ms_{method}": 1e3 * seconds for method, seconds in best.items()} | found


def pairs(trials: Sequence[Trial]) -> list[tuple[str, Trial, Trial]]:
    """`(name, by hand, autodiff)` of the trials that differ only in the method."""
    found = []
    for trial in trials:
        for other in trials:
            if trial.setting["method"] == BY_HAND and dict(other.setting) == {**trial.setting, "method": AUTODIFF}:
                found.append((f"{trial.setting['task']}, {trial.setting['dtype']}", trial, other))
    return found


def costs_of(by_hand: Trial) -> list[float]:
    """Milliseconds by hand and by autodiff, MiB by hand and by autodiff, as measured with this trial."""
    return [by_hand.facts[f"{unit}_{method}"] for unit in ("ms", "MiB") for method in (BY_HAND, AUTODIFF)]


def differences(by_hand: Trial, autodiff: Trial) -> np.ndarray:
    """Relative differences of the losses, `(evaluations, seeds)`."""
    apart: np.ndarray = np.abs(by_hand.curves["loss"] - autodiff.curves["loss"]) / np.abs(autodiff.curves["loss"])
    return apart


def verdict(trials: Sequence[Trial]) -> list[str]:
    """The difference of the losses, the last step at which they agree, time and memory."""
    lines = []
    for name, by_hand, autodiff in pairs(trials):
        apart = differences(by_hand, autodiff)
        ms, auto_ms, mib, auto_mib = costs_of(by_hand)
        same = by_hand.steps[np.cumsum(apart.max(1) > SAME) == 0][-1]
        lines.append(
            f"{name}: the relative difference of the losses is {apart[1].max():.1e} after {by_hand.steps[1]} steps, "
            f"below {SAME:g} up to step {same}, and {apart[-1].max():.1e} after {by_hand.steps[-1]} (the worst seed). "
            f"One gradient takes {ms:.2f} ms and {mib:.1f} MiB by hand, {auto_ms:.2f} ms and {auto_mib:.1f} MiB by "
            f"autodiff: {auto_ms / ms:.2f} times as long."
        )
    return lines


def apart_over_time(trials: Sequence[Trial]) -> Section:
    """How the difference of the two trainings grows."""
    figure, axes = subplots(figsize=(9, 4))
    for i, (name, by_hand, autodiff) in enumerate(pairs(trials)):
        apart = np.maximum(differences(by_hand, autodiff), 1e-17)
        low, middle, high = np.quantile(apart, (0, 0.5, 1), axis=1)
        axes.semilogy(by_hand.steps, middle, color=f"C{i}", marker=".", label=name)
        axes.fill_between(by_hand.steps, low, high, color=f"C{i}", alpha=0.18, lw=0)
    axes.set(xlabel="steps", ylabel="relative difference of the losses")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    reading = (
        "The line is the median over seeds, the band reaches from the lowest to the highest seed. Values below 1e-17 "
        "are drawn at 1e-17. The two methods add up the same numbers in a different order, so the difference starts at "
        "the rounding error of the number type. Training then multiplies small differences."
    )
    return Section("Two trainings from the same start", png(figure), reading)


def costs(trials: Sequence[Trial]) -> Section:
    """Time and memory of one gradient, and of the trainings."""
    header = (
        "task, numbers",
        "ms by hand",
        "ms autodiff",
        "MiB by hand",
        "MiB autodiff",
        "training, s",
        "training, s (autodiff)",
    )
    rows = [
        (
            name,
            *costs_of(by_hand),
            by_hand.seconds,
            autodiff.seconds,
        )
        for name, by_hand, autodiff in pairs(trials)
    ]
    reading = (
        f"Milliseconds are of one gradient on one device, the best of {ROUNDS} rounds in which the two methods take "
        "turns. MiB are the temporary memory of the compiled program. The trainings ran one after the other, with all "
        "seeds on all devices; their seconds include evaluation."
    )
    return Section("Time and memory", None, reading, header, rows)


def table(trials: Sequence[Trial]) -> Section:
    """Final losses, seed by seed."""
    rows = [
        (name, seed, f"{a:.9g}", f"{b:.9g}", f"{abs(a - b) / abs(b):.1e}")
        for name, by_hand, autodiff in pairs(trials)
        for seed, a, b in zip(by_hand.seeds, by_hand.final("loss"), autodiff.final("loss"), strict=True)
    ]
    header = ("task, numbers", "seed", "loss by hand", "loss by autodiff", "difference")
    return Section("Final losses", None, "The same seed draws the same weights and the same sequences.", header, rows)


def sections(trials: Sequence[Trial]) -> list[Section]:
    """How the two trainings diverge, their costs, curves, final losses, and how many seeds a difference needs."""
    float64 = [trial for trial in trials if trial.setting["dtype"] == "float64"]
    curves = learning_curves(float64, by="task", title="Loss during training, float64", log=False)
    return [apart_over_time(trials), costs(trials), curves, table(trials), seeds_needed(trials, by=("task", "dtype"))]


EXPERIMENT = Experiment(
    "by-hand-vs-autodiff",
    "Is training by the hand-written gradient the same as by autodiff, and what does each cost?",
    settings,
    make,
    sections,
    verdict,
    6,
    fixed=f"one layer of {HIDDEN} tanh units, sequences of 100 steps, batches of {BATCH}; Adam at 0.001, clipped to "
    "norm 1",
)
