"""`rnn-jax experiment`."""

import importlib

from .._reporting.console import say
from ..experiments._experiment import Experiment, run_experiment
from ..experiments._report import REPORT
from ..experiments.catalogue.names import CATALOGUE
from .settings.commands import ExperimentConfig


def experiment(config: ExperimentConfig) -> int:
    """Run one experiment, or all; returns the exit status."""
    names = list(CATALOGUE) if config.name == "all" else [config.name]
    for module in {module for name in names for module in load(name).needs}:
        importlib.import_module(module)  # a missing package is reported now, not after hours
    for name in names:
        found, out = load(name), config.out / (f"{name}-quick" if config.quick else name)
        say(f"{name}: {found.question}")
        try:
            trials = run_experiment(found, out, num_seeds=config.seeds, quick=config.quick)
        except KeyboardInterrupt:
            say(f"stopped; finished settings are kept in {str(out)!r}, and the same command continues")
            raise
        for line in found.verdict(trials):
            say(line)
        say(f"report: {out / REPORT}\n")
    return 0


def load(name: str) -> Experiment:
    """The experiment of a name."""
    found: Experiment = importlib.import_module(f"..experiments.catalogue.{CATALOGUE[name][0]}", __package__).EXPERIMENT
    return found
