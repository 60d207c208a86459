"""The engine works with any cell: a leak per unit, gated cells and cells of your own equal autodiff."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from problems import HID, Case, assert_trees_close, grad_fn_of, make_problem, thinned

import rnn_jax
from rnn_jax import GRUParams, LeakyParams, LSTMParams, Plan
from rnn_jax._cells.protocol import Cell, own_names
from rnn_jax.verify._subject import gates_of


def peephole_lstm(a, s, p_i, p_f, p_o):
    """Gers and Schmidhuber (2000): the gates see the cell state."""
    (a_i, a_f, a_g, a_o), (_, c) = a, s
    i, f = jax.nn.sigmoid(a_i + p_i * c), jax.nn.sigmoid(a_f + p_f * c)
    c = f * c + i * jnp.tanh(a_g)
    return jax.nn.sigmoid(a_o + p_o * c) * jnp.tanh(c), c


def gru_with_layer_norm(z, u, s, gain, b_n):
    """A reset of its own form, and units that are mixed."""
    q = gain * jax.nn.standardize(u[2], axis=-1) + b_n
    k, n = jax.nn.sigmoid(z[1] + u[1]), jnp.tanh(z[2] + jax.nn.sigmoid(z[0] + u[0]) * q)
    return (1 - k) * n + k * s[0]


Peephole = rnn_jax.elementwise(peephole_lstm, num_gates=4, num_parts=2, own={"p_i": 0.0, "p_f": 0.0, "p_o": 0.0})
Normed = rnn_jax.elementwise(gru_with_layer_norm, num_gates=3, own={"gain": 1.0, "b_n": 0.0}, apart=True)


def lstm_by_autodiff(a, s):
    """The map of `LSTMParams`."""
    (a_i, a_f, a_g, a_o), (_, c) = a, s
    c = jax.nn.sigmoid(a_f) * c + jax.nn.sigmoid(a_i) * jnp.tanh(a_g)
    return jax.nn.sigmoid(a_o) * jnp.tanh(c), c


GATES = {"gate_names": "ifgo", "bias": {"f": 1.0}, "memory": {"f": 1, "i": -1}}
Named = rnn_jax.elementwise(lstm_by_autodiff, num_gates=4, num_parts=2, **GATES)
CELLS = {"gru": GRUParams, "lstm": LSTMParams, "leaky": LeakyParams, "peephole": Peephole, "normed": Normed}
CASES = {
    "plain": Case(batch=(3,), time=7),
    "flags": Case(batch=(2, 2), time=7, weights=True, mask=True, reset=True, last="some"),
    "dropped stack": Case(batch=(3,), time=6, num_layers=3, drop=True, mask=True, reset=True),
    "tokens": Case(batch=(), time=6, num_layers=2, inputs="tokens", last="one"),
    "one step": Case(batch=(3,), time=1, loss="squared_error"),
}
METHODS = {
    "stepwise": {},
    "bptt": {},
    "blocked": {},
    "blocked in blocks": {"plan": Plan(2)},
    "blocked in segments": {"plan": Plan(2, (4,), 2)},
    "blocked, gates recomputed": {"plan": Plan(2, remake=True)},
    "blocked, gates recomputed in segments": {"plan": Plan(2, (4,), 2, remake=True)},
    "truncated": {"k1": 2, "k2": 4},
    "truncated apart": {"k1": 3, "k2": 3},
    "adaptive": {"k1": 2, "bias": 0.1},
    "last_steps": {"k": 2},
}


def problem_of(name, case):
    """The package's problem for the case, with layers of this cell."""
    return make_problem(case._replace(cell=CELLS[name]))


@pytest.mark.parametrize("name", CELLS)
def test_the_interface_is_the_protocol(name):
    params, _, _ = problem_of(name, CASES["plain"])
    assert isinstance(params.cells[0], Cell)
    own = {
        "gru": ("b_n",),
        "lstm": (),
        "leaky": ("leak",),
        "peephole": ("p_i", "p_f", "p_o"),
        "normed": ("gain", "b_n"),
    }
    assert own_names(params.cells[0]) == own[name]


