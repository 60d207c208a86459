"""Properties of every gradient, for random numbers: linearity, symmetries, the chain rule, the adjoint."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import EXACT, Case, assert_trees_close, make_problem

import rnn_jax

SHAPES = [
    Case(time=6, batch=(3,)),
    Case(time=6, batch=(3,), inputs="tokens"),
    Case(time=5, batch=(2,), num_layers=2, activation="relu", loss="squared_error"),
]
LAYERS = SHAPES[:2]
SHIFTS = [(SHAPES[0], 1), (SHAPES[1], 3), (SHAPES[2], 3)]  # each a program, of which there should be few
CUTS = [(LAYERS[0], 2), (LAYERS[1], 3)]
VARIANTS = [(shape, jnp.float64) for shape in SHAPES] + [(SHAPES[0], jnp.float32)]
RTOL = {jnp.float64: 1e-12, jnp.float32: 2e-5}
NO_TOKEN = -7

seeds = st.integers(0, 2**16)
methods = st.sampled_from(EXACT)
shapes = st.sampled_from(SHAPES)
layers = st.sampled_from(LAYERS)
cuts = st.sampled_from(CUTS)
variants = st.sampled_from(VARIANTS)
flags = st.booleans()
examples = settings(
    max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


class Draw(NamedTuple):
    """A problem with every option given, so that one program serves all examples; `rng` draws more for a test."""

    params: rnn_jax.Params
    batch: rnn_jax.Batch
    h_0: tuple
    rng: np.random.Generator


def draw(shape, seed, *, masked, reset, dtype=jnp.float64):
    """The problem of a shape: mask and resets do nothing unless asked for; masked steps hold garbage."""
    rng = np.random.default_rng(seed)
    params, batch, h_0 = make_problem(shape, seed=seed, dtype=dtype)
    steps = (shape.time, *shape.batch)
    mask = rng.random(steps) < 0.7 if masked else np.ones(steps, bool)
    resets = rng.random(steps) < 0.3 if reset else np.zeros(steps, bool)
    batch = rnn_jax.Batch(
        jnp.asarray(spoilt(np.asarray(batch.inputs), ~mask)),
        batch.targets,
        jnp.asarray(rng.random(steps), dtype),
        jnp.asarray(mask),
        jnp.asarray(resets),
    )
    return Draw(params, batch, h_0, rng)


def spoilt(inputs, where):
    """`inputs` with NaN, or no token, at the steps `where`."""
    if np.issubdtype(inputs.dtype, np.integer):
        return np.where(where, NO_TOKEN, inputs)
    return np.where(where[..., None], np.array(np.nan, inputs.dtype), inputs)


@functools.cache
def evaluated(method, loss):
    """Evaluated by NumPy, traced once for all examples of a shape."""
    return by_numpy(rnn_jax.make_grad_fn(method, loss=loss, reduction="sum"))


@by_numpy
def unroll(cell, h_0, xs, mask, reset):
    return rnn_jax.unroll(cell, h_0, xs, mask=mask, reset=reset)


@by_numpy
def pull_back(cell, h_0, xs, mask, reset, d_hs):
    """`hs` and `(d_cell, d_h_0, d_xs)` by the vjp of `unroll_bptt`; without `d_xs` for tokens."""
    primals = (cell, h_0) if jnp.issubdtype(xs.dtype, jnp.integer) else (cell, h_0, xs)
    hs, vjp = jax.vjp(lambda *args: rnn_jax.unroll_bptt(*(args + (xs,))[:3], mask=mask, reset=reset), *primals)
    return hs, vjp(d_hs)


@by_numpy
def push_forward(cell, h_0, xs, mask, reset, tangents):
    """`J t` by the jvp of `unroll`."""
    return jax.jvp(lambda *args: rnn_jax.unroll(*args, mask=mask, reset=reset), (cell, h_0, xs), tangents)[1]


def per_sequence(gradients):
    """The gradients with the batch axis: `(d_h_0, d_inputs)`, the batch axis first."""
    d_inputs = None if gradients.inputs is None else np.swapaxes(gradients.inputs, 0, 1)
    return tuple(map(np.asarray, gradients.h_0)), d_inputs


def add(*trees):
    return jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=leaves[0].dtype), *trees)


def normal_like(rng, tree):
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), tree)


def inner(a, b):
    """`<a, b>`, and the product of the norms, which bounds it."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return a @ b, np.linalg.norm(a) * np.linalg.norm(b)


