"""The settings of the other commands, with their defaults. Imports no jax: `--help` answers at once."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .paths import Picture, RunFolder, named
from .training import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Let a trained character model continue a prompt."""

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    prompt: str | None = None
    """What the text starts with. Default: a line break; if the model does not know it, its first symbol."""
    length: int = 500
    """Symbols to write, characters or bytes as in the training; at most 10,000,000."""
    temperature: float = 0.8
    """Below 1 the draws are more predictable, above 1 more random. At 0 the most probable symbol is always taken."""
    seed: int = 0
    """Seed of the draws: the same seed writes the same text."""
    best: bool = False
    """Use the checkpoint with the best validation, not the newest."""
    raw: bool = False
    """Do not escape control characters on a terminal. In a file or a pipe they are never escaped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the network of a run to a file for other programs.

    The ending of the name says what to write. `.safetensors` or `.npz`: the weights by name, with the settings.
    `.stablehlo`: one step and a whole sequence as compiled programs for CPU, CUDA, ROCm and TPU, with the symbols; JAX
    runs them without this package.
    """

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    to: Annotated[Path, named("--to")]
    """The file to write."""
    best: bool = False
    """Write the checkpoint with the best validation, not the newest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare runs: which settings differ, which run is best and by how much, and when each reached what.

    It prints three tables, and writes a page for the browser with the validation curves against the characters read and
    against the time. Runs that differ only in the seed also get their mean and range.
    """

    runs: Annotated[tuple[RunFolder, ...], tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN RUN ...")] = ()
    """Two or more folders that `rnn-jax train` left."""
    page: Annotated[Path, named("--page")] = Path("compare.html")
    """HTML file to write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid:
    """What `rnn-jax sweep` has besides the options of `rnn-jax train`; in its help they are the first."""

    over: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE,VALUE,...")] = ()
    """An option of `rnn-jax train` and the values to try, like learning-rate=0.1,0.25,1. Give it once for each option:
    the sweep trains every combination. An option that is on or off has the values true and false; where None is
    possible, as for max-norm, it is a value too.
    """
    seeds: int = 3
    """How many seeds each combination is trained from. With more seeds, the same command trains the new ones only."""
    jobs: int = 1
    """How many runs are trained at the same time. They share the cores, so `seconds` compare only runs with equal
    --jobs.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(TrainConfig, _Grid):
    """Train every combination of some settings from several seeds, and say which is best.

    Each combination and seed is a run of `rnn-jax train` in its own folder, with which all other commands work. Then it
    prints a table, with means and 95 % intervals over the seeds, and writes tables and report.html into --run. The same
    command continues after an interruption, and keeps what is finished. It needs the extra `experiments`.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Files with the text to learn, in this order. Default: the standard library's sources."""
    run: Annotated[Path, named("--run")] | None = None
    """Folder of the sweep. The runs are in it, in a folder for each combination: hidden-size=64/seed-0. Required."""
    overwrite: bool = False
    """Not of a sweep: remove its folder instead."""
    resume: Annotated[Path, named("--resume")] | None = None
    """Not of a sweep: the same command continues it."""
    seed: int = 0
    """The first of the seeds: of the weights, of dropout and of the samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradcheckConfig:
    """Check every gradient method in float64 against independent witnesses, over a grid of options.

    The cells are vanilla, with a leak per unit, GRU and LSTM. The witnesses are central differences of the method's own
    loss, the complex step (not for relu), autodiff of the plain scan, a NumPy loop, and real-time recurrent learning,
    which only goes forward. Each figure is the worst error of all entries of all gradients, relative to the largest
    entry of the same array. The exit status is 1 if a gradient is wrong.
    """

    methods: tuple[str, ...] = ()
    """Methods to check. Default: all."""
    grid: Literal["small", "full"] = "small"
    """small: every pair of the main options. full: every triple of all options, several times as long. Of cells with
    gates, each option or every pair.
    """
    picture: Picture | None = None
    """Write a picture of all errors to this PNG file."""
    seed: int = 0
    """Seed of the weights and the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncationConfig:
    """Measure what truncated gradients lose, compared with the full gradient, on the held-out text of a run.

    For each k2, and k1 = k2, k2 / 2 and 1: relative error and cosine, the array with the largest error, time and
    memory. Also how fast the gradient decays with the lag.
    """

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Where the text of the run is now, if it has moved."""
    validation: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the validation file of the run is now, if it has moved."""
    ks: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    """How many steps the gradients reach back: the values of k2 to measure."""
    window: int = 200
    """Steps of each stream; the full gradient goes through all of them."""
    streams: int = 8
    """Number of contiguous parts of the held-out text that are read in parallel."""
    picture: Picture | None = None
    """PNG file to write the picture to. Default: truncation.png in the run's folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnatomyConfig:
    """Write a page for the browser: where the gradient of a network comes from and how far it goes.

    It shows how a gradient fades or grows on its way back, which loss reaches which state, singular values of products
    of Jacobians, Lyapunov exponents, eigenvalues, saturation, and what each step adds. With RUN, it examines the
    trained network on the held-out text; without RUN, a network with random weights.
    """

    run: Annotated[RunFolder | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """The folder that `rnn-jax train` left."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Where the text of the run is now, if it has moved."""
    validation: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the validation file of the run is now, if it has moved."""
    gains: tuple[float, ...] = ()
    """Factors of W_hh to compare. Default: 0.5 1 1.5 with RUN; 0.5 0.9 1 1.1 1.5 without."""
    page: Annotated[Path, named("--page")] | None = None
    """HTML file to write. Default: anatomy.html in the run's folder; without RUN, in the working folder."""
    window: int = 100
    """Steps of each sequence."""
    streams: int = 8
    """Number of sequences."""
    lags: int = 50
    """How many steps back each loss is followed."""
    hidden_size: int = 64
    """Without RUN: units in each layer."""
    num_layers: int = 1
    """Without RUN: number of layers."""
    cell: Literal["vanilla", "gru", "lstm"] = "vanilla"
    """Without RUN: kind of the layers."""
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    """Without RUN: φ of vanilla layers."""
    leak: float = 1.0
    """Without RUN: α of leaky vanilla units."""
    recurrent_init: Literal["orthogonal", "identity", "normal", "spectral_radius"] = "normal"
    """Without RUN: how W_hh is drawn. At gain 1 its spectral radius is 1; with normal, about 1, as in `train`."""
    seed: int = 0
    """Seed of everything that is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Run an experiment: train each of its settings from many seeds, and write tables and a report.

    NAME is one of the experiments that `rnn-jax experiment list` names, or `all`. Finished settings are kept: after an
    interruption, the same command continues.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Which experiment to run; `all` runs all of them, `list` lists them."""
    seeds: int | None = None
    """How many seeds each setting is trained from. Default: the experiment's own number."""
    quick: bool = False
    """A small grid, short trainings, few seeds: to see that it works and what it writes."""
    out: Annotated[Path, named("--out")] = Path("experiments")
    """Parent of the folder to write into: NAME, or NAME-quick with --quick."""


def units_of(config: TrainConfig | AnatomyConfig) -> str:
    """The layers of a network, as a person calls them: `2 layers of 64 tanh units`."""
    layers = f"{config.num_layers} layer{'s' if config.num_layers > 1 else ''}"
    kind = config.activation if config.cell == "vanilla" else config.cell.upper()
    leak = f", leak {config.leak}" if config.leak != 1 else ""
    return f"{layers} of {config.hidden_size} {kind} units{leak}"