@pytest.mark.parametrize(("name", "case"), thinned(itertools.product(CELLS, CASES), 2))
def test_every_method_equals_autodiff(name, case):
    """Exact methods; the others are compared with what they mean, by `stop_gradient`. Every leaf, the own ones too."""
    case = CASES[case]
    problem = problem_of(name, case)
    expected = by_numpy(grad_fn_of("autodiff", case))(*problem)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected[1].params.cells))
    for label, options in METHODS.items():
        method = label.split()[0].strip(",")
        actual = by_numpy(grad_fn_of(method, case, **options))(*problem)
        if not rnn_jax.GRADIENTS[method].exact:
            reference = rnn_jax.GRADIENTS[method].kind(**options).reference
            grad_fn = rnn_jax.make_grad_fn(reference, loss=case.loss, reduction=case.reduction)
            assert_trees_close(actual, by_numpy(grad_fn)(*problem), rtol=1e-12, floor=1e-3)
        else:
            assert_trees_close(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_every_entry_equals_differences(name):
    case = CASES["flags"]
    grad_fn = jax.jit(grad_fn_of("blocked", case, plan=Plan(3)))
    report = rnn_jax.check_gradients(grad_fn, *problem_of(name, case))
    assert report.passed, report


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_the_unroll_under_transformations(name, flagged):
    """`unroll_bptt` under grad, jvp, vmap over sequences and over weights, and of second order, equals `unroll`."""
    case = Case(batch=(3,), time=6, mask=True, reset=True, drop=True) if flagged else Case(batch=(3,), time=6)
    params, batch, h_0 = problem_of(name, case)
    cell, s_0, xs = params.cells[0], h_0[0], batch.inputs
    flags = {"mask": batch.mask, "reset": batch.reset} | ({"r": batch.drop.recurrent[0]} if flagged else {})
    rng = np.random.default_rng(5)
    weights = jnp.asarray(rng.normal(size=(case.time, *s_0.shape)))
    args = cell, s_0, jnp.nan_to_num(xs)
    dots = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), args)

    def results(unroll):
        def loss(*args):
            return jnp.sum(weights * jnp.sin(unroll(*args, **flags)))

        gradient = jax.grad(loss, (0, 1, 2))
        pairs = jax.tree.map(lambda x, dot: jnp.stack([x, dot]), args, dots)
        some = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), args[2])

        def of_bias(b_h):
            return loss(dataclasses.replace(cell, b_h=b_h), *args[1:])

        return {
            "values": unroll(*args, **flags),
            "grad": gradient(*args),
            "jvp": jax.jvp(loss, args, dots),
            "jvp of the bias alone": jax.jvp(of_bias, (cell.b_h,), (dots[0].b_h,)),
            "jvp of grad": jax.jvp(gradient, args, dots)[1],
            "grad of grad": jax.grad(lambda cell: jnp.sum(jax.grad(loss)(cell, *args[1:]).w_hh ** 2))(cell),
            "vmap over sequences": jax.vmap(lambda x: loss(cell, s_0, x))(some),
            "vmap over weights": jax.vmap(gradient)(*pairs),
        }  # fmt: skip

    by_hand, autodiff = (
        jax.jit(lambda unroll=unroll: results(unroll))() for unroll in (rnn_jax.unroll_bptt, rnn_jax.unroll)
    )
    assert_trees_close(by_hand, autodiff, rtol=1e-11)


@pytest.mark.parametrize("name", CELLS)
def test_the_jacobians(name):
    params, batch, h_0 = problem_of(name, CASES["plain"])
    cell, s_0 = params.cells[0], h_0[0][0]
    jacobians = rnn_jax.dynamics.step_jacobians(cell, s_0, batch.inputs[:, 0])
    s = s_0
    for t in range(len(jacobians)):
        expected = jax.jacobian(rnn_jax.step, argnums=1)(cell, s, batch.inputs[t, 0])
        np.testing.assert_allclose(jacobians[t], expected, rtol=1e-12, atol=1e-15)
        s = rnn_jax.step(cell, s, batch.inputs[t, 0])


def test_a_stack_of_different_cells():
    """A GRU, an LSTM, leaky units and the vanilla cell in one stack: every witness."""
    case = Case(num_layers=4, mask=True, reset=True, drop=True, weights=True)
    kinds = ("gru", "lstm", "leaky", "vanilla")
    problems = [make_problem(case._replace(cell=cell)) for cell in kinds]
    params, batch, _ = problems[0]
    params = params._replace(cells=tuple(params.cells[i] for i, (params, *_) in enumerate(problems)))
    problem = params, batch, tuple(h_0[i] for i, (*_, h_0) in enumerate(problems))
    actual = by_numpy(grad_fn_of("blocked", case, plan=Plan(2, (4,), 2)))(*problem)
    for name, witness in rnn_jax.verify.WITNESSES.items():
        assert witness.applies(params)
        its = witness.make(case.loss, case.reduction)
        assert_trees_close(actual, (by_numpy(its) if name == "autodiff" else its)(*problem), rtol=1e-12, floor=1e-3)


