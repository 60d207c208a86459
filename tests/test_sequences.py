"""Masks, lengths, resets, packing, directions, streams: each convention beside every sequence run alone."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from commands import as_users_have_it
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import EXACT, Case, assert_trees_close, cast, grad_fn_of, make_problem, options_of, run, run_compiled

import rnn_jax
from rnn_jax.data import _sequences

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
def rows():
    """One batch whose rows are those of the table, every masked input NaN."""
    case = Case(batch=(len(ROWS),), time=TIME, num_layers=2, weights=True, reduction="sum", activation="relu")
    params, batch, h_0 = make_problem(case)
    mask = np.stack([flags(mask) for mask, _ in ROWS.values()], 1)
    reset = np.stack([flags(reset) for _, reset in ROWS.values()], 1)
    dirty = np.where(mask[..., None], np.asarray(batch.inputs), np.nan)
    weights = np.where(mask, batch.weights, 0)
    batch = batch._replace(inputs=dirty, mask=mask, reset=reset, weights=weights)
    return case, *jax.tree.map(np.asarray, (params, batch, h_0))


def alone(case, params, batch, h_0, row):
    """One sequence without its missing steps, cut where it is reset: each piece run by autodiff on its own."""
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
def rows_alone():
    return [alone(*rows(), row) for row in range(len(ROWS))]


@pytest.mark.parametrize("method", METHODS)
def test_every_row_is_its_sequence_alone(method):
    case, params, batch, h_0 = rows()
    reach = {"truncated": {"k1": 2, "k2": TIME}, "adaptive": {"k1": 2, "bias": 1e-9}, "last_steps": {"k": TIME}}
    (loss, h_T), gradients = run(method, case, (params, batch, h_0), **reach.get(method, {}))
    total, d_params = 0.0, jax.tree.map(np.zeros_like, params)
    for row, name in enumerate(ROWS):
        value, h, d, d_h_0, d_xs = rows_alone()[row]
        total += value
        d_params = d_params if d is None else jax.tree.map(np.add, d_params, d)
        np.testing.assert_allclose(gradients.inputs[:, row], d_xs, atol=1e-12, err_msg=name)
        for layer in range(2):
            np.testing.assert_allclose(h_T[layer][row], h[layer], rtol=1e-12, err_msg=name)
            np.testing.assert_allclose(gradients.h_0[layer][row], d_h_0[layer], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    assert_trees_close(gradients.params, d_params, rtol=1e-12)


@pytest.mark.parametrize("method", [*METHODS, "randomised"])
def test_what_is_masked_touches_nothing(method):
    """To the last bit, compiled: NaN, infinities and huge numbers behind the mask are as good as zeros."""
    case = Case(mask=True, reset=True, num_layers=2)
    grad_fn = jax.jit(grad_fn_of(method, case, **options_of(method)))
    params, batch, h_0 = make_problem(case)
    batch = batch._replace(key=jax.random.key(0))

    def result(garbage):
        inputs = np.where(np.asarray(batch.mask)[..., None], batch.inputs, garbage)
        return grad_fn(params, batch._replace(inputs=jnp.asarray(inputs)), h_0)

    clean = result(0.0)
    of_garbage = {str(garbage): result(garbage) for garbage in (np.nan, np.inf, -np.inf, 1e300)}
    assert_trees_close(of_garbage, dict.fromkeys(of_garbage, clean), rtol=0)


def ragged(lengths, seed=0, last=None, size=3):
    rng = np.random.default_rng(seed)
    inputs = [0.7 * rng.standard_normal((n, size)) for n in lengths]
    targets = [rng.integers(0, 5, n if last is None else min(n, last)) for n in lengths]
    return inputs, targets


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), data=st.data())
def test_packed_rows_hold_every_sequence_once(lengths, data):
    inputs, targets = ragged(lengths, last=data.draw(st.sampled_from([None, 1, 2])))
    time = max(lengths) + data.draw(st.integers(0, 4))
    batch, places = rnn_jax.data.pack_sequences(inputs, targets, time=time)
    assert batch.inputs.shape[0] == time
    batch = rnn_jax.Batch(*(None if x is None else np.asarray(x) for x in batch))
    assert batch.mask.sum() == sum(lengths) and (batch.weights > 0).sum() == sum(map(len, targets))
    for x, y, (row, start, length) in zip(inputs, targets, places, strict=True):
        np.testing.assert_array_equal(batch.inputs[start : start + length, row], x)
        np.testing.assert_array_equal(batch.targets[start + length - len(y) : start + length, row], y)
        assert length == 0 or bool(batch.reset[start, row])
    best = -(-sum(lengths) // time)
    assert best <= batch.inputs.shape[1] <= 2 * best + 1


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_packed_tokens(dtype):
    """The weights are of the parameters' dtype: JAX's default, which is float64 here, or what is asked for."""
    tokens = [np.arange(n) % 3 for n in (5, 2, 3)]
    batch, _ = rnn_jax.data.pack_sequences(tokens, tokens, dtype=dtype)
    params = rnn_jax.init_params(
        jax.random.key(0), input_size=3, hidden_size=4, output_size=3, dtype=float if dtype is None else dtype
    )
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    _, gradients = jax.eval_shape(grad_fn, params, batch, rnn_jax.zero_state(params, 2))
    assert gradients.params.cells[0].w_hh.dtype == batch.weights.dtype


def test_packing_many_is_quick_enough_to_be_used():
    lengths = np.random.default_rng(0).integers(50, 101, 20_000)
    places = _sequences._packed(lengths.tolist(), 150)
    rows = np.zeros(1 + max(place.row for place in places), int)
    for place in sorted(places):
        assert place.start == rows[place.row]
        rows[place.row] += place.length
    assert rows.max() <= 150 and rows.sum() == lengths.sum()


@pytest.mark.parametrize("last", [None, 1])
@pytest.mark.parametrize("method", EXACT)
def test_packed_is_padded_is_apart(method, last):
    lengths = [5, 1, 9, 3, 0, 4, 2]
    case = Case(num_layers=2, loss="cross_entropy")
    params = jax.tree.map(np.asarray, make_problem(case)[0])
    inputs, targets = ragged(lengths, last=last)
    results = []

    def zeros(*batch):
        return tuple(np.zeros((*batch, len(cell.b_h))) for cell in params.cells)

    for arrange in (rnn_jax.data.pack_sequences, rnn_jax.data.pad_sequences):
        batch, places = arrange(inputs, targets)
        (loss, _), gradients = run(method, case, (params, batch, zeros(batch.inputs.shape[1])))
        d_xs = [gradients.inputs[start : start + n, row] for row, start, n in places]
        results.append((loss, gradients.params, d_xs))
    assert_trees_close(results[0], results[1], rtol=1e-12)

    loss, d_params = 0.0, jax.tree.map(np.zeros_like, params)
    for x, y in zip(inputs, targets, strict=True):
        if len(x):
            (value, _), d = run("autodiff", case._replace(reduction="sum"), (params, rnn_jax.Batch(x, y), zeros()))
            loss, d_params = loss + value, jax.tree.map(np.add, d_params, d.params)
    count = sum(map(len, targets))
    assert_trees_close(results[0][:2], (loss / count, jax.tree.map(lambda d: d / count, d_params)), rtol=1e-12)


def test_packing_takes_fewer_rows():
    inputs, targets = ragged([10, 1, 2, 3, 4])
    packed, _ = rnn_jax.data.pack_sequences(inputs, targets)
    padded, _ = rnn_jax.data.pad_sequences(inputs, targets)
    assert (packed.inputs.shape, padded.inputs.shape) == ((10, 2, 3), (10, 5, 3))


def test_lengths():
    lengths = jnp.array([[3, 0], [5, 1]])
    mask = rnn_jax.data.lengths_to_mask(lengths, 5)
    assert mask.shape == (5, 2, 2) and mask.dtype == bool
    np.testing.assert_array_equal(mask.sum(0), lengths)
    np.testing.assert_array_equal(jax.jit(rnn_jax.data.lengths_to_mask, static_argnums=1)(lengths, 5), mask)
    assert rnn_jax.data.lengths_to_mask(2, 3).tolist() == [True, True, False]


@pytest.mark.parametrize("unroll", [rnn_jax.unroll, rnn_jax.unroll_bptt])
def test_both_directions_over_each_row_alone(unroll):
    """Holes, lengths and resets: every piece alone, forwards and flipped."""
    params, batch, _ = make_problem(Case(batch=(len(ROWS),), time=TIME, num_layers=1))
    other, _, _ = make_problem(Case(num_layers=1), seed=1)
    cells = jax.tree.map(np.asarray, (params.cells[0], other.cells[0]))
    h_0 = tuple(np.random.default_rng(s).standard_normal((len(ROWS), 4)) for s in (2, 3))
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
            there = states(cells[0], h_0[0][row] if first else np.zeros(4), inputs[piece, row])
            back = states(cells[1], h_0[1][row] if final else np.zeros(4), inputs[piece[::-1], row])[::-1]
            np.testing.assert_allclose(hs[piece, row], np.concatenate([there, back], -1), rtol=1e-12, err_msg=name)


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
    "case", [Case(num_layers=2, leak=0.3), Case(inputs="tokens", batch=()), Case(batch=(2, 2))], ids=str
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


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_a_leak_is_the_equation(activation):
    case = Case(activation=activation, leak=0.3)
    params, batch, h_0 = make_problem(case)
    cell = params.cells[0]
    w_xh, w_hh, b_h = map(np.asarray, (cell.w_xh, cell.w_hh, cell.b_h))
    phi = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "identity": lambda a: a}[activation]
    h = np.asarray(h_0[0])
    hs = by_numpy(rnn_jax.unroll)(cell, h_0[0], batch.inputs)
    for x, h_t in zip(np.asarray(batch.inputs), hs, strict=True):
        h = 0.7 * h + 0.3 * phi(x @ w_xh + h @ w_hh + b_h)
        np.testing.assert_allclose(h_t, h, rtol=1e-12)


def test_a_leak_under_the_transformations():
    params, batch, h_0 = make_problem(Case(leak=0.3, mask=True, reset=True))
    arguments = params.cells[0], h_0[0], jnp.where(batch.mask[..., None], batch.inputs, 0)
    tangents = jax.tree.map(lambda x: jnp.asarray(np.cos(x)), arguments)

    def states(unroll):
        return lambda *args: unroll(*args, mask=batch.mask, reset=batch.reset)

    mine, theirs = states(rnn_jax.unroll_bptt), states(rnn_jax.unroll)
    jvps = [by_numpy(lambda *a, f=f: jax.jvp(f, a, tangents))(*arguments) for f in (mine, theirs)]
    assert_trees_close(*jvps, rtol=1e-12)
    grads = [jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2)) for f in (mine, theirs)]
    expected = by_numpy(grads[1])(*arguments)
    for evaluated in (by_numpy, jax.jit):
        assert_trees_close(evaluated(grads[0])(*arguments), expected, rtol=1e-12)


def test_relu_with_a_leak_in_float32():
    """φ' from two rounded states would be wrong near the kink; from the pre-activation it is right."""
    case = Case(activation="relu", leak=0.1, time=40)
    problem = make_problem(case)
    low, truth = cast(problem, jnp.float32), cast(run("autodiff", case, problem), jnp.float32)
    of_method = {method: run_compiled(method, case, low) for method in EXACT}
    assert_trees_close(of_method, dict.fromkeys(EXACT, truth), rtol=2e-5)


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


