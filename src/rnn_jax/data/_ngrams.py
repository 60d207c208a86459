"""Baselines by counting: n-gram models, with which a network's bits per symbol are compared."""

from collections.abc import Sequence

import numpy as np

NAMES = ("unigram", "bigram", "trigram")
MOST_COUNTED = 10_000_000  # tokens, those nearest to what is predicted
MOST_BINS = 2**24  # n-grams that are counted in an array with a place for each possible one


def ngram_bits(
    train: np.ndarray, held_out: np.ndarray, num_symbols: int, predicted: np.ndarray, names: Sequence[str] = NAMES
) -> dict[str, float]:
    """Mean bits per symbol of interpolated n-gram models of the tokens `train` at the positions `predicted`.

    The positions are those in `held_out`, which follows the training text: what is before its first tokens is the end
    of that. `names` are the names of the models of order 1, 2, and so on. Each model mixes the relative frequencies of
    its order and all lower orders with the uniform distribution. The mixture is fitted by expectation maximisation on
    the last twentieth of the training text, with counts of the rest. Then the whole training text is counted. (Jelinek
    and Mercer 1980, deleted interpolation.) Of a long training text, only the last `MOST_COUNTED` tokens are read.
    """
    train = train[-MOST_COUNTED:]
    tokens = np.concatenate([train, held_out[: predicted.max() + 1]], dtype=np.int64)
    num_train, predicted = len(train), len(train) + predicted
    split = num_train - max(num_train // 20, 1)
    held_back_at = np.arange(max(split, len(names) - 1), num_train)
    held_back = _mixture_parts(tokens[:split], tokens, held_back_at, num_symbols, len(names))
    parts = _mixture_parts(tokens[:num_train], tokens, predicted, num_symbols, len(names))
    bits = {}
    for order, name in enumerate(names, start=1):
        weights = _fit(held_back[:, : order + 1])
        bits[name] = float(-np.mean(np.log2(parts[:, : order + 1] @ weights)))
    return bits


def _mixture_parts(
    counted: np.ndarray, tokens: np.ndarray, at: np.ndarray, num_symbols: int, orders: int
) -> np.ndarray:
    """Columns: the uniform, unigram, bigram, … probability of `tokens[at]` given the tokens before."""
    columns = [np.full(len(at), 1 / num_symbols)]
    for order in range(1, orders + 1):
        grams = _codes(counted, order, num_symbols)
        wanted = _codes(tokens, order, num_symbols)[at - order + 1]
        seen = _lookup(grams, wanted, num_symbols**order)
        context = _lookup(grams // num_symbols, wanted // num_symbols, num_symbols ** (order - 1))
        columns.append(np.divide(seen, context, out=np.zeros(len(at)), where=context > 0))
    return np.stack(columns, axis=1)


def _codes(tokens: np.ndarray, order: int, num_symbols: int) -> np.ndarray:
    """One number for each run of `order` tokens; dividing it by `num_symbols` drops the last of them."""
    length = max(len(tokens) - order + 1, 0)
    codes = np.zeros(length, np.int64)
    for offset in range(order):
        codes = codes * num_symbols + tokens[offset : offset + length]
    return codes


def _lookup(codes: np.ndarray, wanted: np.ndarray, most: int) -> np.ndarray:
    """How often each of `wanted` occurs in `codes`; all are below `most`."""
    if most <= MOST_BINS:
        counts = np.bincount(codes, minlength=most)
        of_wanted: np.ndarray = counts[wanted]
        return of_wanted
    values, counts = np.unique(codes, return_counts=True)
    if not len(values):
        return np.zeros(len(wanted))
    found = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[found] == wanted, counts[found], 0)


def _fit(parts: np.ndarray) -> np.ndarray:
    """The mixture weights that make the rows most probable, all above zero."""
    weights = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(50):
        share = parts * weights
        weights = np.mean(share / share.sum(axis=1, keepdims=True), axis=0) + 1e-9
        weights /= weights.sum()
    return weights
