"""What a person does with a network, done with gated cells, a cell of their own, and layers of different cells."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from anatomies import beside_autodiff, they_add_up
from by_numpy import by_numpy
from problems import Case, assert_trees_close, grad_fn_of, make_problem
from truncations import keyed

import rnn_jax
from rnn_jax import Blocked, Plan, Truncated
from test_cells import CELLS, Peephole, problem_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "recurrent_policy.py"
NETWORKS = ["gru", "lstm", "peephole", "stack"]
FLAGS = Case(batch=(4,), time=9, num_layers=3, weights=True, mask=True, reset=True, drop=True, last="some")
PLAIN = Case(batch=(4,), time=8, num_layers=3)
METHODS = {
    "blocked": Blocked(),
    "blocked in segments": Blocked(plan=Plan(2, (4,), 2)),
    "gates recomputed": Blocked(plan=Plan(2, (4,), 2, remake=True)),
    "truncated": Truncated(k1=2, k2=5),
    "randomised": rnn_jax.Randomised(mean_reach=3.0),
    "burn-in": rnn_jax.BurnIn(Blocked(), 3),
    "burn-in, truncated": rnn_jax.BurnIn(Truncated(k1=2, k2=5), 3),
}


def network_problem(name, case):
    """A problem of three layers: all of one cell, or a vanilla layer, a GRU and an LSTM."""
    if name != "stack":
        return problem_of(name, case)
    each = [make_problem(case), problem_of("gru", case), problem_of("lstm", case)]
    params, batch, _ = each[0]
    cells = tuple(problem[0].cells[i] for i, problem in enumerate(each))
    return params._replace(cells=cells), batch, tuple(problem[2][i] for i, problem in enumerate(each))


def gradient(method, case, problem, evaluated=by_numpy):
    grad_fn = rnn_jax.make_grad_fn(method, loss=case.loss, reduction=case.reduction)
    return evaluated(grad_fn)(*problem)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_stack_of_different_cells(method):
    """Exact ones and their reference, autodiff; the others and their definition by `stop_gradient`."""
    method, problem = METHODS[method], keyed(network_problem("stack", FLAGS))
    expected = gradient(method.reference, FLAGS, problem)
    assert_trees_close(gradient(method, FLAGS, problem), expected, rtol=1e-12, floor=1e-3)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected[1].params.cells))


@pytest.mark.parametrize("name", NETWORKS)
def test_devices_share_the_sequences(name):
    problem = network_problem(name, FLAGS._replace(drop=False))
    sharded = rnn_jax.Sharded(Blocked(plan=Plan(2, (4,), 2)), jax.devices()[:2])
    expected = gradient(rnn_jax.Autodiff(), FLAGS, problem)
    assert_trees_close(gradient(sharded, FLAGS, problem, jax.jit), expected, rtol=1e-12, floor=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_dropped_units_step_by_step(name):
    """`drop_units` has one mask of h for each layer; `apply_step` with it ends where `apply` ends."""
    params, batch, h_0 = keyed(network_problem(name, PLAIN))
    batch = rnn_jax.drop_units(params, batch, between=0.4, recurrent=0.3)
    assert {r.shape for r in (*batch.drop.between, *batch.drop.recurrent)} == {(4, 4)}
    ys, h_T = by_numpy(rnn_jax.apply)(params, h_0, batch.inputs, drop=batch.drop)
    h, step = h_0, by_numpy(rnn_jax.apply_step)
    for x_t, y_t in zip(batch.inputs, ys, strict=True):
        y, h = step(params, h, x_t, drop=batch.drop)
        np.testing.assert_allclose(y, y_t, rtol=1e-12, atol=1e-14)
    assert_trees_close(h, h_T, rtol=1e-12)
    assert [s.shape[1] // 4 for s in h] == [cell.parts for cell in params.cells]


@pytest.mark.parametrize("name", NETWORKS)
def test_generate_step_by_step(name):
    """Prompts of different lengths; then the network goes on by itself, from its states."""
    case = PLAIN._replace(inputs="tokens", time=4)
    params, batch, h_0 = network_problem(name, case)
    params = params._replace(readout=jax.tree.map(lambda w: 5 * w[..., :3], params.readout))
    mask = rnn_jax.data.lengths_to_mask(jnp.array([4, 1, 3, 2]), 4)
    options = {"draw": rnn_jax.greedy, "h_0": h_0, "mask": mask}
    outputs, h_T = jax.jit(lambda: rnn_jax.generate(jax.random.key(0), params, batch.inputs, 6, **options))()
    step = by_numpy(rnn_jax.apply_step)
    for b, length in enumerate([4, 1, 3, 2]):
        h, y = jax.tree.map(lambda s, b=b: s[b], h_0), None
        for x in (*batch.inputs[:length, b], *outputs[:, b]):
            if y is not None:
                last = h
            y, h = step(params, h, x)
        assert_trees_close(last, jax.tree.map(lambda s, b=b: s[b], h_T), rtol=1e-12)
    firsts = [int(np.argmax(step(params, jax.tree.map(lambda s: s[1], h_0), batch.inputs[0, 1])[0]))]
    assert firsts == [int(outputs[0, 1])]


def test_a_gru_ahead_and_an_lstm_back():
    """Two directions of different cells; the h of both, next to each other."""
    params, batch, h_0 = network_problem("stack", FLAGS._replace(reset=False, drop=False))
    (_, gru, lstm), (_, h_gru, h_lstm), xs = params.cells, h_0, jnp.ones((9, 4, 4))
    found = by_numpy(rnn_jax.bidirectional)((gru, lstm), (h_gru, h_lstm), xs, mask=batch.mask)
    unroll = by_numpy(rnn_jax.unroll)
    ahead = unroll(gru, h_gru, xs, mask=batch.mask)
    back = unroll(lstm, h_lstm, xs[::-1], mask=batch.mask[::-1])[::-1, :, :4]
    np.testing.assert_allclose(found, np.concatenate([ahead, back], -1), rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trainer_carries_whole_states(name):
    """Three steps of Adam beside autodiff and optax by hand; both parts of an LSTM's state go on to the next window."""
    params, batch, h_0 = network_problem(name, PLAIN)
    trainer = rnn_jax.make_trainer(grad_fn_of("blocked", PLAIN), optax.adam(0.05), carry=True)
    state, step = trainer.init(params, h_0), jax.jit(trainer.step)
    optimizer, autodiff = optax.adam(0.05), jax.jit(grad_fn_of("autodiff", PLAIN))
    of_optimizer = optimizer.init(params)
    for _ in range(3):
        with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in int32
            state, info = step(state, batch)
        (loss, h_0), gradients = autodiff(params, batch, h_0)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
        with jax.numpy_dtype_promotion("standard"):
            updates, of_optimizer = optimizer.update(gradients.params, of_optimizer, params)
        params = optax.apply_updates(params, updates)
        assert_trees_close((state.params, state.h_0), (params, h_0), rtol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded(name, tmp_path):
    params, _, _ = network_problem(name, PLAIN)
    rnn_jax.saving.save_params(tmp_path / "net.npz", params)
    own = {"cells": (Peephole,)} if name == "peephole" else {}
    again = rnn_jax.saving.load_params(tmp_path / "net.npz", **own)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert_trees_close(again, params, rtol=0)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_for_any_length_and_batch(name):
    case = PLAIN._replace(mask=True)
    params, batch, h_0 = network_problem(name, case)
    time, size = jax.export.symbolic_shape("time, batch")
    leaves, tree = jax.tree.flatten((params, batch, h_0))

    def shaped(x, *leading):
        return jax.ShapeDtypeStruct((*leading, *x.shape[len(leading) :]), x.dtype)

    shapes = (
        jax.tree.map(shaped, params),
        jax.tree.map(lambda x: shaped(x, time, size), batch),
        jax.tree.map(lambda x: shaped(x, size), h_0),
    )
    grad_fn = grad_fn_of("blocked", case)
    program = jax.jit(lambda *leaves: jax.tree.leaves(grad_fn(*jax.tree.unflatten(tree, leaves))))
    exported = jax.export.export(program)(*jax.tree.leaves(shapes))
    again = jax.export.deserialize(exported.serialize())
    expected = jax.tree.leaves(by_numpy(grad_fn_of("autodiff", case))(params, batch, h_0))
    for found, right in zip(again.call(*leaves), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-12)


def test_the_anatomy_of_a_stack_of_different_cells():
    case = FLAGS._replace(time=6, batch=(2,), last="all")
    problem = network_problem("stack", case)
    beside_autodiff(case, problem)
    they_add_up(case, problem)


@pytest.mark.parametrize("name", ["gru", "lstm", "peephole"])
def test_what_is_only_for_vanilla_layers_says_so(name):
    """In one sentence."""
    problem, kind = problem_of(name, Case()), CELLS[name].__name__
    with pytest.raises(TypeError, match=rf"`penalise_norms` needs layers of CellParams, got {kind}\.$"):
        rnn_jax.analysis.penalise_norms(1.0, loss="cross_entropy")(*problem)


def recurrent_policy():
    spec = importlib.util.spec_from_file_location("recurrent_policy", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["stopped", pytest.param("through", marks=pytest.mark.thorough)])
def test_the_recurrent_policy_learns_what_only_memory_can_tell(name):
    """Without memory half of the turns are right. The example trains twice as long."""
    module = recurrent_policy()
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):  # as a user has it
        right = module.main(module.METHODS[name], num_windows=150)
    assert right.shape == (150,) and right[:10].mean() < 0.7 and right[-10:].mean() > 0.9
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_the_burn_in_of_the_policy_with_and_without_a_gradient():
    """The loss is the same. Only if the gradient goes through the burn-in, it reaches its inputs."""
    module, rng = recurrent_policy(), np.random.default_rng(0)
    params, _, (h_0,) = problem_of("gru", Case(time=1, batch=(4,)))
    params = params._replace(readout=jax.tree.map(lambda w: w[..., :3], params.readout))
    seen = {"y": rng.normal(size=(5, 4, 3)), "action": rng.integers(0, 2, (5, 4)), "return": rng.normal(size=(5, 4))}
    batch = rnn_jax.Batch(jnp.asarray(rng.normal(size=(module.BURN_IN + 5, 4, 3))), jax.tree.map(jnp.asarray, seen))
    loss = rnn_jax.pointwise(module.ppo)
    stopped, through = (
        by_numpy(rnn_jax.make_grad_fn(module.METHODS[name], loss=loss))(params, batch, (h_0,))
        for name in ("stopped", "through")
    )
    assert_trees_close(stopped[0], through[0], rtol=1e-12)
    d_stopped, d_through = stopped[1].inputs, through[1].inputs
    assert not np.any(d_stopped[: module.BURN_IN]) and np.all(np.any(d_through[: module.BURN_IN], (1, 2)))
    assert_trees_close(d_stopped[module.BURN_IN :], d_through[module.BURN_IN :], rtol=1e-12)
    advantage = seen["return"] - seen["y"][..., 2]
    assert np.any(advantage < 0) and np.any(advantage > 0)
