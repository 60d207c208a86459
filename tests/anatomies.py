"""What holds for the anatomy of any network: for test_anatomy.py, test_anatomy_of_gates.py and test_gated_users.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy
from problems import Case, assert_trees_close, run

import rnn_jax
from rnn_jax._cells.protocol import own_names
from rnn_jax._losses import make_objective, step_weights

EVERYTHING = Case(num_layers=2, weights=True, mask=True, reset=True, leak=0.3, drop=True, time=9)


def found(case, problem, **options):
    return by_numpy(partial(rnn_jax.analysis.anatomy, loss=case.loss, reduction=case.reduction, **options))(*problem)


def step_losses(case, problem):
    """`L_1..L_T` as a function of what is added to each `h_t` and to `h_0`, by the plain scan."""
    params, batch, h_0 = problem
    objective = make_objective(case.loss, case.reduction)(params, batch)
    last, time = batch.targets.shape[0], batch.inputs.shape[0]

    def losses(added, added_h_0):
        weights = objective.scale * step_weights(batch, jnp.float64)
        read = (weights != 0).reshape(weights.shape + (1,) * (batch.targets.ndim - weights.ndim))
        targets = jnp.where(read, batch.targets, jnp.zeros_like(batch.targets))
        layers = iter(added)

        def unroll(cell, h, xs, *, mask, reset, r=None):
            def body(h_tm1, now):
                x_t, mask_t, reset_t, added_t = now
                one = jax.tree.map(lambda x: x[None], (x_t, mask_t, reset_t))
                h_t = rnn_jax.unroll(cell, h_tm1, one[0], mask=one[1], reset=one[2], r=r)[0] + added_t
                return h_t, h_t

            return jax.lax.scan(body, h, (xs, mask, reset, next(layers)))[1]

        start = jax.tree.map(jnp.add, h_0, added_h_0)
        flags = {"mask": batch.mask, "reset": batch.reset, "drop": batch.drop}
        ys, _ = rnn_jax.apply(params, start, batch.inputs, last=last, **flags, unroll=unroll)
        values = weights * objective.loss(ys, targets)[0]
        return jnp.concatenate([jnp.zeros(time - last), jnp.sum(values.reshape(last, -1), 1)])

    nothing = tuple(np.zeros((time, *h.shape)) for h in h_0)
    return losses, nothing, jax.tree.map(np.zeros_like, h_0)


def beside_autodiff(case, problem):
    time = problem[1].inputs.shape[0]
    result = found(case, problem, lags=time)
    assert_trees_close(
        ((result.loss, result.h_T), result.gradients), run("autodiff", case, problem), rtol=1e-12, floor=1e-3
    )
    losses, nothing, nothing_0 = step_losses(case, problem)
    jacobians = by_numpy(jax.jacrev(losses, argnums=(0, 1)))(nothing, nothing_0)
    jacobian, jacobian_0 = jacobians  # [layer][i, j, *batch, hid]
    for layer, (d_hs, d_h_0) in enumerate(zip(jacobian, jacobian_0, strict=True)):
        mine = result.layers[layer]
        assert_trees_close(mine.d_hs, np.sum(d_hs, 0), rtol=1e-12, floor=1e-3)
        local = np.stack([d_hs[i, i] for i in range(time)])
        assert mine.d_hs.shape == mine.d_hs_local.shape
        assert_trees_close(mine.d_hs_local, local, rtol=1e-12, floor=1e-3)
        np.testing.assert_allclose(mine.d_h_norms, np.linalg.norm(mine.d_hs, axis=-1), rtol=1e-12)
        np.testing.assert_allclose(mine.local_norms, np.linalg.norm(mine.d_hs_local, axis=-1), rtol=1e-12)
        grid = np.zeros(result.lag_norms[layer].shape)
        for i in range(time):
            for lag in range(i + 2):
                row = d_h_0[i] if lag == i + 1 else d_hs[i, i - lag]
                grid[lag, i] = np.linalg.norm(row, axis=-1)
        np.testing.assert_allclose(result.lag_norms[layer], grid, rtol=1e-10, atol=1e-14)


def they_add_up(case, problem):
    result = found(case, problem)
    loss, parts = by_numpy(partial(rnn_jax.analysis.step_gradients, loss=case.loss, reduction=case.reduction))(*problem)
    whole = result.gradients.params
    assert_trees_close(
        (loss, jax.tree.map(lambda d: np.sum(d, 0), parts)), (result.loss, whole), rtol=1e-12, floor=1e-3
    )
    for layer, cell, of_steps in zip(result.layers, whole.cells, parts.cells, strict=True):
        for name in ("w_xh", "w_hh", "b_h", *own_names(cell)):
            norms, cosines = getattr(layer.part_norms, name), getattr(layer.part_cosines, name)
            part, total = np.asarray(getattr(of_steps, name)), np.asarray(getattr(cell, name))
            size = np.linalg.norm(total)
            np.testing.assert_allclose(norms, np.linalg.norm(part.reshape(len(part), -1), axis=1), rtol=1e-12)
            assert abs(np.sum(norms * cosines) - size) <= 1e-12 * max(size, 1e-3)


def it_cuts(case, problem, k1, k2):
    result = found(case, problem, k1=k1, k2=k2)
    windows = run("truncated", case, problem, k1=k1, k2=k2)[1].params
    assert_trees_close(result.cut.params, windows, rtol=1e-12, floor=1e-3)
    full = result.gradients.params
    for lost, mine, theirs in zip(*map(jax.tree.leaves, (result.cut.lost, windows, full)), strict=True):
        size = np.linalg.norm(theirs)
        np.testing.assert_allclose(lost, np.linalg.norm(mine - theirs) / size if size else 0, atol=1e-12)
    for norms in result.cut.d_a_norms:
        assert np.all(norms <= 1e-13) if k2 >= 9 else np.any(norms > 1e-6) or case.last == "one"
