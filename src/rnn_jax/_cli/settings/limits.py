"""Checks of the settings of each command. Imports no jax."""

import contextlib
import dataclasses
import difflib
import re
import sys
from collections.abc import Collection
from pathlib import Path

from ..._reporting.errors import InputError
from ..._reporting.files import is_unicode
from .commands import (
    AnatomyConfig,
    CompareConfig,
    ExperimentConfig,
    ExportConfig,
    GradcheckConfig,
    SampleConfig,
    SweepConfig,
    TruncationConfig,
)
from .training import TrainConfig

MOST_STEPS = 2**31 - 1  # they are counted in int32
RANGES: dict[str, tuple[float, float]] = {  # the range of every number, both ends included
    **dict.fromkeys(("hidden_size",), (1, 2**16)),
    **dict.fromkeys(("num_layers", "devices", "processes", "jobs"), (1, 1024)),
    "wait_seconds": (1, 1e6),
    **dict.fromkeys(("streams", "window", "k1", "k2", "ks", "lags"), (1, 2**20)),
    **dict.fromkeys(("steps", "eval_every", "watch_every", "max_skipped", "patience"), (1, MOST_STEPS)),
    "warmup": (0, MOST_STEPS),
    "save_minutes": (0.01, 1e6),
    "keep": (1, 1000),
    **dict.fromkeys(("learning_rate", "max_norm", "max_value", "recurrent_scale", "adaptive_bias"), (1e-30, 1e38)),
    "leak": (1e-6, 1),
    "momentum": (0, 0.9999),
    **dict.fromkeys(("drop_between", "drop_recurrent"), (0, 0.999)),
    "length": (1, 10**7),
    "temperature": (0, 1e6),
    "gains": (1e-6, 1e6),
    "seeds": (1, 10**4),
    "seed": (0, 2**32 - 1),
}
ENDINGS = (".safetensors", ".npz", ".stablehlo")
LONGEST = 200  # characters of a refused value that a message shows
COLDEST = 1e-6  # the lowest temperature above 0; a lower one has the effect of 0


UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def bytes_of(text: str) -> float | None:
    """The bytes of `200MB`, `64MiB` or `1e6`; None if the text is not a size."""
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = UNITS.get(match[2]) if match else None
    size = float(match[1]) * unit if match and unit else None
    return None if size == float("inf") else size


