"""What to try when a run does not learn. A test shows that each remedy helps."""

import math
from typing import Any

from ..settings.training import TrainConfig, default_rate, default_scale

EXPLODED = 1000.0  # the norm of a gradient of mean cross-entropy, before clipping; below 10 in runs that learn
LEARNED = 0.75  # share of the bits of uniform guessing; a text that costs less has been learned
BEGUN = 50  # before this step nothing is said, unless the loss is far above uniform guessing


def what_is_wrong(config: TrainConfig, records: list[dict[str, Any]], num_symbols: int) -> str | None:
    """What is wrong in a run with these metrics, and what to try; None if it learns."""
    trained = [record for record in records if record.get("bits") is not None]
    validated = [record["validation_bits"] for record in records if "validation_bits" in record]
    if not trained:
        return None
    bits, norm, uniform = trained[-1]["bits"], trained[-1]["grad_norm"], math.log2(num_symbols)
    if trained[-1]["step"] < BEGUN and bits <= 2 * uniform:
        return None
    if norm > EXPLODED:
        return f"the gradient explodes: its norm is {norm:.2g} before clipping. {remedy(config)}"
    if bits > uniform:
        return f"the loss is {bits:.2f} bits, above the {uniform:.2f} of uniform guessing. {remedy(config)}"
    if validated and validated[-1] > uniform and bits > LEARNED * uniform:
        return (
            f"the held-out text costs {validated[-1]:.2f} bits, above the {uniform:.2f} of guessing. {remedy(config)}"
        )
    if validated and validated[-1] > uniform:
        return (
            f"the held-out text costs {validated[-1]:.2f} bits, above the {uniform:.2f} of uniform guessing, though "
            f"the training text costs {bits:.2f}: the network memorises it. Give more text, or fewer --steps."
        )
    return None


def remedy(config: TrainConfig) -> str:
    """Which options to change: those that differ from their defaults, otherwise a lower rate."""
    rate = default_rate(config) if config.learning_rate is None else config.learning_rate
    scale = default_scale(config) if config.recurrent_scale is None else config.recurrent_scale
    options = []
    if scale > default_scale(config):
        options.append(f"--recurrent-scale {default_scale(config):g}")
    if rate != default_rate(config):
        options.append(f"--learning-rate {default_rate(config):g}")
    if config.max_norm != 1:  # too large, it explodes; too small, it does not learn
        options.append("--max-norm 1")
    if config.max_value is not None:
        options.append("--max-value None")
    if config.momentum > 0.9:
        options.append("--momentum 0.9")
    if config.drop_recurrent > 0.2:
        options.append("--drop-recurrent 0.2")
    return f"Train again with {' '.join(options) or f'--learning-rate {rate / 10:g}'}."
