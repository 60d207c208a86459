"""Read and check `settings.json`. It is checked like input, because a person may have changed it. Imports no jax."""

import dataclasses
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from ..._reporting.files import is_unicode
from ...data._vocab import BYTES
from .limits import check_train_config, shortened
from .training import TrainConfig

FORMAT = 1
MOST_BYTES = 2**24  # of settings.json: a million symbols take less
MOST_DIGITS = 4000  # of an integer; above 4,300 Python itself refuses, with another message
MOST_LEVELS = 20  # of lists and objects inside each other
BASELINES = {"unigram", "bigram", "trigram"}
NEEDED = {"text": str, "text_sha256": str, "symbols": str, "baselines": dict[str, float]}
FACTS = NEEDED | {  # also written, but no command reads these
    "command": str,
    "left_out": dict[str, int],
    "num_characters": int,
    "num_bytes": int,
    "bytes_per_character": float,
    "validation_text": str,
    "validation_sha256": str,
    "validation_left_out": dict[str, int],
    "validation_length": int,
    "validation_unknown": int,
    "processes": int,
    "versions": dict[str, str],
    "machine": dict[str, str | int | None],
}
NOT_STORED = ("run", "overwrite", "resume", "processes", "wait_seconds")  # settings of one command, not of the run
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", dict: "an object"}


def of_the_run(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run by name, without those of one command."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in NOT_STORED}


def read_json(path: Path) -> Any:
    """What a file of settings holds.

    Raises:
        OSError, ValueError: if it cannot be read. Every kind of damage raises one of these two.
    """
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it must be UTF-8 text, got byte 0x{data[error.start]:02x} at {error.start}") from error
    return parsed(text)


def parsed(text: str) -> Any:
    """The value that is written in `text` as JSON.

    Raises:
        ValueError: if it is not JSON, is nested too deep or has integers that are too long.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"it must be JSON, but line {error.lineno} is not, at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not _is_flat(value, MOST_LEVELS):
        raise ValueError("it is nested too deep")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"its integers must have at most {MOST_DIGITS:,} digits, got one of {len(digits):,}")
    return int(digits)


def _is_flat(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested at most `levels` deep in a value."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(one, levels - 1) for one in inside)


def checked(found: Any) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings and the facts in what `read_json` returns, checked like settings that were just given.

    Raises:
        ValueError, InputError: for the first value that a run cannot have.
    """
    _check_type("it", found, dict)
    facts = dict(found)
    for name, hint in {"format": int, "settings": dict, **NEEDED}.items():
        if name not in facts:
            raise ValueError(f"{name} must be {in_words(hint)}, but is missing")
    if type(facts["format"]) is not int or facts["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {_came(facts['format'])}")
    del facts["format"]
    _check_type("settings", facts["settings"], dict)
    config = _config(facts.pop("settings"))
    for name in facts.keys() & FACTS.keys():
        _check_type(name, facts[name], FACTS[name])
    _check_facts(facts)
    check_train_config(config)
    if config.vocab == "byte" and facts["symbols"] != BYTES:
        raise ValueError("symbols must be those from U+0000 to U+00FF if vocab is byte")
    if config.validation is not None and "validation_sha256" not in facts:
        raise ValueError("validation_sha256 must be a text if there is a validation, but is missing")
    return config, facts


def _config(settings: dict[str, Any]) -> TrainConfig:
    """The settings, after a check of their types. A missing setting gets its default; `files` is required."""
    hints = {name: hint for name, hint in typing.get_type_hints(TrainConfig).items() if name not in NOT_STORED}
    if "files" not in settings:
        raise ValueError(f"files must be {in_words(hints['files'])}, but is missing")
    for name, value in settings.items():
        if name not in hints:
            raise ValueError(f"settings must hold only those of `rnn-jax train`, got {_came(name)}")
        _check_type(name, value, hints[name])
    for name in settings["files"]:
        if not name or "\0" in name or not is_unicode(name):
            raise ValueError(f"files must hold names that a file can have, got {_came(name)}")
    return TrainConfig(**settings | {"files": tuple(settings["files"])})


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise a `ValueError` for the first fact that `rnn-jax train` would not write."""
    symbols, baselines = facts["symbols"], facts["baselines"]
    for name in ("symbols", "text"):
        if not facts[name]:
            raise ValueError(f"{name} must not be empty")
        if not is_unicode(facts[name]):
            raise ValueError(f"{name} must be Unicode text, but holds half of a surrogate pair")
    if list(symbols) != sorted(set(symbols)):
        raise ValueError("symbols must be sorted and without repeats")
    for name in ("text_sha256", "validation_sha256"):
        if name in facts and not re.fullmatch("[0-9a-f]{64}", facts[name]):
            raise ValueError(f"{name} must be 64 hexadecimal digits, got {_came(facts[name])}")
    if set(baselines) != BASELINES or not all(is_number(bits) and bits >= 0 for bits in baselines.values()):
        raise ValueError(f"baselines must be numbers for {', '.join(sorted(BASELINES))}, got {_came(baselines)}")
    least_values = {"num_characters": 1, "num_bytes": 1, "bytes_per_character": 1, "validation_length": 1}
    for name, least in (
        least_values | dict.fromkeys(("left_out", "validation_left_out", "validation_unknown"), 0)
    ).items():
        value = facts.get(name, least)
        if not all(one >= least for one in (value.values() if isinstance(value, dict) else [value])):
            raise ValueError(f"{name} must be at least {least}, got {_came(value)}")


def is_number(value: Any) -> bool:
    """Whether this is a finite number of JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_type(name: str, value: Any, hint: Any) -> None:
    if not _has_type(value, hint):
        raise ValueError(f"{name} must be {in_words(hint)}, got {_came(value)}")


def _came(value: Any) -> str:
    """A value as the file has it, shortened if it is long."""
    return shortened(json.dumps(value, ensure_ascii=False))


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value of JSON has the type of an annotation; a tuple is a list there."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_has_type(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, list) and all(_has_type(one, args[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_has_type(one, args[1]) for one in value.values())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def in_words(hint: Any) -> str:
    """What a value of this type is."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(in_words, args))
    if origin is typing.Literal:
        return f"one of {', '.join(map(_came, args))}"
    if origin is tuple:
        return f"a list in which each item is {in_words(args[0])}"
    if origin is dict:
        return f"an object in which each value is {in_words(args[1])}"
    return WORDS.get(hint, "null")