def test_witnesses_in_numpy_are_for_cells_of_the_library():
    problem = problem_of("peephole", CASES["plain"])
    applying = [name for name, witness in rnn_jax.verify.WITNESSES.items() if witness.applies(problem[0])]
    assert applying == ["autodiff"]
    with pytest.raises(TypeError, match="This witness needs layers of CellParams, .* got peephole_lstm"):
        rnn_jax.verify.WITNESSES["RTRL"].make("cross_entropy", "mean")(*problem)


@pytest.mark.parametrize("cell", ["gru", "leaky", LSTMParams])
def test_activation_and_leak_are_of_the_vanilla_cell(cell):
    for options in ({"activation": "relu"}, {"leak": 0.3}):
        with pytest.raises(ValueError, match="`activation` and `leak` are for the vanilla cell only, got .*"):
            make_problem(Case(cell=cell, **options))
    with pytest.raises(ValueError, match="No cell named 'grus'"):
        make_problem(Case(cell="grus"))


@pytest.mark.parametrize("cell", ["lstm", pytest.param(Named, marks=pytest.mark.thorough)])
def test_a_finding_names_the_gates(cell):
    """Two gates exchanged, one gate dropped, one gate wrong; a weight that has no gates is spoken of as ever."""
    case = Case(cell=cell, time=3)
    right, problem = jax.jit(grad_fn_of("blocked", case)), make_problem(case)
    columns = np.arange(4 * HID).reshape(4, HID)

    def with_changed(change):
        def grad_fn(*problem):
            (loss, h_T), d = right(*problem)
            cell = d.params.cells[0]
            cell = cell.replace(w_xh=change(cell.w_xh), b_h=change(cell.b_h))
            return (loss, h_T), d._replace(params=d.params._replace(cells=(cell,)))

        return rnn_jax.check_gradients(grad_fn, *problem).findings[:2]

    for change, words in (
        (lambda d: d[..., columns[[0, 1, 3, 2]].ravel()], "has the columns of the gates g and o exchanged"),
        (lambda d: d.at[..., columns[1]].set(0), "is zero, it was dropped in the columns of f"),
        (lambda d: d.at[..., columns[0]].multiply(2), "is 2 times what it should be in the columns of i"),
        (lambda d: d.at[..., columns[2:].ravel()].add(1), "is wrong in the columns of g and o: most at"),
    ):
        found = with_changed(change)
        assert all(words in finding for finding in found) and len(found) == 2, found


def test_named_gates_start_as_those_of_the_library():
    """The map of the LSTM, its gates named: the first weights and the biases by chrono are those of `"lstm"`."""
    sizes = {"input_size": 3, "hidden_size": 50, "output_size": 2, "num_layers": 2}
    own, ours = (rnn_jax.init_params(jax.random.key(0), cell=cell, **sizes) for cell in (Named, "lstm"))
    for params in (own, rnn_jax.initializers.chrono(jax.random.key(1), own, 100)):
        its = ours if params is own else rnn_jax.initializers.chrono(jax.random.key(1), ours, 100)
        for mine, theirs in zip(params.cells, its.cells, strict=True):
            assert all(map(np.array_equal, jax.tree.leaves(mine), jax.tree.leaves(theirs)))
            i, f, g, o = np.split(np.asarray(mine.b_h), 4)
            assert not np.any(g) and not np.any(o)
            if params is own:
                assert np.all(f == 1) and not np.any(i)
            else:
                assert np.all((0 <= f) & (f <= np.log(99))) and np.array_equal(i, -f) and np.std(f) > 0.5
    assert gates_of(own) == gates_of(ours) and gates_of(own)["params.cells[1].w_hh"] == tuple("ifgo")
    unnamed = rnn_jax.init_params(jax.random.key(0), cell=Peephole, **sizes)
    assert not any(np.any(cell.b_h) for cell in unnamed.cells) and set(gates_of(unnamed).values()) == {()}


@pytest.mark.parametrize("mixed", ["units", "sequences"])
def test_a_map_that_mixes_sequences_differs_from_each_alone(mixed):
    """The test of docs/cells.md. By itself such a map has the right gradient, which `check_gradients` confirms."""
    axis = {"units": -1, "sequences": 0}[mixed]

    def normed(a, s):
        return jnp.tanh(jax.nn.standardize(a[0], axis=axis) + s[0])

    case = Case(cell=rnn_jax.elementwise(normed), batch=(4,), time=3)
    params, batch, (s_0,) = problem = make_problem(case)
    assert rnn_jax.check_gradients(jax.jit(grad_fn_of("bptt", case)), *problem).passed
    together = by_numpy(rnn_jax.unroll)(params.cells[0], s_0, batch.inputs)
    alone = by_numpy(jax.vmap(rnn_jax.unroll, (None, 0, 1), 1))(params.cells[0], s_0, batch.inputs)
    assert np.allclose(together, alone, rtol=1e-12) == (mixed == "units")


