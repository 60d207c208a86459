"""`unroll_bptt` works wherever `unroll` works, with the derivative by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import EXACT, HID, IN, Case, assert_trees_close, cast, make_problem, run, run_compiled

import rnn_jax
from rnn_jax import unroll, unroll_bptt


def layer_problem(**changes):
    params, batch, h_0 = make_problem(Case(**changes))
    return params.cells[0], h_0[0], batch.inputs, {"mask": batch.mask, "reset": batch.reset}


def own_loss(unroll_fn, flags):
    """No sum over steps: the states of different steps meet in a product."""

    def loss(cell, h_0, xs):
        hs = unroll_fn(cell, h_0, xs, **flags)
        return jnp.sum(jnp.sin(hs[-1] * hs[0])) + jnp.sum(jnp.cumsum(hs, axis=0) ** 2)

    return loss


def with_gradients(unroll_fn, flags, xs):
    """States, loss and gradients."""
    argnums = (0, 1) if jnp.issubdtype(xs.dtype, jnp.integer) else (0, 1, 2)
    loss = jax.value_and_grad(own_loss(unroll_fn, flags), argnums=argnums)
    return lambda *args: (unroll_fn(*args, **flags), *loss(*args))


def with_gradients_by_both(call, batch, activation, inputs):
    """States, loss and gradients of `unroll_bptt` and of `unroll`."""
    flagged = len(batch) != 1  # masks and resets on some
    options = {"activation": activation, "batch": batch, "inputs": inputs, "mask": flagged, "reset": flagged}
    cell, h_0, xs, flags = layer_problem(**options)
    of_both = [with_gradients(fn, flags, xs) for fn in (unroll_bptt, unroll)]
    return call(lambda *args: [fn(*args) for fn in of_both])(cell, h_0, xs)


OWN = [
    ((), "tanh", "features"),
    ((), "relu", "tokens"),
    ((3,), "identity", "features"),
    ((3,), "tanh", "tokens"),
    ((2, 2), "relu", "features"),
    ((2, 2), "identity", "tokens"),
    ((1, 2, 3), "tanh", "features"),
    ((1, 2, 3), "relu", "tokens"),
]


@pytest.mark.parametrize("batch, activation, inputs", OWN)
def test_values_and_gradients_of_ones_own_loss(batch, activation, inputs):
    (hs, *by_hand), (expected_hs, *autodiff) = with_gradients_by_both(by_numpy, batch, activation, inputs)
    chex.assert_trees_all_close(hs, expected_hs, rtol=1e-13)
    assert_trees_close(by_hand, autodiff, rtol=1e-12)


THOROUGH = [pytest.param(*own, marks=pytest.mark.thorough) for own in [*OWN[:3], *OWN[5:]]]


@pytest.mark.parametrize("batch, activation, inputs", [*OWN[3:5], *THOROUGH])
def test_compiled_by_xla_they_are_the_same(batch, activation, inputs):
    (hs, *by_hand), (expected_hs, *autodiff) = with_gradients_by_both(jax.jit, batch, activation, inputs)
    chex.assert_trees_all_close(hs, expected_hs, rtol=1e-13)
    assert_trees_close(by_hand, autodiff, rtol=1e-12)


@pytest.mark.parametrize("time", [0, 1, 2])
def test_short_sequences(time):
    cell, h_0, xs, flags = layer_problem()

    def loss(unroll_fn):
        return lambda cell, h_0, xs: jnp.sum(unroll_fn(cell, h_0, xs) ** 2)

    args = cell, h_0, np.asarray(xs)[:time]
    by_hand, autodiff = (by_numpy(jax.grad(loss(fn), argnums=(0, 1, 2)))(*args) for fn in (unroll_bptt, unroll))
    assert_trees_close(by_hand, autodiff, rtol=1e-12)


def test_in_a_stack_through_apply():
    params, batch, h_0 = make_problem(Case(num_layers=3, mask=True))

    def loss(unroll_fn):
        def value(params, h_0):
            ys, h_T = rnn_jax.apply(params, h_0, batch.inputs, last=3, mask=batch.mask, unroll=unroll_fn)
            return jnp.var(ys) + sum(jnp.sum(h**3) for h in h_T)

        return by_numpy(jax.grad(value, argnums=(0, 1)))

    assert_trees_close(loss(unroll_bptt)(params, h_0), loss(unroll)(params, h_0), rtol=1e-12)


def test_inside_a_scan():
    """Three windows of a sequence, the state carried, gradients flowing through all."""
    cell, h_0, xs, _ = layer_problem(time=6)

    def loss(unroll_fn):
        def value(cell, h_0):
            def body(h, window):
                hs = unroll_fn(cell, h, window)
                return hs[-1], jnp.sum(hs**2)

            return jnp.sum(lax.scan(body, h_0, xs.reshape(3, 2, *xs.shape[1:]))[1])

        return by_numpy(jax.grad(value, argnums=(0, 1)))

    assert_trees_close(loss(unroll_bptt)(cell, h_0), loss(unroll)(cell, h_0), rtol=1e-12)


def test_under_vmap_over_sequences_and_over_weights():
    cell, h_0, xs, _ = layer_problem(batch=(3,))
    loss, reference = own_loss(unroll_bptt, {}), own_loss(unroll, {})
    over_sequences = jax.vmap(jax.grad(loss, argnums=(0, 1, 2)), in_axes=(None, 0, 1), out_axes=(0, 0, 1))
    per_sequence = by_numpy(over_sequences)(cell, h_0, xs)
    of_one = by_numpy(jax.grad(reference, argnums=(0, 1, 2)))
    for i in range(3):
        alone = of_one(cell, np.asarray(h_0)[i], np.asarray(xs)[:, i])
        mine = jax.tree.map(lambda d, i=i: d[i], per_sequence[:2]) + (per_sequence[2][:, i],)
        assert_trees_close(mine, alone, rtol=1e-12)
    cells = jax.tree.map(lambda w: np.stack([w, 2 * w]), cell)
    ensemble = by_numpy(jax.vmap(jax.grad(loss), in_axes=(0, None, None)))(cells, h_0, xs)
    of_one = by_numpy(jax.grad(reference))
    for i in range(2):
        alone = of_one(jax.tree.map(lambda w, i=i: w[i], cells), h_0, xs)
        assert_trees_close(jax.tree.map(lambda d, i=i: d[i], ensemble), alone, rtol=1e-12)


@pytest.fixture
def mesh():
    assert jax.device_count() == 2, "conftest asks for two CPU devices"
    return jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("method", EXACT)
def test_sharded_over_the_batch(mesh, method):
    """The batch split over two devices under `jit`: the gradient of the whole batch, weights replicated."""
    case = Case(batch=(4,), num_layers=2, mask=True, reset=True)
    params, batch, h_0 = make_problem(case)
    expected = run(method, case, (params, batch, h_0))

    def put(x, *axes):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    split_batch = jax.tree.map(lambda x: put(x, None, "data"), batch)
    split_h_0 = jax.tree.map(lambda x: put(x, "data"), h_0)
    result = run_compiled(method, case, (put(params), split_batch, split_h_0))
    assert len(result[1].inputs.sharding.device_set) == 2
    assert_trees_close(result, expected, rtol=1e-12)


def test_a_batch_split_over_explicit_axes_is_refused():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    params, batch, h_0 = make_problem(Case(batch=(4,)))
    split = jax.device_put(batch.inputs, NamedSharding(mesh, PartitionSpec(None, "data")))
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    with pytest.raises(ValueError, match="`grad_fn` must not get arrays that are split over explicit mesh axes"):
        jax.jit(grad_fn)(params, batch._replace(inputs=split), h_0)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("shared_h_0", [True, False])
def test_under_shard_map(mesh, check, shared_h_0):
    """With the replication check JAX sums the weights' gradient over devices itself; without it we do."""
    cell, h_0, xs, _ = layer_problem(batch=(4,))
    state = np.asarray(h_0)[:1] if shared_h_0 else np.asarray(h_0)
    h_0 = np.broadcast_to(state, h_0.shape)

    def gradient(unroll_fn, cell, h_0, xs):
        h_0 = jnp.broadcast_to(h_0, (xs.shape[1], h_0.shape[-1]))
        return jax.grad(lambda cell: jnp.sum(unroll_fn(cell, h_0, xs) ** 2))(cell)

    def local(*args):
        d_cells = [gradient(unroll_fn, *args) for unroll_fn in (unroll_bptt, unroll)]
        return d_cells if check else lax.psum(d_cells, "data")

    split = PartitionSpec(None, "data")
    rows = PartitionSpec() if shared_h_0 else PartitionSpec("data")
    specs = {"in_specs": (PartitionSpec(), rows, split), "out_specs": PartitionSpec()}
    expected = by_numpy(functools.partial(gradient, unroll))(cell, h_0, xs)
    for d_cell in jax.jit(jax.shard_map(local, mesh=mesh, check_vma=check, **specs))(cell, state, xs):
        assert_trees_close(d_cell, expected, rtol=1e-12)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("method", EXACT)
