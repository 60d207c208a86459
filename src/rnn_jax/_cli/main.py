"""The entry point of `rnn-jax`. Bad input that needs no jax to be recognised is refused before jax is imported."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any

from .._reporting.console import be_printable, quiet, say, shown, warn
from .._reporting.errors import InputError, OutputFailed, TrainingFailed
from .._reporting.machine import cores, installed

if TYPE_CHECKING:
    from .config import (
        AnatomyConfig,
        ExperimentConfig,
        ExportConfig,
        GradcheckConfig,
        SampleConfig,
        TrainConfig,
        TruncationConfig,
    )

EXTRA = {  # which extra brings a package
    **dict.fromkeys(("tyro", "tqdm", "matplotlib", "orbax", "safetensors"), "app"),
    **dict.fromkeys(("pandas", "scipy", "sklearn", "statsmodels"), "experiments"),
}
VERBOSE = "--verbose"  # of every command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 2 for bad input, 1 for a failed training or a wrong gradient, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    verbose, argv = VERBOSE in argv, [word for word in argv if word != VERBOSE]
    be_printable()
    try:
        if argv == ["--version"]:
            say(_versions())
            return 0
        with contextlib.nullcontext() if verbose else quiet():
            command = _command(argv)
            return command()
    except (InputError, TrainingFailed, OutputFailed) as error:
        warn(str(error))
        return 2 if isinstance(error, InputError) else 1
    except ModuleNotFoundError as error:
        extra = EXTRA.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        warn(f"needs {error.name}: pip install 'rnn-jax-bptt[{extra}]'")
        return 2
    except (MemoryError, RuntimeError) as error:  # XLA's is a RuntimeError
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        warn("there is not enough memory for these sizes: lower --hidden-size, --streams, --window or --length.")
        return 2
    except OSError as error:  # not handled by a command: a full disk, a file that was removed
        warn(f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}.")
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 130


def _versions() -> str:
    """What a report of a bug needs: versions, and the devices that JAX finds."""
    import jax

    found = installed(("jax", "jaxlib", "optax", "numpy"))
    try:
        devices = ", ".join(device.device_kind for device in jax.devices())
    except RuntimeError as error:  # a plug-in that does not find its device
        devices = f"none, {str(error).splitlines()[0]}"
    libraries = ", ".join(f"{name} {number}" for name, number in found.items())
    return f"rnn-jax {version('rnn-jax-bptt')}\nPython {python_version()}, {libraries}\ndevices: {devices}"


def _command(argv: Sequence[str]) -> Callable[[], int]:
    """The function that does what `argv` asks for."""
    from .config import (
        AnatomyConfig,
        ExperimentConfig,
        ExportConfig,
        GradcheckConfig,
        SampleConfig,
        TruncationConfig,
    )

    with _numbers_of_any_length():
        config = _parsed(argv)
    if isinstance(config, SampleConfig):
        return partial(_sample, config)
    if isinstance(config, ExportConfig):
        return partial(_export, config)
    if isinstance(config, GradcheckConfig):
        return partial(_gradcheck, config)
    if isinstance(config, TruncationConfig):
        return partial(_truncation, config)
    if isinstance(config, ExperimentConfig):
        return partial(_experiment, config)
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
    if isinstance(config, AnatomyConfig):
        return partial(_anatomy, config, given)
    return partial(_train, config, given | ({"files"} if config.files else set()))


def _parsed(argv: Sequence[str]) -> Any:
    """The settings in `argv`. If they are refused, the message shows the arguments without control characters.

    Raises:
        SystemExit: if they are refused, or help was asked for.
    """
    words = [shown(word) for word in argv]
    if words == list(argv):
        return _parse(argv)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return _parse(argv)
    except SystemExit as refused:
        if refused.code:
            _parse(words)
        raise


def _parse(argv: Sequence[str]) -> Any:
    """The settings in `argv`, by tyro."""
    import tyro

    from .config import (
        AnatomyConfig,
        ExperimentConfig,
        ExportConfig,
        GradcheckConfig,
        SampleConfig,
        TrainConfig,
        TruncationConfig,
    )

    return tyro.extras.subcommand_cli_from_dict(
        {
            "train": TrainConfig,
            "sample": SampleConfig,
            "export": ExportConfig,
            "gradcheck": GradcheckConfig,
            "truncation": TruncationConfig,
            "anatomy": AnatomyConfig,
            "experiment": ExperimentConfig,
        },
        prog="rnn-jax",
        description="Recurrent networks trained by hand-written backpropagation through time. "
        "With --verbose, every command also shows the logs and warnings of the libraries that it uses.",
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


@contextlib.contextmanager
def _numbers_of_any_length() -> Iterator[None]:
    """Let Python read integers of any number of digits, so that their ranges refuse them."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _train(config: "TrainConfig", given: set[str]) -> int:
    from .._reporting.lock import locked
    from ..data._corpus import corpus_of_run, read_corpus
    from .limits import check_train_config
    from .run_folder import check_free, resumed, with_text

    check_train_config(config)
    if config.resume is None:
        check_free(config)
        corpus = read_corpus(config.files, config.encoding)
        with _jax(config.dtype, config.devices):
            return int(import_module(".training.train", __package__).train(config, {}, corpus))
    run, files = config.resume, config.files
    config, facts = resumed(config, given)
    with locked(run):
        corpus = corpus_of_run(run, config.files, files, facts["text_sha256"], config.encoding)
        config, facts = with_text(config, facts, files, corpus)
        with _jax(config.dtype, config.devices):
            return int(import_module(".training.train", __package__).train(config, facts, corpus))


