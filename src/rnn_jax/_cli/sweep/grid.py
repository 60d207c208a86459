"""The cells of a sweep: what --over says, checked before anything is written. Imports no jax."""

import dataclasses
import difflib
import itertools
import math
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

from ..._reporting.errors import InputError
from ..comparison.runs import APART, filled
from ..settings.commands import SweepConfig
from ..settings.file import NOT_STORED, in_words
from ..settings.limits import came, check_train_config
from ..settings.training import TrainConfig

MOST_CELLS = 10_000
LONGEST = 255  # bytes of the name of a folder
FIXED = {*NOT_STORED, "files", "encoding", "vocab", "validation", "seed"}  # one for all cells, or of each cell alone
HINTS = {name: hint for name, hint in typing.get_type_hints(TrainConfig).items() if name not in FIXED}
SWITCH = {"true": True, "false": False}


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
        setting: the values of the options in --over, by name.
        config: all settings of the run; `config.run` is its folder.
    """

    setting: dict[str, Any]
    config: TrainConfig

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        assert self.config.run is not None
        return self.config.run

    @property
    def name(self) -> str:
        """The cell, for people."""
        return ", ".join(filter(None, [named(self.setting), f"seed {self.config.seed}"]))


def named(setting: dict[str, Any]) -> str:
    """The options of a setting as they are given in --over, and as its folder is called."""
    return ",".join(f"{dashed(name)}={value}" for name, value in setting.items())


def dashed(name: str) -> str:
    """A setting as the command line names it."""
    return name.replace("_", "-")


def cells_of(config: SweepConfig, given: set[str]) -> list[Cell]:
    """The cells of a sweep: the seeds of the first combination, then those of the next, the last option fastest.

    Args:
        config: the settings of the sweep, in their ranges.
        given: the names of the options that were given.

    Raises:
        InputError: if --over cannot be read, a combination is not possible, or two combinations are the same.
    """
    over = _values(config.over, given)
    number = math.prod(map(len, over.values())) * config.seeds
    if number > MOST_CELLS:
        raise InputError(f"--over and --seeds must give at most {MOST_CELLS:,} runs, got {number:,}: sweep over less.")
    cells: list[Cell] = []
    first: dict[Any, dict[str, Any]] = {}
    for values in itertools.product(*over.values()):
        setting = dict(zip(over, values, strict=True))
        of_setting = [_cell(config, setting, seed) for seed in range(config.seed, config.seed + config.seeds)]
        _check(of_setting[-1])
        apart = (getattr(of_setting[0].config, name) for name in APART if name not in FIXED)
        key = (*filled(of_setting[0].config).values(), *apart)
        if key in first:
            raise InputError(
                f"--over must give different combinations, but {named(first[key])} and {named(setting)} train the "
                "same network: leave out one of them."
            )
        first[key] = setting
        cells += of_setting
    return cells


def _cell(config: SweepConfig, setting: dict[str, Any], seed: int) -> Cell:
    assert config.run is not None
    folder = config.run / named(setting) / f"seed-{seed}"
    base = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    return Cell(setting, TrainConfig(**base | setting | {"seed": seed, "run": folder}))


def _check(cell: Cell) -> None:
    """Raise an `InputError` if no run has these settings, or no folder has their name."""
    if len(named(cell.setting).encode()) > LONGEST:
        raise InputError(
            f"--over must give combinations whose names have at most {LONGEST} bytes, as a folder's, got "
            f"{came(named(cell.setting))}: sweep over fewer options at a time."
        )
    try:
        check_train_config(cell.config)
    except InputError as error:
        if not cell.setting:
            raise
        raise InputError(
            f"--over must give combinations that a run can have, but {came(named(cell.setting))} is none: {error}"
        ) from error


def _values(over: tuple[str, ...], given: set[str]) -> dict[str, list[Any]]:
    """The values of each option in --over, in the order of `rnn-jax train --help`."""
    found: dict[str, list[Any]] = {}
    for words in over:
        option, equals, values = words.partition("=")
        name = option.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise InputError(f"--over must be like learning-rate=0.1,0.25, got {came(words)}: give NAME=VALUE,VALUE.")
        _check_name(name, option, given)
        if name in found:
            raise InputError(
                f"--over must name each option once, got {dashed(name)} twice: give all its values in one."
            )
        found[name] = [_value(name, value.strip()) for value in values.split(",")]
        for place, value in enumerate(found[name]):
            if value in found[name][:place]:
                raise InputError(f"--over must give each value once, got {dashed(name)}={value} twice.")
    return {name: found[name] for name in HINTS if name in found}


def _check_name(name: str, option: str, given: set[str]) -> None:
    if name == "seed":
        raise InputError("--over must not name seed: --seeds says how many seeds there are, --seed which is the first.")
    if name == "vocab":
        raise InputError(
            "--over must not name vocab, since bits per byte and bits per character cannot be compared: make a sweep "
            "for each, with --vocab."
        )
    if name in FIXED:
        raise InputError(f"--over must name an option that runs of one sweep can differ in, got {dashed(name)}.")
    if name not in HINTS:
        close = difflib.get_close_matches(name, HINTS, 1)
        hint = f"did you mean {dashed(close[0])}?" if close else "`rnn-jax train --help` lists them."
        raise InputError(f"--over must name an option of `rnn-jax train`, got {came(option)}: {hint}")
    if name in given:
        raise InputError(f"--over must not name {dashed(name)} when --{dashed(name)} is given too: leave out one.")


def _value(name: str, word: str) -> Any:
    try:
        return _parsed(word, HINTS[name])
    except (ValueError, KeyError):
        expected = "true or false" if HINTS[name] is bool else in_words(HINTS[name]).replace("null", "None")
        raise InputError(f"--over must give {dashed(name)} {expected}, got {came(word)}.") from None


def _parsed(word: str, hint: Any) -> Any:
    """The value of a type that a word stands for.

    Raises:
        ValueError, KeyError: if it stands for none.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if word == "None" else _parsed(word, args[0])
    if origin is typing.Literal:
        return args[args.index(word)]
    if hint is bool:
        return SWITCH[word.lower()]
    return hint(word)