def test_gradients_under_shard_map(mesh, method, check):
    """Every method returns the device's own part, with the replication check and without; summed, the whole."""
    case = Case(batch=(4,), num_layers=2, mask=True, reduction="sum")
    params, batch, h_0 = make_problem(case)
    grad_fn = rnn_jax.make_grad_fn(method, loss=case.loss, reduction="sum")

    def own_part(params, batch, h_0):
        (loss, h_T), gradients = grad_fn(params, batch, h_0)
        loss, d_params = lax.psum((loss, gradients.params), "data")
        return (loss, h_T), gradients._replace(params=d_params)

    shared, rows, columns = PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")
    mapped = jax.shard_map(
        own_part,
        mesh=mesh,
        in_specs=(shared, columns, rows),
        out_specs=((shared, rows), rnn_jax.Gradients(shared, rows, columns)),
        check_vma=check,
    )
    assert_trees_close(jax.jit(mapped)(params, batch, h_0), run(method, case, (params, batch, h_0)), rtol=1e-12)


def test_explicit_mesh_axes_are_refused_with_the_way_out():
    cell, h_0, xs, _ = layer_problem(batch=(4,))
    explicit = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    split = jax.device_put(xs, NamedSharding(explicit, PartitionSpec(None, "data")))
    with pytest.raises(ValueError, match="AxisType.Auto"):
        unroll_bptt(cell, h_0, split)


