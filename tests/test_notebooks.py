"""The tasks of the teaching notebooks, computed correctly and compared with the notebooks' faults."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from problems import EXACT, HID, IN, OUT, Case, assert_trees_close, make_problem, run
from witness import as_numpy, central_differences, one_hot, softmax

import rnn_jax

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 30
    return module


def test_number_sequence():
    assert abs(load("number_sequence").main() - 4) < 0.05


def test_sine():
    one_step, free_running = load("sine").main()
    assert one_step < 0.02
    assert free_running < 0.1


def test_hello_world():
    assert load("hello_world").main() == "hello world"


def char_loss_with_clipping(w_xh, w_hh, w_hy, b_h, b_y, tokens, targets, h):
    """The loop of the character notebook with its clipping by value, in row vectors."""
    hs, ps, loss = [h], [], 0.0
    for token, target in zip(tokens, targets, strict=True):
        hs.append(np.tanh(w_xh[token] + hs[-1] @ w_hh + b_h))
        ps.append(softmax(hs[-1] @ w_hy + b_y))
        loss -= np.log(ps[-1][target])
    d_w_xh, d_w_hh, d_w_hy, d_b_h, d_b_y = map(np.zeros_like, (w_xh, w_hh, w_hy, b_h, b_y))
    d_h_next = np.zeros_like(h)
    for t in reversed(range(len(tokens))):
        d_y = ps[t] - one_hot(targets[t], len(b_y))
        d_w_hy += np.outer(hs[t + 1], d_y)
        d_b_y += d_y
        d_a = (1 - hs[t + 1] ** 2) * (w_hy @ d_y + d_h_next)
        d_b_h += d_a
        d_w_xh[tokens[t]] += d_a
        d_w_hh += np.outer(hs[t], d_a)
        d_h_next = w_hh @ d_a
    return loss, hs[-1], [np.clip(d, -5, 5) for d in (d_w_xh, d_w_hh, d_b_h, d_w_hy, d_b_y)]


@pytest.mark.parametrize("method", EXACT)
def test_the_character_notebooks_loss_function(method):
    """000: the summed loss, the last state and the gradients clipped to ±5, which is active here."""
    vocabulary, time = 7, 60
    rng = np.random.default_rng(3)
    rotation, _ = np.linalg.qr(rng.standard_normal((HID, HID)))
    weights = rng.standard_normal((vocabulary, HID)), 1.4 * rotation, np.zeros(HID)
    cell = rnn_jax.CellParams(*map(jnp.asarray, weights), "tanh")
    readout = rng.standard_normal((HID, vocabulary)), np.zeros(vocabulary)
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(*map(jnp.asarray, readout)))
    tokens, targets = rng.integers(0, vocabulary, time), rng.integers(0, vocabulary // 2, time)
    h_0 = (jnp.asarray(rng.standard_normal(HID)),)
    grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy", reduction="sum")
    (loss, h_T), gradients = by_numpy(grad_fn)(params, rnn_jax.Batch(tokens, targets), h_0)
    clip = optax.clip(5.0)
    clipped, _ = by_numpy(clip.update)(gradients.params, clip.init(params))

    (cell,), readout = params
    weights = map(np.asarray, (cell.w_xh, cell.w_hh, readout.w_hy, cell.b_h, readout.b_y))
    expected_loss, expected_h, expected = char_loss_with_clipping(*weights, tokens, targets, np.asarray(h_0[0]))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    np.testing.assert_allclose(h_T[0], expected_h, rtol=1e-12)
    assert_trees_close(jax.tree.leaves(clipped), expected, rtol=1e-12)
    assert max(np.max(np.abs(d)) for d in jax.tree.leaves(gradients.params)) > 5 == np.max(clipped.readout.b_y)


def many_to_one_as_published(w_xh, w_hh, w_hy, xs, hs, d_y):
    """001's backward loop: (d_w_hy, d_w_hh); it needs as many inputs as units."""
    d_w_hy, d_w_hh = np.zeros_like(w_hy), np.zeros_like(w_hh)
    d_h = w_hy @ d_y
    for t in reversed(range(len(xs))):
        d_w_hy += np.outer(hs[t + 1], d_y)  # though only the last state is read out
        d_a = (1 - hs[t + 1] ** 2) * d_h
        d_w_hh += np.outer(hs[t], d_a)
        d_h = w_xh @ d_a + w_hh @ d_a  # the gradient of x_t does not belong to h_{t-1}
    return d_w_hy, d_w_hh


