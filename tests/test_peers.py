"""Facts from the recurrent tests of other libraries: their inputs, and the numbers or relations that they expect.

Keras expects numbers, which are here as in its files. flax and haiku expect relations, which are tested with these
libraries where they are installed. Weights go through `rnn_jax.interop`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy

import rnn_jax
from rnn_jax import interop

CLOSE = {"rtol": 0, "atol": 1e-6}  # Keras expects its numbers to so much, or to 1e-5: it computes in float32


# Keras 3.15.1: keras/src/layers/rnn/simple_rnn_test.py, gru_test.py, lstm_test.py, bidirectional_test.py.
# All kernels are 0.01, all recurrent kernels 0.02, all biases 0.03; the forget bias of an LSTM is 1.


def keras_cell(kind, inputs, units, bias=0.03, forget=1.0, kernel=0.01):
    gates = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}[kind]
    weights = [np.full((inputs, gates * units), kernel), np.full((units, gates * units), 0.02)]
    if bias is None:
        return interop.from_keras(weights)
    b = np.full((2, 3 * units) if kind == "GRU" else gates * units, bias)
    if kind == "LSTM":
        b[units : 2 * units] = forget
    return interop.from_keras([*weights, b])


def sequence(*shape):
    """`np.arange` in batches, as Keras has it, with time first."""
    return np.swapaxes(np.arange(np.prod(shape), dtype=float).reshape(shape), 0, 1)


def start(cell, batch, values=0.0):
    return np.full((batch, cell.parts * cell.w_hh.shape[0]), values)


@functools.cache
def unrolled():
    return by_numpy(rnn_jax.unroll_bptt)


def last(cell, xs, h_0=None, mask=None, backwards=False):
    flip = slice(None, None, -1) if backwards else slice(None)
    h_0 = start(cell, xs.shape[1]) if h_0 is None else h_0
    return unrolled()(cell, h_0, xs[flip], mask=None if mask is None else mask[flip])[-1]


LAST = {  # test_correctness, each last output, equal in all units
    "SimpleRNN": ("SimpleRNN", (2, 3, 4), 4, {}, False, [0.405432, 0.73605347]),
    "SimpleRNN, go_backwards": ("SimpleRNN", (2, 3, 4), 4, {}, True, [0.11144729, 0.5528889]),
    "GRU": ("GRU", (3, 6, 4), 3, {}, False, [0.5217289, 0.6371659, 0.39384964]),
    "GRU, go_backwards": ("GRU", (3, 6, 4), 3, {}, True, [0.24406259, 0.611516, 0.3928808]),
    "GRU, use_bias=False": ("GRU", (3, 6, 4), 3, {"bias": None}, False, [0.49988455, 0.64701194, 0.4103359]),
    "LSTM": ("LSTM", (3, 6, 4), 3, {}, False, [0.6288687, 0.86899155, 0.9460773]),
    "LSTM, go_backwards": ("LSTM", (3, 6, 4), 3, {}, True, [0.35622165, 0.74789524, 0.8872726]),
    "LSTM, unit_forget_bias=False": ("LSTM", (3, 6, 4), 3, {"forget": 0.03}, False, [0.57019705, 0.8661914, 0.9459622]),
    "LSTM, use_bias=False": ("LSTM", (3, 6, 4), 3, {"bias": None}, False, [0.54986924, 0.86226785, 0.9443936]),
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_output_of_keras(name):
    kind, shape, units, options, backwards, expected = LAST[name]
    cell = keras_cell(kind, shape[-1], units, **options)
    s_T = last(cell, sequence(*shape), backwards=backwards)
    np.testing.assert_allclose(s_T[:, :units], np.tile(np.array(expected)[:, None], units), **CLOSE)


TWICE = {  # test_statefulness: the second of two calls starts from the last state of the first
    "SimpleRNN": [0.40559256, 0.7361247],
    "GRU": [0.29542392, 0.5885018],
    "LSTM": [0.3124785, 0.6863672],
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_stateful_layer_of_keras(kind):
    cell, xs = keras_cell(kind, 4, 4), sequence(2, 3, 4)
    s_T = last(cell, xs, last(cell, xs))
    np.testing.assert_allclose(s_T[:, :4], np.tile(np.array(TWICE[kind])[:, None], 4), **CLOSE)


FROM_A_STATE = {  # test_pass_initial_state: forwards, backwards. h, and c of an LSTM, is np.arange
    "SimpleRNN": (4, [[0.33621645] * 4, [0.6262637] * 4], [[0.07344437] * 4, [0.43043602] * 4]),
    "GRU": (
        2,
        [[0.23774096, 0.33508456], [0.83659905, 1.0227708]],
        [[0.13486053, 0.23261218], [0.78257304, 0.9691353]],
    ),
    "LSTM": (2, [[0.20574439, 0.3558822], [0.64930826, 0.66276]], [[0.13281618, 0.2790356], [0.5839337, 0.5992567]]),
}


@pytest.mark.parametrize("kind", FROM_A_STATE)
def test_an_initial_state_of_keras(kind):
    units, forwards, backwards = FROM_A_STATE[kind]
    cell, xs = keras_cell(kind, 3, units), sequence(2, 4, 3)
    h_0 = np.tile(np.arange(2.0 * units).reshape(2, units), cell.parts)
    np.testing.assert_allclose(last(cell, xs, h_0)[:, :units], forwards, **CLOSE)
    np.testing.assert_allclose(last(cell, xs, h_0, backwards=True)[:, :units], backwards, **CLOSE)


HOLES, ENDS, BEGINNINGS = (
    np.array(rows, bool).T
    for rows in (
        [[1, 1, 0, 1], [1, 0, 0, 1]],
        [[1, 1, 1, 0], [1, 1, 0, 0]],
        [[0, 1, 1, 1], [0, 0, 1, 1]],
    )
)
MASKED = {  # test_masking: (mask, outputs of each step with units=2)
    "SimpleRNN": (
        HOLES,
        [[0.0599281, 0.15122814, 0.15122814, 0.32394567], [0.3969304, 0.3969304, 0.3969304, 0.608085]],
    ),
    "GRU": (
        HOLES,
        [[0.03606692, 0.09497581, 0.09497581, 0.19393763], [0.16051409, 0.16051409, 0.16051409, 0.30818558]],
    ),
    "LSTM": (ENDS, [[0.0158891, 0.05552048, 0.11755939, 0.11755939], [0.14185596, 0.28556206, 0.28556206, 0.28556206]]),
}
MASKED_BACKWARDS = {  # (units, mask, last output)
    "SimpleRNN": (4, HOLES, [0.07376196, 0.43645123]),
    "GRU": (2, HOLES, [0.11669192, 0.28380975]),
    "LSTM": (2, BEGINNINGS, [0.15341201, 0.3844719]),
}


@pytest.mark.parametrize("kind", MASKED)
def test_a_mask_of_keras(kind):
    """A masked step repeats the output before it; with `zero_output_for_mask` it is zero."""
    (mask, expected), xs = MASKED[kind], sequence(2, 4, 3)
    cell, expected = keras_cell(kind, 3, 2), np.tile(np.array(expected).T[..., None], 2)
    hs = unrolled()(cell, start(cell, 2), xs, mask=mask)[..., :2]
    np.testing.assert_allclose(hs, expected, **CLOSE)
    assert np.array_equal(hs * mask[..., None] != 0, np.tile(mask[..., None], 2))
    units, mask, expected = MASKED_BACKWARDS[kind]
    s_T = last(keras_cell(kind, 3, units), xs, mask=mask, backwards=True)
    np.testing.assert_allclose(s_T[:, :units], np.tile(np.array(expected)[:, None], units), **CLOSE)


def test_a_masked_simple_rnn_of_keras():
    """With units=4."""
    s_T = last(keras_cell("SimpleRNN", 3, 4), sequence(2, 4, 3), mask=HOLES)
    np.testing.assert_allclose(s_T, np.tile(np.array([[0.32951632], [0.61799484]]), 4), **CLOSE)


def both(pair, xs, h_0=None, mask=None):
    """Outputs of each step, and the last output of each direction, as `return_sequences=False` has it."""
    h_0 = (start(pair[0], xs.shape[1]),) * 2 if h_0 is None else h_0
    units = pair[0].w_hh.shape[0]
    hs = by_numpy(rnn_jax.bidirectional)(pair, h_0, xs, mask=mask)
    return hs, np.concatenate([hs[-1, :, :units], hs[0, :, units:]], -1)


def test_both_directions_of_keras():
    """`Bidirectional` by concatenation, by sum of each step, by product, from states, with a mask; its last c."""
    simple, gru, lstm = (keras_cell(kind, inputs, 2) for kind, inputs in (("SimpleRNN", 4), ("GRU", 4), ("LSTM", 3)))
    xs, longer = sequence(2, 3, 4), sequence(2, 4, 3)
    _, ends = both((simple, simple), xs)
    np.testing.assert_allclose(ends[:, 1:3], [[0.39687276, 0.10004295], [0.7237238, 0.53391594]], **CLOSE)
    _, ends = both((simple, keras_cell("SimpleRNN", 4, 2, bias=0.01, kernel=0.03)), xs)
    np.testing.assert_allclose(ends[:, 0] * ends[:, 2], [0.08374989, 0.6740834], **CLOSE)
    hs, _ = both((gru, gru), xs)
    expected = [[0.20937867, 0.34462988, 0.40290534], [0.59829646, 0.6734641, 0.6479671]]
    np.testing.assert_allclose((hs[..., 0] + hs[..., 2]).T, expected, **CLOSE)
    each = np.arange(4.0).reshape(2, 2)
    h_0 = np.concatenate([each, 2 * each], -1), np.concatenate([3 * each, 4 * each], -1)
    _, ends = both((lstm, lstm), longer, h_0)
    expected = [[0.20794602, 0.4577124, 0.14046375, 0.48191673], [0.6682636, 0.6711909, 0.60943645, 0.60950446]]
    np.testing.assert_allclose(ends, expected, **CLOSE)
    gru = keras_cell("GRU", 3, 2)
    _, ends = both((gru, gru), longer, mask=HOLES)
    np.testing.assert_allclose(ends[:, 1:3], [[0.19393763, 0.11669192], [0.30818558, 0.28380975]], **CLOSE)
    h_c = [last(lstm, longer, backwards=backwards)[:, 1:3] for backwards in (False, True)]
    np.testing.assert_allclose(h_c[0], [[0.1990008, 0.35567185], [0.52335435, 1.0492687]], **CLOSE)
    np.testing.assert_allclose(h_c[1], [[0.12659755, 0.2501858], [0.44717982, 0.941473]], **CLOSE)


# flax 0.12: tests/linen/linen_recurrent_test.py of google/flax. A layer of LSTM, in=5, hid=6, 3 sequences of 4 steps.

BATCH, TIME, IN, HID = 3, 4, 5, 6


@functools.cache
def flax_lstm():
    """`nn.RNN(nn.LSTMCell(6))` with random weights, our cell, and inputs with time first."""
    nn = pytest.importorskip("flax.linen")
    rng = np.random.default_rng(0)
    rnn = nn.RNN(nn.LSTMCell(HID, param_dtype=jnp.float64))
    params = rnn.init(jax.random.key(0), jnp.zeros((BATCH, TIME, IN)))["params"]
    params = jax.tree.map(lambda w: jnp.asarray(rng.standard_normal(w.shape)), params)
    xs = rng.standard_normal((TIME, BATCH, IN))

    def call(**options):
        with jax.numpy_rank_promotion("allow"):
            return rnn.apply({"params": params}, jnp.asarray(np.swapaxes(xs, 0, 1)), return_carry=True, **options)

    return call, interop.from_linen(params["cell"]), xs


def ours_and_theirs(lengths=None, **options):
    """`(hs, carry)` of flax with time first, and our cell and inputs."""
    call, cell, xs = flax_lstm()
    (c, h), ys = call(seq_lengths=None if lengths is None else jnp.asarray(lengths), **options)
    return np.swapaxes(ys, 0, 1), np.concatenate([h, c], -1), cell, xs


LENGTHS = np.array([3, 1, 4])
MASK = np.arange(TIME)[:, None] < LENGTHS


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_the_carry_of_flax_is_that_of_the_last_step_that_exists(lengths):
    """test_numerical_equivalence, ..._with_mask: outputs go on behind the end; ours stay as they were there."""
    ys, carry, cell, xs = ours_and_theirs(lengths)
    mask = None if lengths is None else MASK
    ss = unrolled()(cell, start(cell, BATCH), xs, mask=mask)
    np.testing.assert_allclose(ss[-1], carry, rtol=1e-12)
    exists = np.ones_like(MASK) if lengths is None else MASK
    np.testing.assert_allclose(ss[exists][:, :HID], ys[exists], rtol=1e-12)
    without = unrolled()(cell, start(cell, BATCH), xs)
    np.testing.assert_allclose(without[..., :HID], ys, rtol=1e-12)


@pytest.mark.parametrize("keep_order", [False, True])
def test_reverse_of_flax(keep_order):
    """test_reverse, test_reverse_but_keep_order."""
    ys, carry, cell, xs = ours_and_theirs(reverse=True, keep_order=keep_order)
    ss = unrolled()(cell, start(cell, BATCH), xs[::-1])
    np.testing.assert_allclose(ss[-1], carry, rtol=1e-12)
    np.testing.assert_allclose((ss[::-1] if keep_order else ss)[..., :HID], ys, rtol=1e-12)


def test_reverse_of_flax_with_lengths():
    """test_flip_sequence: padding stays at the end. Backwards, ours is `bidirectional`, where padding stays too."""
    nn = pytest.importorskip("flax.linen")
    flip = nn.recurrent.flip_sequences
    with jax.numpy_dtype_promotion("standard"):
        flipped = flip(jnp.arange(10).reshape(2, 5), jnp.array([4, 2]), num_batch_dims=1, time_major=False)
    assert flipped[0, :4].tolist() == [3, 2, 1, 0] and flipped[1, :2].tolist() == [6, 5]
    ys, carry, cell, xs = ours_and_theirs(LENGTHS, reverse=True, keep_order=True)
    pair = cell, cell
    hs = by_numpy(rnn_jax.bidirectional)(pair, (start(cell, BATCH),) * 2, xs, mask=MASK)
    np.testing.assert_allclose(hs[MASK][:, HID:], ys[MASK], rtol=1e-12)
    np.testing.assert_allclose(hs[0, :, HID:], carry[:, :HID], rtol=1e-12)


# haiku 0.0.17: haiku/_src/recurrent_test.py, ResetCoreTest


def test_a_counter_that_is_reset():
    """test_unbatched: each step adds 1; a reset before step 2 counts again from 1."""
    counter = rnn_jax.CellParams(jnp.zeros((1, 4)), jnp.eye(4), jnp.ones(4), "identity")
    reset = np.arange(5) == 2
    hs = unrolled()(counter, np.zeros(4), np.zeros((5, 1)), reset=reset)
    assert np.array_equal(hs, np.tile(np.array([[1.0], [2.0], [1.0], [2.0], [3.0]]), 4))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_counter_that_is_reset_backwards(batch):
    """test_reversed_dynamic_unroll: `reverse=True` is the sequence and its resets backwards, and the result again."""
    hk = pytest.importorskip("haiku")
    counter = rnn_jax.CellParams(jnp.zeros((1, 4)), jnp.eye(4), jnp.ones(4), "identity")
    reset = np.broadcast_to((np.arange(7) == 2).reshape(7, *[1] * len(batch)), (7, *batch))

    class Counter(hk.RNNCore):
        def __call__(self, inputs, state):
            return state + 1, state + 1

        def initial_state(self, batch_size):
            return jnp.zeros(4 if batch_size is None else (batch_size, 4))

    def net(xs, reset):
        core = hk.ResetCore(Counter())
        return hk.dynamic_unroll(core, (xs, reset), core.initial_state(batch[0] if batch else None), reverse=True)[0]

    theirs = hk.without_apply_rng(hk.transform(net)).apply({}, jnp.zeros((7, *batch)), jnp.asarray(reset))
    hs = unrolled()(counter, np.zeros((*batch, 4)), np.zeros((7, *batch, 1)), reset=reset[::-1])[::-1]
    assert np.array_equal(hs, theirs)


def test_an_lstm_of_haiku_that_is_reset():
    """test_resetting: the same input twice; where a sequence is reset, the second output is the first."""
    hk = pytest.importorskip("haiku")
    reset = np.array([[False] * 4, [True] + [False] * 3])
    xs = np.stack([np.arange(1.0, 5.0).reshape(4, 1)] * 2)

    def net(xs, reset):
        core = hk.ResetCore(hk.LSTM(4))
        return hk.dynamic_unroll(core, (xs, reset), core.initial_state(4))

    net = hk.without_apply_rng(hk.transform(net))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        params = net.init(jax.random.key(428), jnp.asarray(xs), jnp.asarray(reset))
        outs, (h, c) = net.apply(params, jnp.asarray(xs), jnp.asarray(reset))
    (module,) = params
    cell = interop.from_haiku(params, prefix=module.removesuffix("linear"))
    ss = unrolled()(cell, start(cell, 4), xs, reset=reset)
    np.testing.assert_allclose(ss[..., :4], outs, rtol=1e-12)
    np.testing.assert_allclose(ss[-1], np.concatenate([h, c], -1), rtol=1e-12)
    assert np.array_equal(ss[1, 0], ss[0, 0]) and not np.any(ss[1, 1:] == ss[0, 1:])