def test_equal_leaks_are_one_leak():
    case = Case(leak=0.3, num_layers=2, mask=True, reset=True)
    params, batch, h_0 = make_problem(case)
    each = tuple(LeakyParams(c.w_xh, c.w_hh, c.b_h, jnp.full(HID, c.leak), c.activation) for c in params.cells)
    one, several = (
        by_numpy(grad_fn_of("blocked", case, plan=Plan(3)))(p, batch, h_0)
        for p in (params, params._replace(cells=each))
    )
    np.testing.assert_allclose(one[0][0], several[0][0], rtol=1e-13)
    for mine, its in zip(one[1].params.cells, several[1].params.cells, strict=True):
        for leaf in ("w_xh", "w_hh", "b_h"):
            np.testing.assert_allclose(getattr(mine, leaf), getattr(its, leaf), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CELLS)
def test_plans_the_trainer_and_single_steps(name):
    """Every cell: `plan_memory` finds a plan, the trainer learns, and `apply_step` computes what `apply` does."""
    case = CASES["tokens"]._replace(batch=(2,), last="all", time=12)
    params, batch, h_0 = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, problem_of(name, case)
    )
    zero = rnn_jax.zero_state(params, 2)
    assert [h.shape for h in zero] == [h.shape for h in h_0]
    forecast = rnn_jax.plan_cost((params, batch, zero))
    assert rnn_jax.plan_memory((params, batch, zero), 2.0 * forecast.temporary_bytes).block >= 1
    trainer = rnn_jax.make_trainer(
        rnn_jax.make_grad_fn("blocked", loss=case.loss),
        rnn_jax.clipped_sgd(0.5, momentum=0.9, max_norm=1.0),
        carry=True,
    )
    state, losses = trainer.init(params, zero), []
    step = jax.jit(trainer.step)
    for _ in range(200):
        state, info = step(state._replace(h_0=zero), batch)
        losses.append(float(info.loss))
    assert losses[-1] < 0.95 * losses[0]
    ys, h_T = rnn_jax.apply(state.params, zero, batch.inputs)
    h, outputs = zero, []
    for x_t in batch.inputs:
        y_t, h = rnn_jax.apply_step(state.params, h, x_t)
        outputs.append(y_t)
    np.testing.assert_allclose(jnp.stack(outputs), ys, rtol=1e-4, atol=1e-5)
    assert_trees_close(h, h_T, rtol=1e-4)


def test_an_own_parameter_or_a_state_of_the_wrong_shape_is_told():
    params, batch, h_0 = problem_of("leaky", CASES["plain"])
    wrong = dataclasses.replace(params.cells[0], leak=jnp.ones(HID + 1))
    with pytest.raises(ValueError, match=r"`params.cells\[0\].leak` must have shape \(hid,\) = \(4,\) to match"):
        grad_fn_of("bptt", CASES["plain"])(params._replace(cells=(wrong,)), batch, h_0)
    params, batch, h_0 = problem_of("lstm", CASES["plain"])
    with pytest.raises(ValueError, match=r"`h_0\[0\]` must have shape \(\*batch, 2 hid\) = \(3, 8\) to match"):
        grad_fn_of("bptt", CASES["plain"])(params, batch, (h_0[0][..., :HID],))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_kept_gates_take_no_more_than_autodiff_keeps(cell):
    """Also where all steps would fit into one block. Recomputed gates take a quarter; `plan_cost` foretells both."""
    sizes = {"input_size": 64, "hidden_size": 128, "output_size": 64, "dtype": jnp.float32}
    params = rnn_jax.init_params(jax.random.key(0), cell=cell, **sizes)

    def shapes(time, num):
        batch = rnn_jax.Batch(jnp.zeros((time, num, 64), jnp.float32), jnp.zeros((time, num), int))
        return params, batch, rnn_jax.zero_state(params, num)

    def temporaries(method, *steps):
        grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
        return jax.jit(grad_fn).lower(*shapes(*steps)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(rnn_jax.Blocked(), 100, 8) <= temporaries(rnn_jax.Autodiff(), 100, 8)
    lean = Plan(10, remake=True)
    kept, recomputed = temporaries(rnn_jax.Blocked(), 200, 16), temporaries(rnn_jax.Blocked(plan=lean), 200, 16)
    assert 4 * recomputed <= temporaries(rnn_jax.Autodiff(), 200, 16)
    for plan, measured in ((None, kept), (lean, recomputed)):
        assert abs(rnn_jax.plan_cost(shapes(200, 16), plan).temporary_bytes / measured - 1) < 0.12