def _sample(config: "SampleConfig") -> int:
    from .limits import check_sample_config
    from .run_folder import read_settings

    check_sample_config(config)
    settings, facts = read_settings(config.run)
    prompt = config.prompt
    unknown = sorted(set(prompt or "") - set(facts["symbols"]))
    if unknown:
        raise InputError(
            f"--prompt must hold only symbols that the model saw in training, got {', '.join(map(repr, unknown))}; "
            f"it knows {facts['symbols']!r}."
        )
    with _jax(settings.dtype):
        return int(import_module(".trained.sample", __package__).sample(config, settings, facts["symbols"]))


def _export(config: "ExportConfig") -> int:
    from .limits import check_export_config
    from .run_folder import read_settings

    check_export_config(config)
    settings, facts = read_settings(config.run)
    with _jax(settings.dtype):
        return int(import_module(".trained.export", __package__).export(config, settings, facts["symbols"]))


def _gradcheck(config: "GradcheckConfig") -> int:
    from .limits import check_gradcheck_config

    check_gradcheck_config(config)
    with _jax():
        return int(import_module(".gradcheck", __package__).gradcheck(config))


def _truncation(config: "TruncationConfig") -> int:
    from ..data._corpus import corpus_of_run
    from .limits import check_truncation_config
    from .run_folder import read_settings

    check_truncation_config(config)
    settings, facts = read_settings(config.run)
    corpus = corpus_of_run(config.run, settings.files, config.files, facts["text_sha256"], settings.encoding)
    with _jax(settings.dtype):
        return int(import_module(".truncation", __package__).truncation(config, settings, facts, corpus))


def _anatomy(config: "AnatomyConfig", given: set[str]) -> int:
    from ..data._corpus import corpus_of_run
    from .limits import check_anatomy_config
    from .run_folder import read_settings

    check_anatomy_config(config, given)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # in QR of small matrices, threads only wait for each other
    if config.run is None:
        with _jax():
            return int(import_module(".anatomy.command", __package__).anatomy(config, None, {}, None))
    settings, facts = read_settings(config.run)
    corpus = corpus_of_run(config.run, settings.files, config.files, facts["text_sha256"], settings.encoding)
    with _jax(settings.dtype):
        return int(import_module(".anatomy.command", __package__).anatomy(config, settings, facts, corpus))


def _experiment(config: "ExperimentConfig") -> int:
    from ..experiments.catalogue.names import CATALOGUE
    from .limits import check_experiment_config

    check_experiment_config(config, CATALOGUE)
    if config.name == "list":
        width = max(map(len, CATALOGUE))
        for name, (_, question) in CATALOGUE.items():
            say(f"{name:{width}}  {question}")
        return 0
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see `_anatomy`: flossing uses QR too
    with _jax(num_devices=cores()):
        return int(import_module(".experiment", __package__).experiment(config))


def _jax(dtype: str = "float32", num_devices: int = 1) -> contextlib.AbstractContextManager[None]:
    """JAX with the settings of the command, not of the environment."""
    try:
        import jax
    except ValueError as error:  # a variable with a value that JAX does not know
        raise InputError(f"JAX must be able to read its settings from the environment, but: {error}.") from error
    del jax
    settings: contextlib.AbstractContextManager[None]
    settings = import_module(".jax_settings", __package__).jax_settings(dtype, num_devices)
    return settings
