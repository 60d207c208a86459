"""Every task compared with brute force, its chance level measured; the same key gives the same batch."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy

import rnn_jax
from rnn_jax.tasks import TASKS

SEEDS = (0, 1, 2, 3, 5, 8, 2**31)
SMALL = {  # besides the sizes that a task has by default; few, for each is a program
    "adding": [{"time": 2}, {"time": 11}],
    "copying": [{"delay": 1}],
    "delayed_xor": [{"delay": 2, "time": 7}],
    "temporal_order": [{"time": 10}, {"time": 31}],
    "random_permutation": [{"time": 2, "num_symbols": 3}],
    "parity": [{"time": 1}],
    "flip_flop": [{"time": 1, "num_bits": 1}],
    "dyck": [{"time": 2, "num_kinds": 1, "max_depth": 1}, {"time": 10, "num_kinds": 3, "max_depth": 2}],
    "counting": [{"time": 1, "most": 1}],
    "sine": [{"time": 1, "period": 2}, {"time": 9, "period": 7}],
}


def adding(xs, ys, time):
    values, marks = xs[:, 0], xs[:, 1]
    (at,) = np.nonzero(marks)
    assert len(at) == 2 and at[0] < time // 2 <= at[1] and set(marks) <= {0, 1}
    assert np.all((values >= 0) & (values < 1)) and np.isclose(ys[0, 0], values[at[0]] + values[at[1]])


def copying(xs, ys, delay):
    said = list(xs[:10])
    assert all(0 <= s < 8 for s in said)
    assert list(xs[10:]) == [8] * (delay - 1) + [9] + [8] * 10
    assert list(ys) == [8] * (delay + 10) + said


def delayed_xor(xs, ys, time, delay):
    assert [int(y) for y in ys] == [xs[t - delay] ^ xs[t - delay // 2] for t in range(delay, time)]


def temporal_order(xs, ys, time):
    assert xs[0] == 4 and xs[-1] == 5
    signs = [(t, x) for t, x in enumerate(xs) if x in (6, 7)]
    (first, a), (second, b) = signs
    assert time // 10 <= first < 2 * time // 10 and 5 * time // 10 <= second < 6 * time // 10
    assert ys[0] == ["XX", "XY", "YX", "YY"].index("".join("XY"[x - 6] for x in (a, b)))
    assert all(0 <= x < 4 for t, x in enumerate(xs) if t not in (0, first, second, time - 1))


def random_permutation(xs, ys, time, num_symbols):
    assert xs[0] in (0, 1) and ys[0] == xs[0] and all(2 <= x < num_symbols for x in xs[1:])


def parity(xs, ys, time):
    assert [int(y) for y in ys] == [sum(map(int, xs[: t + 1])) % 2 for t in range(time)]


def flip_flop(xs, ys, time, num_bits):
    for bit in range(num_bits):
        for t in range(time):
            pulses = [x for x in xs[: t + 1, bit] if x != 0]
            assert ys[t, bit] == pulses[-1] and set(pulses) <= {-1, 1}


def dyck(xs, ys, time, num_kinds, max_depth):
    stack = []
    for x, y in zip(xs, ys, strict=True):
        if x < num_kinds:
            stack.append(x)
        else:
            assert stack.pop() == x - num_kinds
        assert len(stack) <= max_depth and y == (stack[-1] if stack else num_kinds)
    assert not stack


def counting(xs, ys, time, most):
    assert 1 <= xs[0, 0] <= most and list(xs[:, 0]) == [xs[0, 0] + t for t in range(time)]
    assert list(ys[:, 0]) == [x + 1 for x in xs[:, 0]]


def sine(xs, ys, time, period):
    wave = np.concatenate([xs[:, 0], ys[-1]])
    np.testing.assert_array_equal(ys[:-1, 0], xs[1:, 0])
    cosine = 2 * np.cos(2 * np.pi / period)
    np.testing.assert_allclose(wave[2:], cosine * wave[1:-1] - wave[:-2], atol=1e-9)


@functools.cache
def made(name, **sizes):
    """Five sequences as a function of a key, one program."""
    return jax.jit(functools.partial(TASKS[name].make, num_sequences=5, **sizes))


def many_targets(name, count, **sizes):
    """The targets of `count` sequences, drawn five at a time."""
    batches = [made(name, **sizes)(jax.random.key(seed)) for seed in range(count // 5)]
    return np.concatenate([batch.targets for batch in batches], 1)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_what_the_definition_says(name):
    for sizes in [*SMALL[name], TASKS[name].sizes]:
        for seed in SEEDS:
            batch = made(name, **sizes)(jax.random.key(seed))
            xs, ys = np.asarray(batch.inputs), np.asarray(batch.targets)
            for b in range(5):
                globals()[name](xs[:, b], ys[:, b], **sizes)


def best_table(loss, targets):
    """The mean loss of the best table of one answer for each step, fitted on `targets`, `(steps, sequences, ...)`."""
    if loss == "squared_error":
        table = np.broadcast_to(np.mean(targets, 1, keepdims=True), targets.shape)
        return np.mean(by_numpy(rnn_jax.squared_error)(table, targets)[0])
    classes = np.arange(np.max(targets) + 1)
    shares = np.mean(targets[..., None] == classes, 1)  # of each class at each step
    logits = np.log(np.maximum(shares, 1e-30))
    losses = [by_numpy(rnn_jax.cross_entropy)(logits, np.full(len(logits), label))[0] for label in classes]
    return np.sum(shares * np.stack(losses, 1)) / len(logits)


@pytest.mark.parametrize("name", TASKS)
def test_the_chance_level_is_that_of_the_best_table_over_steps(name):
    task = TASKS[name]
    for sizes in [*SMALL[name], task.sizes]:
        chance = task.chance(**sizes)
        assert best_table(task.loss, many_targets(name, 4000, **sizes)) == pytest.approx(chance, rel=0.03, abs=1e-9)


@pytest.mark.parametrize(
    "name, sizes, chance",
    [
        ("dyck", {"time": 10, "num_kinds": 1, "max_depth": 1}, 0.0),  # open, close, open, close, …
        ("dyck", {"time": 10, "num_kinds": 3, "max_depth": 1}, np.log(3) / 2),  # every second one is open
        ("dyck", {"time": 4, "num_kinds": 1, "max_depth": 2}, np.log(2) / 4),  # only after the second is there a choice
        ("counting", {"time": 10, "most": 1}, 0.0),  # 1, 2, 3, …
        ("counting", {"time": 10, "most": 2}, 0.25),  # half a number too many or too few
        ("copying", {"delay": 50}, 10 * np.log(8) / 70),
    ],
)
def test_chance_levels_that_are_known(name, sizes, chance):
    assert TASKS[name].chance(**sizes) == pytest.approx(chance, abs=1e-15)


def test_pieces_of_a_text():
    text = "to be, or not to be"
    symbols, task = rnn_jax.tasks.text_task(text)
    batch = jax.jit(lambda key: task.make(key, num_sequences=400, time=5))(jax.random.key(3))
    batch = jax.tree.map(np.asarray, batch)
    pieces = {
        rnn_jax.data.decode(symbols, np.append(xs, ys[-1]))
        for xs, ys in zip(np.transpose(batch.inputs), np.transpose(batch.targets), strict=True)
    }
    assert pieces == {text[i : i + 6] for i in range(len(text) - 5)}
    np.testing.assert_array_equal(batch.targets[:-1], batch.inputs[1:])
    everything = rnn_jax.data.encode(symbols, text)[np.arange(1, 6)[:, None] + np.arange(len(text) - 5)]
    assert task.chance(time=5) == pytest.approx(best_table("cross_entropy", everything), rel=1e-12)
    assert task.chance(time=18) == 0  # one piece: the step tells the symbol
    shares = [text.count(symbol) / len(text) for symbol in symbols]
    _, repeated = rnn_jax.tasks.text_task(text * 1000)
    assert repeated.chance(time=5) == pytest.approx(-sum(p * np.log(p) for p in shares), rel=1e-4)
    with pytest.raises(ValueError, match="`time` must be below the 19 symbols of the text, got 19"):
        task.chance(time=19)
    with pytest.raises(ValueError, match="`time` must be below the 19 symbols of the text, got 19"):
        task.make(jax.random.key(3), num_sequences=1, time=19)


@pytest.mark.parametrize("name", TASKS)
def test_a_network_of_its_sizes_takes_it(name):
    task = TASKS[name]
    batch = made(name, **task.sizes)(jax.random.key(0))
    in_size, out_size = task.input_size(**task.sizes), task.output_size(**task.sizes)
    shapes = (in_size, 4), (4, 4), (4,), (4, out_size), (out_size,)
    w_xh, w_hh, b_h, *readout = (jnp.asarray(np.zeros(shape)) for shape in shapes)
    params = rnn_jax.Params((rnn_jax.CellParams(w_xh, w_hh, b_h, "tanh"),), rnn_jax.ReadoutParams(*readout))
    rnn_jax.check_batch(params, batch, (jnp.asarray(np.zeros((5, 4))),))
    if task.loss == "cross_entropy":
        assert np.max(batch.inputs) < in_size and np.max(batch.targets) < out_size


def digest(batch):
    """A digest of the arrays of a batch, with real numbers as float32."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    leaves = [x.astype(np.int32) if np.issubdtype(x.dtype, np.integer) else np.round(x, 6) + 0.0 for x in leaves]
    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in leaves)).hexdigest()[:12]


