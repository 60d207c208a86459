"""An experiment: a grid of settings, each trained from many seeds, and a report."""

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib.version
import numpy as np
from tqdm import tqdm

from .._reporting.console import say
from .._reporting.errors import InputError
from .._reporting.html_page import Section
from .._reporting.lock import locked
from .._require import require_sizes
from ._report import circumstances, default_sections, write_results
from ._tables import COLUMNS
from ._training import Program, Training, make_program, train, work
from ._trials import Setting, Trial, differing, in_words, label, read_trial, save_trial

TRIALS = "trials"


class Experiment(NamedTuple):
    """A grid of settings, what each of them trains, and what the report shows.

    Attributes:
        name: the name, for the title of the report.
        question: what the experiment asks, in one line.
        settings: `settings(quick)` returns the grid. A setting is a dict of str, int, float and bool; its names are
            columns of the tables. If `quick` is True, the grid is small.
        make: `make(setting)` returns the `Training` of a setting.
        sections: `sections(trials)` returns the sections of the report, from all trials of the grid.
        verdict: `verdict(trials)` returns the first lines of the report.
        num_seeds: the default number of seeds.
        quick_seeds: the default number of seeds of the small grid.
        fixed: what all settings have in common, in words.
        needs: the names of modules that must be installed.
    """

    name: str
    question: str
    settings: Callable[[bool], Sequence[Setting]]
    make: Callable[[Setting], Training]
    sections: Callable[[Sequence[Trial]], Sequence[Section]] = default_sections
    verdict: Callable[[Sequence[Trial]], Sequence[str]] = lambda trials: ()
    num_seeds: int = 10
    quick_seeds: int = 2
    fixed: str = ""
    needs: tuple[str, ...] = ()


