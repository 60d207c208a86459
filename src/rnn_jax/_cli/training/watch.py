"""`rnn-jax train --watch`: examine the gradient of a window at intervals, into the metrics and a picture."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ... import Batch, Params, clip_gradients
from ...analysis import Anatomy, LayerAnatomy, anatomy
from ...typing import GradFn, States
from ..settings.training import TrainConfig

QUANTILES = 0.0, 0.25, 0.5, 0.75, 1.0
LAGS = 10
DIGITS = 6


def make_watch(
    config: TrainConfig, grad_fn: GradFn, next_batch: Callable[..., tuple[States, Batch]]
) -> Callable[..., dict[str, Any]]:
    """`(state, tokens) -> record` of the window that the next step reads.

    From the gradient of the training: `grad_norm` before clipping, and `clip_ratio`, the share that clipping leaves.
    From the full gradient (with `--memory`, of the first 50 steps): for each layer the quantiles over time of `‖δ_t‖`,
    all streams together, and the share of saturated units, of all gates together; `growth`, the factor of
    `‖∂L_i/∂h_{i-lag}‖` per step back. From `W_hh`: the largest singular value, and the spectral radius, None for a
    layer with gates, whose `W_hh` is not square.
    """
    most = config.window if config.memory is None else min(config.window, 50)  # the anatomy keeps all states
    clip = clip_gradients(max_norm=config.max_norm, max_value=config.max_value)

    def _clipping(d_params: Params) -> dict[str, jax.Array]:
        norm = optax.tree.norm(d_params)
        left = optax.tree.norm(clip.update(d_params, clip.init(d_params))[0])
        return {"grad_norm": norm, "clip_ratio": left / jnp.where(norm > 0, norm, 1)}

    @jax.jit
    def look(state: Any, tokens: jax.Array) -> dict[str, jax.Array | None]:
        h_0, batch = next_batch(state, tokens)
        _, gradients = grad_fn(state.params, batch, h_0)
        batch = batch._replace(inputs=batch.inputs[:most], targets=batch.targets[:most])
        found = anatomy(state.params, batch, h_0, lags=LAGS)
        return _clipping(gradients.params) | _summary(found)

    def watch(state: Any, tokens: jax.Array) -> dict[str, Any]:
        record = {name: _rounded(value) for name, value in look(state, tokens).items()}
        w_hhs = [np.asarray(cell.w_hh, np.float64) for cell in state.params.cells]
        record["spectral_radius"] = [_rounded(_radius(w)) for w in w_hhs]
        record["largest_singular_value"] = [_rounded(np.linalg.norm(w, 2)) for w in w_hhs]
        return record

    return watch


def _summary(found: Anatomy) -> dict[str, jax.Array | None]:
    levels = jnp.asarray(QUANTILES, found.loss.dtype)
    profiles = [jnp.linalg.norm(layer.d_h_norms, axis=1) for layer in found.layers]
    return {
        "d_h_quantiles": jnp.stack([jnp.quantile(profile, levels) for profile in profiles]),
        "saturated": jnp.stack([_share(layer) for layer in found.layers]),
        "growth": found.decay,
    }


def _share(layer: LayerAnatomy) -> jax.Array:
    """The share of saturated units, of all gates together."""
    return jnp.mean(jnp.stack([jnp.mean(gate.saturated) for gate in layer.gates.values()]))


def _radius(w: np.ndarray) -> float:
    """The spectral radius of a square matrix, otherwise NaN."""
    return float(np.abs(np.linalg.eigvals(w)).max()) if w.shape[0] == w.shape[1] else float("nan")


def _rounded(values: Any) -> Any:
    """As JSON numbers, rounded to `DIGITS` digits."""
    values = np.asarray(values, np.float64)
    if values.ndim:
        return [_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if np.isfinite(values) else None