def test_the_many_to_one_notebook():
    """001: its readout and recurrent gradients are wrong for T > 1, and it has none for b_y; ours are right."""
    case = Case(batch=(), time=3, last="one", loss="squared_error")
    params, batch, h_0 = make_problem(case)
    square = rnn_jax.CellParams(jnp.asarray(np.eye(HID)), params.cells[0].w_hh, params.cells[0].b_h, "tanh")
    inputs = jnp.asarray(np.random.default_rng(5).standard_normal((3, HID)))
    problem = (params._replace(cells=(square,)), batch._replace(inputs=inputs), (jnp.zeros(HID),))
    ((cell,), readout), batch, h_0 = problem
    _, ours = run("bptt", case, problem)
    truth = central_differences(case, problem)

    hs = [np.zeros(HID), *by_numpy(rnn_jax.unroll)(cell, h_0[0], inputs)]
    d_y = 2 * (hs[-1] @ np.asarray(readout.w_hy) + np.asarray(readout.b_y) - np.asarray(batch.targets)[0])
    weights = map(np.asarray, (cell.w_xh, cell.w_hh, readout.w_hy))
    d_w_hy, d_w_hh = many_to_one_as_published(*weights, np.asarray(inputs), hs, d_y)
    for right, published, exact in (
        (ours.params.readout.w_hy, d_w_hy, truth[3]),
        (ours.params.cells[0].w_hh, d_w_hh, truth[1]),
    ):
        np.testing.assert_allclose(right, exact, rtol=1e-7, atol=1e-8)
        assert np.max(np.abs(published - exact)) > 0.1 * np.max(np.abs(exact))
    np.testing.assert_allclose(ours.params.readout.b_y, d_y, rtol=1e-12)  # 001 accumulates nothing here
    assert np.max(np.abs(d_y)) > 0.1


def test_the_tutorials_mean_squared_error():
    """002: the gradient of (1/T) Σ (ŷ - y)² is 2/T (ŷ - y), not ŷ - y."""
    case = Case(batch=(), loss="squared_error", time=7)
    params, batch, h_0 = make_problem(case)
    ys, _ = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)
    _, ours = run("bptt", case, (params, batch, h_0))
    published = np.sum(ys - np.asarray(batch.targets), axis=0)
    truth = central_differences(case, (params, batch, h_0))[4]
    np.testing.assert_allclose(ours.params.readout.b_y, truth, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.params.readout.b_y, published * 2 / 7, rtol=1e-12)
    np.testing.assert_allclose(published / truth, 3.5, rtol=1e-6)


def number_training(weights, num_epochs, *, inside, k):
    """003's training on 1..10 -> 2..11 with its rate and clipping, in row vectors; returns the losses.

    `inside`: the readout is updated inside the loop that still uses it. `k`: the backward loop ends after k steps.
    """
    (w_xh, w_hh, b_h), (w_hy, b_y) = weights
    losses = []
    for _ in range(num_epochs):
        hs = [np.zeros(10)]
        for t in range(10):
            hs.append(np.tanh((t + 1) * w_xh[0] + hs[-1] @ w_hh + b_h))
        d_ys = [2 * (h @ w_hy + b_y - (t + 2)) for t, h in enumerate(hs[1:])]
        losses.append(sum(float(np.sum(d_y**2)) / 4 for d_y in d_ys))
        d_reads, d_w_hy, d_b_y = [], np.zeros_like(w_hy), np.zeros_like(b_y)
        for h, d_y in zip(hs[1:], d_ys, strict=True):
            d_reads.append(w_hy @ d_y)
            d_w_hy, d_b_y = d_w_hy + np.outer(h, d_y), d_b_y + d_y
            if inside:
                w_hy = w_hy - 0.001 * np.clip(np.outer(h, d_y), -1, 1)
                b_y = b_y - 0.001 * np.clip(d_y, -1, 1)
        d_w_xh, d_w_hh, d_b_h, d_h_next = np.zeros_like(w_xh), np.zeros_like(w_hh), np.zeros_like(b_h), np.zeros(10)
        for t in reversed(range(10 - k, 10)):
            d_a = (d_reads[t] + d_h_next) * (1 - hs[t + 1] ** 2)
            d_w_xh, d_w_hh, d_b_h = d_w_xh + (t + 1) * d_a, d_w_hh + np.outer(hs[t], d_a), d_b_h + d_a
            d_h_next = w_hh @ d_a
        if not inside:
            w_hy, b_y = w_hy - 0.001 * np.clip(d_w_hy, -1, 1), b_y - 0.001 * np.clip(d_b_y, -1, 1)
        w_xh, w_hh = w_xh - 0.001 * np.clip(d_w_xh, -1, 1), w_hh - 0.001 * np.clip(d_w_hh, -1, 1)
        b_h = b_h - 0.001 * np.clip(d_b_h, -1, 1)
    return losses