@examples
@given(methods, variants, flags, flags, seeds)
def test_linear_in_the_weights_of_the_loss(method, variant, masked, reset, seed):
    """`g(a w + b v) = a g(w) + b g(v)`, and so the loss."""
    shape, dtype = variant
    params, batch, h_0, rng = draw(shape, seed, masked=masked, reset=reset, dtype=dtype)
    w, v = (rng.random(batch.weights.shape) for _ in range(2))
    a, b = rng.uniform(0.5, 2, 2)
    fn = evaluated(method, shape.loss)

    def loss_and_gradients(weights):
        (loss, _), gradients = fn(params, batch._replace(weights=jnp.asarray(weights, dtype)), h_0)
        return loss, gradients

    of_w, of_v = (jax.tree.map(np.asarray, loss_and_gradients(weights)) for weights in (w, v))
    expected = jax.tree.map(lambda x, y: (a * x + b * y).astype(dtype), of_w, of_v)
    assert_trees_close(loss_and_gradients(a * w + b * v), expected, rtol=RTOL[dtype])


@examples
@given(methods, st.sampled_from(SHIFTS), flags, flags, seeds)
def test_steps_that_do_not_exist_shift_time(method, shift, masked, reset, seed):
    """`k` of them in front, of garbage: loss, state and gradients are the same, `d_inputs` later by k zeros."""
    shape, k = shift
    params, batch, h_0, rng = draw(shape, seed, masked=masked, reset=reset)
    before = (k, *shape.batch)

    def prepend(head, x):
        return jnp.asarray(np.concatenate([head.astype(x.dtype), x]))

    garbage = np.zeros((k, *batch.inputs.shape[1:]), np.asarray(batch.inputs).dtype)
    later = rnn_jax.Batch(
        prepend(spoilt(garbage, np.ones(before, bool)), batch.inputs),
        batch.targets,
        batch.weights,
        prepend(np.zeros(before, bool), batch.mask),
        prepend(rng.random(before) < 0.5, batch.reset),
    )
    first, expected = evaluated(method, shape.loss)(params, batch, h_0)
    if expected.inputs is not None:
        expected = expected._replace(inputs=prepend(garbage, expected.inputs))
    second, gradients = evaluated(method, shape.loss)(params, later, h_0)
    assert_trees_close((second, gradients), (first, expected), rtol=1e-12)
    assert gradients.inputs is None or np.all(np.asarray(gradients.inputs[:k]) == 0)


@examples
@given(methods, variants, flags, flags, seeds)
def test_sequences_in_another_order(method, variant, masked, reset, seed):
    """Permute what belongs to a sequence; loss and gradients of the parameters stay."""
    shape, dtype = variant
    params, batch, h_0, rng = draw(shape, seed, masked=masked, reset=reset, dtype=dtype)
    order = np.roll(rng.permutation(shape.batch[0]), 1)
    permuted = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[:, order]), batch)
    (loss, h_T), gradients = evaluated(method, shape.loss)(params, batch, h_0)
    states = jax.tree.map(lambda x: np.asarray(x)[order], (h_0, h_T, gradients.h_0))
    d_inputs = None if gradients.inputs is None else np.asarray(gradients.inputs)[:, order]
    result = evaluated(method, shape.loss)(params, permuted, tuple(map(jnp.asarray, states[0])))
    expected = rnn_jax.Gradients(gradients.params, states[2], d_inputs)
    assert_trees_close(result, ((loss, states[1]), expected), rtol=RTOL[dtype])


@examples
@given(methods, shapes, flags, flags, seeds)
def test_the_gradient_of_a_batch_is_the_sum_over_its_sequences(method, shape, masked, reset, seed):
    """Each sequence alone: losses and gradients of the parameters add up, the rest is each one's own."""
    params, batch, h_0, _ = draw(shape, seed, masked=masked, reset=reset)
    fn = evaluated(method, shape.loss)
    (loss, _), gradients = fn(params, batch, h_0)
    d_params, own = [], []
    for i in range(shape.batch[0]):
        alone = jax.tree.map(lambda x, i=i: jnp.asarray(np.asarray(x)[:, i : i + 1]), batch)
        (loss_i, _), gradients_i = fn(params, alone, tuple(jnp.asarray(np.asarray(h)[i : i + 1]) for h in h_0))
        d_params.append((loss_i, gradients_i.params))
        own.append(per_sequence(gradients_i))
    assert_trees_close(add(*d_params), (loss, gradients.params), rtol=1e-12)
    together = jax.tree.map(lambda *parts: np.concatenate(parts), *own)
    assert_trees_close(together, per_sequence(gradients), rtol=1e-12)


