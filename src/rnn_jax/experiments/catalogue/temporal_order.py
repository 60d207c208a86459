"""The temporal order problem at growing lengths, with clipping and a regulariser, as in Pascanu et al."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Array, Key

from ... import Params, clipped_sgd, init_params, make_grad_fn
from ..._reporting.html_page import Section
from ...analysis import penalise_norms
from ...initializers import normal
from ...tasks import TASKS
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import Init, Sizes, on_task, sizes_of
from .._pictures import learning_curves, shares
from .._report import summary
from .._training import Training
from .._trials import Setting, Trial

HIDDEN, BATCH, RATE, MAX_NORM, WEIGHT = 50, 20, 0.02, 1.0, 4.0
SGD, CLIPPED, REGULARISED = "SGD", "SGD, clipped", "SGD, clipped and regularised"
DEVIATION = 0.1  # of all weights: the paper's "basic tanh" start


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of length and method."""
    lengths, steps = ((12,), 1000) if quick else ((20, 35, 50, 75), 30000)
    return [
        {"length": length, "method": method, "num_steps": steps}
        for length in lengths
        for method in (SGD, CLIPPED, REGULARISED)
    ]


def basic(sizes: Sizes, deviation: float) -> Init:
    """All weights normal with the same deviation, biases zero."""

    def init(key: Key[Array, ""]) -> Params:
        params = init_params(key, **sizes, recurrent_init=normal(deviation))
        cell, readout = params.cells[0], params.readout
        cell = dataclasses.replace(cell, w_xh=cell.w_xh * (deviation * sizes["input_size"] ** 0.5))
        readout = readout._replace(w_hy=readout.w_hy * (deviation * sizes["hidden_size"] ** 0.5))
        return Params((cell,), readout)

    return init


def make(setting: Setting) -> Training:
    """SGD; solved when less than 1 % of new sequences are wrong."""
    task, sizes = TASKS["temporal_order"], {"time": int(setting["length"])}
    method = setting["method"]
    penalised, plain = penalise_norms(WEIGHT, loss=task.loss), make_grad_fn("blocked", loss=task.loss)
    return on_task(
        task,
        sizes,
        basic(sizes_of(task, sizes, HIDDEN), DEVIATION),
        clipped_sgd(RATE, max_norm=None if method == SGD else MAX_NORM),
        num_steps=int(setting["num_steps"]),
        eval_every=int(setting["num_steps"]) // 40,
        batch_size=BATCH,
        grad_fn=penalised if method == REGULARISED else plain,
        num_tested=1000,
        solved=lambda m: m["accuracy"] > 0.99,
    )


def verdict(trials: Sequence[Trial]) -> list[str]:
    """How many seeds each method solved at each length."""
    lines = []
    for method in (SGD, CLIPPED, REGULARISED):
        mine = [trial for trial in trials if trial.setting["method"] == method]
        got = ", ".join(
            f"{trial.solved.sum()} of {len(trial.seeds)} at length {trial.setting['length']}" for trial in mine
        )
        lines.append(f"{method}: solved by {got}.")
    return lines


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Success against length, curves, gradient norms, the table, and how many seeds a difference needs."""
    return [
        shares(
            trials,
            "length",
            lambda trial: trial.solved,
            lines="method",
            title="Success against length",
            ylabel="share of seeds",
            reading="A seed has solved the task when less than 1 % of 1,000 new sequences are wrong. Bars are 95 % "
            "intervals.",
        ),
        learning_curves(trials, "accuracy", by="length", log=False, title="Accuracy during training"),
        learning_curves(trials, "grad_norm", by="length", title="Norm of the gradient, before clipping"),
        summary(trials, ("accuracy", "grad_norm")),
        seeds_needed(trials, "solved", by=("length",)),
    ]


EXPERIMENT = Experiment(
    "temporal-order",
    "Do clipping and the regulariser of Pascanu et al. let a network learn which of two signs came first?",
    settings,
    make,
    sections,
    verdict,
    4,
    fixed=f"one layer of {HIDDEN} tanh units, all weights normal with deviation {DEVIATION:g}; batches of {BATCH} new "
    f"sequences per step; clipped to norm {MAX_NORM:g}, regularised with weight {WEIGHT:g} before clipping; tested on "
    "1,000 sequences",
)
