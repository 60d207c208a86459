"""`rnn-jax train --watch`: the gradient of a window now and then, taken apart, into the metrics and a picture."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import Anatomy, Batch, Params, States, anatomy
from .config import TrainConfig

QUANTILES = 0.0, 0.25, 0.5, 0.75, 1.0
LAGS = 10
DIGITS = 6


def make_watch(config: TrainConfig, next_batch: Callable[..., tuple[States, Batch]]) -> Callable[..., dict[str, Any]]:
    """`(state, streams) -> record` of the window that the next step reads.

    `grad_norm` before clipping and `clip_ratio`, by which clipping to the norm shortens it; of each layer the quantiles
    over time of `‖δ_t‖`, all streams together, the share of saturated units, the spectral radius of `W_hh` and its
    largest singular value; `growth`, the factor of `‖∂L_i/∂h_{i-lag}‖` a step back.
    """
    most = config.window if config.memory is None else min(config.window, 50)  # its states are all kept

    @jax.jit
    def look(state: Any, streams: jax.Array) -> dict[str, jax.Array]:
        h_0, batch = next_batch(state, streams)
        batch = batch._replace(inputs=batch.inputs[:most], targets=batch.targets[:most])
        found = anatomy(state.params, batch, h_0, lags=LAGS)
        return _summary(found, state.params, config.max_norm)

    def watch(state: Any, streams: jax.Array) -> dict[str, Any]:
        record = {name: _rounded(value) for name, value in look(state, streams).items()}
        w_hhs = [np.asarray(cell.w_hh, np.float64) for cell in state.params.cells]
        record["spectral_radius"] = [_rounded(np.abs(np.linalg.eigvals(w)).max()) for w in w_hhs]
        record["largest_singular_value"] = [_rounded(np.linalg.norm(w, 2)) for w in w_hhs]
        return record

    return watch


def _summary(found: Anatomy, params: Params, max_norm: float | None) -> dict[str, jax.Array]:
    norm = optax.tree.norm(found.gradients.params)
    ratio = jnp.ones_like(norm) if max_norm is None else jnp.minimum(1, max_norm / jnp.maximum(norm, 1e-30))
    levels = jnp.asarray(QUANTILES, norm.dtype)
    profiles = [jnp.linalg.norm(layer.d_h_norms, axis=1) for layer in found.layers]
    return {
        "grad_norm": norm,
        "clip_ratio": ratio,
        "d_h_quantiles": jnp.stack([jnp.quantile(profile, levels) for profile in profiles]),
        "saturated": jnp.stack([jnp.mean(layer.saturated) for layer in found.layers]),
        "growth": found.decay,
    }


def _rounded(values: Any) -> Any:
    """As numbers of JSON, with so many digits."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if np.isfinite(values) else None
