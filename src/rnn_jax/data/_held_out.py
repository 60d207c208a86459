"""A text cut into streams for training and windows for validation."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from .._gradients.methods import make_grad_fn
from .._mesh import mesh_of, promote, vary
from .._nn.parameters import zero_state
from .._reporting.errors import InputError
from .._types import Batch, Params, States
from ._corpus import Corpus
from ._text import make_streams

HELD_OUT = 1 / 20  # the share of the text, at its end
MOST_READ = 2_000_000  # symbols of the held-out text that validation reads, from its start
AXIS = "streams"  # of the mesh of devices that share them
BITS = 1 / math.log(2)  # a nat, in bits


class TextData(NamedTuple):
    """A text as tokens: `train` for training, cut into `streams`, and the `rest`, which is held out.

    `held_out` is what validation reads of the rest, in streams too.
    """

    symbols: str
    train: np.ndarray
    rest: np.ndarray
    streams: np.ndarray
    held_out: np.ndarray


def least_length(num_streams: int, window: int, whole: bool) -> int:
    """The symbols a text must have for one window of every stream and, if not the `whole` is learned, two held out."""
    num_read = num_streams * (window + 1)
    return num_read if whole else max(math.ceil(num_read / (1 - HELD_OUT)), num_read + 2)


def prepare(corpus: Corpus, num_streams: int, window: int) -> TextData:
    """The text for training and the text that is held out, both cut into streams.

    Raises:
        InputError: if the text is too short for one window of every stream and two held-out symbols, or the text of
            `corpus.validation` for one window.
    """
    needed = least_length(num_streams, window, corpus.validation is not None)
    if len(corpus.tokens) < needed:
        raise InputError(
            f"FILE must hold at least {needed:,} {corpus.vocab}s for --streams {num_streams} of --window {window}, "
            f"got {len(corpus.tokens):,}: give more text, or lower --streams or --window."
        )
    train, rest = parts_of(corpus)
    if corpus.validation is not None and len(rest) <= window:
        raise InputError(
            f"--validation must hold at least {window + 1:,} {corpus.vocab}s of FILE for --window {window}, got "
            f"{len(rest):,}: give more text, or lower --window."
        )
    held_out = rest[:MOST_READ].astype(np.int32)
    held_out = make_streams(held_out, max(1, min(num_streams, len(held_out) // (window + 1))))
    return TextData(corpus.symbols, train, rest, _streams(train, num_streams), held_out)


def parts_of(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """The tokens for training and those held out: the end of the text, or the start of the text for validation."""
    if corpus.validation is not None:
        return corpus.tokens, corpus.validation.first(MOST_READ)
    num_train = len(corpus.tokens) - num_held_out(len(corpus.tokens))
    return corpus.tokens[:num_train], corpus.tokens[num_train:]


def _streams(tokens: np.ndarray, num_streams: int) -> np.ndarray:
    """`make_streams`, without a copy: what is mapped from a file is read when it is needed."""
    time = len(tokens) // num_streams
    return tokens[: time * num_streams].reshape(num_streams, time).T


def num_held_out(length: int) -> int:
    """How many symbols of a text are held out, if no text for validation is given."""
    return max(int(length * HELD_OUT), 2)


def held_out_of_run(corpus: Corpus, window: int, num_streams: int) -> tuple[np.ndarray, jax.Array]:
    """`(tokens, streams)` of the text that a run held out; of the streams, the first window and its targets.

    Raises:
        InputError: if the text is too short for one window of every stream.
    """
    _, held_out = parts_of(corpus)
    most = len(held_out) // num_streams - 1
    if most < 2:
        raise InputError(
            f"--streams must be at most {len(held_out) // 3} for the {len(held_out):,} held-out {corpus.vocab}s, got "
            f"{num_streams}."
        )
    if most < window:
        raise InputError(
            f"--window must be at most {most} for the {len(held_out):,} held-out {corpus.vocab}s and --streams "
            f"{num_streams}, got {window}."
        )
    return held_out, jnp.asarray(_streams(held_out, num_streams)[: window + 1], jnp.int32)


def predicted_positions(data: TextData) -> np.ndarray:
    """The positions in `data.rest` of the symbols that validation predicts: all of each stream except its first."""
    time, num_streams = data.held_out.shape
    read: np.ndarray = (np.arange(num_streams)[:, None] * time + np.arange(1, time)).ravel()
    return read


def make_validate(
    data: TextData, method: str, window: int, compute_dtype: Any = None, devices: Sequence[jax.Device] = ()
) -> Callable[[Params], jax.Array]:
    """A jitted function from parameters to bits per symbol of the held-out text, read from a state of zero.

    States and products are in `compute_dtype`, as in `make_grad_fn`. Several `devices` share the streams.
    """
    num_devices = max(1, len(devices))
    length, num_streams = data.held_out.shape[0] - 1, data.held_out.shape[1]
    num_windows, most_streams = -(-length // window), -(-num_streams // num_devices) * num_devices
    padding = ((0, num_windows * window - length), (0, most_streams - num_streams))
    mesh = mesh_of(devices, AXIS) if num_devices > 1 else None
    whole, of_streams = PartitionSpec(), PartitionSpec(None, None, AXIS)

    def windows(x: np.ndarray) -> jax.Array:
        padded = np.pad(x, padding).reshape(num_windows, window, most_streams)
        if mesh is None:
            return jnp.asarray(padded)
        return jax.make_array_from_callback(padded.shape, NamedSharding(mesh, of_streams), padded.__getitem__)

    batches = Batch(inputs=windows(data.held_out[:-1]), targets=windows(data.held_out[1:]))
    exists = windows(np.ones((length, num_streams), bool))
    grad_fn = make_grad_fn(method, loss="cross_entropy", reduction="sum", compute_dtype=compute_dtype)

    def bits(batches: Batch, exists: jax.Array, params: Params) -> jax.Array:
        weights = exists.astype(params.readout.w_hy.dtype)

        def body(h_0: States, batch: Batch) -> tuple[States, jax.Array]:
            (loss, h_T), _ = grad_fn(params, batch, h_0)  # the gradient is not used, so under jit it costs nothing
            return h_T, loss

        _, h_0 = promote((params, zero_state(params, exists.shape[2])))
        _, losses = lax.scan(body, h_0, batches._replace(weights=weights))
        found: jax.Array = jnp.sum(losses) * (BITS / (length * num_streams))
        return found

    def of_part(batches: Batch, exists: jax.Array, params: Params) -> jax.Array:
        found: jax.Array = lax.psum(bits(batches, exists, vary(params, AXIS)), AXIS)
        return found

    if mesh is None:
        return partial(jax.jit(bits), batches, exists)
    in_specs: Any = (jax.tree.map(lambda _: of_streams, batches), of_streams, whole)
    return partial(jax.jit(jax.shard_map(of_part, mesh=mesh, in_specs=in_specs, out_specs=whole)), batches, exists)
