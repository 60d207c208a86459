"""Text as tokens: one symbol, one integer; parallel contiguous streams; windows of them."""

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from .._require import is_below, require_array, require_integer, require_sizes, require_storable, require_values
from .._types import Batch


def symbols_of(text: str) -> str:
    """The symbols that occur in `text`, in the order of their code points: a vocabulary."""
    return "".join(sorted(set(text)))


def encode(symbols: str, text: str) -> Int[np.ndarray, " time"]:
    """The token of each symbol of `text`: its index in `symbols`, which is sorted.

    Raises:
        ValueError: if `text` holds a symbol that is not in `symbols`, naming the first, or `symbols` is not sorted.

    >>> symbols = symbols_of("hello world")
    >>> decode(symbols, encode(symbols, "hold"))
    'hold'
    """
    codes, known = _code_points(text), _code_points(symbols)
    if np.any(known[1:] <= known[:-1]):
        came = repr(symbols if len(symbols) <= 100 else f"{symbols[:100]}…")
        hint = ": the symbols come first, then the text" if len(codes) > 1 and np.all(codes[1:] > codes[:-1]) else ""
        raise ValueError(f"`symbols` must be sorted and without repeats, as `symbols_of` makes them, got {came}{hint}.")
    tokens = np.searchsorted(known, codes)
    is_known = np.append(known, 0)[tokens] == codes
    is_known &= tokens < len(known)
    if not is_known.all():
        at = int(np.argmin(is_known))
        raise ValueError(f"`text` must hold only the {len(symbols)} known symbols, got {text[at]!r} at position {at}.")
    return tokens.astype(np.int32)


def decode(symbols: str, tokens: Int[Array, " time"] | Int[np.ndarray, " time"]) -> str:
    """The text of a sequence of tokens.

    Raises:
        ValueError: if a token is not the index of one of `symbols`.
    """
    require_values("decode", tokens)
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.size and not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(f"`tokens` must be one axis of integers, got {tokens.dtype}{list(tokens.shape)}.")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < len(symbols):
        raise ValueError(f"`tokens` must be from 0 to {len(symbols) - 1}, got {tokens.min()} to {tokens.max()}.")
    return "".join(symbols[token] for token in tokens.tolist())


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def make_streams(tokens: Int[np.ndarray, " length"], num_streams: int) -> Int[np.ndarray, "time streams"]:
    """The text cut into `num_streams` contiguous pieces of equal length, side by side; a short tail is left out.

    >>> make_streams(np.arange(7), 2).T
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    require_sizes(num_streams=num_streams)
    require_array("tokens", tokens)
    require_values("make_streams", tokens)
    if tokens.ndim != 1 or len(tokens) < num_streams:
        raise ValueError(f"`tokens` must be one axis of at least {num_streams} symbols, got shape {tokens.shape}.")
    time = len(tokens) // num_streams
    return np.ascontiguousarray(tokens[: time * num_streams].reshape(num_streams, time).T)


def window_batch(streams: Int[Array, "time streams"], start: int | Int[Array, ""], window: int) -> Batch:
    """The batch that reads `streams` from `start` for `window` steps and predicts each next token.

    A traced `start` cannot be checked: one that is out of range is moved to the nearest in range, as
    `lax.dynamic_slice` does.

    Raises:
        TypeError: if `start` is not one integer.
        ValueError: unless `window` is at least one and below the length of the streams, and the window lies in them.
    """
    require_sizes(window=window)
    require_array("streams", streams)
    require_storable("streams", streams)
    if is_below("streams", streams.shape[0], window + 1):
        raise ValueError(f"`window` must be below the {streams.shape[0]} steps of `streams`, got {window}.")
    if not isinstance(start, jax.core.Tracer):
        require_integer("start", start)
        if int(start) < 0 or is_below("streams", streams.shape[0], int(start) + window + 1):
            raise ValueError(f"`start` must be from 0 to {streams.shape[0] - window - 1}, got {start}.")
    piece = lax.dynamic_slice_in_dim(streams, start, window + 1)
    return Batch(inputs=piece[:-1], targets=piece[1:])
