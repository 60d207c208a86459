"""By hand = autodiff = NumPy loops = central differences, leaf by leaf, over all options of a method."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from commands import as_users_have_it
from problems import (
    EXACT,
    GATED,
    Case,
    and_gated,
    assert_trees_close,
    equations,
    innermost_loops,
    make_problem,
    run,
    run_compiled,
)
from witness import central_differences

import rnn_jax
from rnn_jax._cells import activations
from rnn_jax.verify._grid import OPTIONS, covering, with_other_cells

CASES = covering(OPTIONS, 2) + covering(
    with_other_cells(OPTIONS), 2
)  # every pair of options occurs; `gradcheck --grid full`: triples
BY_HAND = [name for name, method in rnn_jax.GRADIENTS.items() if method.exact and name != "autodiff"]


def describe(case):
    return "-".join(str(value).replace(" ", "") for value in case)


@pytest.mark.parametrize("case", CASES, ids=describe)
def test_all_witnesses_agree(case):
    problem = make_problem(case)
    (loss, h_T), gradients = run("autodiff", case, problem)
    for method in BY_HAND:
        assert_trees_close(run(method, case, problem), ((loss, h_T), gradients), rtol=1e-12)
    for name, witness in rnn_jax.verify.WITNESSES.items():
        if witness.applies(problem[0]):
            its = witness.make(case.loss, case.reduction)
            its = (by_numpy(its) if name == "autodiff" else its)(*problem)
            assert_trees_close(((loss, h_T), gradients), its, rtol=1e-12, floor=1e-3)
    tree = jax.tree.structure(gradients)
    differences = central_differences(case, problem)
    assert_trees_close(gradients, tree.unflatten(map(jnp.asarray, differences)), rtol=1e-7, floor=1e-2)


THOROUGH = [pytest.param(case, marks=pytest.mark.thorough) for case in CASES[2:]]


@pytest.mark.parametrize("case", [*CASES[:2], *THOROUGH], ids=describe)
def test_compiled_by_xla_it_is_the_same(case):
    problem = make_problem(case)
    for method in EXACT:
        assert_trees_close(run_compiled(method, case, problem), run(method, case, problem), rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{"activation": name} for name in OPTIONS["activation"]] + [{"cell": name} for name in GATED], ids=str
)
def test_the_problem_is_not_vacuous(options):
    """The first step matters: a wrong recurrence cannot hide behind a network that forgets."""
    case = Case(last="one", **options)
    _, gradients = run("autodiff", case, make_problem(case))
    d_xs = gradients.inputs
    assert jnp.linalg.norm(d_xs[0]) > 0.05 * jnp.linalg.norm(d_xs[-1])
    assert jnp.linalg.norm(gradients.h_0[0]) > 0.05 * jnp.linalg.norm(d_xs[-1])


class TestVariants(chex.TestCase):
    """The same compiled and not."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_compiled_and_not(self):
        case = Case(mask=True, reset=True, weights=True, time=3, last="some")
        problem = make_problem(case)
        expected = run("autodiff", case, problem)
        for method in BY_HAND:
            grad_fn = self.variant(rnn_jax.make_grad_fn(method, loss=case.loss))
            assert_trees_close(grad_fn(*problem), expected, rtol=1e-12)


@pytest.mark.parametrize("method", EXACT)
def test_traced_once_a_shape(method):
    chex.clear_trace_counter()
    grad_fn = jax.jit(chex.assert_max_traces(rnn_jax.make_grad_fn(method, loss="cross_entropy"), n=1))
    params, batch, h_0 = make_problem(Case())
    for scale in (1.0, 2.0, 3.0):
        grad_fn(jax.tree.map(lambda w, s=scale: s * w, params), batch, h_0)


@pytest.mark.parametrize("method, cell", and_gated(EXACT, "blocked", "bptt"))
def test_float32(method, cell):
    """Within 2e-5 of the float64 truth, in float32 throughout."""
    case = Case(num_layers=2, mask=True, reset=True, time=25, cell=cell)
    problem = make_problem(case)
    low = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, problem)
    result, truth = run_compiled(method, case, low), run("autodiff", case, problem)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result))
    assert_trees_close(result, jax.tree.map(lambda x: x.astype(jnp.float32), truth), rtol=2e-5)


@pytest.mark.parametrize("method, cell", and_gated(EXACT, "blocked", "bptt"))
def test_bfloat16_compute(method, cell):
    """States and products in bfloat16 (8 bits): within 8 % of the float64 truth; results keep their own dtype."""
    case = Case(time=8, cell=cell)
    problem = make_problem(case)
    result, truth = run_compiled(method, case, problem, compute_dtype=jnp.bfloat16), run("autodiff", case, problem)
    result = (result[0][0].astype(jnp.float64), result[0][1]), result[1]  # the loss is float32
    assert_trees_close(result, truth, rtol=8e-2)


@pytest.mark.parametrize("method, cell", and_gated(EXACT, "bptt", "blocked"))
def test_bfloat16_parameters(method, cell):
    case = Case(time=8, cell=cell)
    params, batch, h_0 = make_problem(case, dtype=jnp.bfloat16)
    (loss, _), gradients = run_compiled(method, case, (params, batch, h_0))
    assert loss.dtype == jnp.float32
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients))
    exact = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.bfloat16 else x, (params, batch, h_0))
    _, truth = run("autodiff", case, exact)
    assert_trees_close(jax.tree.map(lambda x: x.astype(jnp.float64), gradients), truth, rtol=8e-2)