def number_problem():
    """003's network, 1 input, 10 units, 1 output, weights normal with deviation 0.1, and its sequence."""
    rng = np.random.default_rng(42)
    w_xh, w_hh, w_hy = (0.1 * rng.standard_normal(shape) for shape in ((1, 10), (10, 10), (10, 1)))
    weights = (w_xh, w_hh, np.zeros(10)), (w_hy, np.zeros(1))
    cell, readout = (tuple(map(jnp.asarray, group)) for group in weights)
    params = rnn_jax.Params((rnn_jax.CellParams(*cell, "tanh"),), rnn_jax.ReadoutParams(*readout))
    numbers = jnp.arange(1.0, 12.0)[:, None]
    return weights, params, rnn_jax.Batch(numbers[:-1], numbers[1:])


def test_the_number_notebooks_training():
    """003: W_hy is changed inside the loop that still uses it, and the backward loop of its last cell ends after five
    steps. With both the loss rises from its minimum to 61, as the notebook prints. Ours, at the same rate and
    clipping, takes the steps of the same loop without the two, and falls."""
    weights, params, batch = number_problem()
    published = number_training(weights, 1900, inside=True, k=5)
    assert 25 < min(published[:200]) < 45 and 58 < published[-1] < 63

    grad_fn = rnn_jax.make_grad_fn("bptt", loss="squared_error", reduction="sum")
    trainer = rnn_jax.make_trainer(grad_fn, rnn_jax.clipped_sgd(0.001, max_value=1.0), carry=True)
    zeros = rnn_jax.zero_state(params)

    def step(state, _):
        return trainer.step(state._replace(h_0=zeros), batch)

    _, infos = jax.jit(lambda state: jax.lax.scan(step, state, length=1900))(trainer.init(params, zeros))
    np.testing.assert_allclose(infos.loss, number_training(weights, 1900, inside=False, k=10), rtol=1e-8)
    assert infos.loss[-1] < 1 < published[-1]
    assert number_training(weights, 1900, inside=True, k=10)[-1] < 1  # the update alone does not make it rise
    stuck = number_training(weights, 1900, inside=False, k=5)
    assert 50 < min(stuck) and stuck[-1] < 1.05 * min(stuck)  # nor does the truncation: it only ends the fall


def test_an_update_inside_the_loop_is_no_gradient():
    """003: the first step of W_hy inside the loop, and with it every later `W_hyᵀ d_y`, is taken at other weights than
    the loss: what arrives at the hidden states is not ∂L/∂h_t. Ours is."""
    case = Case(batch=(), time=3, loss="squared_error", reduction="sum")
    problem = make_problem(case)
    weights, batch, h, xs = as_numpy(problem)
    (w_xh, w_hh, b_h), (w_hy, b_y) = weights
    hs = [h[0]]
    for x in xs:
        hs.append(np.tanh(x @ w_xh + hs[-1] @ w_hh + b_h))
    d_reads, changed = [], w_hy
    for h_t, target in zip(hs[1:], batch.targets, strict=True):
        d_y = 2 * (h_t @ w_hy + b_y - target)
        d_reads.append(changed @ d_y)
        changed = changed - 0.1 * np.outer(h_t, d_y)
    d_b_h, d_h_next = np.zeros(HID), np.zeros(HID)
    for t in reversed(range(3)):
        d_a = (d_reads[t] + d_h_next) * (1 - hs[t + 1] ** 2)
        d_b_h, d_h_next = d_b_h + d_a, w_hh @ d_a
    truth = central_differences(case, problem)[2]
    _, ours = run("bptt", case, problem)
    np.testing.assert_allclose(ours.params.cells[0].b_h, truth, rtol=1e-7, atol=1e-7)
    assert np.max(np.abs(d_b_h - truth)) > 0.1 * np.max(np.abs(truth))


def last_k_only(params, xs, targets, k):
    """003's "truncated" d_b_h: the loop ends after the last k steps, so the losses before them are dropped."""
    (w_xh, w_hh, b_h), (w_hy, b_y) = params
    hs = [np.zeros(HID)]
    for x in xs:
        hs.append(np.tanh(x @ w_xh + hs[-1] @ w_hh + b_h))
    d_b_h, d_h_next = np.zeros(HID), np.zeros(HID)
    for t in reversed(range(len(xs) - k, len(xs))):
        d_a = (w_hy @ (2 * (hs[t + 1] @ w_hy + b_y - targets[t])) + d_h_next) * (1 - hs[t + 1] ** 2)
        d_b_h += d_a
        d_h_next = w_hh @ d_a
    return d_b_h


