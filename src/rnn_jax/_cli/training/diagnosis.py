"""What is not finite in a run that cannot go on: which arrays, at which step, after which norms."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ... import Params
from ...typing import GradFn, Trainer, TrainState

SHOWN = 10  # norms of the history


def diagnosis(
    trainer: Trainer, grad_fn: GradFn, next_batch: Callable[..., Any], state: TrainState, tokens: np.ndarray
) -> str:
    """What the next step is made of, from the last good weights: one line for each quantity that is not finite."""

    @jax.jit
    def look(state: TrainState, tokens: jax.Array) -> Any:
        h_0, batch = next_batch(state, tokens)
        (_, h_T), gradients = grad_fn(state.params, batch, h_0)
        return trainer.step(state._replace(h_0=h_0), batch)[1], gradients.params, h_T

    info, d_params, h_T = jax.device_get(look(state, tokens))
    lines = [
        f"Step {int(state.num_steps) + 1:,}, from the last good weights:",
        f"    loss {info.loss:.4g}, norm of the gradient {info.grad_norm:.4g}, of the update {info.update_norm:.4g}",
        *_not_finite("weights", state.params),
        *_not_finite("gradients", d_params),
        *(f"    states of layer {layer}: {_counted(h)}" for layer, h in enumerate(h_T) if not np.isfinite(h).all()),
        f"    the largest weight: {_largest(state.params):.3g}, the largest gradient: {_largest(d_params):.3g}",
    ]
    return "\n".join(lines) + "\n"


def history(records: list[dict[str, Any]]) -> str:
    """The last norms in the metrics of a run."""
    norms = [(record["step"], record["grad_norm"]) for record in records if record.get("grad_norm") is not None]
    rows = [f"    {step:>10,}  {norm:.4g}" for step, norm in norms[-SHOWN:]]
    return "\n".join(["The mean norm of the gradient, before clipping, of the steps up to", *rows, ""]) if rows else ""


def _not_finite(what: str, params: Params) -> list[str]:
    """A line for each array that is not finite."""
    leaves = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree.leaves_with_path(params)]
    wrong = [f"    {what} `params{name}`: {_counted(leaf)}" for name, leaf in leaves if not np.isfinite(leaf).all()]
    return wrong or [f"    {what}: all finite"]


def _counted(x: Any) -> str:
    return f"{np.isnan(x).sum():,} NaN and {np.isinf(x).sum():,} infinite of {np.size(x):,}"


def _largest(params: Params) -> float:
    return max(float(np.max(np.abs(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(params))
