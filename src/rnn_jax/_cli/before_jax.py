"""What each command reads and checks before jax is imported. Then it starts jax and the rest of the command."""

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from .._reporting.console import say
from .._reporting.errors import InputError
from .._reporting.lock import locked
from .._reporting.machine import cores
from ..data._corpus import Corpus, corpus_of_run, read_corpus, validation_of_run, with_validation
from ..data._vocab import spelled
from .processes.launcher import may_be_launched, start
from .run_folder import check_free, read_settings, resumed, with_text
from .settings.commands import (
    AnatomyConfig,
    CompareConfig,
    ExperimentConfig,
    ExportConfig,
    GradcheckConfig,
    SampleConfig,
    SweepConfig,
    TruncationConfig,
)
from .settings.limits import (
    check_anatomy_config,
    check_compare_config,
    check_experiment_config,
    check_export_config,
    check_gradcheck_config,
    check_sample_config,
    check_sweep_config,
    check_train_config,
    check_truncation_config,
)
from .settings.training import TrainConfig


def train(config: TrainConfig, given: set[str]) -> int:
    """Begin a run, or continue one, in one process or together with others."""
    check_train_config(config)
    if config.processes == 1 or not may_be_launched():
        if config.processes not in (None, 1):
            return start(config.processes, config.devices)
        with _read(config, given) as (config, facts, corpus), _jax(config.dtype, config.devices):
            return int(import_module(".training.train", __package__).train(config, facts, corpus))
    _import_jax()
    with import_module(".processes.group", __package__).joined(config.wait_seconds) as group:
        if config.processes not in (None, group.size):
            if group.size == 1:  # this machine is in a cluster, but no launcher has started this command
                return start(config.processes, config.devices)
            raise InputError(
                f"--processes must be left out where a launcher starts the processes: it has started {group.size}, got "
                f"--processes {config.processes}."
            )
        reading = import_module(".processes.reading", __package__).read_together(group, _read(config, given))
        with reading as (config, facts, corpus), _jax(config.dtype, config.devices):
            return int(import_module(".training.train", __package__).train(config, facts, corpus, group))


@contextlib.contextmanager
def _read(config: TrainConfig, given: set[str]) -> Iterator[tuple[TrainConfig, dict[str, Any], Corpus]]:
    """The settings, the facts and the text of a run: a new one, which has no facts, or one that goes on, locked."""
    if config.resume is None:
        _import_extras(config)
        check_free(config)
        yield config, {}, _corpus_of_options(config)
        return
    run, files, validation = config.resume, config.files, config.validation
    config, facts = resumed(config, given)
    _import_extras(config)
    with locked(run):
        corpus = _corpus_of(run, config, facts, files, validation)
        yield *with_text(config, facts, files, validation, corpus), corpus


def _import_extras(config: TrainConfig) -> None:
    """Import what only some runs need. If it is missing, this is said before anything is written."""
    if config.tensorboard:
        import_module("tensorboardX")


def sample(config: SampleConfig, given: set[str]) -> int:
    """Continue a prompt."""
    check_sample_config(config)
    settings, facts = read_settings(config.run)
    prompt = config.prompt
    unknown = sorted(set(spelled(settings.vocab, prompt or "")) - set(facts["symbols"]))
    if unknown:
        raise InputError(
            f"--prompt must hold only symbols that the model saw in training, got {', '.join(map(repr, unknown))}; "
            f"it knows {facts['symbols']!r}."
        )
    with _jax(settings.dtype):
        return int(import_module(".trained.sample", __package__).sample(config, settings, facts["symbols"]))


def export(config: ExportConfig, given: set[str]) -> int:
    """Write the network of a run to a file."""
    check_export_config(config)
    settings, facts = read_settings(config.run)
    with _jax(settings.dtype):
        return int(import_module(".trained.export", __package__).export(config, settings, facts["symbols"]))


