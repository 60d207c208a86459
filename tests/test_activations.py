"""Your own activations: φ alone, or with φ' as a function of `h` or of `a`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from problems import Case, assert_trees_close, make_problem, run

import rnn_jax
from rnn_jax.typing import Activation
from rnn_jax.verify import WITNESSES, check_gradients

SOFTPLUS = Activation(jax.nn.softplus, d_phi=lambda h: -jnp.expm1(-h), slope=jax.nn.sigmoid)
OWN = {
    "swish": jax.nn.swish,
    "gelu": jax.nn.gelu,
    "sine": jnp.sin,
    "softplus": SOFTPLUS,
    "tanh without a slope": Activation(jnp.tanh, lambda h: 1 - h * h),
    "elu with a slope alone": Activation(jax.nn.elu, slope=lambda a: jnp.where(a > 0, 1, jnp.exp(jnp.minimum(a, 0)))),
}


@pytest.mark.parametrize("leak", [1.0, 0.3])
@pytest.mark.parametrize("name", OWN)
def test_every_method_and_witness_knows_an_activation_of_your_own(name, leak):
    case = Case(activation=OWN[name], leak=leak, num_layers=2, mask=True, reset=True, time=6)
    problem = make_problem(case)
    right = run("autodiff", case, problem)
    for method in ("stepwise", "bptt", "blocked"):
        assert_trees_close(run(method, case, problem), right, rtol=1e-12)
    for witness in ("NumPy loop", "RTRL"):
        assert WITNESSES[witness].applies(problem[0])
        assert_trees_close(WITNESSES[witness].make(case.loss, case.reduction)(*problem), right, rtol=1e-12)
    assert not WITNESSES["complex step"].applies(problem[0])


def test_a_leak_per_unit_with_an_activation_of_your_own():
    params, batch, h_0 = make_problem(Case(activation=jax.nn.swish))
    cell = params.cells[0]
    leaky = rnn_jax.LeakyParams(cell.w_xh, cell.w_hh, cell.b_h, jnp.linspace(0.2, 0.9, 4), jax.nn.swish)
    problem = params._replace(cells=(leaky,)), batch, h_0
    assert_trees_close(run("blocked", Case(), problem), run("autodiff", Case(), problem), rtol=1e-12)
    assert leaky.replace(activation="tanh").leak is leaky.leak


def test_what_is_kept_of_it():
    """The states if φ' is known from them, the pre-activations otherwise."""
    cell = make_problem(Case())[0].cells[0]
    assert cell.replace(activation=SOFTPLUS).from_states and not cell.replace(activation=jax.nn.swish).from_states
    a = jnp.linspace(-2.0, 2.0, 4)
    for own in OWN.values():
        changed = cell.replace(activation=own)
        expected = jax.vmap(jax.grad(own.phi if isinstance(own, Activation) else own))(a)
        kept = changed.kept(a, jnp.zeros_like(a), a, changed.forward(a, jnp.zeros_like(a), a))
        np.testing.assert_allclose(changed.d_phi(kept), expected, rtol=1e-12)
        np.testing.assert_allclose(changed.slope(a, jnp.zeros_like(a)), expected, rtol=1e-12)


def test_the_checker_the_clock_and_the_studies_take_it():
    case = Case(activation=jax.nn.gelu, batch=(2,), time=5)
    problem = make_problem(case)
    assert check_gradients(rnn_jax.make_grad_fn("blocked", loss=case.loss), *problem).passed
    cell, h_0, xs = problem[0].cells[0], problem[2][0], problem[1].inputs
    jacobians = rnn_jax.dynamics.step_jacobians(cell, h_0[0], xs[:, 0])
    found = jax.jacobian(lambda h: rnn_jax.step(cell, h, xs[0, 0]))(h_0[0])
    np.testing.assert_allclose(np.abs(jacobians[0]), np.abs(found), rtol=1e-9)


def test_the_other_fields_stay_where_one_is_replaced():
    cell = rnn_jax.CellParams(jnp.ones((2, 3)), jnp.eye(3), jnp.zeros(3), "relu", 0.5)
    changed = cell.replace(w_hh=2 * cell.w_hh)
    assert (changed.activation, changed.leak) == ("relu", 0.5) and changed.w_hh[0, 0] == 2


def test_an_exported_program_can_only_name_it():
    params = make_problem(Case(activation=jax.nn.swish))[0]
    program = export.export(jax.jit(lambda params: params))(params)
    with pytest.raises(TypeError, match="`activation` must be a name to be saved with an exported program"):
        program.serialize()


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("given", [3, Activation(None), Activation(jnp.tanh, d_phi=1.0)])
def test_what_is_no_activation(given):
    with pytest.raises(TypeError, match="`activation` must be a name, an Activation or a function"):
        rnn_jax.init_params(jax.random.key(0), input_size=1, hidden_size=2, output_size=1, activation=given)
    with pytest.raises(TypeError, match="must be a name, an Activation or a function"):
        rnn_jax.step(rnn_jax.CellParams(jnp.ones((2, 3)), jnp.eye(3), jnp.zeros(3), given), jnp.zeros(3), jnp.zeros(2))
