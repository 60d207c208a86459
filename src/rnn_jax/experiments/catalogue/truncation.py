"""What truncating the gradient costs, for short and for long dependencies."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ... import Adaptive, Batch, Blocked, Params, Truncated, make_grad_fn, zero_state
from ..._reporting.html_page import Section
from ...tasks import TASKS
from ...typing import Method
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import adam, on_task, orthogonal_tanh, sizes_of
from .._pictures import against, learning_curves, panels
from .._report import summary
from .._training import Metrics, Training
from .._trials import Setting, Trial

HIDDEN, BATCH, TIME = 64, 16, 100
DELAYS = (4, 16)  # short dependencies and long ones
REACHES = ("1", "2", "5", "10", "20", "50", "adaptive", "full")
METHODS: dict[str, Method] = {"full": Blocked(), "adaptive": Adaptive(k1=5, bias=0.1)}


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of delay and reach."""
    if quick:
        return [{"delay": 4, "reach": reach, "num_steps": 200} for reach in ("2", "10", "full")]
    return [{"delay": delay, "reach": reach, "num_steps": 1600} for delay in DELAYS for reach in REACHES]


def make(setting: Setting) -> Training:
    """Delayed XOR; solved when more than 95 % of answers are right. A reach of k means k1 = k2 = k."""
    task, sizes = TASKS["delayed_xor"], {"time": TIME, "delay": int(setting["delay"])}
    reach = str(setting["reach"])
    method = METHODS[reach] if reach in METHODS else Truncated(k1=int(reach), k2=int(reach))
    grad_fn, exact = (make_grad_fn(way, loss=task.loss) for way in (method, Blocked()))

    def distance(params: Params, tested: Batch) -> Metrics:
        """The relative distance of the truncated gradient from the whole one, and the cosine between the two."""
        few = jax.tree.map(lambda x: x[:, :BATCH], tested)
        mine, whole = (
            jnp.concatenate(
                [leaf.ravel() for leaf in jax.tree.leaves(of(params, few, zero_state(params, BATCH))[1].params.cells)]
            )
            for of in (grad_fn, exact)
        )
        norm = jnp.linalg.norm(whole)
        return {
            "bias": jnp.linalg.norm(mine - whole) / norm,
            "cosine": jnp.sum(mine * whole) / (norm * jnp.linalg.norm(mine)),
        }

    return on_task(
        task,
        sizes,
        orthogonal_tanh(sizes_of(task, sizes, HIDDEN), 0.1),
        adam(1e-3, max_norm=0.1),
        num_steps=int(setting["num_steps"]),
        eval_every=20,
        batch_size=BATCH,
        grad_fn=grad_fn,
        num_tested=64,
        more=distance,
        solved=lambda m: m["accuracy"] > 0.95,
    )


def verdict(trials: Sequence[Trial]) -> list[str]:
    """Which reaches solved each delay."""
    lines = []
    for delay, group in panels(trials, "delay").items():
        solved = [f"{trial.setting['reach']} ({trial.solved.sum()})" for trial in group if trial.solved.any()]
        lines.append(
            f"Delay of {delay} steps: reaches that solved it, with how many of {len(group[0].seeds)} seeds did: "
            f"{', '.join(solved) or 'none'}."
        )
    lost = sum(int(trial.diverged.sum()) for trial in trials)
    return [*lines, f"{lost} of {sum(len(trial.seeds) for trial in trials)} seeds diverged."]


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Accuracy, time to the target, bias, curves, the table, and how many seeds a difference needs."""
    return [
        against(
            trials,
            "reach",
            lambda trial: trial.final("accuracy"),
            title="Final accuracy",
            ylabel="accuracy",
            reading="Lines join medians over seeds; each dot is a seed. Guessing reaches 0.5. Training ends when all "
            "seeds have reached 95 %.",
            level=0.5,
            lines="delay",
        ),
        against(
            trials,
            "reach",
            lambda trial: trial.solved_at,
            title="Steps to 95 %",
            ylabel="steps",
            reading="Only seeds that reached 95 % count. There is no median where fewer than half did.",
            lines="delay",
        ),
        against(
            trials,
            "reach",
            Trial.seconds_to_solve,
            title="Seconds to 95 %",
            ylabel="seconds per seed",
            reading="The training time of all seeds, divided by the number of seeds, on the machine named below.",
            lines="delay",
        ),
        against(
            trials,
            "reach",
            lambda trial: np.nanmedian(trial.curves["bias"], 0),
            title="Bias of the gradient",
            ylabel="‖g - whole‖ / ‖whole‖",
            reading="The truncated gradient, compared with the whole one at the same weights. Median over training.",
            lines="delay",
        ),
        learning_curves(trials, "accuracy", by="delay", log=False, title="Accuracy during training"),
        summary(trials, ("accuracy", "bias", "cosine")),
        seeds_needed(trials, "accuracy", lowest=False, by=("delay",)),
        seeds_needed(trials, "solved", by=("delay",)),
    ]


EXPERIMENT = Experiment(
    "truncation",
    "What does truncating the gradient cost, where dependencies are short and where they are long?",
    settings,
    make,
    sections,
    verdict,
    10,
    fixed=f"delayed XOR over {TIME} steps, one layer of {HIDDEN} tanh units, an orthogonal start with inputs scaled by "
    f"0.1; Adam at 0.001 on batches of {BATCH} new sequences, clipped to norm 0.1; k1 = k2 = reach, adaptive: k1 = 5, "
    "bias 0.1; tested on 64 sequences",
)
