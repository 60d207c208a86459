"""Variational dropout: one mask per sequence, in every hand-written method. It is also an option of other grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import Case, assert_trees_close, cast, make_problem, run, run_compiled

import rnn_jax
from rnn_jax import unroll, unroll_bptt

CASE = Case(num_layers=2, leak=0.3, mask=True, reset=True, drop=True)


def wide(hid, num_layers, dtype=jnp.float64):
    """Parameters for tests that need only shapes and dtypes."""
    in_sizes = [3, *[hid] * (num_layers - 1)]
    cells = tuple(
        rnn_jax.CellParams(np.zeros((size, hid)), np.zeros((hid, hid)), np.zeros(hid), "tanh") for size in in_sizes
    )
    return cast(rnn_jax.Params(cells, rnn_jax.ReadoutParams(np.zeros((hid, 2)), np.zeros(2))), dtype)


def drawn(time=4, batch=(500,), seed=0, **rates):
    params, steps = wide(20, 2), jnp.asarray(np.zeros((time, *batch), int))
    return rnn_jax.drop_units(params, rnn_jax.Batch(steps, steps, key=jax.random.key(seed)), **rates)


def test_rates_and_what_is_kept():
    drop = jax.tree.map(np.asarray, drawn(between=0.25, recurrent=0.5).drop)
    for units, rate in ((drop.between, 0.25), (drop.recurrent, 0.5)):
        assert [r.shape for r in units] == [(500, 20), (500, 20)]
        for r in units:
            assert set(np.unique(r)) == {0, 1 / (1 - rate)}
            assert abs(np.mean(r == 0) - rate) < 4 * (rate * (1 - rate) / r.size) ** 0.5
        assert np.any(units[0] != units[1])  # of each layer its own
    drop = drawn(between=0.5, recurrent=0.5).drop
    assert np.any(np.asarray(drop.between[0]) != np.asarray(drop.recurrent[0]))  # and between and within another


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_mean_is_one_in_half_precision_too(dtype):
    params, steps = wide(100, 1, dtype), jnp.asarray(np.zeros((1, 4000), int))
    batch = rnn_jax.drop_units(params, rnn_jax.Batch(steps, steps, key=jax.random.key(0)), recurrent=np.float32(0.1))
    units = np.asarray(batch.drop.recurrent[0]).astype(np.float64)
    assert abs(units.mean() - 1) <= 4 * units.std() / units.size**0.5


@pytest.mark.parametrize("place", ["between", "recurrent"])
def test_a_sweep_over_rates(place):
    """Under `vmap` and `jit` each draws what it draws alone; where it is 0, nothing is dropped."""
    params, steps = wide(20, 2), jnp.asarray(np.zeros((4, 30), int))

    def units(rate):
        batch = rnn_jax.Batch(steps, steps, key=jax.random.key(0))
        return getattr(rnn_jax.drop_units(params, batch, **{place: rate}).drop, place)

    rates = [0.25, 0.5]
    one_by_one = jax.tree.map(lambda *units: np.stack(units), *(units(rate) for rate in rates))
    assert_trees_close(jax.vmap(units)(jnp.array(rates)), one_by_one, rtol=0)
    assert_trees_close(jax.jit(units)(0.5), units(0.5), rtol=0)
    assert all(np.all(r == 1) for r in jax.vmap(units)(jnp.zeros(1)))


def test_a_key_is_used_once():
    first, again, other = drawn(recurrent=0.5), drawn(recurrent=0.5), drawn(recurrent=0.5, seed=1)
    assert_trees_close(first.drop, again.drop, rtol=0)
    assert np.any(first.drop.recurrent[0] != other.drop.recurrent[0])
    assert not np.array_equal(jax.random.key_data(first.key), jax.random.key_data(jax.random.key(0)))
    assert drawn(between=0.0, recurrent=0.0).drop == (None, None)


def test_half_of_the_network():
    """A unit dropped in both directions is a unit that is not there."""
    params, batch, h_0 = make_problem(Case())
    kept = np.array([True, False, True, True])
    units = (jnp.asarray(np.broadcast_to(kept.astype(h_0[0].dtype), h_0[0].shape)),)
    (loss, (h_T,)), gradients = run(
        "blocked", Case(), (params, batch._replace(drop=rnn_jax.typing.Drop(units, units)), h_0)
    )
    (cell,), readout = jax.tree.map(np.asarray, params)
    small = rnn_jax.CellParams(cell.w_xh[:, kept], cell.w_hh[kept][:, kept], cell.b_h[kept], cell.activation)
    small_params = rnn_jax.Params((small,), readout._replace(w_hy=readout.w_hy[kept]))
    (its_loss, (its_h_T,)), its = run("autodiff", Case(), (small_params, batch, (np.asarray(h_0[0])[:, kept],)))
    assert_trees_close((loss, h_T[:, kept], gradients.inputs), (its_loss, its_h_T, its.inputs), rtol=1e-12)
    d_w_hh = gradients.params.cells[0].w_hh
    assert_trees_close(d_w_hh[kept][:, kept], its.params.cells[0].w_hh, rtol=1e-12)
    assert np.all(d_w_hh[1] == 0) and np.all(d_w_hh[:, 1] == 0) and np.all(gradients.params.readout.w_hy[1] == 0)


@pytest.mark.parametrize("method", ["blocked", "truncated"])
def test_over_devices(method):
    case = CASE._replace(batch=(4,), time=5)
    options = {"k1": 1, "k2": 2} if method == "truncated" else {}
    problem = make_problem(case)
    expected = run(method, case, problem, **options)
    actual = run_compiled(method, case, problem, devices=jax.devices(), **options)
    assert_trees_close(actual, expected, rtol=1e-12, floor=1e-3)


def test_devices_draw_each_their_own():
    """Random cuts on two devices: the same sequences are cut in different places."""
    case = Case(batch=(1,), time=12)
    params, batch, h_0 = make_problem(case)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x], 1), batch)._replace(key=jax.random.key(0))
    h_0 = tuple(jnp.concatenate([h, h]) for h in h_0)
    devices = jax.devices()[:2]
    _, gradients = run_compiled("randomised", case, (params, twice, h_0), devices=devices, mean_reach=2.0)
    assert np.any(gradients.inputs[:, 0] != gradients.inputs[:, 1])


def test_lower_precision():
    """Float32 within 2e-5 of the truth, bfloat16 in states and products within 8 %."""
    problem = make_problem(CASE._replace(reset=False))
    truth, low = cast(run("autodiff", CASE, problem), jnp.float32), cast(problem, jnp.float32)
    methods = "stepwise", "bptt", "blocked"
    for compute_dtype, rtol in ((None, 2e-5), (jnp.bfloat16, 8e-2)):
        of_method = {m: run_compiled(m, CASE, low, compute_dtype=compute_dtype) for m in methods}
        assert_trees_close(of_method, dict.fromkeys(methods, truth), rtol=rtol)


def test_unroll_bptt_goes_where_unroll_goes():
    params, batch, h_0 = make_problem(CASE._replace(num_layers=1, time=4))
    primals = params.cells[0], h_0[0], jnp.nan_to_num(batch.inputs)
    r = batch.drop.recurrent[0]

    def loss(fn, r=r, mask=batch.mask):
        return lambda *args: jnp.sum(jnp.sin(fn(*args, mask=mask, reset=batch.reset, r=r)) ** 2)

    tangents = jax.tree.map(lambda x: jnp.asarray(np.cos(np.arange(x.size)).reshape(x.shape)), primals)

    def transformed(fn):
        f = loss(fn)
        return jax.grad(f, (0, 1, 2))(*primals), jax.jvp(f, primals, tangents), jax.jvp(jax.grad(f), primals, tangents)

    expected = by_numpy(lambda: transformed(unroll))()
    assert_trees_close(by_numpy(lambda: transformed(unroll_bptt))(), expected, rtol=1e-12)
    assert_trees_close(jax.jit(lambda: transformed(unroll_bptt))(), expected, rtol=1e-12)

    def of_r(fn):
        return by_numpy(jax.grad(lambda r: jnp.sum(fn(*primals, r=r) ** 2)))(r)

    assert np.all(of_r(unroll) == 0) and np.all(of_r(unroll_bptt) == 0)  # a constant in both

    cell, h, xs = primals
    for axes, args in [
        ((None, 0, 1, 0), (cell, h, xs, r)),  # each sequence its own mask
        ((None, 0, 1, None), (cell, h, xs, r[0])),  # all the same
        ((None, None, None, 0), (cell, h[0], xs[:, 0], r)),  # one sequence, many masks
        ((0, None, None, None), (jax.tree.map(lambda w: jnp.stack([w, 2 * w]), cell), h, xs, r)),  # an ensemble
    ]:

        def vmapped(fn, axes=axes, args=args):
            each = jax.vmap(jax.grad(lambda c, h, xs, r: jnp.sum(jnp.sin(fn(c, h, xs, r=r)))), axes)
            return by_numpy(each)(*args)

        assert_trees_close(vmapped(unroll_bptt), vmapped(unroll), rtol=1e-12)


def test_apply():
    params, batch, h_0 = make_problem(CASE)
    flags = {"mask": batch.mask, "reset": batch.reset, "drop": batch.drop}

    def applied(fn, **flags):
        return by_numpy(lambda *p: rnn_jax.apply(*p, **flags, unroll=fn))(params, h_0, batch.inputs)

    plain = applied(unroll, **flags)
    assert_trees_close(applied(unroll_bptt, **flags), plain, rtol=1e-12)
    without = applied(unroll, mask=batch.mask, reset=batch.reset)
    assert np.any(without[0] != plain[0])


def test_a_stream_with_dropped_units():
    """`apply_step` with the masks of the sequence, from which no gradient comes."""
    params, batch, h_0 = make_problem(CASE)
    xs, drop = jnp.nan_to_num(batch.inputs), batch.drop

    def by_steps(params, h_0, xs, drop):
        ys, h_t = [], h_0
        for x_t in xs:
            y_t, h_t = rnn_jax.apply_step(params, h_t, x_t, drop=drop)
            ys.append(y_t)
        return jnp.stack(ys), h_t

    def at_once(params, h_0, xs, drop):
        return rnn_jax.apply(params, h_0, xs, drop=drop)

    def gradients(fn):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(fn(*args)[0])), argnums=(0, 1, 2, 3))

    primals = params, h_0, xs, drop
    assert_trees_close(by_numpy(by_steps)(*primals), by_numpy(at_once)(*primals), rtol=1e-12)
    stream, sequence = by_numpy(gradients(by_steps))(*primals), by_numpy(gradients(at_once))(*primals)
    assert_trees_close(stream, sequence, rtol=1e-12)
    assert all(np.all(d == 0) for d in jax.tree.leaves(stream[3]))
