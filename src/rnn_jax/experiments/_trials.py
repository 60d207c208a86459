"""The results of one setting, and their file on disk: one file per setting, complete or absent."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._reporting.files import write
from .._require import require_known, require_sizes

Setting = Mapping[str, str | int | float | bool]


class Trial(NamedTuple):
    """One setting, trained from every seed.

    Attributes:
        setting: the values of the setting, by name.
        seeds: the seeds that were trained.
        chance: the loss of the best answer that ignores the inputs; infinite if it is not known.
        steps: the updates made before each evaluation, `(evaluations,)`.
        curves: the metrics by name, `(evaluations, seeds)` each. NaN where a number is missing or not finite. All have
            "loss" and "finite"; those of a task with a goal have "solved".
        seconds: the time of training all seeds together, without compiling.
        compile_seconds: the time of compiling.
        shown: what `Training.show` returned, by name, `(seeds, ...)` each.
        facts: what `Training.facts` returned.
    """

    setting: dict[str, Any]
    seeds: list[int]
    chance: float
    steps: np.ndarray
    curves: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    shown: dict[str, np.ndarray]
    facts: dict[str, float]

    @property
    def solved_at(self) -> np.ndarray:
        """The first evaluated step at which each seed had solved the task, `(seeds,)`; NaN for never."""
        solved = self.curves["solved"] == 1
        return np.where(solved.any(0), self.steps[np.argmax(solved, 0)], np.nan)

    @property
    def solved(self) -> np.ndarray:
        """Which seeds solved the task, `(seeds,)`."""
        solved: np.ndarray = np.isfinite(self.solved_at)
        return solved

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds had a number that was not finite, or a final loss above both the first one and twice chance."""
        lost = (self.curves["finite"] == 0).any(0)
        first, last = self.curves["loss"][0], self.curves["loss"][-1]
        diverged: np.ndarray = lost | ~(last <= np.maximum(first, 2 * self.chance))
        return diverged

    def final(self, name: str) -> np.ndarray:
        """The last value of a metric, `(seeds,)`.

        Args:
            name: one of the names of `curves`.

        Raises:
            ValueError: if no metric has this name.
        """
        require_known("metric", name, self.curves)
        last: np.ndarray = self.curves[name][-1]
        return last

    def seconds_to_solve(self) -> np.ndarray:
        """The training time until `solved_at`, divided by the number of seeds: seconds, `(seeds,)`; NaN for never."""
        seconds: np.ndarray = self.solved_at * (self.seconds / max(self.steps[-1], 1) / len(self.seeds))
        return seconds


def require_trials(trials: Sequence[Trial], *names: str | None) -> None:
    """Raise unless there is at least one trial, and each name that is not None is that of a setting in all of them."""
    if isinstance(trials, Trial) or not all(isinstance(trial, Trial) for trial in trials):
        raise TypeError(
            f"`trials` must be a sequence of Trial, as `run_experiment` returns it, got {type(trials).__name__}."
        )
    require_sizes(**{"len(trials)": len(trials)})
    for name in names:
        for trial in trials if name is not None else ():
            require_known("setting", name, trial.setting)


def differing(settings: Sequence[Setting]) -> list[str]:
    """The names whose values differ between settings, in their order."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    return [name for name in names if len({str(setting.get(name)) for setting in settings}) > 1]


def label(setting: Setting, names: Sequence[str]) -> str:
    """The values of these names, joined by commas. A value that is not text follows its name."""
    values = [(name, setting[name]) for name in names if name in setting]
    return ", ".join(
        value if isinstance(value, str) else f"{name.replace('_', ' ')} {short(value)}" for name, value in values
    )


def short(value: Any) -> str:
    """A value of a setting, for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_words(trial: Trial) -> str:
    """The outcome of a trial, in one line."""
    words = []
    if trial.curves["solved"].any():
        words.append(
            f"{trial.solved.sum()} of {len(trial.seeds)} seeds solved it, by step {np.nanmedian(trial.solved_at):g}"
        )
    if trial.diverged.any():
        words.append(f"{trial.diverged.sum()} of {len(trial.seeds)} diverged")
    words.append(f"loss {trial.curves['loss'][0].mean():.4g} -> {np.median(trial.final('loss')):.4g}")
    return "; ".join(words) + f" ({trial.seconds:.0f} s)"


def save_trial(path: Path, trial: Trial) -> None:
    """Write a trial to a file. After a crash, the file is complete or absent."""
    write(path, json.dumps({name: _plain(value) for name, value in trial._asdict().items()}) + "\n")


def read_trial(path: Path) -> Trial | None:
    """The trial in a file; None if the file is missing or cannot be read."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        trial = Trial(**stored)
        arrays = {name: np.asarray(_with_nan(value), float) for name, value in trial.curves.items()}
        shown = {name: np.asarray(_with_nan(value), float) for name, value in trial.shown.items()}
        chance = math.inf if trial.chance is None else trial.chance
        facts = {name: math.nan if value is None else value for name, value in trial.facts.items()}
        return trial._replace(chance=chance, steps=np.asarray(trial.steps), curves=arrays, shown=shown, facts=facts)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """A value for JSON: arrays become lists; NaN and infinities become null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: _plain(of_it) for name, of_it in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(of_it) for of_it in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(of_it) for of_it in value]
    return math.nan if value is None else value
