"""Results as tidy tables: one row a setting and seed, and one a setting, seed and evaluation."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._reporting.files import write
from ._trials import Trial

RESULTS, CURVES, JSON = "results.csv", "curves.csv", "results.json"
NOT_METRICS = {"solved", "finite"}
COLUMNS = {"seed", "step", "steps", "solved_at", "seconds_to_solve", "diverged", "seconds_of_all_seeds"}  # our own


def write_tables(out: Path, name: str, question: str, facts: dict[str, str], trials: Sequence[Trial]) -> None:
    """Leave `results.csv`, `curves.csv` and `results.json`, which is the first of them and its circumstances."""
    rows = results(trials)
    write(out / RESULTS, _csv(rows))
    write(out / CURVES, _csv(curves(trials)))
    stored = {"experiment": name, "question": question, **facts, "results": rows}
    write(out / JSON, json.dumps(stored, indent=1) + "\n")


def results(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """How each seed of each setting ended."""
    rows = []
    for trial in trials:
        seconds, solved_at = trial.seconds_to_solve(), trial.solved_at
        for i, seed in enumerate(trial.seeds):
            ends = {n: _number(values[-1, i]) for n, values in trial.curves.items() if n not in NOT_METRICS}
            rows.append(
                {
                    **trial.setting,
                    "seed": seed,
                    "steps": int(trial.steps[-1]),
                    "solved": bool(trial.solved[i]),
                    "solved_at": _number(solved_at[i]),
                    "seconds_to_solve": _number(seconds[i]),
                    "diverged": bool(trial.diverged[i]),
                    **ends,
                    **{n: _number(value) for n, value in trial.facts.items()},
                    "seconds_of_all_seeds": _number(trial.seconds),
                }
            )
    return rows


def curves(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Every evaluation of every seed of every setting."""
    return [
        {
            **trial.setting,
            "seed": seed,
            "step": int(step),
            **{n: _number(values[t, i]) for n, values in trial.curves.items() if n not in NOT_METRICS},
        }
        for trial in trials
        for i, seed in enumerate(trial.seeds)
        for t, step in enumerate(trial.steps)
    ]


def _number(value: Any) -> float | None:
    """Nine digits, all of a float32; None, an empty cell of a table, for what is none."""
    return float(f"{value:.9g}") if np.isfinite(value) else None


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
