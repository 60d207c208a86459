"""`check_gradients` on functions of all kinds: what passes, fails or is refused; the settings stay as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import as_users_have_it
from problems import Case, cast, make_problem
from wrong_gradients import change_inputs, grad_fn_of, with_wrong

import rnn_jax
from rnn_jax import check_gradients

CASES = [
    Case(num_layers=2, mask=True, reset=True, weights=True, batch=(2, 2)),
    Case(activation="relu", inputs="tokens", loss="squared_error", last="one"),
    Case(activation="identity", time=1, batch=(), reduction="sum"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_right_gradient(case):
    problem = make_problem(case)
    report = check_gradients(grad_fn_of(case), *problem)
    assert report.passed and not report.findings and not report.steps, report
    assert all(leaf.error < 1e-8 and leaf.num_checked == np.prod(leaf.shape) for leaf in report.leaves)
    size = sum(leaf.size for leaf in jax.tree.leaves((problem[0], problem[2])))
    features = 0 if case.inputs == "tokens" else problem[1].inputs.size
    assert sum(leaf.num_checked for leaf in report.leaves) == size + features


def test_no_steps_at_all():
    """T = 0: only the readout of nothing; zero everywhere, and said to be right."""
    params, batch, h_0 = make_problem(Case())
    batch = rnn_jax.Batch(batch.inputs[:0], batch.targets[:0])
    report = check_gradients(grad_fn_of(Case()), params, batch, h_0)
    assert report.passed
    assert {leaf.name: leaf.num_checked for leaf in report.leaves}["inputs"] == 0


@pytest.mark.parametrize("leaf", range(7))
def test_the_smallest_wrong_entry_is_named(leaf):
    """One entry of one leaf, off by a millionth of the largest."""
    problem = make_problem(CASE := Case())
    grad_fn = grad_fn_of(CASE)
    path, x = jax.tree.leaves_with_path(grad_fn(*problem)[1])[leaf]
    entry = tuple(size - 1 for size in x.shape)

    def change(gradients):
        leaves, tree = jax.tree.flatten(gradients)
        leaves[leaf] = leaves[leaf].at[entry].add(1e-6 * jnp.max(jnp.abs(leaves[leaf])))
        return tree.unflatten(leaves)

    report = check_gradients(with_wrong(grad_fn, change), *problem)
    name = jax.tree_util.keystr(path).lstrip(".")
    assert report.failing == (name,)
    assert f"most at {entry}".replace(",)", ")") in report.findings[0]
    assert "WRONG" in str(report) and name in str(report)


def wrong_rule(change):
    """Sine with a derivative rule that `change` modifies."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (change(g * jnp.cos(x)),))
    return sine


def test_any_function_with_a_derivative_rule():
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    assert check_gradients(wrong_rule(lambda d: d), x).passed
    report = check_gradients(wrong_rule(lambda d: d.at[1, 2].multiply(1.00001)), x)
    assert report.failing == ("args[0]",) and report.leaves[0].entry == "(1, 2)"

    def f(tree, n, key):  # trees, integers and keys among the arguments, several results, one of them of integers
        return {"sum": jnp.sum(tree["a"] ** n), "all": jnp.tanh(tree["b"]) * tree["a"][0], "n": n}

    args = {"a": np.ones(3, np.float32), "b": np.ones((2, 2))}, 3, jax.random.key(0)
    report = check_gradients(f, *args)
    assert report.passed and [leaf.name for leaf in report.leaves] == ["args[0]['a']", "args[0]['b']"]


def test_the_derivatives_of_the_unroll_and_of_a_step():
    params, batch, h_0 = make_problem(Case(mask=True))
    cell = params.cells[0]
    inputs = jnp.nan_to_num(batch.inputs)
    assert check_gradients(lambda *args: rnn_jax.unroll_bptt(*args, mask=batch.mask), cell, h_0[0], inputs).passed
    assert check_gradients(rnn_jax.step, cell, h_0[0], inputs[0]).passed


def test_large_leaves_are_sampled_and_checked_along_directions():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 30))

    @jax.custom_vjp
    def f(x):
        return jnp.sum(jnp.sin(a * x))

    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * a * jnp.cos(a * x),))
    report = check_gradients(f, rng.standard_normal((40, 30)), max_entries=50)
    assert report.passed and report.leaves[0].num_checked == 50 and len(report.leaves[0].errors) == 53
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * (a * jnp.cos(a * x)).at[1:, 1:].multiply(1.01),))
    assert not check_gradients(f, rng.standard_normal((40, 30)), max_entries=1).passed  # by a direction
    again = [check_gradients(f, a, max_entries=50, seed=3).leaves[0].errors for _ in range(2)]
    assert np.array_equal(*again)


def test_beside_a_witness():
    case = Case(num_layers=2, mask=True)
    problem = make_problem(case)
    for witness in rnn_jax.verify.WITNESSES.values():
        report = check_gradients(grad_fn_of(case), *problem, witness=witness.make(case.loss, case.reduction))
        assert report.passed and report.tolerance == 1e-12 and report.leaves[0].name == "loss", report
    tiny = with_wrong(grad_fn_of(case), change_inputs(lambda d: d * (1 + 1e-10)))
    report = check_gradients(
        tiny, *problem, witness=rnn_jax.verify.WITNESSES["NumPy loop"].make("cross_entropy", "mean")
    )
    assert report.failing == ("inputs",) and not check_gradients(tiny, *problem).failing
    report = check_gradients(grad_fn_of(case), *problem, witness=grad_fn_of(case._replace(reduction="sum")))
    assert "loss" in report.failing  # a witness knows the loss as well, differences do not


