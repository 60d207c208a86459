"""A sweep in this process, and its numbers."""

import contextlib
import csv
import os
from pathlib import Path

import pytest
from commands import blank, command, losses

from rnn_jax._cli.settings.commands import SweepConfig
from rnn_jax._cli.sweep import running
from rnn_jax._cli.sweep.grid import cells_of
from rnn_jax._cli.training import outputs

TINY = ["--streams", 2, "--window", 8, "--eval-every", 10, "--schedule", "constant"]


class InThisProcess:
    """A run that has ended when it begins, which saves the start of a process."""

    def __init__(self, words, file):
        result = command(*words, cwd=os.getcwd())
        file.write((result.stdout + result.stderr).encode())
        self.returncode = result.returncode

    def poll(self):
        """The status with which it ended."""
        return self.returncode


@contextlib.contextmanager
def in_this_process():
    """Train in this process; the words of each run that begins are in the list."""
    begun = []

    def begin(words, file):
        begun.append(words)
        return InThisProcess(words, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_process", begin)
        patch.setattr(running, "POLL", 0.0)
        patch.setattr(outputs, "learning_curve", blank)
        yield begun


def sweep(cwd, *args, status=0, **options):
    result = command("sweep", *args, cwd=cwd, **options)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def same_numbers(one, other):
    """All but the times, to the bit."""
    for name in ("results.csv", "curves.csv"):
        ours, theirs = (
            [{k: v for k, v in row.items() if "seconds" not in k} for row in rows_of(x / name)] for x in (one, other)
        )
        assert ours == theirs
    runs = [path.parent.relative_to(other) for path in other.rglob("metrics.jsonl")]
    assert runs and all(losses(one / run) == losses(other / run) for run in runs)


def grid(*over, given=(), **settings):
    return cells_of(SweepConfig(run=Path("s"), over=over, **settings), set(given))
