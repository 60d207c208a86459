"""The regulariser of Pascanu et al. (2013), compared with its definition by autodiff with `stop_gradient`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy

import rnn_jax
from rnn_jax.analysis import penalise_norms
from rnn_jax.verify import Case, make_problem

PHI = {"tanh": jnp.tanh, "relu": jax.nn.relu, "identity": lambda a: a}


def definition(params, batch, h_0):
    """Ω by the equations, `a_t` made step by step; differentiated with respect to `W_hh`, all other arrays constant."""
    cells = params.cells
    phi = PHI[cells[0].activation]
    d_phi = jnp.vectorize(jax.grad(lambda a: phi(a)))

    def of_activations(a):
        """The loss as a function of what is added to each `a_t`: its gradient there is δ_t."""
        states, seen, outputs = list(h_0), [[] for _ in cells], []
        for t in range(batch.inputs.shape[0]):
            x = batch.inputs[t]
            if jnp.issubdtype(x.dtype, jnp.integer):
                x = jax.nn.one_hot(x, cells[0].w_xh.shape[0], dtype=cells[0].w_xh.dtype)
            for i, cell in enumerate(cells):
                a_t = x @ cell.w_xh + jnp.broadcast_to(cell.b_h, states[i].shape) + states[i] @ cell.w_hh + a[i][t]
                seen[i].append(a_t)
                x = states[i] = phi(a_t)
            outputs.append(rnn_jax.readout(params.readout, x))
        ys = jnp.stack(outputs[-batch.targets.shape[0] :])
        values, _ = rnn_jax.cross_entropy(ys, batch.targets)
        weights = jnp.ones(values.shape) if batch.weights is None else batch.weights
        return jnp.sum(weights * values) / jnp.sum(weights), [jnp.stack(s) for s in seen]

    zeros = [jnp.zeros((batch.inputs.shape[0], *h.shape)) for h in h_0]
    deltas, activations = jax.grad(of_activations, has_aux=True)(zeros)

    def omega(w_hhs):
        total = 0.0
        for w_hh, delta, a in zip(w_hhs, deltas, activations, strict=True):
            terms = []
            for t in range(1, len(delta)):
                d, p = (z.reshape(-1, w_hh.shape[0]) for z in (delta[t], d_phi(a[t - 1])))
                ratio = jnp.linalg.norm((d @ w_hh.T) * p, axis=-1) / jnp.linalg.norm(d, axis=-1)
                terms.append((ratio - 1) ** 2)
            total = total + jnp.mean(jnp.concatenate(terms))
        return total

    return jax.value_and_grad(omega)([cell.w_hh for cell in cells])


CASES = [
    Case(time=7),
    Case(time=2, last="one"),
    Case(time=9, last="one", num_layers=2),
    Case(time=6, activation="relu"),
    Case(time=6, inputs="tokens"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_its_definition(case):
    params, batch, h_0 = make_problem(case)
    problem = params, batch, h_0
    (loss, h_T), plain = by_numpy(rnn_jax.make_grad_fn("autodiff", loss="cross_entropy"))(*problem)
    evaluated = jax.jit if case == CASES[0] else by_numpy
    (penalised_loss, last), gradients = evaluated(penalise_norms(0.7, loss="cross_entropy"))(*problem)
    np.testing.assert_allclose(penalised_loss, loss, rtol=1e-13)
    _, d_w_hhs = by_numpy(definition)(*problem)
    assert max(float(np.abs(d).max()) for d in d_w_hhs) > 1e-2
    for mine, of_loss, d_w_hh in zip(gradients.params.cells, plain.params.cells, d_w_hhs, strict=True):
        expected = of_loss.w_hh + 0.7 * d_w_hh
        np.testing.assert_allclose(mine.w_hh, expected, atol=1e-12 * float(np.abs(expected).max()), rtol=0)
        np.testing.assert_allclose(mine.w_xh, of_loss.w_xh, atol=1e-12)
    np.testing.assert_allclose(gradients.params.readout.w_hy, plain.params.readout.w_hy, atol=1e-12)


def test_one_step_has_nothing_to_keep():
    problem = make_problem(Case(time=1))
    _, plain = by_numpy(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"))(*problem)
    _, gradients = by_numpy(penalise_norms(3.0, loss="cross_entropy"))(*problem)
    np.testing.assert_allclose(gradients.params.cells[0].w_hh, plain.params.cells[0].w_hh, rtol=1e-13)


def test_an_orthogonal_linear_network_has_no_penalty():
    """Every step keeps every norm there."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    cell = rnn_jax.CellParams(rng.standard_normal((3, 6)), rotation, np.zeros(6), "identity")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(rng.standard_normal((6, 2)), np.zeros(2)))
    problem = params, rnn_jax.Batch(np.ones((5, 4, 3)), np.ones((1, 4), int)), (np.zeros((4, 6)),)
    _, plain = by_numpy(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"))(*problem)
    _, gradients = by_numpy(penalise_norms(3.0, loss="cross_entropy"))(*problem)
    np.testing.assert_allclose(gradients.params.cells[0].w_hh, plain.params.cells[0].w_hh, atol=1e-14)


def test_sequences_without_loss_do_not_count():
    """A gradient of zero has no norm to keep, and there is no division by it."""
    params, batch, h_0 = jax.tree.map(np.asarray, make_problem(Case(time=5)))
    weights = np.zeros(batch.targets.shape)
    weights[:, 0] = 1.0
    alone = jax.tree.map(lambda x: x[:, :1], batch._replace(weights=None))
    penalty = by_numpy(penalise_norms(1.0, loss="cross_entropy"))
    _, gradients = penalty(params, batch._replace(weights=weights), h_0)
    _, expected = penalty(params, alone, jax.tree.map(lambda h: h[:1], h_0))
    np.testing.assert_allclose(gradients.params.cells[0].w_hh, expected.params.cells[0].w_hh, rtol=1e-11, atol=1e-14)


def test_what_it_is_not_defined_for():
    params, batch, h_0 = make_problem(Case(time=5))
    with pytest.raises(ValueError, match="`weight` must be"):
        penalise_norms(0.0, loss="cross_entropy")
    penalty = penalise_norms(1.0, loss="cross_entropy")
    with pytest.raises(ValueError, match=r"`batch\.mask` must be None"):
        penalty(params, batch._replace(mask=jnp.ones(batch.inputs.shape[:2], bool)), h_0)
    leaky, batch, h_0 = make_problem(Case(time=5, leak=0.5))
    with pytest.raises(ValueError, match="without leak"):
        penalty(leaky, batch, h_0)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.bfloat16, 0.05), (jnp.float16, 0.01)])
def test_in_a_low_type(dtype, tolerance):
    """Counts and norms are in float32: the penalty of 700 steps is that of float64 within rounding of its arguments."""
    problem = make_problem(Case(time=700, activation="identity"))
    problem = jax.tree.map(lambda x: x * 0.1 if x.dtype == jnp.float64 else x, problem)
    low = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float64 else x, problem)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == dtype else x, low)
    penalty = jax.jit(penalise_norms(1000.0, loss="cross_entropy"))
    found, exact = (np.asarray(penalty(*p)[1].params.cells[0].w_hh, np.float64) for p in (low, rounded))
    assert found.dtype == np.float64 and np.max(np.abs(exact)) > 1
    np.testing.assert_allclose(found, exact, atol=tolerance * np.max(np.abs(exact)))
