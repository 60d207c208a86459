"""Runs as `rnn-jax compare` sees them: settings, cost, validations, and which of them differ only in the seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..metrics import read_metrics
from ..run_folder import read_settings
from ..settings.file import of_the_run
from ..settings.training import TrainConfig, default_rate, default_scale

APART = (  # settings that say where the text is, whose hash says which it is, or that change no bit of the network
    "files",
    "encoding",
    "validation",
    "watch",
    "watch_every",
    "tensorboard",
    "keep",
    "save_minutes",
    "max_skipped",
)
GATES = {"vanilla": 1, "gru": 3, "lstm": 4}


class Validation(NamedTuple):
    """Bits per character or byte of the held-out text, and what the run had done and taken until then."""

    step: int
    characters: int
    seconds: float
    bits: float


class Trained(NamedTuple):
    """A run: its settings with the defaults filled in, what else it stores, how far it is, its validations in order."""

    name: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    num_parameters: int
    step: int
    characters: int
    seconds: float
    validations: tuple[Validation, ...]

    @property
    def text(self) -> str:
        """The SHA-256 of the text and of the validation file, and the unit: only bits of the same are compared."""
        return f"{self.facts['text_sha256']} {self.facts.get('validation_sha256', '')} {self.unit}"

    @property
    def unit(self) -> str:
        """What its bits are bits of, and what it counts: a character or a byte."""
        return str(self.settings["vocab"])

    @property
    def title(self) -> str:
        """The name of the text and of the validation file."""
        return title_of(self.facts)

    @property
    def best(self) -> Validation | None:
        """The first of the lowest validations."""
        return min(self.validations, key=lambda validation: validation.bits, default=None)

    @property
    def bits(self) -> float:
        """The bits of the best validation; infinite before the first."""
        return self.best.bits if self.best else float("inf")

    def reached(self, bits: float) -> Validation | None:
        """The first validation of at most so many bits."""
        return next((validation for validation in self.validations if validation.bits <= bits), None)


class Group(NamedTuple):
    """Runs of one text whose settings differ at most in the seed; `seeds` has one run for each seed."""

    seeds: list[Trained]
    repeated: list[tuple[Trained, Trained]]

    @property
    def bits(self) -> list[float]:
        """The best bits of each seed that has a validation."""
        return [run.bits for run in self.seeds if run.validations]

    @property
    def mean(self) -> float:
        """The mean of `bits`; infinite before the first validation."""
        return sum(self.bits) / len(self.bits) if self.bits else float("inf")


def read_runs(folders: Sequence[Path]) -> list[Trained]:
    """The runs in these folders: those of one text together, the best first.

    Raises:
        InputError: if a folder holds no run, or its files cannot be read.
    """
    runs = [read_run(folder) for folder in folders]
    texts = list(dict.fromkeys(run.text for run in runs))
    return sorted(runs, key=lambda run: (texts.index(run.text), run.bits))


def read_run(folder: Path) -> Trained:
    """The run in a folder."""
    config, facts = read_settings(folder)
    records = [record for record in read_metrics(folder, config.steps) if None not in _place(record)]
    last = _place(records[-1]) if records else (0, 0, 0.0)
    validations = tuple(
        Validation(*_place(record), record["validation_bits"])
        for record in records
        if record.get("validation_bits") is not None
    )
    size = num_parameters(config, len(facts["symbols"]))
    return Trained(str(folder), filled(config), facts, size, *last, validations)


def _place(record: dict[str, Any]) -> tuple[int, int, float]:
    return record["step"], record["characters"], record["seconds"]


def filled(config: TrainConfig) -> dict[str, Any]:
    """The settings by name, without those `APART`. A setting that was left out has the value that it stands for."""
    settings = {name: value for name, value in of_the_run(config).items() if name not in APART}
    defaults = {"learning_rate": default_rate(config), "recurrent_scale": default_scale(config), "k1": config.k2}
    return settings | {name: value for name, value in defaults.items() if settings[name] is None}


def title_of(facts: dict[str, Any]) -> str:
    """The name of the text of a run and of its validation file."""
    validation = facts.get("validation_text")
    return f"{facts['text']}, validated by {validation}" if validation else str(facts["text"])


def unit_of(runs: Sequence[Trained]) -> str:
    """The unit of all runs; `symbol` if some count characters and others bytes."""
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "symbol"


def num_parameters(config: TrainConfig, num_symbols: int) -> int:
    """The number of weights and biases of the network of a run."""
    hid, gates = config.hidden_size, GATES[config.cell]
    inputs = [num_symbols, *[hid] * (config.num_layers - 1)]
    own = hid if config.cell == "gru" else 0  # b_n
    layers = sum((num_in + hid + 1) * gates * hid + own for num_in in inputs)
    return layers + (hid + 1) * num_symbols


def differing(runs: Sequence[Trained]) -> list[str]:
    """The settings that are not the same in all runs, in the order of `rnn-jax train --help`."""
    return [name for name in runs[0].settings if len({run.settings[name] for run in runs}) > 1]


def groups(runs: Sequence[Trained]) -> list[Group]:
    """The runs by text and settings without the seed; groups of one text together, the lowest mean first."""
    found: dict[Any, Group] = {}
    for run in runs:
        key = run.text, *(value for name, value in run.settings.items() if name != "seed")
        group = found.setdefault(key, Group([], []))
        first = next((one for one in group.seeds if one.settings["seed"] == run.settings["seed"]), None)
        if first is None:
            group.seeds.append(run)
        else:
            group.repeated.append((first, run))
    texts = list(dict.fromkeys(run.text for run in runs))
    return sorted(found.values(), key=lambda group: (texts.index(group.seeds[0].text), group.mean))
