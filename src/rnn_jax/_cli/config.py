"""The settings of each command, with their defaults. Imports no jax: `--help` answers at once."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .._reporting.errors import InputError

LEARNING_RATES = {"sgd": 0.25, "adam": 0.002}
UNBOUNDED = {"sgd": 0.05, "adam": 0.002}  # without activation, where nothing bounds the states
GATED = {"sgd": 1.0, "adam": 0.01}


def _named(option: str) -> tyro.constructors.PrimitiveConstructorSpec[Path]:
    """How `option` reads its path. It refuses an empty one, which Python takes for the working folder."""

    def path(words: list[str]) -> Path:
        if not words[0]:
            raise InputError(f"{option} must name a path, got ''.")
        return Path(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=path,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


RunFolder = Annotated[Path, _named("RUN")]
Picture = Annotated[Path, _named("--picture")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a character model on text by backpropagation through time.

    The text is cut into contiguous streams of equal length, which are read in parallel, one window of steps at a time.
    The state is carried from window to window; the gradient stops at the start of the window. The last 5 % of the text
    is held out. Without FILE, the text is the source code of Python's standard library.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Files with the text to learn, in this order; `-` is standard input. A byte order mark at the start of a file is
    removed, and CRLF becomes LF; settings.json counts both. Default: the standard library's sources. With --resume:
    where the text of the run is now, if it has moved.
    """
    encoding: str = "utf-8"
    """Encoding of the files: a name that Python knows, like latin-1, cp1252 or utf-16."""
    run: Annotated[Path, _named("--run")] | None = None
    """Folder to write the run into. Default: the first of runs/char-1, runs/char-2, … that is free."""
    overwrite: bool = False
    """Replace the run that is in the folder --run, if there is one."""
    resume: Annotated[Path, _named("--resume")] | None = None
    """Continue the run in this folder, with its settings. Only --steps and FILE may be given too."""

    hidden_size: int = 256
    """Units in each recurrent layer."""
    num_layers: int = 1
    """Number of recurrent layers."""
    cell: Literal["vanilla", "gru", "lstm"] = "vanilla"
    """Kind of the recurrent layers. A GRU has 3 gates, an LSTM 4: each is as large as a vanilla layer."""
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    """φ in h_t = φ(x_t W_xh + h_{t-1} W_hh + b_h) of vanilla layers."""
    leak: float = 1.0
    """α in h_t = (1 - α) h_{t-1} + α φ(…), for leaky vanilla units; 1 means no leak."""
    recurrent_init: Literal["orthogonal", "identity", "normal", "spectral_radius"] = "orthogonal"
    """How the initial W_hh is drawn, of each gate by itself."""
    recurrent_scale: float | None = None
    """Gain of the initial W_hh. At gain 1 its spectral radius is 1; with --recurrent-init normal, about 1. Default: 1;
    0.9 with --activation identity.
    """
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Number type of the run; JAX's settings in the environment do not change it. With bfloat16, products are
    computed in bfloat16, and so are the states, unless units are leaky or have gates; weights, their gradients and all
    sums stay in float32.
    """

    method: Literal["autodiff", "stepwise", "bptt", "blocked"] = "blocked"
    """How the gradient is computed; all of these are exact."""
    memory: str | None = None
    """Bytes that a gradient may take on each device, in addition to weights and data, like 200MB or 64MiB. The method
    blocked then keeps fewer states and recomputes the others. Default: all states are kept.
    """
    devices: int = 1
    """Number of devices that share the streams: cores of a CPU, or GPUs."""
    streams: int = 32
    """Number of contiguous parts of the text that are read in parallel."""
    window: int = 50
    """Steps of each stream that are read at a time; without --k2, a gradient reaches back to the first of them."""
    k1: int | None = None
    """Window of a truncated gradient, with --k2: the losses of each k1 steps share one gradient that reaches back k2
    steps. Default: k2.
    """
    k2: int | None = None
    """How many steps a truncated gradient reaches back: at least k1, at most --window. Default: the gradient is not
    truncated.
    """
    adaptive_bias: float | None = None
    """With --k1: choose k2, a multiple of k1, for each batch, so that the gradient loses at most this share. The loss
    is an estimate.
    """

    drop_between: float = 0.0
    """Dropout: share of the units that the layer above, or the readout, does not read; the same units at all steps
    of a window.
    """
    drop_recurrent: float = 0.0
    """Dropout: share of the units of the previous step that W_hh does not read; the same units at all steps of a
    window.
    """

    steps: int = 8000
    """Number of optimizer steps, counted from the start of the run."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The optax optimizer."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 0.25 for sgd, or 0.05 with --activation identity; 0.002 for adam. With --cell gru or
    lstm: 1 for sgd, 0.01 for adam.
    """
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to zero over the steps; constant does not fall."""
    momentum: float = 0.9
    """Momentum of sgd."""
    max_norm: float | None = 1.0
    """Clip the gradient to this global norm; None: do not clip."""
    max_value: float | None = None
    """Before that, clip each entry of the gradient to ± this value; None: do not clip."""

    watch: bool = False
    """Examine the gradient every --watch-every steps: its norm before clipping, how it changes through time,
    saturation and the spectrum of W_hh. Written to metrics.jsonl and watch.png.
    """
    watch_every: int = 200
    """Number of steps between two examinations."""
    eval_every: int = 1000
    """Steps between validations; each also writes a sample and a checkpoint."""
    seed: int = 0
    """Seed of the weights, of dropout and of the samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Let a trained character model continue a prompt."""

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    prompt: str | None = None
    """What the text starts with. Default: a line break; if the model does not know it, its first symbol."""
    length: int = 500
    """Symbols to write, at most 10,000,000."""
    temperature: float = 0.8
    """Below 1 the draws are more predictable, above 1 more random. At 0 the most probable symbol is always taken."""
    seed: int = 0
    """Seed of the draws: the same seed writes the same text."""
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
    to: Annotated[Path, _named("--to")]
    """The file to write."""


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
    gains: tuple[float, ...] = ()
    """Factors of W_hh to compare. Default: 0.5 1 1.5 with RUN; 0.5 0.9 1 1.1 1.5 without."""
    page: Annotated[Path, _named("--page")] | None = None
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
    out: Annotated[Path, _named("--out")] = Path("experiments")
    """Parent of the folder to write into: NAME, or NAME-quick with --quick."""


def units_of(config: TrainConfig | AnatomyConfig) -> str:
    """The layers of a network, as a person calls them: `2 layers of 64 tanh units`."""
    layers = f"{config.num_layers} layer{'s' if config.num_layers > 1 else ''}"
    kind = config.activation if config.cell == "vanilla" else config.cell.upper()
    leak = f", leak {config.leak}" if config.leak != 1 else ""
    return f"{layers} of {config.hidden_size} {kind} units{leak}"


def default_rate(config: TrainConfig) -> float:
    """The learning rate of a run without --learning-rate."""
    if config.cell != "vanilla":
        return GATED[config.optimizer]
    return (UNBOUNDED if config.activation == "identity" else LEARNING_RATES)[config.optimizer]


def default_scale(config: TrainConfig) -> float:
    """The gain of W_hh of a run without --recurrent-scale. Below 1 for the identity, whose states nothing bounds."""
    return 0.9 if config.activation == "identity" else 1.0