def compare(config: CompareConfig, given: set[str]) -> int:
    """Compare runs. This needs no jax at all."""
    check_compare_config(config)
    return int(import_module(".comparison.command", __package__).compare(config))


def sweep(config: SweepConfig, given: set[str]) -> int:
    """Train a grid of settings from several seeds. The runs are processes; JAX starts no device in this one."""
    check_sweep_config(config)
    cells = import_module(".sweep.grid", __package__).cells_of(config, given)
    corpus = _corpus_of_options(config)
    _import_extras(config)
    _import_jax()
    return int(import_module(".sweep.command", __package__).sweep(config, cells, corpus))


def gradcheck(config: GradcheckConfig, given: set[str]) -> int:
    """Check every gradient method."""
    check_gradcheck_config(config)
    with _jax():
        return int(import_module(".gradcheck", __package__).gradcheck(config))


def truncation(config: TruncationConfig, given: set[str]) -> int:
    """Measure what truncated gradients lose."""
    check_truncation_config(config)
    settings, facts = read_settings(config.run)
    corpus = _corpus_of(config.run, settings, facts, config.files, config.validation)
    with _jax(settings.dtype):
        return int(import_module(".truncation", __package__).truncation(config, settings, facts, corpus))


def anatomy(config: AnatomyConfig, given: set[str]) -> int:
    """Write a page about the gradient of a run, or of a random network."""
    check_anatomy_config(config, given)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # in QR of small matrices, threads only wait for each other
    if config.run is None:
        with _jax():
            return int(import_module(".anatomy.command", __package__).anatomy(config, None, {}, None))
    settings, facts = read_settings(config.run)
    corpus = _corpus_of(config.run, settings, facts, config.files, config.validation)
    with _jax(settings.dtype):
        return int(import_module(".anatomy.command", __package__).anatomy(config, settings, facts, corpus))


def _corpus_of_options(config: TrainConfig) -> Corpus:
    """The text that the options name, with that for validation."""
    corpus = read_corpus(config.files, config.encoding, config.vocab)
    return with_validation(corpus, config.files, config.validation, config.encoding)


def _corpus_of(
    run: Path, settings: TrainConfig, facts: dict[str, Any], files: tuple[str, ...], validation: str | None
) -> Corpus:
    """The text of a run; `files` and `validation` are where it is now, if it has moved."""
    encoding = settings.encoding
    corpus = corpus_of_run(run, settings.files, files, facts["text_sha256"], encoding, settings.vocab)
    if settings.validation is not None:
        names, sha256 = files or settings.files, facts["validation_sha256"]
        return validation_of_run(run, corpus, names, settings.validation, validation, sha256, encoding)
    if validation is not None:
        raise InputError(f"--validation must be left out, because {str(run)!r} holds out the end of its text.")
    return corpus


def experiment(config: ExperimentConfig, given: set[str]) -> int:
    """Run an experiment, or list all."""
    from ..experiments.catalogue.names import CATALOGUE

    check_experiment_config(config, CATALOGUE)
    if config.name == "list":
        width = max(map(len, CATALOGUE))
        for name, (_, question) in CATALOGUE.items():
            say(f"{name:{width}}  {question}")
        return 0
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see `anatomy`: flossing uses QR too
    with _jax(num_devices=cores()):
        return int(import_module(".experiment", __package__).experiment(config))


def _import_jax() -> None:
    try:
        import jax
    except ValueError as error:  # a variable with a value that JAX does not know
        raise InputError(f"JAX must be able to read its settings from the environment, but: {error}.") from error
    del jax


def _jax(dtype: str = "float32", num_devices: int = 1) -> contextlib.AbstractContextManager[None]:
    """JAX with the settings of the command, not of the environment."""
    _import_jax()
    settings: contextlib.AbstractContextManager[None]
    settings = import_module(".jax_settings", __package__).jax_settings(dtype, num_devices)
    return settings
