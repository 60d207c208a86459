"""`rnn-jax sweep`: train the cells, then print the table and write the report."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..._reporting.console import pasted, say
from ..._reporting.errors import InputError, TrainingFailed
from ..._reporting.html_page import Section
from ...data._corpus import Corpus
from ...experiments._pictures import against, learning_curves
from ...experiments._report import REPORT, circumstances, write_results
from ...experiments._trials import Trial
from ..comparison.runs import APART, title_of
from ..comparison.tables import lines, short, spaced
from ..comparison.verdict import OTHER_PARTS, SAME
from ..run_folder import read_settings
from ..settings.commands import SweepConfig
from ..settings.file import of_the_run
from ..settings.training import TrainConfig
from .folder import record_of, sweep_folder, texts_of
from .grid import Cell
from .results import LOWEST, Result, ranked, result_of, table, trial_of, verdict
from .running import Swept, run_cells

BEYOND = 1.1  # times the highest bits of the best combination: what is above is cut off
READING = (
    "The best combination is the first: the one with the fewest failed seeds, then the one with the lowest mean of the "
    "best validations. Brackets hold Student's 95 % interval over the seeds, which assumes independent and roughly "
    "normal seeds. More than the best: the mean, over the seeds that both have, of the difference with the same seed, "
    "and its interval. The best was chosen by these numbers, and there is no correction for the number of "
    "combinations: before you rely on a small difference, train the first two from new seeds (--seed). Seconds are the "
    "mean time of a run, with compiling."
)


def sweep(config: SweepConfig, cells: Sequence[Cell], corpus: Corpus) -> int:
    """Train what is missing, print the table, and write the report; returns the exit status."""
    out = config.run
    assert out is not None
    with sweep_folder(out, record_of(cells, corpus)):
        settings = len(cells) // config.seeds
        say(", ".join([several(settings, "combination"), several(config.seeds, "seed"), several(len(cells), "run")]))
        try:
            swept = run_cells(cells, texts_of(corpus), config.jobs)
        except KeyboardInterrupt:
            say(_stopped(out))
            raise
        if swept.received:
            say(_stopped(out))
            return 128 + swept.received[0]
        return _report(config, cells, swept, out)


def several(number: int, what: str) -> str:
    """So many of them, in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def _stopped(out: Path) -> str:
    return f"stopped; what was trained is kept in {str(out)!r}, and the same command continues"


def _report(config: SweepConfig, cells: Sequence[Cell], swept: Swept, out: Path) -> int:
    found = {cell.folder: None if cell.folder in swept.failed else result_of(cell) for cell in cells}
    whole = [cell for cell in cells if found[cell.folder] is not None]
    if not whole:
        raise TrainingFailed(f"no run of {str(out)!r} reached its end: {next(iter(swept.failed.values()))}")
    facts, *others = (read_settings(cell.folder)[1] for cell in whole)
    unigram, unit = facts["baselines"]["unigram"], config.vocab
    of_settings = [list(group) for _, group in itertools.groupby(cells, key=lambda cell: cell.folder.parent)]
    trials = [trial_of(group, [found[cell.folder] for cell in group], unigram) for group in of_settings]
    said = verdict(trials, unit, facts.get("bytes_per_character"))
    if not all(math.isclose(one["baselines"]["unigram"], unigram, rel_tol=SAME) for one in others):
        said.append(f"Caution: {OTHER_PARTS}")
    said += _failures(cells, swept)
    how = circumstances(trials, _fixed(whole[0]), facts["machine"]["device"])
    how |= {"text": title_of(facts), "jobs": str(config.jobs)}
    question = f"Which settings give the lowest bits per {unit} on the held-out text?"
    try:
        write_results(out, out.name, question, how, trials, said, sections(trials, unit), "Sweep")
    except OSError as error:
        raise InputError(f"--run must name a folder that can be written, but {str(out)!r} cannot: {error}.") from error
    say("\n".join(["", *lines(table(trials)), "", *said]))
    _say_next(cells, found, trials, out)
    return 1 if swept.again else 0


def _fixed(cell: Cell) -> str:
    """What all runs have in common, in words: the settings that are not the defaults."""
    defaults = of_the_run(TrainConfig())
    given = {name: value for name, value in of_the_run(cell.config).items() if value != defaults[name]}
    words = [f"{spaced(name)} {short(given[name])}" for name in given if name not in {*cell.setting, *APART, "seed"}]
    return ", ".join(words)


def _failures(cells: Sequence[Cell], swept: Swept) -> list[str]:
    """Which runs failed, why, and whether they are tried again."""
    return [
        f"Failed: {cell.name}: {swept.failed[cell.folder]}"
        + (" The same command tries it again." if cell.folder in swept.again else "")
        for cell in cells
        if cell.folder in swept.failed
    ]


def sections(trials: Sequence[Trial], unit: str) -> list[Section]:
    """The table, the validations against the steps, and, of up to three options, the best validation against one.

    The numbers are bits per `unit`, a character or a byte.
    """
    found, ordered = table(trials), ranked(trials)
    drawn = learning_curves(
        ordered,
        title="Validation",
        ylabel=f"bits per {unit} of the held-out text",
        log=False,
        top=BEYOND * float(np.nanmax([ordered[0].chance, *ordered[0].curves["loss"].ravel()])),
        reading="Lines are medians over seeds, bands reach from the lower to the upper quartile. A run that failed "
        f"counts as infinite. The dotted line is the unigram model, which ignores what came before a {unit}.",
    )
    return [Section("Which is best", None, READING, found.header, found.rows), drawn, *_against(trials, unit)]


def _against(trials: Sequence[Trial], unit: str) -> list[Section]:
    """The best validations against the option with the most numbers, one line for each value of the next."""
    values = {name: list(dict.fromkeys(trial.setting[name] for trial in trials)) for name in trials[0].setting}

    def numbers(name: str) -> int:
        return sum(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values[name])

    different = sorted((name for name in values if len(values[name]) > 1), key=numbers, reverse=True)
    if not 1 <= len(different) <= 3:
        return []
    x, by_lines, by_panels = [*different, None, None][:3]
    assert x is not None
    reading = (
        "A dot is the best validation of one seed. Lines are medians over seeds, bands reach from the lower to the "
        "upper quartile. A run that failed is not drawn."
    )
    drawn = against(
        trials,
        x,
        lambda trial: trial.final(LOWEST),
        lines=by_lines,
        by=by_panels,
        title=f"Best validation against {spaced(x)}",
        ylabel=f"bits per {unit}",
        reading=reading,
    )
    return [drawn]


def _say_next(cells: Sequence[Cell], found: dict[Path, Result | None], trials: Sequence[Trial], out: Path) -> None:
    setting = ranked(trials)[0].setting
    ended = {cell.folder: result.best for cell in cells if cell.setting == setting and (result := found[cell.folder])}
    folder = pasted(min(ended, key=lambda folder: ended[folder]))
    say(f"report: {out / REPORT}, and tables: results.csv, curves.csv, results.json")
    say(f"next: rnn-jax sample {folder} --best")
    say(f"      rnn-jax anatomy {folder}")