BAD = [
    (lambda: rnn_jax.data.lengths_to_mask(jnp.ones(3), 4), TypeError, "`lengths` must be integers, got float64."),
    (lambda: rnn_jax.data.lengths_to_mask(jnp.array([1, 5]), 4), ValueError, "`lengths` must be from 0 to the 4 steps, got [1, 5]."),
    (lambda: rnn_jax.data.pack_sequences([], []), ValueError, "`inputs` and `targets` must be as many, and at least one, got 0 and 0."),
    (lambda: rnn_jax.data.pack_sequences([np.ones(3)], [np.ones(4)]), ValueError, "`targets` must be at most as long as their sequence, got 4 for 3 steps at 0."),
    (lambda: rnn_jax.data.pack_sequences([np.ones((3, 2)), np.ones((3, 1))], [np.ones(1)] * 2), ValueError, "`inputs` must be of one dtype and shape but for their lengths"),
    (lambda: rnn_jax.data.pack_sequences([np.ones(3)], [np.ones(1)], time=2), ValueError, "`time` must be at least 3, got 2."),
    (lambda: rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=1, output_size=1, leak=0.0), ValueError, "`leak` must be above 0 and at most 1, got 0.0."),
    (lambda: rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=1, output_size=1, leak="a"), TypeError, "`leak` must be a number above 0 and at most 1, got 'a'."),
]  # fmt: skip


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("call, error, message", BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_arrays_of_numpy_as_users_have_them():
    """64 bits are cut to 32 without a warning where nothing is lost, and refused where a token would wrap."""
    with as_users_have_it(), warnings.catch_warnings():
        warnings.simplefilter("error")
        features = [np.random.default_rng(0).standard_normal((n, 2)) for n in (3, 5)]
        batch, _ = rnn_jax.data.pad_sequences(features, [np.zeros(1, np.int64)] * 2)
        assert {x.dtype for x in (batch.inputs, batch.weights)} == {jnp.dtype(jnp.float32)}
        tokens = [np.array([1, 2]), np.array([5_000_000_000])]
        for arrange in (rnn_jax.data.pad_sequences, rnn_jax.data.pack_sequences):
            with pytest.raises(ValueError, match=r"`inputs\[1\]` must hold integers that fit int32, .* got 5000000000"):
                arrange(tokens, [t[-1:] * 0 for t in tokens])
            with pytest.raises(ValueError, match=r"`targets\[1\]` must hold integers that fit int32"):
                arrange([t * 0 for t in tokens], tokens)
        for lengths in ([2**40], np.array([2**32 + 1])):
            with pytest.raises(ValueError, match="`lengths` must hold integers that fit int32"):
                rnn_jax.data.lengths_to_mask(lengths, 3)
        half = [x.astype(jnp.bfloat16) for x in features]
        for given, dtype in ((half, None), (features, jnp.bfloat16)):
            batch, _ = rnn_jax.data.pad_sequences(given, [x[-1:] for x in given], dtype=dtype)
            assert {x.dtype for x in (batch.inputs, batch.targets, batch.weights)} == {jnp.dtype(jnp.bfloat16)}
        params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=3)
        h_0 = rnn_jax.zero_state(params)
        grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")
        with pytest.raises(ValueError, match="`batch.inputs` must hold integers that fit int32"):
            grad_fn(params, rnn_jax.Batch(tokens[1], tokens[1]), h_0)
        with pytest.raises(ValueError, match="`batch.targets` must hold integers that fit int32"):
            grad_fn(params, rnn_jax.Batch(tokens[0][:1], tokens[1]), h_0)
        with pytest.raises(ValueError, match="`prompt` must hold integers that fit int32"):
            rnn_jax.generate(jax.random.key(0), params, tokens[1], 2)
        with pytest.raises(ValueError, match="`streams` must hold integers that fit int32"):
            rnn_jax.data.window_batch(np.repeat(tokens[1], 9)[:, None], 0, 3)
