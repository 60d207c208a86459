"""The gradient of the weights at each time step."""

from typing import Any

import jax
from jax import lax

from .._batches import check_call, num_read
from .._cells.protocol import hidden
from .._gradients.through_layers import backward_readout
from .._gradients.truncation.windows import pad_steps
from .._losses import make_objective, step_weights
from .._mesh import promote, refuse_explicit
from .._nn.step import weight_gradients as products_back
from .._types import Batch, Loss, Params, ReadoutParams, Scalar, States
from ._passed import full_pass, steps_of


def step_gradients(
    params: Params, batch: Batch, h_0: States, *, loss: str | Loss = "cross_entropy", reduction: str = "mean"
) -> tuple[Scalar, Params]:
    """Compute what each time step adds to the gradient of the weights.

    For the cells, step t adds `x_tᵀ d_a_t`, `h_{t-1}ᵀ d_a_t` and `d_a_t`; for the readout, `h_tᵀ d_y_t` and `d_y_t`,
    which are zero where the loss does not read step t. The sums over the first axis are the gradient of the loss of all
    steps. The parts take T times the memory of the weights; `anatomy` returns the norms only.

    Args:
        params: the network.
        batch: the batch, as for a `GradFn`.
        h_0: the first states, one array per layer.
        loss: the loss, as in `make_grad_fn`.
        reduction: how the losses of the steps are added up, as in `make_grad_fn`.

    Returns:
        `(loss, parts)`: the loss, `()`, and a tree like `params` in which each leaf has a time axis first.

    Raises:
        TypeError: for dtypes that do not fit, as the functions of `make_grad_fn` do.
        ValueError: for shapes that do not fit, or an unknown loss or reduction.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> problem = rnn_jax.verify.make_problem(rnn_jax.verify.Case(time=30), dtype=jnp.float32)
    >>> loss, parts = jax.jit(rnn_jax.analysis.step_gradients)(*problem)
    >>> parts.cells[0].w_hh.shape
    (30, 4, 4)
    >>> (loss, _), gradients = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))(*problem)
    >>> bool(jnp.allclose(parts.cells[0].w_hh.sum(0), gradients.params.cells[0].w_hh, atol=1e-5))
    True
    """
    check_call(params, batch, h_0)
    settle = make_objective(loss, reduction)
    refuse_explicit((params, batch._replace(key=None), h_0), "step_gradients", "gather them")
    params, batch, h_0 = promote((params, batch._replace(key=None), h_0))
    objective = settle(params, batch)
    passed = full_pass(objective, params, batch, h_0)
    cells = tuple(
        lax.map(lambda now, r=r: products_back(r.layer.cell, *now), steps_of(r, layer.deltas))
        for r, layer in zip(passed.saved, passed.layers, strict=True)
    )
    time, last = batch.inputs.shape[0], num_read(batch)
    weights = step_weights(batch, objective.scale.dtype)

    def of_readout(now: Any) -> ReadoutParams:
        h_t, target_t, w_t = jax.tree.map(lambda x: x[None], now)
        step = Batch(h_t, target_t, w_t, drop=batch.drop)
        return backward_readout(objective, params.readout, step, h_t)[1]

    read = lax.map(of_readout, (hidden(params.cells[-1], passed.saved[-1].ss[time - last :]), batch.targets, weights))
    parts = Params(cells, jax.tree.map(lambda d: pad_steps(d, time - last, 0), read))
    return passed.loss, jax.tree.map(lambda d, w: d.astype(w.dtype), parts, params)