GOLDEN = {  # of JAX 0.10 to 0.12
    "adding": "2f67ea216c7c",
    "copying": "3f5fbdd87870",
    "delayed_xor": "858554e25719",
    "temporal_order": "ff083bb1362a",
    "random_permutation": "345d8bfb787b",
    "parity": "10efc2d32154",
    "flip_flop": "ace01bc50bb8",
    "dyck": "dabd0770632d",
    "counting": "f4ee7610d12d",
    "sine": "fc3a2ff777ba",
}


@pytest.mark.parametrize("name", TASKS)
def test_the_same_key_is_the_same_batch(name):
    make = made(name, **TASKS[name].sizes)
    batches = [make(jax.random.key(seed)) for seed in (7, 7, 8)]
    assert digest(batches[0]) == digest(batches[1]) != digest(batches[2])
    assert digest(batches[0]) == GOLDEN[name]


KEY, SIZES = jax.random.key(0), {"num_sequences": 3}
BAD = [
    (lambda: rnn_jax.tasks.adding(KEY, **SIZES, time=1), ValueError, "`time` must be at least 2, got 1."),
    (lambda: rnn_jax.tasks.delayed_xor(KEY, **SIZES, time=9, delay=3), ValueError, "`delay` must be even, got 3."),
    (lambda: rnn_jax.tasks.delayed_xor(KEY, **SIZES, time=4, delay=4), ValueError, "`time` must be at least 5, got 4."),
    (lambda: rnn_jax.tasks.dyck(KEY, **SIZES, time=5), ValueError, "`time` must be even, got 5."),
    (lambda: rnn_jax.tasks.parity(0, **SIZES, time=5), TypeError, "`key` must be one typed key"),
    (
        lambda: rnn_jax.tasks.sine(KEY, num_sequences=0, time=5),
        ValueError,
        "`num_sequences` must be at least 1, got 0.",
    ),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=[message for _, _, message in BAD])
@pytest.mark.usefixtures("annotations_unchecked")
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message.replace(".", "\\.")):
        call()
