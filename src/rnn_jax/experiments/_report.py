"""The results of a grid on disk: tables and a page; the default sections of the page; the table of all settings."""

import shlex
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .._reporting.files import write
from .._reporting.html_page import Section, html_page
from .._reporting.machine import machine_line, machine_record
from ._differences import seeds_needed
from ._pictures import learning_curves
from ._statistics import mean, quartiles, share
from ._tables import results, write_tables
from ._trials import Trial, differing, label, require_trials, short

REPORT = "report.html"


def write_results(
    out: Path,
    name: str,
    question: str,
    facts: dict[str, str],
    trials: Sequence[Trial],
    verdict: Sequence[str],
    sections: Sequence[Section],
    kind: str = "Experiment",
) -> None:
    """Write the tables, and the page: the question, the verdict, the sections, and how it was run."""
    write_tables(out, name, question, facts, trials)
    ran = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items() if value)
    end = f'<h2>How it was run</h2><table class="words">{ran}</table>'
    write(out / REPORT, html_page(f"{kind}: {name}", question, verdict, sections, end))


def circumstances(trials: Sequence[Trial], fixed: str, devices: str) -> dict[str, str]:
    """How a grid was run: settings, command, versions, machine, time.

    Args:
        trials: one trial per setting.
        fixed: what all settings have in common, in words.
        devices: what it was trained on, in words.
    """
    seconds = sum(trial.seconds + trial.compile_seconds for trial in trials)
    names = differing([trial.setting for trial in trials])
    shared = [name for name in trials[0].setting if name not in names]
    record = machine_record()
    versions = record["versions"] | {"Python": record["python"]}
    return {
        "settings": "; ".join(filter(None, [fixed, label(trials[0].setting, shared)])),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seeds": f"{len(trials[0].seeds)}, from {trials[0].seeds[0]}",
        "run time": f"{seconds:.0f} s of training, compiling and evaluating",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": ", ".join(filter(None, [devices, machine_line(record)])),
        "date": record["date"],
    } | ({"commit": record["commit"]} if record["commit"] else {})


def default_sections(trials: Sequence[Trial]) -> list[Section]:
    """The loss during training, the table, and how many seeds a difference needs: in the loss, in the share solved."""
    solvable = any(trial.solved.any() for trial in trials)
    shares = [seeds_needed(trials, "solved")] if solvable else []
    return [learning_curves(trials), summary(trials), seeds_needed(trials), *shares]


def summary(trials: Sequence[Trial], metrics: Sequence[str] = (), title: str = "All settings") -> Section:
    """The table of all settings: final values, the shares of seeds that solved the task or diverged, and the time.

    Args:
        trials: one trial per setting.
        metrics: names of metrics to show besides the loss. Names that no trial has are left out.
        title: the title of the section.

    Returns:
        A section with one row per setting.

    Raises:
        TypeError: if `trials` does not hold trials.
        ValueError: if there are no trials.
    """
    require_trials(trials)
    frame = results(trials)
    settings = frame.groupby(np.repeat(np.arange(len(trials)), [len(trial.seeds) for trial in trials]))

    def over_seeds(name: str, words: Callable[[np.ndarray], str]) -> Any:
        return settings[name].agg(lambda values: words(values.to_numpy()))

    names = differing([trial.setting for trial in trials]) or list(trials[0].setting)
    columns = {name: settings[name].first().map(short) for name in names}
    for name in ("loss", *(metric for metric in metrics if metric in frame)):
        columns[f"{name}, median [quartiles]"] = over_seeds(name, quartiles)
        columns[f"{name}, mean [95 %]"] = over_seeds(name, mean)
    reading = (
        "Values are those at the end of training, over the seeds that have a finite number. If some seeds have none, a "
        "cell says how many have one. "
        "Brackets after a median hold the quartiles. Brackets after a mean hold Student's 95 % interval, mean ± t · "
        "standard deviation / sqrt(seeds), which assumes independent and roughly normal seeds. Chance is the loss of "
        "the best answer that ignores the inputs. Seconds are the training time of all seeds, without compiling."
    )
    if frame["solved"].any():
        columns["solved"] = over_seeds("solved", share)
        columns["solved at step"] = over_seeds("solved_at", quartiles)
        columns["seconds per seed until solved"] = over_seeds("seconds_to_solve", quartiles)
        reading += " Training stops when every seed has solved the task."
    if frame["diverged"].any():
        columns["diverged"] = over_seeds("diverged", share)
        reading += (
            " Diverged: a number was not finite during training, or the final loss is above both the first loss and "
            "twice chance."
        )
    if frame[["solved", "diverged"]].any(axis=None):
        reading += " A share of seeds has its 95 % interval (Wilson)."
    columns["chance"] = [f"{trial.chance:.4g}" for trial in trials]
    columns["steps"] = settings["steps"].first().map(str)
    columns["seconds"] = settings["seconds_of_all_seeds"].first().map("{:.1f}".format)
    return Section(
        title, None, reading, [c.replace("_", " ") for c in columns], list(zip(*columns.values(), strict=True))
    )