@pytest.mark.parametrize("method", EXACT)
def test_nothing_to_sum_gives_zero(method):
    case = Case(mask=True)
    params, batch, h_0 = make_problem(case)
    nothing = batch._replace(mask=jnp.zeros_like(batch.mask), inputs=jnp.full_like(batch.inputs, jnp.nan))
    (loss, h_T), gradients = run(method, case, (params, nothing, h_0))
    assert loss == 0
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(gradients))
    assert_trees_close(h_T, h_0, rtol=0)


@pytest.mark.parametrize("method", EXACT)
def test_no_steps(method):
    params, batch, h_0 = make_problem(Case())
    empty = rnn_jax.Batch(batch.inputs[:0], batch.targets[:0])
    (loss, h_T), gradients = run(method, Case(), (params, empty, h_0))
    assert loss == 0 and gradients.inputs.shape == empty.inputs.shape
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(gradients))
    assert_trees_close(h_T, h_0, rtol=0)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("loss", rnn_jax.LOSSES)
def test_a_target_of_weight_zero_is_never_read(method, loss):
    case = Case(loss=loss, weights=True)
    params, batch, h_0 = make_problem(case)
    garbage = jnp.array(-100) if loss == "cross_entropy" else jnp.nan
    hidden = (batch.weights == 0).reshape(batch.weights.shape + (1,) * (batch.targets.ndim - batch.weights.ndim))
    assert jnp.any(hidden)
    dirty = batch._replace(targets=jnp.where(hidden, garbage, batch.targets))
    assert_trees_close(run(method, case, (params, dirty, h_0)), run(method, case, (params, batch, h_0)), rtol=0)


@pytest.mark.parametrize("method", BY_HAND)
def test_no_autodiff_in_the_path_by_hand(method, monkeypatch):
    """With an activation and a loss that nothing can differentiate, the hand-written methods still run."""

    def underivable(fn):
        wrapped = jax.custom_jvp(fn)

        @wrapped.defjvp
        def refuse(primals, tangents):
            raise AssertionError("autodiff was used")

        return wrapped

    case = Case(num_layers=2, mask=True, reset=True, loss="squared_error")
    problem = make_problem(case)
    expected = run(method, case, problem)
    tanh = activations.ACTIVATIONS["tanh"]
    monkeypatch.setitem(activations.ACTIVATIONS, "tanh", tanh._replace(phi=underivable(tanh.phi)))
    grad_fn = rnn_jax.make_grad_fn(method, loss=underivable(rnn_jax.squared_error))
    assert_trees_close(by_numpy(grad_fn)(*problem), expected, rtol=1e-12)
    with pytest.raises(AssertionError, match="autodiff was used"):
        by_numpy(rnn_jax.make_grad_fn("autodiff", loss=case.loss))(*problem)


@pytest.mark.parametrize("inputs", ["tokens", "features"])
def test_with_the_settings_jax_comes_with(inputs):
    """In float32, without strict promotion, tokens in a small type: every method; the results in float32 too."""
    with as_users_have_it():
        params = rnn_jax.init_params(jax.random.key(0), input_size=7, hidden_size=9, output_size=5, num_layers=2)
        rng = np.random.default_rng(0)
        tokens = jnp.asarray(rng.integers(0, 5, (12, 3)), jnp.uint8)
        xs = tokens if inputs == "tokens" else jnp.asarray(rng.standard_normal((12, 3, 7)), jnp.float32)
        batch = rnn_jax.Batch(xs, tokens[-4:], mask=jnp.asarray(rng.random((12, 3)) < 0.8))
        problem = params, batch, rnn_jax.zero_state(params, 3)
        results = {m: by_numpy(rnn_jax.make_grad_fn(m, loss="cross_entropy"))(*problem) for m in EXACT}
        results["compiled"] = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))(*problem)
    for result in results.values():
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(result))
        assert_trees_close(result, results["autodiff"], rtol=2e-6)


def test_weight_gradients_leave_the_loop():
    """In the loops over steps of "bptt" and "blocked" stand two products, `h W_hh` and `d_a W_hhᵀ`; elsewhere more."""
    products = {name: _products_in_step_loops(name) for name in EXACT}
    assert products["bptt"] == products["blocked"] == [1, 1]
    assert products["autodiff"][-1] > 1 and products["stepwise"][-1] > 1


def _products_in_step_loops(method):
    """Matrix products in each innermost loop, in the order of the program."""
    case = Case()
    jaxpr = jax.make_jaxpr(rnn_jax.make_grad_fn(method, loss=case.loss))(*make_problem(case)).jaxpr
    return [sum(eqn.primitive.name == "dot_general" for eqn in equations(body)) for body, _ in innermost_loops(jaxpr)]


def test_a_loss_of_ones_own():
    """`pointwise` makes the pair by a vjp of one step; by hand and autodiff agree on it."""
    log_cosh = rnn_jax.pointwise(lambda y, target: jnp.sum(jnp.log(jnp.cosh(y - target))))
    case = Case(loss="squared_error", batch=(2, 2), weights=True)
    problem = make_problem(case)
    expected = by_numpy(rnn_jax.make_grad_fn("autodiff", loss=log_cosh))(*problem)
    for method in BY_HAND:
        assert_trees_close(by_numpy(rnn_jax.make_grad_fn(method, loss=log_cosh))(*problem), expected, rtol=1e-12)
