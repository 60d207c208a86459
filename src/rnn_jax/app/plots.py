"""Pictures."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def learning_curve(path: Path, records: list[dict[str, Any]], baselines: dict[str, float], title: str) -> None:
    """Bits per character against characters read: training, validation, and the n-gram baselines as lines."""
    train = [(r["characters"], r["bits"]) for r in records if "bits" in r]
    validation = [(r["characters"], r["validation_bits"]) for r in records if "validation_bits" in r]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    if train:
        axes.plot(*np.transpose(train), color="tab:blue", alpha=0.35, linewidth=0.8, label="training")
    if validation:
        axes.plot(*np.transpose(validation), color="tab:red", marker="o", markersize=4, label="held-out text")
        characters, bits = validation[-1]
        axes.annotate(f"{bits:.2f}", (characters, bits), xytext=(0, 8), textcoords="offset points", ha="center")
    for (name, bits), style in zip(baselines.items(), (":", "-.", "--"), strict=True):
        axes.axhline(bits, color="0.45", linestyle=style, linewidth=1.2, label=f"{name} {bits:.2f}")
    lowest = min([bits for _, bits in train + validation] + list(baselines.values()))
    axes.set_ylim(np.floor(lowest * 4) / 4 - 0.05, max(baselines.values()) + 0.3)
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter())
    axes.set(xlabel="characters read", ylabel="bits per character", title=title)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", ncols=2, framealpha=0.95, edgecolor="none")
    draft = path.with_name(path.name + ".new")
    figure.savefig(draft, format="png", dpi=120)
    plt.close(figure)
    draft.replace(path)
