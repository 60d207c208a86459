"""What came out of one setting, and how it is kept on disk: a file a setting, whole or not there."""

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

    `curves[name]` are `(evaluations, seeds)`, at the steps `steps`; NaN where nothing was measured or it was no number.
    `seconds` are of training all seeds together, without the `compile_seconds`. `shown[name]` is `(seeds, ...)`.
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
        """The first step at which each seed was found to have solved the task, NaN for never."""
        solved = self.curves["solved"] == 1
        return np.where(solved.any(0), self.steps[np.argmax(solved, 0)], np.nan)

    @property
    def solved(self) -> np.ndarray:
        """Which seeds solved the task."""
        solved: np.ndarray = np.isfinite(self.solved_at)
        return solved

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds met numbers out of range, or ended worse than they began and than twice the chance level."""
        lost = (self.curves["finite"] == 0).any(0)
        first, last = self.curves["loss"][0], self.curves["loss"][-1]
        diverged: np.ndarray = lost | ~(last <= np.maximum(first, 2 * self.chance))
        return diverged

    def final(self, name: str) -> np.ndarray:
        """The last value of a metric, one a seed."""
        last: np.ndarray = self.curves[name][-1]
        return last

    def seconds_to_solve(self) -> np.ndarray:
        """Of one seed on all devices: its share of the time of all seeds, up to `solved_at`."""
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
    """The names of what settings differ in, in their order."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    return [name for name in names if len({str(setting.get(name)) for setting in settings}) > 1]


def label(setting: Setting, names: Sequence[str]) -> str:
    """`value, value, …` of these names; a number with its name."""
    values = [(name, setting[name]) for name in names if name in setting]
    return ", ".join(
        value if isinstance(value, str) else f"{name.replace('_', ' ')} {short(value)}" for name, value in values
    )


def short(value: Any) -> str:
    """A value of a setting, for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_words(trial: Trial) -> str:
    """How it went, in one line."""
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
    """Write the trial, whole or not at all."""
    write(path, json.dumps({name: _plain(value) for name, value in trial._asdict().items()}) + "\n")


def read_trial(path: Path) -> Trial | None:
    """The trial in a file, None if there is none that can be read."""
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
    """For JSON, which knows no arrays, and neither NaN nor infinities: those are null."""
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
