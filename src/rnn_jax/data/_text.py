"""Text as tokens, one integer per symbol; parallel contiguous streams of them; windows of the streams."""

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from .._require import is_below, require_array, require_integer, require_sizes, require_storable, require_values
from .._types import Batch


def symbols_of(text: str) -> str:
    """The vocabulary of a text.

    Args:
        text: any text.

    Returns:
        The different symbols that occur in `text`, in the order of their code points.

    >>> symbols_of("hello world")
    ' dehlorw'
    """
    return "".join(sorted(set(text)))


def encode(symbols: str, text: str) -> Int[np.ndarray, " time"]:
    """The token of each symbol of `text`: its index in `symbols`.

    Args:
        symbols: the vocabulary, sorted, as `symbols_of` makes it.
        text: the text to encode.

    Returns:
        The tokens, int32 (time,).

    Raises:
        ValueError: if `text` holds a symbol that is not in `symbols` (the message names the first), or `symbols` is
            not sorted.

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

    Args:
        symbols: the vocabulary, sorted.
        tokens: integers (time,), each the index of a symbol.

    Returns:
        The text, one symbol per token.

    Raises:
        ValueError: if a token is not the index of one of `symbols`.
        TypeError: if `tokens` is not one axis of integers.

    >>> decode("abc", np.array([2, 0, 1]))
    'cab'
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
    """Cut a text into `num_streams` contiguous parts of equal length. A remainder at the end is left out.

    Args:
        tokens: the text, integers (length,).
        num_streams: the number of parts, from 1 to the length of the text.

    Returns:
        The parts, (time, streams) with time = length // num_streams.

    Raises:
        ValueError: if `num_streams` is below 1, or the text has fewer tokens than that.

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
    """The batch that reads `window` steps of `streams` from step `start` on. The targets are the next tokens.

    Args:
        streams: integers (time, streams), from `make_streams`.
        start: the first step to read. A traced `start` cannot be checked: if it is out of range, it is moved to the
            nearest value in range, as `lax.dynamic_slice` does.
        window: the number of steps, at least 1 and below the length of the streams.

    Returns:
        A batch whose inputs and targets are both (window, streams).

    Raises:
        TypeError: if `start` is not one integer.
        ValueError: if `window` is out of range, or the window reaches past the end of the streams.

    >>> import jax.numpy as jnp
    >>> batch = window_batch(jnp.arange(6).reshape(6, 1), 2, 3)
    >>> batch.inputs.ravel().tolist(), batch.targets.ravel().tolist()
    ([2, 3, 4], [3, 4, 5])
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