def halves(batch, cut):
    """`(xs, mask, reset)` before the cut and from it on."""
    sequence = tuple(map(np.asarray, (batch.inputs, batch.mask, batch.reset)))
    return tuple(tuple(jnp.asarray(x[part]) for x in sequence) for part in (slice(None, cut), slice(cut, None)))


@examples
@given(cuts, flags, flags, seeds)
def test_two_unrolls_in_a_row_are_one(shape_and_cut, masked, reset, seed):
    """The state is carried over the cut one way, its gradient the other; what either part adds is a sum."""
    shape, cut = shape_and_cut
    params, batch, (h_0,), rng = draw(shape, seed, masked=masked, reset=reset)
    cell, first, second = params.cells[0], *halves(batch, cut)
    d_hs = rng.standard_normal((shape.time, *h_0.shape))
    hs, whole = pull_back(cell, h_0, batch.inputs, batch.mask, batch.reset, jnp.asarray(d_hs))

    hs_first = unroll(cell, h_0, *first)
    hs_second, d_second = pull_back(cell, jnp.asarray(np.asarray(hs_first)[-1]), *second, jnp.asarray(d_hs[cut:]))
    d_hs[cut - 1] += d_second[1]
    _, d_first = pull_back(cell, h_0, *first, jnp.asarray(d_hs[:cut]))
    assert_trees_close(np.concatenate([hs_first, hs_second]), hs, rtol=1e-12)
    d_xs = tuple(np.concatenate(parts) for parts in zip(d_first[2:], d_second[2:], strict=True))
    assert_trees_close((add(d_first[0], d_second[0]), d_first[1], *d_xs), whole, rtol=1e-12)


@examples
@given(methods, cuts, flags, flags, seeds)
def test_burn_in_is_a_state_carried_in(method, shape_and_cut, masked, reset, seed):
    """No loss before the cut: the gradient is the second part's, and its `d_h_0` pulled back through the first."""
    shape, cut = shape_and_cut
    params, batch, h_0, _ = draw(shape, seed, masked=masked, reset=reset)
    cell, first, second = params.cells[0], *halves(batch, cut)
    targets, weights = (jnp.asarray(np.asarray(x)[cut:]) for x in (batch.targets, batch.weights))
    fn = evaluated(method, shape.loss)
    whole = fn(params, batch._replace(targets=targets, weights=weights), h_0)

    hs = unroll(cell, h_0[0], *first)
    result, gradients = fn(params, rnn_jax.Batch(second[0], targets, weights, *second[1:]), (jnp.asarray(hs[-1]),))
    d_hs = np.zeros_like(hs)
    d_hs[-1] = gradients.h_0[0]
    _, (d_cell, d_h_0, *d_xs) = pull_back(cell, h_0[0], *first, jnp.asarray(d_hs))
    d_params = gradients.params._replace(cells=(add(d_cell, gradients.params.cells[0]),))
    d_inputs = np.concatenate([d_xs[0], gradients.inputs]) if d_xs else None
    assert_trees_close((result, rnn_jax.Gradients(d_params, (d_h_0,), d_inputs)), whole, rtol=1e-12)


@examples
@given(layers, flags, flags, seeds)
def test_nothing_from_above_gives_exactly_nothing(shape, masked, reset, seed):
    """Every entry is zero to the bit, whatever NaN the mask hides."""
    params, batch, (h_0,), _ = draw(shape, seed, masked=masked, reset=reset)
    d_hs = jnp.zeros((shape.time, *h_0.shape), h_0.dtype)
    _, result = pull_back(params.cells[0], h_0, batch.inputs, batch.mask, batch.reset, d_hs)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(result))


@examples
@given(st.sampled_from(["tanh", "relu", "identity"]), flags, flags, seeds)
def test_the_backward_pass_is_the_adjoint_of_the_forward_derivative(activation, masked, reset, seed):
    """`<g, J t> = <Jᵀ g, t>`, `J t` from the jvp of `unroll` and `Jᵀ g` from the vjp of `unroll_bptt`."""
    shape = SHAPES[0]._replace(activation=activation)
    params, batch, (h_0,), rng = draw(shape, seed, masked=masked, reset=reset)
    flags = (batch.mask, batch.reset)
    primals = (params.cells[0], h_0, batch.inputs)
    t = normal_like(rng, primals)
    j_t = push_forward(*primals, *flags, t)
    g = normal_like(rng, j_t)
    forwards, size = inner(g, j_t)
    backwards, other_size = inner(pull_back(*primals, *flags, g)[1], t)
    assert abs(forwards - backwards) <= 1e-12 * max(size, other_size)
    assert abs(forwards) > 0
