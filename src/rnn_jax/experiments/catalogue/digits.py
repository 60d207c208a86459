"""Handwritten digits read one pixel or one row per step, compared with classifiers that see the whole image."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import optax

from ... import Params, make_grad_fn
from ..._reporting.html_page import Section, png, subplots
from .._data import digit_parts, digits
from .._differences import seeds_needed
from .._experiment import Experiment
from .._parts import adam, measures, orthogonal_tanh, sizes_of
from .._pictures import learning_curves, panels
from .._report import summary
from .._statistics import quartiles
from .._tables import best
from .._training import Metrics, Training
from .._trials import Setting, Trial, differing, label

BATCH = 64
STARTS = {"orthogonal": 1.0, "orthogonal, small inputs": 0.1}


def settings(quick: bool) -> Sequence[Setting]:
    """The search: all combinations of size, start and rate; fewer for reading by rows, which is easier."""
    if quick:
        return [{"reading": "rows", "hidden_size": 64, "start": "orthogonal", "rate": 3e-3, "num_steps": 400}]
    pixels = [
        {"reading": "pixels", "hidden_size": size, "start": start, "rate": rate, "num_steps": 2000}
        for size in (64, 128)
        for start in STARTS
        for rate in (1e-3, 3e-3)
    ]
    rows = [
        {"reading": "rows", "hidden_size": size, "start": "orthogonal", "rate": rate, "num_steps": 2000}
        for size in (64, 128)
        for rate in (1e-3, 3e-3)
    ]
    return pixels + rows


def make(setting: Setting) -> Training:
    """Adam, its rate falling along a cosine; measured on the validation and test images."""
    split = digits(rows=setting["reading"] == "rows")
    sizes = sizes_of(split.train.task, {}, int(setting["hidden_size"]))
    num_steps = int(setting["num_steps"])
    validation, test = split.validation.everything(), split.test.everything()

    def evaluate(params: Params) -> Metrics:
        found, tested = measures("cross_entropy", params, validation), measures("cross_entropy", params, test)
        return {
            "loss": found["loss"],
            "validation_accuracy": found["accuracy"],
            "test_accuracy": tested["accuracy"],
        }

    return Training(
        init=orthogonal_tanh(sizes, STARTS[str(setting["start"])]),
        batch=lambda key, step: split.train.task.make(key, num_sequences=BATCH),
        grad_fn=make_grad_fn("blocked", loss="cross_entropy"),
        optimizer=adam(optax.cosine_decay_schedule(float(setting["rate"]), num_steps), max_norm=1.0),
        evaluate=evaluate,
        num_steps=num_steps,
        eval_every=num_steps // 20,
        chance=split.validation.task.chance(),
    )


@cache
def baselines() -> dict[str, float]:
    """Test accuracy of scikit-learn's classifiers, fitted on the same training images, all pixels at once."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    images, classes, (train, _, test) = digit_parts()
    pixels = images.reshape(len(images), -1)
    models = {
        "logistic regression": LogisticRegression(max_iter=2000),
        "3 nearest neighbours": KNeighborsClassifier(3),
        "support vectors, Gaussian kernel": SVC(),
    }
    return {
        name: float(model.fit(pixels[train], classes[train]).score(pixels[test], classes[test]))
        for name, model in models.items()
    }


def chosen(trials: Sequence[Trial]) -> list[tuple[str, Trial]]:
    """For each way of reading, the setting with the best median accuracy in validation."""
    return [(str(name), best(group, "validation_accuracy")) for name, group in panels(trials, "reading").items()]


def verdict(trials: Sequence[Trial]) -> list[str]:
    """Accuracy of the chosen networks, compared with the baselines."""
    lines = []
    for reading, trial in chosen(trials):
        accuracy = quartiles(100 * trial.final("test_accuracy"))
        names = [name for name in ("hidden_size", "start", "rate") if name in trial.setting]
        lines.append(
            f"By {reading}: {accuracy} % of the test images right; validation chose {label(trial.setting, names)}."
        )
    seen = ", ".join(f"{name} {100 * accuracy:.1f} %" for name, accuracy in baselines().items())
    return [*lines, f"All pixels at once, on the same images: {seen}. Guessing: 10 %."]


def compared_with_baselines(trials: Sequence[Trial]) -> Section:
    """Accuracy of the chosen networks, seed by seed, and of the baselines."""
    figure, axes = subplots(figsize=(9, 3.2))
    rows = []
    for i, (reading, trial) in enumerate(chosen(trials)):
        accuracy = 100 * trial.final("test_accuracy")
        axes.plot(accuracy, np.full(len(accuracy), i), "o", color=f"C{i}")
        rows.append((f"by {reading}", quartiles(accuracy)))
    for i, (name, reached) in enumerate(baselines().items()):
        axes.axvline(100 * reached, color="0.5", ls=("-", "--", ":")[i], lw=1.2, label=name)
        rows.append((name, f"{100 * reached:.4g}"))
    axes.set(
        xlabel="% of test images right",
        yticks=range(len(chosen(trials))),
        yticklabels=[f"by {reading}" for reading, _ in chosen(trials)],
        ylim=(-0.6, len(chosen(trials)) - 0.4),
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return Section("The chosen networks on test images", png(figure), "Each dot is a seed.", ("model", "% right"), rows)


def sections(trials: Sequence[Trial]) -> list[Section]:
    """The chosen networks and the baselines, curves, the search, and how many seeds a difference needs."""
    curves = learning_curves(
        trials,
        "validation_accuracy",
        by="reading" if "reading" in differing([trial.setting for trial in trials]) else None,
        log=False,
        title="Accuracy in validation during training",
    )
    return [
        compared_with_baselines(trials),
        curves,
        summary(trials, ("validation_accuracy", "test_accuracy"), title="The search"),
        seeds_needed(trials, "validation_accuracy", lowest=False, by=("reading",)),
    ]


EXPERIMENT = Experiment(
    "digits",
    "How well does a network read digits, one pixel or one row per step?",
    settings,
    make,
    sections,
    verdict,
    4,
    needs=("sklearn",),
    fixed=f"one layer of tanh units; Adam, its rate falling to zero along a cosine, on batches of {BATCH} images, "
    "clipped to norm 1",
)
