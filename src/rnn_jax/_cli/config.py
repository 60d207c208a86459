"""The settings of each command, with their defaults. Imports no jax: `--help` answers at once."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .._reporting.errors import InputError

LEARNING_RATES = {"sgd": 0.25, "adam": 0.002}
UNBOUNDED = {"sgd": 0.05, "adam": 0.002}  # of a network without activation, whose states nothing holds


def _named(option: str) -> tyro.constructors.PrimitiveConstructorSpec[Path]:
    """The paths of `option`. An empty one, which Python takes for the folder you stand in, is refused."""

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

    The text is cut into parallel contiguous streams, read a window at a time; the state is carried from window to
    window, the gradient stops at its edge. The last 5 % of the text is held out. Without FILE the text is Python's
    own standard library.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Text to learn, in this order; `-` is standard input. A byte order mark at the start of a file is left out, and
    CRLF becomes LF; settings.json counts both. Default: the standard library's sources. With --resume: where the text
    of the run is now, if it has moved.
    """
    encoding: str = "utf-8"
    """Encoding of the files, a name that Python knows, like latin-1, cp1252 or utf-16."""
    run: Annotated[Path, _named("--run")] | None = None
    """Folder to leave the run in. Default: the first free of runs/char-1, runs/char-2, …"""
    overwrite: bool = False
    """Replace the run in --run, if there is one."""
    resume: Annotated[Path, _named("--resume")] | None = None
    """Go on with the run in this folder, with its settings; only --steps and FILE may be given with it."""

    hidden_size: int = 256
    """Units in each recurrent layer."""
    num_layers: int = 1
    """Recurrent layers."""
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    """φ in h_t = φ(x_t W_xh + h_{t-1} W_hh + b_h)."""
    leak: float = 1.0
    """α in h_t = (1 - α) h_{t-1} + α φ(…), for leaky units; 1 is none."""
    recurrent_init: Literal["orthogonal", "identity", "normal", "spectral_radius"] = "orthogonal"
    """How W_hh is drawn."""
    recurrent_scale: float | None = None
    """Its gain: at 1 the spectral radius of W_hh is 1, of normal about 1. Default: 1, with --activation identity
    0.9.
    """
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """The numbers of the run, whatever JAX's settings in the environment say. bfloat16: states and products are
    computed in it, while weights, their gradients and all sums stay in float32.
    """

    method: Literal["autodiff", "stepwise", "bptt", "blocked"] = "blocked"
    """How the gradient is computed; all of these are exact."""
    memory: str | None = None
    """Bytes a gradient may take on each device beside weights and data, like 200MB or 64MiB: blocked then keeps fewer
    states and computes the others again. Default: all states are kept."""
    devices: int = 1
    """Devices that share the streams: the cores of a CPU, or GPUs."""
    streams: int = 32
    """Pieces of the text that are read side by side."""
    window: int = 50
    """Steps of each stream that are read at a time; a gradient reaches back to their first."""
    k1: int | None = None
    """With --k2: within a window, every k1 steps a gradient of the loss of those steps. Default: k2."""
    k2: int | None = None
    """How many steps these gradients reach back, at least k1. Default: to the start of the window, and k1 has no
    use.
    """
    adaptive_bias: float | None = None
    """Choose k2 anew for each batch, a multiple of k1, so that the gradient is estimated to lose at most this share."""

    drop_between: float = 0.0
    """Share of the units that the layer above, or the readout, does not get to read, the same for a whole window."""
    drop_recurrent: float = 0.0
    """The same for what W_hh reads of the step before."""

    steps: int = 8000
    """Optimizer steps."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The optax optimizer."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 0.25 for sgd, with --activation identity 0.05; 0.002 for adam."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to zero over the steps, or not."""
    momentum: float = 0.9
    """Momentum of sgd."""
    max_norm: float | None = 1.0
    """Clip the gradient to this global norm; None does not."""
    max_value: float | None = None
    """Clip each entry of the gradient to ± this first; None does not."""

    watch: bool = False
    """Take the gradient apart now and then: its norm before clipping, how it changes through time, saturation and the
    spectrum of W_hh, into the metrics and watch.png.
    """
    watch_every: int = 200
    """Steps between these looks."""
    eval_every: int = 1000
    """Steps between validations; each comes with a sample and a checkpoint."""
    seed: int = 0
    """Seed of the weights, of the units that are dropped, and of the samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Let a trained character model write on from a prompt."""

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    prompt: str | None = None
    """What the text starts with. Default: a line break, or the first symbol the model knows."""
    length: int = 500
    """Symbols to write, at most 10,000,000."""
    temperature: float = 0.8
    """Below 1 the model plays safe, above 1 it dares; 0 always takes the most probable symbol."""
    seed: int = 0
    """Seed of the draws: the same seed writes the same text."""
    raw: bool = False
    """Send control characters of the text to a terminal as they are, not escaped. Into a file or a pipe they always go
    as they are.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradcheckConfig:
    """Check every gradient method in float64 against independent witnesses, over a grid of options.

    Central differences of the method's own loss, the complex step (for tanh and the identity), autodiff of the plain
    scan, a NumPy loop, and real-time recurrent learning, which goes forward only. A figure is the worst error of any
    entry of any gradient, relative to the largest entry of its leaf. Exits 1 if one is wrong.
    """

    methods: tuple[str, ...] = ()
    """Methods to check. Default: all."""
    grid: Literal["small", "full"] = "small"
    """small: every pair of the main options, half a minute a method. full: every triple of all, some minutes."""
    picture: Picture | None = None
    """Leave a picture of all errors here, a PNG."""
    seed: int = 0
    """Seed of the weights and the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncationConfig:
    """What truncated gradients would lose on the held-out text of a run, beside the full gradient.

    For each k2, windows of k1 = k2, k2 / 2 and 1 steps that reach back k2: relative error and cosine, the worst leaf,
    time and memory; and how fast the gradient decays with the lag.
    """

    run: Annotated[RunFolder, tyro.conf.Positional]
    """The folder that `rnn-jax train` left."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Where the text of the run is now, if it has moved."""
    ks: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    """How many steps the gradients reach back, k2."""
    window: int = 200
    """Steps of text that the full gradient goes through."""
    streams: int = 8
    """Pieces of the text, side by side."""
    picture: Picture | None = None
    """Where to leave the picture, a PNG. Default: truncation.png in the run's folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnatomyConfig:
    """Where the gradient of a network comes from and where it goes: a page to open in a browser.

    How a loss fades or grows on its way back, which loss reaches which state, singular values of products of
    Jacobians, Lyapunov exponents, eigenvalues, saturation, what each step adds. Of a trained network on its held-out
    text; without RUN, of a network as it is drawn.
    """

    run: Annotated[RunFolder | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """The folder that `rnn-jax train` left."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Where the text of the run is now, if it has moved."""
    gains: tuple[float, ...] = ()
    """Factors of W_hh to compare. Default: 0.5 1 1.5 of a run, 0.5 0.9 1 1.1 1.5 else."""
    page: Annotated[Path, _named("--page")] | None = None
    """Where to leave the page. Default: anatomy.html in the run's folder, or here."""
    window: int = 100
    """Steps."""
    streams: int = 8
    """Sequences side by side."""
    lags: int = 50
    """How many steps back each loss is followed."""
    hidden_size: int = 64
    """Without RUN: units in each layer."""
    num_layers: int = 1
    """Without RUN: layers."""
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    """Without RUN: φ."""
    leak: float = 1.0
    """Without RUN: α of leaky units."""
    recurrent_init: Literal["orthogonal", "identity", "normal", "spectral_radius"] = "normal"
    """Without RUN: how W_hh is drawn; at gain 1 its spectral radius is 1, of normal about 1, as in `train`."""
    seed: int = 0
    """Seed of everything that is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Run an experiment: a grid of settings, each trained from many seeds, and leave tables and a report.

    NAME is one of the experiments that `rnn-jax experiment list` names, or `all`. What is done is kept: after an
    interruption the same command goes on.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Which experiment; `list` lists them, `all` runs all of them."""
    seeds: int | None = None
    """How many seeds each setting is trained from. Default: the experiment's own number."""
    quick: bool = False
    """A small grid, short trainings, few seeds: to see that it runs, and what comes out."""
    out: Annotated[Path, _named("--out")] = Path("experiments")
    """The folder in which the experiment has one of its name; with --quick, NAME-quick."""


UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def bytes_of(text: str) -> float | None:
    """The bytes of `200MB`, `64MiB` or `1e6`; None if it says nothing of the kind."""
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = UNITS.get(match[2]) if match else None
    size = float(match[1]) * unit if match and unit else None
    return None if size == float("inf") else size


def default_rate(config: TrainConfig) -> float:
    """The learning rate of a run that is given none."""
    return (UNBOUNDED if config.activation == "identity" else LEARNING_RATES)[config.optimizer]


def default_scale(config: TrainConfig) -> float:
    """The gain of W_hh of a run that is given none; states that nothing holds must not stay as large as they are."""
    return 0.9 if config.activation == "identity" else 1.0
