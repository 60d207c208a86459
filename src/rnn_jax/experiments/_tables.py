"""Results as tidy tables: one row for each setting and seed, and one for each setting, seed and evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .._reporting.files import write
from ._trials import Trial

RESULTS, CURVES, JSON = "results.csv", "curves.csv", "results.json"
NOT_METRICS = {"solved", "finite"}
COLUMNS = {"seed", "step", "steps", "solved_at", "seconds_to_solve", "diverged", "seconds_of_all_seeds"}  # not metrics


def write_tables(out: Path, name: str, question: str, facts: dict[str, str], trials: Sequence[Trial]) -> None:
    """Write `results.csv`, `curves.csv`, and `results.json`: the rows of `results.csv` and how they were made."""
    found = results(trials)
    write(out / RESULTS, found.to_csv(index=False, lineterminator="\n"))
    write(out / CURVES, curves(trials).to_csv(index=False, lineterminator="\n"))
    rows = found.astype(object).where(found.notna(), None).to_dict("records")
    write(out / JSON, json.dumps({"experiment": name, "question": question, **facts, "results": rows}, indent=1) + "\n")


def results(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row for each setting and seed. Metrics are those at the end of training."""
    frames = [
        pd.DataFrame(
            {
                **trial.setting,
                "seed": trial.seeds,
                "steps": int(trial.steps[-1]),
                **_solving(trial),
                "diverged": trial.diverged,
                **{n: _nine_digits(values[-1]) for n, values in trial.curves.items() if n not in NOT_METRICS},
                **{n: _nine_digits(np.full(len(trial.seeds), value)) for n, value in trial.facts.items()},
                "seconds_of_all_seeds": _nine_digits(np.full(len(trial.seeds), trial.seconds)),
            }
        )
        for trial in trials
    ]
    return pd.concat(frames, ignore_index=True)


def _solving(trial: Trial) -> dict[str, np.ndarray]:
    """Which seeds solved the task and when, if it has a goal."""
    if "solved" not in trial.curves:
        return {}
    return {
        "solved": trial.solved,
        "solved_at": _nine_digits(trial.solved_at),
        "seconds_to_solve": _nine_digits(trial.seconds_to_solve()),
    }


def comparable(trials: Sequence[Trial]) -> dict[str, bool]:
    """The columns of `results` that all trials have, without the settings: the name, and if it holds true or false."""
    frames = [results([trial]).drop(columns=list(trial.setting)) for trial in trials]
    return {name: pd.api.types.is_bool_dtype(dtype) for name, dtype in pd.concat(frames, join="inner").dtypes.items()}


def curves(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row for each setting, seed and evaluation."""
    frames = [
        pd.DataFrame(
            {
                **trial.setting,
                "seed": np.repeat(trial.seeds, len(trial.steps)),
                "step": np.tile(trial.steps, len(trial.seeds)),
                **{n: _nine_digits(values.T.ravel()) for n, values in trial.curves.items() if n not in NOT_METRICS},
            }
        )
        for trial in trials
    ]
    return pd.concat(frames, ignore_index=True)


def best(trials: Sequence[Trial], name: str, *, lowest: bool = False) -> Trial:
    """The trial with the best median over seeds in a column of `results`; of equal medians, the one with the best mean.

    A seed without a number counts as the worst.
    """

    def rank(trial: Trial) -> tuple[float, float]:
        values = results([trial])[name].to_numpy(float)
        worst_last = np.where(np.isnan(values), np.inf, values if lowest else -values)
        return float(np.median(worst_last)), float(np.mean(worst_last))

    return min(trials, key=rank)


def _nine_digits(values: np.ndarray) -> np.ndarray:
    """Round to nine digits, which tell all float32 apart. A number that is not finite becomes NaN, an empty cell."""
    return np.array([float(f"{value:.9g}") if np.isfinite(value) else np.nan for value in values])