def run_experiment(
    experiment: Experiment, out: Path | str, *, num_seeds: int | None = None, quick: bool = False
) -> list[Trial]:
    """Train the whole grid from the seeds 0..num_seeds-1, and write tables and a report.

    Each finished setting is written to `out/trials`. After an interruption, the same call continues with the missing
    settings. A setting whose program has changed, even in one number, is trained again (`facts` do not count). All
    devices are used; for two cores of a CPU, first of all call `jax.config.update("jax_num_cpu_devices", 2)`.

    Args:
        experiment: what to train, and what to report.
        out: the folder of the results. It is created if it is missing.
        num_seeds: the number of seeds; None means the default of the experiment.
        quick: if True, train the small grid.

    Returns:
        One trial for each setting, in the order of the grid. The folder `out` holds `results.csv`, `curves.csv`,
        `results.json` and `report.html`.

    Raises:
        InputError: if `out` cannot be written, or another process is using it.
        ModuleNotFoundError: if one of `needs` is missing.
        TypeError: if `experiment` is not an `Experiment`, `num_seeds` is not an integer, or `make` does not return a
            `Training`.
        ValueError: if `num_seeds` is below 1; if the grid is empty; if settings are equal, hold other values than str,
            int, float and bool, or use the name of a column of the tables; or if the parts of a training do not fit
            together.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(f"`experiment` must be an Experiment, got {type(experiment).__name__}.")
    if num_seeds is None:
        num_seeds = experiment.quick_seeds if quick else experiment.num_seeds
    require_sizes(num_seeds=num_seeds)
    settings = [dict(setting) for setting in experiment.settings(quick)]
    _check_settings(settings)
    for module in experiment.needs:
        importlib.import_module(module)  # a missing module is reported now, not after hours
    out = Path(out)
    with _writing(out):
        (out / TRIALS).mkdir(parents=True, exist_ok=True)
    with locked(out):
        return _run_in(out, experiment, settings, list(range(num_seeds)), quick)


def _run_in(
    out: Path, experiment: Experiment, settings: list[dict[str, Any]], seeds: list[int], quick: bool
) -> list[Trial]:
    trials = _train_all(experiment, settings, seeds, out)
    facts = {"grid": "small (quick)"} if quick else {}
    facts |= circumstances(trials, experiment.fixed, f"{len(jax.devices())} {jax.devices()[0].platform} devices")
    verdict, sections = experiment.verdict(trials), experiment.sections(trials)
    with _writing(out):
        write_results(out, experiment.name, experiment.question, facts, trials, verdict, sections)
    return trials


def _check_settings(settings: Sequence[dict[str, Any]]) -> None:
    if not settings or any(setting in settings[:i] for i, setting in enumerate(settings)):
        raise ValueError(f"`settings` must hold at least one setting, all different, got {settings}.")
    for setting in settings:
        if setting.keys() != settings[0].keys():
            raise ValueError(f"`settings` must all have the same names, got {list(settings[0])} and {list(setting)}.")
        for name, value in setting.items():
            if type(value) not in (str, int, float, bool):
                kind = type(value).__name__
                raise ValueError(f"`settings` must hold str, int, float or bool, got {kind} for {name!r}.")


def _check_names(setting: dict[str, Any], program: Program) -> None:
    taken = sorted(setting.keys() & (COLUMNS | program.metrics))
    if taken:
        raise ValueError(f"`settings` must not use the names of columns of the tables, got {', '.join(taken)}.")


def _train_all(experiment: Experiment, settings: list[dict[str, Any]], seeds: list[int], out: Path) -> list[Trial]:
    with jax.enable_x64(False):
        trainings = [experiment.make(setting) for setting in settings]
        costs = [work(training) for training in trainings]
    names = differing(settings)
    trials, finished, took_no_time = [], 0.0, 0.0
    with tqdm(
        total=sum(costs),
        bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed}, {remaining} left",
        disable=None,  # no bar if the output is a file or a pipe
    ) as bar:

        def show_progress(before: float, cost: float, share: float) -> None:
            bar.n = before + share * cost
            bar.refresh()

        for setting, training, cost in zip(settings, trainings, costs, strict=True):
            name = label(setting, names) or experiment.name
            bar.set_description(name)
            with jax.enable_x64(training.float64):
                program = make_program(training, seeds)
                _check_names(setting, program)
                path = out / TRIALS / _file_name(program, training, setting, seeds)
                kept = read_trial(path)
                if kept is None:
                    show = partial(show_progress, finished, cost)
                    trial = _train_one(setting, training, program, seeds, show)
                    with _writing(out):
                        save_trial(path, trial)
                else:
                    trial = kept._replace(setting=setting, chance=training.chance)
                    took_no_time += cost
                    bar.initial = took_no_time  # the time left is estimated from the others
            trials.append(trial)
            finished += cost
            show_progress(finished, 0.0, 0.0)
            with tqdm.external_write_mode():
                say(f"{name}: {in_words(trial)}{'' if kept is None else ' (kept)'}")
    return trials


def _file_name(program: Program, training: Training, setting: dict[str, Any], seeds: list[int]) -> str:
    """The name of a trial's file. It depends on the program, length, setting, seeds, version of JAX and device."""
    machine = [jax.__version__, jaxlib.version.__version__, jax.devices()[0].device_kind]
    facts = json.dumps([setting, seeds, training.num_steps, training.eval_every, *machine])
    return f"{program.digest[:16]}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}.json"


def _train_one(
    setting: dict[str, Any], training: Training, program: Program, seeds: list[int], show: Callable[[float], None]
) -> Trial:
    start = time.perf_counter()
    chunks, params = [], None
    for chunk, of_now in train(training, program, len(seeds)):
        params = of_now
        chunks.append(chunk)
        show(chunk.step / training.num_steps)
    seconds = sum(chunk.seconds for chunk in chunks)
    overhead = time.perf_counter() - start - seconds
    shown = {} if program.show is None else jax.device_get(program.show.compile()(params))
    facts = {} if training.facts is None else training.facts(jax.tree.map(lambda x: x[0], jax.device_get(params)))
    names = dict.fromkeys(
        [*chunks[-1].metrics, *sorted(program.metrics)]
    )  # a training solved at the start has no update
    missing = np.full(len(seeds), np.nan)
    return Trial(
        setting=setting,
        seeds=seeds,
        chance=training.chance,
        steps=np.array([chunk.step for chunk in chunks]),
        curves={n: np.stack([np.asarray(chunk.metrics.get(n, missing), float) for chunk in chunks]) for n in names},
        seconds=seconds,
        compile_seconds=overhead,
        shown={n: np.asarray(values, float)[: len(seeds)] for n, values in shown.items()},
        facts={name: float(value) for name, value in facts.items()},
    )


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out must name a folder that can be written, but {str(out)!r} cannot: {error}.") from error
