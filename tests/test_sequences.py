"""Masks, resets, directions and streams, each compared with every sequence run separately."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import EXACT, GATED, Case, and_gated, assert_trees_close, grad_fn_of, make_problem, options_of, run

import rnn_jax

METHODS = [*EXACT, "truncated", "last_steps", "adaptive"]
TIME = 6
ROWS = {  # the table of docs/sequences.md: mask and reset of each row
    "all steps": ("111111", "000000"),
    "no step": ("000000", "000000"),
    "no step, with resets": ("000000", "101101"),
    "one step": ("100000", "000000"),
    "padded": ("111100", "000000"),
    "padded in front": ("001111", "000000"),
    "holes": ("101101", "000000"),
    "only the last": ("000001", "000000"),
    "reset at the first step": ("111111", "100000"),
    "reset at the last step": ("111111", "000001"),
    "resets one after the other": ("111111", "001110"),
    "reset at a hole": ("110111", "001000"),
    "reset behind a hole": ("110111", "000100"),
    "resets everywhere": ("111111", "111111"),
}


def flags(text):
    return np.array([c == "1" for c in text])


@functools.cache
def rows(cell):
    """One batch whose rows are those of the table, every masked input NaN."""
    activation = "relu" if cell == "vanilla" else "tanh"
    case = Case(
        batch=(len(ROWS),), time=TIME, num_layers=2, weights=True, reduction="sum", activation=activation, cell=cell
    )
    params, batch, h_0 = make_problem(case)
    mask = np.stack([flags(mask) for mask, _ in ROWS.values()], 1)
    reset = np.stack([flags(reset) for _, reset in ROWS.values()], 1)
    dirty = np.where(mask[..., None], np.asarray(batch.inputs), np.nan)
    weights = np.where(mask, batch.weights, 0)
    batch = batch._replace(inputs=dirty, mask=mask, reset=reset, weights=weights)
    return case, *jax.tree.map(np.asarray, (params, batch, h_0))


def alone(case, params, batch, h_0, row):
    """One sequence without its missing steps, cut where it is reset, each part run separately by autodiff."""
    steps = np.flatnonzero(batch.mask[:, row])
    pieces = np.split(steps, [i for i, t in enumerate(steps) if batch.reset[t, row]])
    h, total = tuple(x[row] for x in h_0), 0.0
    d_params, d_h_0, d_xs = None, None, np.zeros((TIME, batch.inputs.shape[-1]))
    for i, piece in enumerate(pieces):
        start = h if i == 0 else jax.tree.map(np.zeros_like, h)
        if len(piece) == 0:
            d_h_0 = jax.tree.map(np.zeros_like, start) if i == 0 else d_h_0
            continue
        part = rnn_jax.Batch(batch.inputs[piece, row], batch.targets[piece, row], batch.weights[piece, row])
        (loss, h), d = run("autodiff", case, (params, part, start))
        total += loss
        d_h_0 = d.h_0 if i == 0 else d_h_0
        d_xs[piece] = d.inputs
        d_params = d.params if d_params is None else jax.tree.map(np.add, d_params, d.params)
    return total, h, d_params, d_h_0, d_xs


@functools.cache
def rows_alone(cell):
    return [alone(*rows(cell), row) for row in range(len(ROWS))]


@pytest.mark.parametrize("method, cell", and_gated(METHODS, "bptt", "blocked", "blocked", "truncated"))
def test_every_row_is_its_sequence_alone(method, cell):
    case, params, batch, h_0 = rows(cell)
    reach = {"truncated": {"k1": 2, "k2": TIME}, "adaptive": {"k1": 2, "bias": 1e-9}, "last_steps": {"k": TIME}}
    (loss, h_T), gradients = run(method, case, (params, batch, h_0), **reach.get(method, {}))
    total, d_params = 0.0, jax.tree.map(np.zeros_like, params)
    for row, name in enumerate(ROWS):
        value, h, d, d_h_0, d_xs = rows_alone(cell)[row]
        total += value
        d_params = d_params if d is None else jax.tree.map(np.add, d_params, d)
        np.testing.assert_allclose(gradients.inputs[:, row], d_xs, atol=1e-12, err_msg=name)
        for layer in range(2):
            np.testing.assert_allclose(h_T[layer][row], h[layer], rtol=1e-12, err_msg=name)
            np.testing.assert_allclose(gradients.h_0[layer][row], d_h_0[layer], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    assert_trees_close(gradients.params, d_params, rtol=1e-12)


@pytest.mark.parametrize("method, cell", and_gated([*METHODS, "randomised"], "bptt", "blocked"))
def test_what_is_masked_touches_nothing(method, cell):
    """To the last bit, compiled: NaN, infinities and huge numbers behind the mask are as good as zeros."""
    case = Case(mask=True, reset=True, num_layers=2, cell=cell)
    grad_fn = jax.jit(grad_fn_of(method, case, **options_of(method)))
    params, batch, h_0 = make_problem(case)
    batch = batch._replace(key=jax.random.key(0))

    def result(garbage):
        inputs = np.where(np.asarray(batch.mask)[..., None], batch.inputs, garbage)
        return grad_fn(params, batch._replace(inputs=jnp.asarray(inputs)), h_0)

    clean = result(0.0)
    of_garbage = {str(garbage): result(garbage) for garbage in (np.nan, np.inf, -np.inf, 1e300)}
    assert_trees_close(of_garbage, dict.fromkeys(of_garbage, clean), rtol=0)


@pytest.mark.parametrize("cell", ["vanilla", *GATED])
@pytest.mark.parametrize("unroll", [rnn_jax.unroll, rnn_jax.unroll_bptt])
def test_both_directions_over_each_row_alone(unroll, cell):
    """Holes, lengths and resets: every piece alone, forwards and flipped."""
    params, batch, _ = make_problem(Case(batch=(len(ROWS),), time=TIME, num_layers=1, cell=cell))
    other, _, _ = make_problem(Case(num_layers=1, cell=cell), seed=1)
    cells = jax.tree.map(np.asarray, (params.cells[0], other.cells[0]))
    size = params.cells[0].parts * 4
    h_0 = tuple(np.random.default_rng(s).standard_normal((len(ROWS), size)) for s in (2, 3))
    mask = np.stack([flags(mask) for mask, _ in ROWS.values()], 1)
    reset = np.stack([flags(reset) for _, reset in ROWS.values()], 1)
    inputs = np.where(mask[..., None], batch.inputs, np.nan)
    hs = by_numpy(functools.partial(rnn_jax.bidirectional, unroll=unroll))(cells, h_0, inputs, mask=mask, reset=reset)
    states = by_numpy(rnn_jax.unroll)
    for row, name in enumerate(ROWS):
        steps = np.flatnonzero(mask[:, row])
        pieces = np.split(steps, [i for i, t in enumerate(steps) if reset[t, row]])
        for i, piece in enumerate(pieces):
            if len(piece) == 0:
                continue
            first, final = i == 0, i == len(pieces) - 1
            there = states(cells[0], h_0[0][row] if first else np.zeros(size), inputs[piece, row])
            back = states(cells[1], h_0[1][row] if final else np.zeros(size), inputs[piece[::-1], row])[::-1]
            np.testing.assert_allclose(
                hs[piece, row], np.concatenate([there[:, :4], back[:, :4]], -1), rtol=1e-12, err_msg=name
            )


def test_both_directions_differentiated():
    params, batch, h_0 = make_problem(Case(batch=(3,), mask=True, reset=True))
    other, _, _ = make_problem(Case(), seed=1)

    def loss(unroll):
        def fn(cells, h_0, xs):
            hs = rnn_jax.bidirectional(cells, h_0, xs, mask=batch.mask, reset=batch.reset, unroll=unroll)
            return jnp.sum(jnp.sin(hs))

        return jax.grad(fn, argnums=(0, 1, 2))

    arguments = (params.cells[0], other.cells[0]), (h_0[0], h_0[0]), batch.inputs
    expected = by_numpy(loss(rnn_jax.unroll))(*arguments)
    for evaluated in (by_numpy, jax.jit):
        assert_trees_close(evaluated(loss(rnn_jax.unroll_bptt))(*arguments), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "case",
    [
        Case(num_layers=2, leak=0.3),
        Case(inputs="tokens", batch=()),
        Case(batch=(2, 2)),
        Case(num_layers=2, cell="lstm"),
        Case(batch=(2, 2), cell="gru"),
    ],
    ids=str,
)
def test_a_stream_is_the_sequence(case, tmp_path):
    """Step by step, the state stored and read in between."""
    params, batch, h_0 = make_problem(case)
    ys, h_T = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs)
    step, h_t = jax.jit(rnn_jax.apply_step), h_0
    for t, x_t in enumerate(batch.inputs):
        y_t, h_t = step(params, h_t, x_t)
        np.testing.assert_allclose(y_t, ys[t], rtol=1e-12)
        np.savez(tmp_path / "state.npz", *h_t)
        with np.load(tmp_path / "state.npz") as stored:
            h_t = tuple(map(jnp.asarray, stored.values()))
    assert_trees_close(h_t, h_T, rtol=1e-12)


@pytest.mark.parametrize(
    "case",
    [Case(num_layers=2, leak=0.3), Case(inputs="tokens", batch=()), Case(cell="gru"), Case(num_layers=2, cell="lstm")],
    ids=str,
)
def test_a_stream_with_flags_is_the_sequence(case):
    """Each step is one of `apply`, NaN where none exists, resets at holes too."""
    params, batch, h_0 = make_problem(case._replace(mask=True, reset=True, time=12))
    reset = batch.reset | ~jnp.asarray(batch.mask)
    flags = {"mask": batch.mask, "reset": reset}
    ys, h_T = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs, **flags)
    h_t = h_0
    for t, x_t in enumerate(batch.inputs):
        y_t, h_t = by_numpy(rnn_jax.apply_step)(params, h_t, x_t, mask=batch.mask[t], reset=reset[t])
        np.testing.assert_allclose(y_t, ys[t], rtol=1e-12)
        h_t = tuple(map(jnp.asarray, h_t))
    assert_trees_close(jax.tree.map(np.asarray, h_t), h_T, rtol=1e-12)


def test_a_learned_first_state():
    """`Gradients.h_0` trains it like any weight."""
    case = Case(loss="squared_error", time=3)
    params, batch, h_0 = make_problem(case)
    grad_fn = jax.jit(rnn_jax.make_grad_fn("blocked", loss=case.loss))
    first, state = grad_fn(params, batch, h_0)[0][0], h_0
    for _ in range(50):
        (loss, _), gradients = grad_fn(params, batch, state)
        state = jax.tree.map(lambda h, d: h - 0.3 * d, state, gradients.h_0)
    assert loss < 0.9 * first
