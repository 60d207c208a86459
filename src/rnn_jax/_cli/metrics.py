"""The metrics of a run: one line of JSON for each measurement. Imports no jax."""

import json
from pathlib import Path
from typing import Any

from .._reporting.console import warn
from .._reporting.errors import InputError
from .._reporting.files import write
from .run_folder import METRICS
from .settings.file import is_number, parsed
from .settings.training import TrainConfig

LOOK = {  # what `--watch` writes, and how deep its lists are
    "grad_norm": 0,
    "clip_ratio": 0,
    "d_h_quantiles": 2,
    "saturated": 1,
    "growth": 0,
    "spectral_radius": 1,
    "largest_singular_value": 1,
}
LARGEST = 1e100  # above every loss in float32; pictures cannot show larger numbers


def read_metrics(folder: Path, up_to: int) -> list[dict[str, Any]]:
    """The metrics up to step `up_to`. Damaged lines, cut short by a crash for example, are skipped with a warning.

    Raises:
        InputError: if the file cannot be read.
    """
    path = folder / METRICS
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise InputError(
            f"RUN must hold metrics that can be read, but {str(path)!r} cannot be: {error.strerror}."
        ) from error
    records = [_record(line) for line in text.split("\n") if line.strip()]
    if skipped := records.count(None):
        lines = "damaged line is" if skipped == 1 else "damaged lines are"
        warn(f"{skipped} {lines} skipped in {str(path)!r}.")
    return [record for record in records if record is not None and record["step"] <= up_to]


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write all metrics, instead of what the file has."""
    write(folder / METRICS, "".join(map(_line, records)))


def best_validation(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The record with the lowest bits on the held-out text, the first of equal ones; None before any validation."""
    validated = [record for record in records if record.get("validation_bits") is not None]
    return min(validated, key=lambda record: record["validation_bits"], default=None)


def is_planned(step: int, config: TrainConfig) -> bool:
    """Whether a run validates after this step even if nothing interrupts it."""
    return 0 < step <= config.steps and (step % config.eval_every == 0 or step == config.steps)


def lacks_validation(records: list[dict[str, Any]], step: int, config: TrainConfig) -> bool:
    """Whether the validation planned after this step is missing: SIGTERM saves before it, and a kill may follow."""
    made = any(record["step"] == step and record.get("validation_bits") is not None for record in records)
    return is_planned(step, config) and not made


def no_longer_improves(records: list[dict[str, Any]], config: TrainConfig) -> bool:
    """Whether the last `config.patience` validations are all worse than the best one before them."""
    validated = [r["validation_bits"] for r in records if "validation_bits" in r and r["step"] % config.eval_every == 0]
    if config.patience is None or len(validated) <= config.patience:
        return False
    return bool(min(validated[-config.patience :]) >= min(validated[: -config.patience]))


def append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to the metrics."""
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _record(line: str) -> dict[str, Any] | None:
    """What a line holds, if it is one that a run writes."""
    try:
        record = parsed(line)
    except ValueError:
        return None
    return record if _is_record(record) else None


def _is_record(record: Any) -> bool:
    """Whether this is what a run writes into its metrics."""
    if not isinstance(record, dict) or not {"step", "characters", "seconds"} <= record.keys():
        return False
    numbers = all(_is_measured(value, 0) for name, value in record.items() if name != "watch")
    step = record["step"]
    return numbers and _is_look(record.get("watch")) and isinstance(step, int) and step >= 0


def _is_look(look: Any) -> bool:
    """Whether this is what `--watch` writes: for each quantity a number, or a list with one entry for each layer."""
    if look is None:
        return True
    if not isinstance(look, dict) or look.keys() != LOOK.keys():
        return False
    of_layers = [look[name] for name, depth in LOOK.items() if depth]
    lengths = {len(values) for values in of_layers if isinstance(values, list)}
    shapes = all(_is_measured(look[name], depth) for name, depth in LOOK.items())
    return shapes and len(lengths) == 1 and len({len(row) for row in look["d_h_quantiles"]}) == 1


def _is_measured(value: Any, depth: int) -> bool:
    """Whether this is a number that can be drawn or null, or lists of them, nested `depth` deep."""
    if depth:
        return isinstance(value, list) and bool(value) and all(_is_measured(one, depth - 1) for one in value)
    return value is None or (is_number(value) and abs(value) <= LARGEST)
