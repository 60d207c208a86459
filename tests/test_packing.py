"""Sequences of several lengths in one batch: packed, padded, masked by their lengths."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import as_users_have_it
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import EXACT, Case, and_gated, assert_trees_close, make_problem, run

import rnn_jax
from rnn_jax.data import _sequences


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
@pytest.mark.parametrize("method, cell", and_gated(EXACT, "bptt", "blocked"))
def test_packed_is_padded_is_apart(method, cell, last):
    lengths = [5, 1, 9, 3, 0, 4, 2]
    case = Case(num_layers=2, loss="cross_entropy", cell=cell)
    params = jax.tree.map(np.asarray, make_problem(case)[0])
    inputs, targets = ragged(lengths, last=last)
    results = []

    def zeros(*batch):
        return tuple(np.zeros((*batch, cell.parts * len(cell.w_hh))) for cell in params.cells)

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


@pytest.mark.parametrize("last, cell", [(None, "vanilla"), (2, "vanilla"), (2, "gru"), (None, "lstm")])
def test_weights_and_masks_go_with_their_sequences(last, cell):
    """Padded, packed, and each sequence alone from a state of zero: one loss, one gradient, holes in front too."""
    lengths = [5, 1, 6, 3, 0, 4, 2]
    case = Case(num_layers=2, loss="cross_entropy", reduction="sum", cell=cell)
    params = jax.tree.map(np.asarray, make_problem(case)[0])
    inputs, targets = ragged(lengths, last=last)
    rng = np.random.default_rng(1)
    mask = [rng.random(n) < 0.7 for n in lengths]
    mask[0][:2], mask[0][2:] = False, True
    mask[5][:] = False
    own = [rng.standard_normal(len(y)) for y in targets]
    for w, m in zip(own, mask, strict=True):
        w[: max(np.argmax(m) if m.any() else len(m), len(m) - len(w)) - (len(m) - len(w))] = 0
    dirty = [np.where(m[:, None], x, np.nan) for x, m in zip(inputs, mask, strict=True)]

    def zeros(*batch):
        return tuple(np.zeros((*batch, cell.parts * len(cell.w_hh))) for cell in params.cells)

    for weights in (None, own):
        loss, d_params = 0.0, jax.tree.map(np.zeros_like, params)
        for i, (x, y, m) in enumerate(zip(inputs, targets, mask, strict=True)):
            if len(x):
                alone = rnn_jax.Batch(x, y, None if weights is None else own[i], mask=m)
                (value, _), d = run("autodiff", case, (params, alone, zeros()))
                loss, d_params = loss + value, jax.tree.map(np.add, d_params, d.params)
        for arrange in (rnn_jax.data.pack_sequences, rnn_jax.data.pad_sequences):
            batch, places = arrange(dirty, targets, weights=weights, mask=mask)
            (value, _), d = run("blocked", case, (params, batch, zeros(batch.inputs.shape[1])))
            assert_trees_close((value, d.params), (loss, d_params), rtol=1e-12)
            for (row, start, length), m in zip(places, mask, strict=True):
                np.testing.assert_array_equal(batch.mask[start : start + length, row], m)


def test_weights_may_be_flags_of_what_was_observed():
    inputs, targets = ragged([3, 2])
    seen = [np.array([True, False, True]), np.array([False, True])]
    batch, _ = rnn_jax.data.pad_sequences(inputs, targets, weights=seen, dtype=jnp.float32)
    assert batch.weights.dtype == jnp.float32 and batch.weights.T.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert batch.mask.T.tolist() == [[True, True, True], [True, True, False]]


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


BAD = [
    (lambda: rnn_jax.data.lengths_to_mask(jnp.ones(3), 4), TypeError, "`lengths` must be integers, got float64."),
    (lambda: rnn_jax.data.lengths_to_mask(jnp.array([1, 5]), 4), ValueError, "`lengths` must be from 0 to the 4 steps, got [1, 5]."),
    (lambda: rnn_jax.data.pack_sequences([], []), ValueError, "`inputs` and `targets` must be non-empty and equally long, got 0 and 0."),
    (lambda: rnn_jax.data.pack_sequences([np.ones(3)], [np.ones(4)]), ValueError, "`targets` must not be longer than their sequence, got 4 for 3 steps at 0."),
    (lambda: rnn_jax.data.pack_sequences([np.ones((3, 2)), np.ones((3, 1))], [np.ones(1)] * 2), ValueError, "`inputs` must have the same dtype and, except for their lengths, the same shape, got float64(3, 2) at 0 and float64(3, 1) at 1."),
    (lambda: rnn_jax.data.pad_sequences([np.ones(3)], [np.ones(2)], weights=[np.ones(3)]), ValueError, "`weights[0]` must have shape (2,) to match `targets[0]`, got (3,)."),
    (lambda: rnn_jax.data.pad_sequences([np.ones(3)], [np.ones(2)], weights=[]), ValueError, "`weights` must be as long as `targets`, got 0 and 1."),
    (lambda: rnn_jax.data.pad_sequences([np.ones(3)], [np.ones(2)], weights=[np.array(["a", "b"])]), TypeError, "`weights[0]` must hold real numbers or booleans, got dtype <U1."),
    (lambda: rnn_jax.data.pad_sequences([np.ones(3)], [np.ones(2)], mask=[np.ones(3)]), TypeError, "`mask[0]` must hold booleans, got dtype float64."),
    (lambda: rnn_jax.data.pack_sequences([np.ones(2)], [np.ones(2)], weights=[[1, 1]], mask=[[False, True]]), ValueError, "`weights[0]` must be zero before the first step that exists, got [1, 1]."),
    (lambda: rnn_jax.data.pack_sequences([np.ones(3)], [np.ones(1)], time=2), ValueError, "`time` must be at least 3, got 2."),
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


@pytest.mark.parametrize("together", [rnn_jax.data.pad_sequences, rnn_jax.data.pack_sequences])
def test_targets_that_are_trees(together):
    """Each leaf as if it were the targets alone; without targets there is nothing to lose."""
    rng = np.random.default_rng(4)
    lengths = (5, 2, 3)
    xs = [rng.standard_normal((n, 3)) for n in lengths]
    trees = [{"value": rng.standard_normal((n, 2)), "seen": rng.random((n, 2)) < 0.5} for n in lengths]
    batch, places = together(xs, trees)
    for name in ("value", "seen"):
        alone, its_places = together(xs, [tree[name] for tree in trees])
        assert places == its_places
        chex.assert_trees_all_equal(batch._replace(targets=batch.targets[name]), alone)
    nothing, its_places = together(xs)
    assert its_places == places and not nothing.weights.any()
    np.testing.assert_array_equal(nothing.inputs, batch.inputs)
    np.testing.assert_array_equal(nothing.mask, batch.mask)
    with pytest.raises(ValueError, match="`targets.1.` must have leaves of equal length, got shapes "):
        together(xs, [trees[0], {"value": trees[1]["value"], "seen": trees[1]["seen"][:1]}, trees[2]])
    with pytest.raises(ValueError, match="`targets` must be trees of the same structure, .* got .* at 1."):
        together(xs, [trees[0], {"value": trees[1]["value"]}, trees[2]])
    with pytest.raises(
        TypeError, match="`targets.0.` must be an array, or in all sequences a dict or NamedTuple, got a tu"
    ):
        together(xs, [(tree["value"], tree["seen"]) for tree in trees])
    with pytest.raises(TypeError, match="`targets.1.` must be an array, .* got a dict"):
        together(xs, [trees[0]["value"], *trees[1:]])
    with pytest.raises(TypeError, match="`targets` must be a list with one entry for each sequence, got dict"):
        together(xs, {"value": [tree["value"] for tree in trees]})
    lists = [{"value": tree["value"].tolist(), "seen": tree["seen"].tolist()} for tree in trees]
    np.testing.assert_array_equal(together(xs, lists)[0].targets["value"], batch.targets["value"])
    np.testing.assert_array_equal(together((x for x in xs), (tree for tree in trees))[0].inputs, batch.inputs)
    weighted, _ = together(xs, weights=[np.arange(n) for n in lengths])
    assert weighted.weights.sum() == sum(sum(range(n)) for n in lengths)
    alike, _ = together(np.ones((2, 5, 3)), np.ones((2, 5, 2)))
    assert alike.mask.all() and alike.targets.shape[-1] == 2