def _check_ranges(config: object) -> None:
    """Raise an `InputError` for the first number that is not in its range."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if field.name not in RANGES or value is None:
            continue
        low, high = RANGES[field.name]
        values = value if isinstance(value, tuple) else (value,)
        _require(config, field.name, all(low <= one <= high for one in values), f"from {_short(low)} to {_short(high)}")


def _short(number: int | float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def check_train_config(config: TrainConfig) -> None:
    """Raise an `InputError` for the first setting out of range."""
    _check_ranges(config)
    for name in ("run", "resume"):
        check_path(config, name)
    known = "a text encoding that Python knows, like utf-8, latin-1 or utf-16"
    _require(config, "encoding", _is_encoding(config.encoding), known)
    has_files = bool(config.files) or config.validation is not None
    _require(config, "encoding", has_files or config.encoding == "utf-8", "left out without FILE")
    _check_validation(config)
    _check_cell(config)
    _require(config, "warmup", config.warmup < config.steps, f"below the {config.steps} of --steps")
    _check_shares(config)
    if config.memory is not None:
        _require(config, "memory", bool(bytes_of(config.memory)), "a number of bytes above 0, like 200MB or 64MiB")
        _require(config, "memory", config.method == "blocked", "left out unless --method is blocked")
    cut = config.k1 is not None or config.k2 is not None or config.adaptive_bias is not None
    if cut:
        _require(config, "method", config.method == "blocked", "left out with --k1, --k2 and --adaptive-bias")
        _require(config, "memory", config.memory is None, "left out with --k1, --k2 and --adaptive-bias")
    for name in ("k1", "k2"):
        value = getattr(config, name)
        _require(
            config, name, value is None or 1 <= value <= config.window, f"from 1 to the {config.window} of --window"
        )
    if config.adaptive_bias is not None:
        _require(config, "k2", config.k2 is None, "left out with --adaptive-bias, which chooses it")
        _require(config, "k1", config.k1 is not None, "given with --adaptive-bias")
    elif cut:
        _require(config, "k2", config.k2 is not None, "given with --k1, unless --adaptive-bias is given")
        _require(config, "k2", (config.k1 or 1) <= (config.k2 or 0), f"at least --k1, which is {config.k1}")


def _check_shares(config: TrainConfig) -> None:
    """Raise an `InputError` unless devices and processes get equally many streams."""
    _require(config, "devices", config.streams % config.devices == 0, f"a divisor of the {config.streams} streams")
    if config.processes is not None and config.processes > 1:
        check_processes(config, config.processes)


def check_processes(config: TrainConfig, processes: int) -> None:
    """Raise an `InputError` unless so many processes can train together."""
    if config.streams % (processes * config.devices):
        raise InputError(
            f"--streams must be a multiple of the {processes * config.devices} devices of all processes, got "
            f"{config.streams}."
        )
    if "-" in config.files:
        raise InputError("FILE must be one that every process can read, got standard input.")


def _check_cell(config: TrainConfig | AnatomyConfig) -> None:
    """Raise an `InputError` for options of a vanilla layer with another kind of layers."""
    for name, default in (("activation", "tanh"), ("leak", 1)):
        holds = config.cell == "vanilla" or getattr(config, name) == default
        _require(config, name, holds, f"left out with --cell {config.cell}, whose gates have fixed activations")


def _check_validation(config: TrainConfig | AnatomyConfig | TruncationConfig) -> None:
    """Raise an `InputError` if the name of the validation file cannot be that of a file."""
    if config.validation is None:
        return
    if not config.validation:
        raise InputError("--validation must name a path, got ''.")
    can_be = is_unicode(config.validation) and "\0" not in config.validation
    _require(config, "validation", can_be, "a name that a file can have")
    _require(config, "validation", config.validation != "-", "a file, since standard input cannot be read again")


def _is_encoding(name: str) -> bool:
    try:
        return "a".encode(name).decode(name) == "a"
    except (LookupError, ValueError):  # no encoding has this name, or it does not encode text
        return False


def check_sample_config(config: SampleConfig) -> None:
    """Raise an `InputError` for the first setting out of range."""
    _check_ranges(config)
    check_path(config, "run")
    _require(config, "temperature", not 0 < config.temperature < COLDEST, f"0 or at least {COLDEST:g}")
    _require(config, "prompt", config.prompt != "", "at least one symbol")
    _require(config, "prompt", is_unicode(config.prompt or ""), "Unicode text")


def check_export_config(config: ExportConfig) -> None:
    """Raise an `InputError` for the first setting that is not possible."""
    check_path(config, "run")
    check_path(config, "to")
    _require(config, "to", config.to.suffix in ENDINGS, f"a file name that ends in {', '.join(ENDINGS)}")


def check_compare_config(config: CompareConfig) -> None:
    """Raise an `InputError` for fewer than two runs, the same run twice, or a path that is not possible."""
    if len(config.runs) < 2:
        raise InputError(f"RUN must be given two or more times, got {len(config.runs)}: name the runs to compare.")
    names: dict[Path, str] = {}
    for run in config.runs:
        _check_usable("RUN", run)
        if (where := run.resolve()) in names:
            raise InputError(f"RUN must name each run once, but {names[where]!r} and {str(run)!r} are the same folder.")
        names[where] = str(run)
    _check_page(config)


def check_sweep_config(config: SweepConfig) -> None:
    """Raise an `InputError` for a number out of range, or an option that a sweep cannot have.

    What its runs cannot have is refused when the values of --over are known.
    """
    _check_ranges(config)
    _require(config, "resume", config.resume is None, "left out, since the same command continues a sweep")
    _require(config, "overwrite", not config.overwrite, "left out of a sweep: remove its folder to begin anew")
    _require(config, "run", config.run is not None, "given: it names the folder of the sweep")
    check_path(config, "run")
    last = config.seed + config.seeds - 1
    _require(config, "seed", last <= RANGES["seed"][1], f"so low that the last of {config.seeds} seeds is a seed")
    if "-" in config.files:
        raise InputError("FILE must be a file, which each run of a sweep can read again, got '-', standard input.")
    _check_validation(config)
    for option, names in (("FILE", config.files), ("--validation", filter(None, [config.validation]))):
        for name in names:
            if Path(name).is_fifo():
                raise InputError(
                    f"{option} must be a file, which each run of a sweep can read again, got {name!r}, a pipe."
                )


def check_gradcheck_config(config: GradcheckConfig) -> None:
    """Raise an `InputError` for the first setting out of range."""
    _check_ranges(config)
    _check_picture(config)


def check_truncation_config(config: TruncationConfig) -> None:
    """Raise an `InputError` for the first setting out of range."""
    _check_ranges(config)
    check_path(config, "run")
    _require(config, "ks", bool(config.ks), "one or more numbers")
    _check_validation(config)
    _check_picture(config)


def check_anatomy_config(config: AnatomyConfig, given: set[str]) -> None:
    """Raise an `InputError` for the first setting out of range, or a setting of a random network with a run."""
    if config.run is not None:
        for name in sorted(given & {"hidden_size", "num_layers", "cell", "activation", "leak", "recurrent_init"}):
            raise InputError(f"--{name.replace('_', '-')} must be left out with RUN: the network is that of the run.")
    _check_ranges(config)
    _check_cell(config)
    _require(config, "window", config.window >= 2, "at least 2")
    _require(config, "validation", config.run is not None or config.validation is None, "left out without RUN")
    _check_validation(config)
    check_path(config, "run")
    _check_page(config)


def check_experiment_config(config: ExperimentConfig, names: Collection[str]) -> None:
    """Raise an `InputError` for an unknown name, or the first setting out of range."""
    if config.name not in {*names, "list", "all"}:
        close = difflib.get_close_matches(config.name, names, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"NAME must be an experiment, got {config.name!r}: {hint}Known names: {', '.join(names)}.")
    _check_ranges(config)
    check_path(config, "out")
    _require(config, "out", not config.out.is_file(), "a folder, not a file")


def check_path(config: object, name: str) -> None:
    """Raise an `InputError` if the system does not accept a path, because it is too long for example."""
    path = getattr(config, name)
    if path is not None:
        _check_usable("RUN" if name == "run" and not isinstance(config, TrainConfig) else f"--{name}", path)


def _check_usable(option: str, path: Path) -> None:
    """Raise an `InputError` if the system does not accept the path of an option."""
    try:
        if not is_unicode(str(path)):
            raise ValueError("it is not UTF-8")
        beside = path.absolute().with_name(f"{path.absolute().name}.replaced")  # the longest name that is written there
        for one in (path, beside):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                one.lstat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{option} must name a path that can be used, got {str(path)[:LONGEST]!r}: {reason}."
        ) from error


def _check_picture(config: GradcheckConfig | TruncationConfig) -> None:
    check_path(config, "picture")
    if config.picture is not None:
        _require(config, "picture", not config.picture.is_dir(), "a file, not a folder")
        _require(config, "picture", config.picture.suffix == ".png", "a file that ends in .png")
        _require(config, "picture", config.picture.absolute().parent.is_dir(), "a file in a folder that exists")


def _check_page(config: AnatomyConfig | CompareConfig) -> None:
    check_path(config, "page")
    if config.page is not None:
        _require(config, "page", config.page.suffix == ".html", "a file that ends in .html")
        _require(config, "page", not config.page.is_dir(), "a file, not a folder")
        _require(config, "page", config.page.absolute().parent.is_dir(), "a file in a folder that exists")


def _require(config: object, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"--{name.replace('_', '-')} must be {expected}, got {came(getattr(config, name))}.")


def came(value: object) -> str:
    """A refused value, as a message shows it."""
    try:
        words = repr(str(value) if isinstance(value, Path) else value)
    except ValueError:  # Python does not write longer numbers
        words = f"a number of more than {sys.get_int_max_str_digits():,} digits"
    return shortened(words)


def shortened(words: str) -> str:
    """The words, cut to the length that a message may have."""
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"