def test_arithmetic_in_float32_inside_is_named():
    case = Case()
    problem = make_problem(case)
    loops = [rnn_jax.verify.WITNESSES[name].make(case.loss, case.reduction) for name in ("NumPy loop", "RTRL")]
    assert check_gradients(loops[0], *problem, witness=loops[1]).passed  # neither can be traced
    report = check_gradients(grad_fn_of(case, compute_dtype=jnp.float32), *problem)
    assert not report.passed and "computed in float32" in report.findings[0]

    @jax.custom_vjp
    def f(x):
        return jnp.sum(x**3)

    f.defvjp(lambda x: (f(x), x), lambda x, g: ((g * 3 * x**2).astype(jnp.float32).astype(x.dtype),))
    x = np.linspace(0.1, 1.3, 3)
    assert 0 < np.max(np.abs(np.float32(3 * x**2) - 3 * x**2)) < 1e-6
    assert check_gradients(f, x).passed  # 1e-8: below what differences tell


def test_float64_whatever_the_session_has_and_the_setting_stays():
    """With JAX's own settings: float32, and arrays of NumPy."""
    case = Case(num_layers=2, mask=True)
    problem = jax.tree.map(np.asarray, cast(make_problem(case), np.float32))
    with as_users_have_it():
        report = check_gradients(jax.jit(rnn_jax.make_grad_fn("bptt", loss="cross_entropy")), *problem)
        assert report.passed and max(leaf.error for leaf in report.leaves) < 1e-8, report
        assert not jax.config.jax_enable_x64 and jnp.ones(()).dtype == np.float32


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_cannot_be_checked_is_refused():
    problem = make_problem(case := Case())
    grad_fn = grad_fn_of(case)
    with pytest.raises(TypeError, match="`fn` must be a function"):
        check_gradients(3, 1.0)
    with pytest.raises(TypeError, match="under jit, vmap or grad: call it outside"):
        jax.jit(lambda x: check_gradients(jnp.sin, x))(1.0)
    with pytest.raises(TypeError, match="as a GradFn does"):
        check_gradients(lambda *args: grad_fn(*args)[0], *problem)
    with pytest.raises(ValueError, match="floating point number to differentiate"):
        check_gradients(lambda n: n, 3)
    with pytest.raises(ValueError, match="must return a floating point number"):
        check_gradients(lambda x: 3, 1.0)
    with pytest.raises(TypeError, match="the result of `fn` must be real, got complex"):
        check_gradients(lambda x: jax.lax.complex(x, x), 1.0)
    with pytest.raises(TypeError, match="`args` must be real, got complex"):
        check_gradients(jnp.real, 1j)
    with pytest.raises(TypeError, match="that JAX can trace"):
        check_gradients(lambda x: x if x > 0 else -x, 1.0)
    with pytest.raises(TypeError, match="can be compared with a `witness`"):
        check_gradients(rnn_jax.verify.WITNESSES["NumPy loop"].make("cross_entropy", "mean"), *problem)
    with pytest.raises(ValueError, match="a loss of shape"):
        check_gradients(lambda *args: (lambda out: ((out[0][0][None], out[0][1]), out[1]))(grad_fn(*args)), *problem)
    poisoned = with_wrong(grad_fn, change_inputs(lambda d: d * jnp.nan))
    with pytest.raises(ValueError, match="`witness` must return finite numbers, got nan in inputs"):
        check_gradients(grad_fn, *problem, witness=poisoned)
    with pytest.raises(ValueError, match="must be finite, got inf"):
        check_gradients(lambda x: 1 / x, 0.0)
    with pytest.raises(ValueError, match="`witness` is for a GradFn"):
        check_gradients(jnp.sin, 1.0, witness=grad_fn)
    with pytest.raises(ValueError, match="`max_entries` must be at least 1"):
        check_gradients(jnp.sin, 1.0, max_entries=0)
    with pytest.raises(ValueError, match="shape .* for h_0"):
        check_gradients(with_wrong(grad_fn, lambda g: g._replace(h_0=(g.h_0[0][0],))), *problem)
    with pytest.raises(ValueError, match="No gradient method named 'bppt'"):
        rnn_jax.make_grad_fn("bppt", loss="cross_entropy")
    with pytest.raises(ValueError, match="analytic activation"):
        relu = make_problem(Case(activation="relu"))
        rnn_jax.verify.WITNESSES["complex step"].make("cross_entropy", "mean")(*relu)


@pytest.mark.parametrize("method", ["autodiff", "blocked"])
@pytest.mark.parametrize("bias", [30.0, 60.0])
def test_a_saturated_cross_entropy(method, bias):
    """The right class is all but certain: of the loss hardly a digit is left, and it is not called wrong."""
    params, batch, h_0 = make_problem(Case(loss="cross_entropy"))
    readout = params.readout._replace(b_y=params.readout.b_y.at[0].add(bias))
    problem = params._replace(readout=readout), batch._replace(targets=jnp.zeros_like(batch.targets)), h_0
    report = check_gradients(rnn_jax.make_grad_fn(method, loss="cross_entropy"), *problem)
    assert not report.failing, report
