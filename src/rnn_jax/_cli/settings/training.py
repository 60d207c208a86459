"""The settings of `rnn-jax train`, with their defaults. Imports no jax: `--help` answers at once."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...data._vocab import Vocab
from .paths import named

LEARNING_RATES = {"sgd": 0.25, "adam": 0.002}
UNBOUNDED = {"sgd": 0.05, "adam": 0.002}  # without activation, where nothing bounds the states
GATED = {"sgd": 1.0, "adam": 0.01}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a character model on text by backpropagation through time.

    The text is cut into contiguous streams of equal length, which are read in parallel, one window of steps at a time.
    The state is carried from window to window; the gradient stops at the start of the window. The last 5 % of the text
    is held out, or the text of --validation. Without FILE, the text is the source code of Python's standard library.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(name="file", metavar="[FILE ...]")] = ()
    """Files with the text to learn, in this order; `-` is standard input. A byte order mark at the start of a file is
    removed, and CRLF becomes LF; settings.json counts both. A text of 64 MiB or more may be larger than memory: it is
    kept as tokens in ~/.cache/rnn_jax/tokens, or in $XDG_CACHE_HOME. Default: the standard library's sources. With
    --resume: where the text of the run is now, if it has moved.
    """
    encoding: str = "utf-8"
    """Encoding of the files: a name that Python knows, like latin-1, cp1252 or utf-16."""
    vocab: Vocab = "character"
    """What a token is: a character that occurs in the text, or a byte of the text in UTF-8. With byte there are always
    256 symbols, so no prompt and no validation text has an unknown one; results are in bits per byte.
    """
    validation: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """File whose text is held out; then all of FILE is learned. Its characters that FILE lacks are left out, and
    settings.json counts them. Default: the last 5 % of the text is held out. With --resume: where the file is now, if
    it has moved.
    """
    run: Annotated[Path, named("--run")] | None = None
    """Folder to write the run into. Default: the first of runs/char-1, runs/char-2, … that is free."""
    overwrite: bool = False
    """Replace the run that is in the folder --run, if there is one."""
    resume: Annotated[Path, named("--resume")] | None = None
    """Continue the run in this folder, with its settings. Only --steps, --validation and FILE may be given too.
    """

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
    """Number of devices that share the streams: cores of a CPU, or GPUs. With several processes: of each process."""
    processes: int | None = None
    """Number of processes on this machine that share the streams, to try what a cluster does. Default: those that a
    launcher (Slurm, Open MPI, Kubernetes) has started, otherwise one. With 1, no launcher is asked.
    """
    wait_seconds: float = 300.0
    """How long processes wait for one that does not start, or no longer answers, before all end."""
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
    warmup: int = 0
    """Steps over which the learning rate first rises from zero to its peak; they are a part of --steps."""
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
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the folder tensorboard of the run."""
    eval_every: int = 1000
    """Steps between validations; each also writes a sample and a checkpoint."""
    patience: int | None = None
    """Stop if so many validations in a row are no better than the best before them. Default: train all --steps."""
    save_minutes: float = 10.0
    """Also write a checkpoint when the last one is so many minutes old."""
    keep: int = 2
    """How many of the last checkpoints stay. The one with the best validation stays too."""
    max_skipped: int = 20
    """A step whose loss, gradient or update is infinite or NaN is skipped. After so many in a row the run stops, and
    diagnosis.txt says which arrays are not finite.
    """
    seed: int = 0
    """Seed of the weights, of dropout and of the samples."""


def default_rate(config: TrainConfig) -> float:
    """The learning rate of a run without --learning-rate."""
    if config.cell != "vanilla":
        return GATED[config.optimizer]
    return (UNBOUNDED if config.activation == "identity" else LEARNING_RATES)[config.optimizer]


def default_scale(config: TrainConfig) -> float:
    """The gain of W_hh of a run without --recurrent-scale. Below 1 for the identity, whose states nothing bounds."""
    return 0.9 if config.activation == "identity" else 1.0
