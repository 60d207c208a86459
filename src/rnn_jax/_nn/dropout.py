"""Variational dropout: the same units of a sequence are dropped at all of its steps."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .._checks import check_inputs, check_params
from .._require import RATE, Number, require_key, require_number
from .._types import Batch, Drop, Hidden, Params, accumulation_dtype


def drop_units(params: Params, batch: Batch, *, between: Number = 0.0, recurrent: Number = 0.0) -> Batch:
    """Draw the units to drop from `batch.key`: variational dropout, for the `grad_fn` of any method and for `apply`.

    Each unit of each layer is dropped with the given probability, for a whole sequence at once. A unit that is not
    dropped is multiplied by 1 / (1 - rate). If `Batch.drop` is None nothing is dropped, so sampling and validation need
    no switch. Inputs are not dropped: multiply them by a mask yourself.

    A rate may be traced, for a sweep under `jax.vmap`. Then its range is not checked, and masks are drawn even if it
    is 0.

    Args:
        params: the network.
        batch: the batch to drop units in; it must have a `key`.
        between: the probability that the layer above, or the readout, reads a unit as zero.
        recurrent: the probability that `W_hh` reads a unit as zero.

    Returns:
        The batch with its field `drop`, and with a new `key` for methods that draw.

    Raises:
        ValueError: for a known rate outside [0, 1), or a batch without a key.
        TypeError: if `batch` is not a `Batch`, or a rate is not a number.

    References: Gal and Ghahramani (2016), NeurIPS, arXiv:1512.05287.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=5, hidden_size=8, output_size=5)
    >>> batch = rnn_jax.Batch(jnp.zeros((7, 3), int), jnp.ones((7, 3), int), key=jax.random.key(1))
    >>> batch = rnn_jax.drop_units(params, batch, between=0.5, recurrent=0.25)
    >>> [r.shape for r in batch.drop.recurrent], sorted(set(batch.drop.between[0].ravel().tolist()))
    ([(3, 8)], [0.0, 2.0])
    >>> grad_fn = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))
    >>> (loss, h_T), gradients = grad_fn(params, batch, rnn_jax.zero_state(params, 3))
    """
    check_params(params)
    if not isinstance(batch, Batch):
        raise TypeError(f"`batch` must be a Batch, got {type(batch).__name__}.")
    between, recurrent = (require_number(*rate, RATE) for rate in (("between", between), ("recurrent", recurrent)))
    if batch.key is None:
        raise ValueError(
            "`batch.key` must be given, because `drop_units` draws from it: set `key=jax.random.key(...)`."
        )
    require_key(batch.key)
    axes = check_inputs(params.cells[0], batch.inputs, ("time",), "batch.inputs", "params.cells[0]")
    key, *keys = jax.random.split(batch.key, 3)

    def draw(key: Any, rate: Any) -> tuple[Hidden, ...] | None:
        if isinstance(rate, float) and rate == 0:
            return None
        masks = []
        for cell, of_layer in zip(params.cells, jax.random.split(key, len(params.cells)), strict=True):
            enlarged = jnp.asarray(1 / (1 - rate), cell.w_hh.dtype)
            keep = 1 / enlarged.astype(accumulation_dtype(enlarged.dtype))  # from the rounded number
            masks.append(
                jax.random.bernoulli(of_layer, keep, (*axes, cell.w_hh.shape[0])).astype(enlarged.dtype) * enlarged
            )
        return tuple(masks)

    return batch._replace(key=key, drop=Drop(draw(keys[0], between), draw(keys[1], recurrent)))


def dropped(x: Array, units: Hidden | None) -> Array:
    """`x ∘ units`, over any leading axes. The map is its own transpose."""
    return x if units is None else x * units.reshape((1,) * (x.ndim - units.ndim) + units.shape)


def constant(units: Hidden | None) -> Hidden | None:
    """`units`, with the gradient stopped."""
    return None if units is None else lax.stop_gradient(units)


def between_of(drop: Drop | None, layer: int) -> Hidden | None:
    """The dropout mask on the states of a layer where the layer above or the readout reads them."""
    return None if drop is None or drop.between is None else drop.between[layer]


def recurrent_of(drop: Drop | None, layer: int) -> Hidden | None:
    """The dropout mask on the states of a layer where `W_hh` reads them at the next step."""
    return None if drop is None or drop.recurrent is None else drop.recurrent[layer]
