"""Gradients that explode: training with and without clipping at growing learning rates."""

from collections.abc import Sequence

from ... import clipped_sgd
from ..._reporting.html_page import Section
from ...tasks import TASKS
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import normal_tanh, on_task, sizes_of
from .._pictures import against, learning_curves, shares
from .._report import summary
from .._training import Training
from .._trials import Setting, Trial

HIDDEN, BATCH, TIME, GAIN = 64, 16, 50, 1.5
CLIPS = {"none": {}, "by value": {"max_value": 0.1}, "by norm": {"max_norm": 1.0}}


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of clipping and learning rate."""
    rates, steps = ((0.1, 1.0), 150) if quick else ((0.01, 0.03, 0.1, 0.3, 1.0), 1500)
    return [{"clipping": clip, "rate": rate, "num_steps": steps} for clip in CLIPS for rate in rates]


def make(setting: Setting) -> Training:
    """The 3-bit flip-flop, by SGD, from weights of spectral radius 1.5."""
    task, sizes = TASKS["flip_flop"], {"time": TIME, "num_bits": 3}
    return on_task(
        task,
        sizes,
        normal_tanh(sizes_of(task, sizes, HIDDEN), GAIN),
        clipped_sgd(float(setting["rate"]), **CLIPS[str(setting["clipping"])]),
        num_steps=int(setting["num_steps"]),
        eval_every=int(setting["num_steps"]) // 30,
        batch_size=BATCH,
        num_tested=200,
        solved=lambda m: m["loss"] < 0.1,
    )


def verdict(trials: Sequence[Trial]) -> list[str]:
    """How many seeds diverge, for each kind of clipping and each rate."""
    lines = []
    for clip in CLIPS:
        group = [trial for trial in trials if trial.setting["clipping"] == clip]
        lost = ", ".join(
            f"{trial.diverged.sum()} of {len(trial.seeds)} at rate {trial.setting['rate']}" for trial in group
        )
        lines.append(f"Clipping {clip}: seeds that diverged: {lost}.")
    return lines


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Which seeds diverged, the final loss, curves, the table, and how many seeds a difference needs."""
    return [
        shares(
            trials,
            "rate",
            lambda trial: trial.diverged,
            lines="clipping",
            title="Seeds that diverge",
            ylabel="share of seeds",
            reading="A seed diverges if a number is not finite during training, or if the final loss is above both the "
            "first loss and twice that of the best constant answer. Bars are 95 % intervals.",
        ),
        against(
            trials,
            "rate",
            lambda trial: trial.final("loss"),
            lines="clipping",
            title="Final loss",
            ylabel="squared error",
            reading="Lines join medians over seeds; each dot is a seed. Values that are not finite are left out. The "
            "dotted line is the best constant answer.",
            log=True,
            level=trials[0].chance,
        ),
        learning_curves(trials, "grad_norm", by="clipping", title="Norm of the gradient, before clipping"),
        learning_curves(trials, by="clipping", title="Loss during training"),
        summary(trials, ("grad_norm",)),
        seeds_needed(trials, by=("rate",)),
        seeds_needed(trials, "diverged", by=("rate",)),
    ]


EXPERIMENT = Experiment(
    "clipping",
    "When gradients explode, at which learning rates does clipping by value or by norm prevent divergence?",
    settings,
    make,
    sections,
    verdict,
    10,
    fixed=f"flip-flop of 3 bits over {TIME} steps, one layer of {HIDDEN} tanh units, normal weights of gain {GAIN:g}; "
    f"SGD on batches of {BATCH} new sequences; by value: to 0.1, by norm: to 1; tested on 200 sequences",
)
