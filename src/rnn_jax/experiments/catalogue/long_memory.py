"""How far back can a vanilla network remember? Adding and copying at growing lengths, from several starts."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Array, Key

from ... import Batch, Params
from ..._reporting.html_page import Section
from ...tasks import TASKS
from .._differences import seeds_needed
from .._experiment import Experiment
from .._flossing import FLOSS_LENGTH, FLOSS_NUM, FLOSS_RATE, floss, flossed
from .._parts import Init, adam, irnn, measures, normal_tanh, on_task, orthogonal_tanh, sizes_of
from .._pictures import against, learning_curves, shares
from .._report import summary
from .._training import Metrics, Training
from .._trials import Setting, Trial

HIDDEN, BATCH = 100, 20
SIZE_OF = {"adding": "time", "copying": "delay"}
ORTHOGONAL, NORMAL, FLOSSED = "tanh orthogonal", "tanh normal", "tanh normal, flossed"
IRNN, LARGE_IRNN = "IRNN, inputs 0.001", "IRNN, inputs 0.1"  # as published, and with larger input weights
RATE, MAX_NORM = 1e-3, 1.0
STEPS = {"adding": 1500, "copying": 600}
FLOSS_STEPS = 100


def settings(quick: bool) -> Sequence[Setting]:
    """All combinations of task, length and start; without clipping only at one length, to save time."""
    if quick:
        return [
            {"task": "adding", "length": 20, "start": start, "clipping": "norm", "num_steps": 400}
            for start in (ORTHOGONAL, LARGE_IRNN)
        ]
    return [
        {"task": task, "length": length, "start": start, "clipping": clipping, "num_steps": STEPS[task]}
        for task in SIZE_OF
        for length in (10, 50, 150, 400, 750)
        for start in STARTS
        for clipping in ("norm", "none")
        if clipping == "norm" or (length == 50 and start != FLOSSED)
    ]


STARTS: dict[str, Callable[[dict[str, int]], Init]] = {
    ORTHOGONAL: orthogonal_tanh,
    NORMAL: normal_tanh,
    IRNN: irnn,
    LARGE_IRNN: partial(irnn, input_deviation=0.1),
    FLOSSED: normal_tanh,
}


def inputs_of(task: str, sizes: dict[str, int]) -> Callable[[Key[Array, ""]], Array]:
    """The first steps of one sequence of a task, along which the network is flossed."""
    sizes = {name: max(size, FLOSS_LENGTH) for name, size in sizes.items()}
    return lambda key: TASKS[task].make(key, num_sequences=1, **sizes).inputs[:FLOSS_LENGTH]


def make(setting: Setting) -> Training:
    """Adam; the adding problem counts as solved at a squared error of 0.01, copying where 99 % of symbols are right."""
    name, start = str(setting["task"]), str(setting["start"])
    task, length = TASKS[name], {SIZE_OF[name]: int(setting["length"])}
    sizes = sizes_of(task, length, HIDDEN)
    init = STARTS[start](sizes)
    if start == FLOSSED:
        init = flossed(init, floss(inputs_of(name, length), FLOSS_STEPS))

    def remembered(params: Params, batch: Batch) -> Metrics:
        end = batch._replace(targets=batch.targets[-10:])
        return {"remembered": measures(task.loss, params, end)["accuracy"]}

    copying = name == "copying"
    return on_task(
        task,
        length,
        init,
        adam(RATE, MAX_NORM if setting["clipping"] == "norm" else None),
        num_steps=int(setting["num_steps"]),
        eval_every=100,
        batch_size=BATCH,
        num_tested=200,
        more=remembered if copying else lambda params, batch: {},
        solved=(lambda m: m["remembered"] > 0.99) if copying else (lambda m: m["loss"] < 0.01),
    )


def verdict(trials: Sequence[Trial]) -> list[str]:
    """How many seeds of each start solved each task, at each length."""
    lines = []
    for task in dict.fromkeys(str(trial.setting["task"]) for trial in trials):
        for start in STARTS:
            mine = [
                c
                for c in trials
                if (c.setting["task"], c.setting["start"], c.setting["clipping"]) == (task, start, "norm")
            ]
            got = ", ".join(
                f"{trial.solved.sum()} of {len(trial.seeds)} at length {trial.setting['length']}" for trial in mine
            )
            lines += [f"{task}, {start}: solved by {got}."] if got else []
    return lines


def relative(trial: Trial) -> np.ndarray:
    """The final loss divided by chance."""
    return trial.final("loss") / trial.chance


def sections(trials: Sequence[Trial]) -> list[Section]:
    """Success against length, final loss, clipping, curves, the table, and how many seeds a difference needs."""
    clipped = [trial for trial in trials if trial.setting["clipping"] == "norm"]
    found = [
        shares(
            clipped,
            "length",
            lambda trial: trial.solved,
            lines="start",
            by="task",
            title="Success against length, clipped",
            ylabel="share of seeds",
            reading="Adding is solved at a squared error below 0.01, copying when over 99 % of the ten symbols are "
            "right. The length is that of the sequence in adding, and that of the delay in copying. "
            "Bars are 95 % intervals.",
        ),
        against(
            clipped,
            "length",
            relative,
            lines="start",
            by="task",
            title="Final loss, divided by chance",
            ylabel="loss / chance",
            reading="1 is the loss of the best answer that ignores the inputs. Each dot is a seed. A training ends "
            "early when all its seeds have solved the task.",
            log=True,
            level=1.0,
        ),
    ]
    unclipped = [trial.setting["length"] for trial in trials if trial.setting["clipping"] == "none"]
    both = [
        trial._replace(setting={**trial.setting, "what": f"{trial.setting['task']}, {trial.setting['length']}"})
        for trial in trials
        if trial.setting["length"] in unclipped and trial.setting["start"] != FLOSSED
    ]
    if both:
        found.append(
            against(
                both,
                "start",
                relative,
                lines="clipping",
                by="what",
                title="With clipping and without",
                ylabel="loss / chance",
                reading="The same starts, with gradients clipped to a norm of 1 and not clipped.",
                log=True,
                level=1.0,
            )
        )
    for task in dict.fromkeys(str(trial.setting["task"]) for trial in trials):
        mine = [trial for trial in clipped if trial.setting["task"] == task]
        found.append(learning_curves(mine, by="length", title=f"Loss during training: {task}"))
    same = ("task", "length")
    return [
        *found,
        summary(trials, ("remembered",)),
        seeds_needed(trials, by=same),
        seeds_needed(trials, "solved", by=same),
    ]


EXPERIMENT = Experiment(
    "long-memory",
    "How far back can a vanilla network remember: adding and copying, from orthogonal, normal and identity starts?",
    settings,
    make,
    sections,
    verdict,
    4,
    fixed=f"one layer of {HIDDEN} units, batches of {BATCH} new sequences per step, Adam at {RATE:g}, clipped to norm "
    f"{MAX_NORM:g}; flossed: {FLOSS_NUM} exponents by {FLOSS_STEPS} steps of Adam at {FLOSS_RATE:g} over "
    f"{FLOSS_LENGTH} steps of time; tested on 200 sequences",
)