def test_bfloat16_keeps_its_dtype():
    cell, h_0, xs, _ = layer_problem()
    loss = jax.grad(lambda *args: jnp.sum(unroll_bptt(*args).astype(jnp.float32)), argnums=(0, 1, 2))
    grads = jax.jit(loss)(*cast((cell, h_0, xs), jnp.bfloat16))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("unroll_fn", [unroll, unroll_bptt])
def test_mask_is_deletion(unroll_fn):
    """With holes anywhere, inputs NaN there and a reset there: the states of the sequence without those steps."""
    cell, _, xs, _ = layer_problem(batch=())
    h_0, xs = jnp.ones(HID), np.asarray(xs)
    mask = np.array([False, True, False, False, True, True, False])
    reset = np.array([True, False, True, False, True, False, True])
    states = by_numpy(lambda xs, mask, reset: unroll_fn(cell, h_0, xs, mask=mask, reset=reset))
    hs, kept = states(np.where(mask[:, None], xs, np.nan), mask, reset), states(xs[mask], None, reset[mask])
    steps_so_far = np.cumsum(mask)
    for t in range(7):
        expected = h_0 if steps_so_far[t] == 0 else kept[steps_so_far[t] - 1]
        np.testing.assert_allclose(hs[t], expected, rtol=1e-14)


@pytest.mark.parametrize("unroll_fn", [unroll, unroll_bptt])
def test_reset_is_a_fresh_start(unroll_fn):
    """The steps from a reset on are those of a sequence of its own, and nothing crosses back."""
    cell, h_0, xs, _ = layer_problem()
    reset = np.zeros((7, 3), bool)
    reset[4] = True
    states = by_numpy(lambda h_0, xs, reset: unroll_fn(cell, h_0, xs, reset=reset))
    afresh = states(np.zeros(h_0.shape), np.asarray(xs)[4:], None)
    np.testing.assert_allclose(states(h_0, xs, reset)[4:], afresh, rtol=1e-14)
    loss = jax.grad(lambda xs, reset: jnp.sum(unroll_fn(cell, h_0, xs, reset=reset)[4:] ** 2))
    d_xs = by_numpy(loss)(xs, reset)
    assert np.all(d_xs[:4] == 0) and np.all(np.any(d_xs[4:] != 0, axis=(1, 2)))


def test_tokens_are_one_hot_rows():
    cell, h_0, tokens, _ = layer_problem(inputs="tokens")
    one_hot = np.eye(IN)[np.asarray(tokens)]
    for unroll_fn in (unroll, unroll_bptt):
        of_tokens, of_features = (by_numpy(unroll_fn)(cell, h_0, x) for x in (tokens, one_hot))
        np.testing.assert_allclose(of_tokens, of_features, rtol=1e-12)
    from_tokens, from_features = (by_numpy(with_gradients(unroll_bptt, {}, x))(cell, h_0, x) for x in (tokens, one_hot))
    assert_trees_close(from_tokens[2], from_features[2][:2], rtol=1e-12)


@pytest.mark.parametrize("bad", [-1, IN])
def test_a_token_that_names_no_row_is_loud(bad):
    cell, h_0, tokens, _ = layer_problem(inputs="tokens")
    tokens = np.array(tokens)
    tokens[0] = bad
    assert np.all(np.isnan(by_numpy(unroll_bptt)(cell, h_0, tokens)[0]))
