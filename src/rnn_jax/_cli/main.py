"""The entry point of `rnn-jax`. Bad input that needs no jax to be recognised is refused before jax is imported."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from platform import python_version
from typing import Any

from .._reporting.console import be_printable, quiet, say, shown, warn
from .._reporting.machine import installed
from .outcome import outcome

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
    except (Exception, KeyboardInterrupt) as error:
        found = outcome(error)
        if found is None:
            raise
        status, words = found
        warn(words)
        return status


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
    commands = _commands()
    with _numbers_of_any_length():
        config = _parsed(argv, {name: kind for name, (kind, _) in commands.items()})
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
    run = next(run for kind, run in commands.values() if type(config) is kind)
    return partial(run, config, given)


def _commands() -> dict[str, tuple[type, Callable[..., int]]]:
    """Each command: its settings, and the function `(settings, names of the options given) -> exit status`."""
    from . import before_jax
    from .settings import commands
    from .settings.training import TrainConfig

    return {
        "train": (TrainConfig, before_jax.train),
        "sweep": (commands.SweepConfig, before_jax.sweep),
        "sample": (commands.SampleConfig, before_jax.sample),
        "export": (commands.ExportConfig, before_jax.export),
        "compare": (commands.CompareConfig, before_jax.compare),
        "gradcheck": (commands.GradcheckConfig, before_jax.gradcheck),
        "truncation": (commands.TruncationConfig, before_jax.truncation),
        "anatomy": (commands.AnatomyConfig, before_jax.anatomy),
        "experiment": (commands.ExperimentConfig, before_jax.experiment),
    }


def _parsed(argv: Sequence[str], kinds: dict[str, Callable[..., Any]]) -> Any:
    """The settings in `argv`. If they are refused, the message shows the arguments without control characters.

    Raises:
        SystemExit: if they are refused, or help was asked for.
    """
    words = [shown(word) for word in argv]
    if words == list(argv):
        return _parse(argv, kinds)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return _parse(argv, kinds)
    except SystemExit as refused:
        if refused.code:
            _parse(words, kinds)
        raise


def _parse(argv: Sequence[str], kinds: dict[str, Callable[..., Any]]) -> Any:
    """The settings in `argv`, by tyro."""
    import tyro

    return tyro.extras.subcommand_cli_from_dict(
        kinds,
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
