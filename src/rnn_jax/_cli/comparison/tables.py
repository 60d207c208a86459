"""The tables of `rnn-jax compare`, as words: for the terminal and for the page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .runs import Group, Trained, Validation, differing, groups, unit_of

NONE = "-"
LONGEST = 24  # characters of a text or a run in a table that has other columns too
SHORT = 8  # digits of a SHA-256 that tell texts apart


class Table(NamedTuple):
    """A header and rows of words."""

    header: list[str]
    rows: list[list[str]]


def outcome(runs: Sequence[Trained]) -> Table:
    """A row for each run: its best and last validation, the settings that differ, its name."""
    names = [name for name in differing(runs) if name != "steps"]  # these are in `cost`
    several = len({run.text for run in runs}) > 1
    header = ["", "best bits", "behind", "at step", "last bits", *map(spaced, names), *["text"] * several, "run"]
    rows = []
    for number, run in enumerate(runs, 1):
        text = [f"{ending(run.title, LONGEST)} ({short_hash(run)})"] * several
        settings = [short(run.settings[name]) for name in names]
        rows.append([str(number), *_validated(run, leader(run, runs)), *settings, *text, run.name])
    return Table(header, rows)


def _validated(run: Trained, first: Trained) -> list[str]:
    if run.best is None:
        return ["none yet", NONE, NONE, NONE]
    behind = NONE if run is first else in_bits(run.bits - first.bits)
    return [in_bits(run.bits), behind, f"{run.best.step:,}", in_bits(run.validations[-1].bits)]


def leader(run: Trained, runs: Sequence[Trained]) -> Trained:
    """The best run of the same text."""
    return next(one for one in runs if one.text == run.text)


def cost(runs: Sequence[Trained]) -> Table:
    """A row for each run: what it has done, in what time, with how many parameters."""
    units = f"{unit_of(runs)}s"
    header = ["", "steps", units, "seconds", f"{units}/s", "parameters"]
    rows = []
    for number, run in enumerate(runs, 1):
        planned = run.settings["steps"]
        steps = f"{run.step:,}" if run.step == planned else f"{run.step:,} of {planned:,}"
        speed = f"{run.characters / run.seconds:,.0f}" if run.seconds > 0 else NONE
        size = f"{run.num_parameters:,}"
        rows.append([str(number), steps, f"{run.characters:,}", in_seconds(run.seconds), speed, size])
    return Table(header, rows)


def reached(runs: Sequence[Trained]) -> Table:
    """A row for each run: when it first was as good as n-gram models, and as the worst run became."""
    wanted = levels(runs)
    rows = [
        [str(number), *(_when(run.reached(bits[number - 1])) for bits in wanted.values())]
        for number, run in enumerate(runs, 1)
    ]
    return Table(["", *wanted], rows if wanted else [])


def levels(runs: Sequence[Trained]) -> dict[str, list[float]]:
    """Bits that a run can reach, by name, for each run: n-gram models of its text, and what the worst run reached.

    A level that no run reached is left out. Runs of different texts have none.
    """
    validated = [run for run in runs if run.validations]
    if len({run.text for run in runs}) > 1 or not validated:
        return {}
    found = {f"as good as {name}": [run.facts["baselines"][name] for run in runs] for name in baselines(runs[0])}
    if len(validated) > 1:
        worst = max(run.bits for run in validated)
        found[f"{in_bits(worst)}, which all reached"] = [worst] * len(runs)
    return {
        name: bits
        for name, bits in found.items()
        if any(run.reached(level) for run, level in zip(runs, bits, strict=True))
    }


def baselines(run: Trained) -> dict[str, float]:
    """The n-gram models of the text of a run, the weakest first."""
    return dict(sorted(run.facts["baselines"].items(), key=lambda item: -item[1]))


def _when(validation: Validation | None) -> str:
    if validation is None:
        return "never"
    return f"{validation.characters:,} in {in_seconds(validation.seconds)} s"


def seeds(runs: Sequence[Trained]) -> Table:
    """A row for each group with more than one seed: mean and range of the best validations."""
    several = [group for group in groups(runs) if len(group.bits) > 1]
    header = ["runs", "mean", "lowest", "highest", "seeds", "settings"]
    rows = [
        [
            ", ".join(str(number) for number, run in enumerate(runs, 1) if run in group.seeds and run.validations),
            *(in_bits(bits) for bits in (group.mean, min(group.bits), max(group.bits))),
            ", ".join(short(run.settings["seed"]) for run in group.seeds if run.validations),
            settings_of(group, runs),
        ]
        for group in several
    ]
    return Table(header, rows)


def settings_of(group: Group, runs: Sequence[Trained]) -> str:
    """What tells a group from the others: the settings that differ, without the seed."""
    first = group.seeds[0]
    names = [name for name in differing(runs) if name != "seed"]
    words = [f"{spaced(name)} {short(first.settings[name])}" for name in names]
    if len({run.text for run in runs}) > 1:
        words.append(f"text {short_hash(first)}")
    return ", ".join(words) or "the same settings"


def short_hash(run: Trained) -> str:
    """The digits that tell the text of a run and its validation file from those of others."""
    hashes = (run.facts["text_sha256"], run.facts.get("validation_sha256", ""))
    return "+".join(sha256[:SHORT] for sha256 in hashes if sha256)


def shared(runs: Sequence[Trained]) -> dict[str, str]:
    """The settings that all runs have, by name."""
    different = differing(runs)
    return {spaced(name): short(value) for name, value in runs[0].settings.items() if name not in different}


def ending(name: str, longest: int) -> str:
    """The end of a long name, which says more than its beginning."""
    name = name.replace("\n", " ")
    return name if len(name) <= longest else f"...{name[3 - longest :]}"


def spaced(name: str) -> str:
    """The name of a setting, for people."""
    return name.replace("_", " ")


def short(value: Any) -> str:
    """The value of a setting, for people."""
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else f"{value}"


def in_bits(bits: float) -> str:
    """Bits per symbol, to three decimals unless they are many."""
    return f"{bits:.3f}" if bits < 1000 else f"{bits:.2e}"


def in_seconds(seconds: float) -> str:
    """Seconds, with a decimal if they are few."""
    return f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def lines(table: Table) -> list[str]:
    """The table for a terminal: columns aligned at the right, names of runs and settings at the left."""
    columns = zip(table.header, *table.rows, strict=True)
    aligned = [
        column if column[0] in ("run", "setting") else [word.rjust(max(map(len, column))) for word in column]
        for column in columns
    ]
    return ["  ".join(row).rstrip() for row in zip(*aligned, strict=True)]