def test_the_number_notebooks_truncation():
    """003: its truncation does not see the early losses at all; windows with a carried state see every loss."""
    case = Case(batch=(), time=6, loss="squared_error", reduction="sum")
    params, batch, _ = make_problem(case)
    zeros = rnn_jax.zero_state(params)
    grad_fn = by_numpy(rnn_jax.make_grad_fn("bptt", loss=case.loss, reduction="sum"))
    weights, _, _, xs = as_numpy((params, batch, zeros))
    targets = np.asarray(batch.targets)
    changed = targets.copy()
    changed[0] += 10.0

    def windows(targets):
        """d_b_h of truncated BPTT: two calls of three steps, the state carried, each gradient stopped at the edge."""
        (_, h), first = grad_fn(params, rnn_jax.Batch(xs[:3], targets[:3]), zeros)
        _, second = grad_fn(params, rnn_jax.Batch(xs[3:], targets[3:]), h)
        return first.params.cells[0].b_h + second.params.cells[0].b_h

    def by_definition(b_h):
        """The same by autodiff: the full loss with `stop_gradient` on the state at the edge."""
        cell = rnn_jax.CellParams(params.cells[0].w_xh, params.cells[0].w_hh, b_h, "tanh")
        first = rnn_jax.unroll(cell, zeros[0], batch.inputs[:3])
        second = rnn_jax.unroll(cell, jax.lax.stop_gradient(first[-1]), batch.inputs[3:])
        ys = rnn_jax.readout(params.readout, jnp.concatenate([first, second]))
        return jnp.sum((ys - batch.targets) ** 2)

    expected = by_numpy(jax.grad(by_definition))(params.cells[0].b_h)
    np.testing.assert_allclose(windows(targets), expected, rtol=1e-12)
    published = [last_k_only(weights, xs, x, 3) for x in (targets, changed)]
    np.testing.assert_array_equal(*published)  # the first step's loss is not in it
    assert np.linalg.norm(windows(changed) - windows(targets)) > 1


def test_the_forum_case():
    """x_t = w x_{t-1}, x_0 = 0.9, w = 0.2: dx_3/dw = 3 w² x_0 = 0.108; a widely copied snippet returns 0.2880."""
    one, zero = jnp.ones((1, 1)), jnp.zeros(1)
    cell = rnn_jax.CellParams(0 * one, 0.2 * one, zero, "identity")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(one, zero))
    own = rnn_jax.pointwise(lambda y, target: y[0])
    batch = rnn_jax.Batch(jnp.zeros((3, 1)), jnp.zeros((1, 1)))
    for method in EXACT:
        _, gradients = by_numpy(rnn_jax.make_grad_fn(method, loss=own))(params, batch, (jnp.array([0.9]),))
        np.testing.assert_allclose(gradients.params.cells[0].w_hh, [[0.108]], rtol=1e-12)


def test_the_cell_notebooks_exercises():
    """003, questions 1 to 3: the step returns a state and a cache; the pass over time; its gradient, checked."""
    assert (IN, OUT) == (3, 5)
    params, _, _ = make_problem(Case(batch=()))
    cell, x_t, h = params.cells[0], jnp.asarray(np.ones(IN)), jnp.asarray(np.full(HID, 0.3))
    h_t, cache = rnn_jax.step_forward(cell, h, x_t)
    w_xh, w_hh, b_h = map(np.asarray, (cell.w_xh, cell.w_hh, cell.b_h))
    np.testing.assert_allclose(h_t, np.tanh(np.ones(IN) @ w_xh + np.full(HID, 0.3) @ w_hh + b_h), rtol=1e-14)
    assert cache.h_t is h_t
    xs = jnp.asarray(np.outer([1.0, -1.0, 2.0, 1.0], np.ones(IN)))
    np.testing.assert_allclose(by_numpy(rnn_jax.unroll)(cell, h, xs)[0], h_t, rtol=1e-14)

    def summed_states(w_xh):
        return jnp.sum(rnn_jax.unroll_bptt(rnn_jax.CellParams(w_xh, cell.w_hh, cell.b_h, "tanh"), h, xs))

    by_hand, value, step = by_numpy(jax.grad(summed_states))(w_xh), by_numpy(summed_states), 1e-6
    for i, j in np.ndindex(*w_xh.shape):
        nudge = np.zeros_like(w_xh)
        nudge[i, j] = step
        difference = (value(w_xh + nudge) - value(w_xh - nudge)) / (2 * step)
        np.testing.assert_allclose(by_hand[i, j], difference, rtol=1e-7, atol=1e-8)
