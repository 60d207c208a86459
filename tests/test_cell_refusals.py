"""What no cell can be: one sentence with the name, what was expected, what came and what to do."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Case, make_problem

import rnn_jax
from rnn_jax._cells.protocol import MEMBERS, Cell

pytestmark = pytest.mark.usefixtures("annotations_unchecked")  # they would speak first
LSTM, BATCH, H_0 = make_problem(Case(cell="lstm"))
TWO_LSTM = make_problem(Case(cell="lstm", num_layers=2))[0]
H, C = H_0[0][..., :4], H_0[0][..., 4:]
VANILLA = make_problem(Case())[0]


def init(**changes):
    return rnn_jax.init_params(jax.random.key(0), **({"input_size": 2, "hidden_size": 3, "output_size": 2} | changes))


def chrono(params):
    return rnn_jax.initializers.chrono(jax.random.key(0), params, 100)


def apply(params=LSTM, h_0=H_0):
    return rnn_jax.apply(params, h_0, BATCH.inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Half:
    """Lacks most of a cell."""

    w_xh: jax.Array
    w_hh: jax.Array
    b_h: jax.Array
    gates: ClassVar[int] = 1

    def forward(self, z_t, u_t, s_tm1):
        return z_t + u_t


@dataclasses.dataclass(frozen=True, eq=False)
class Unregistered(rnn_jax.CellParams):
    """Not a tree."""


def with_cell(kind):
    w = VANILLA.cells[0]
    return VANILLA._replace(cells=(kind(w.w_xh, w.w_hh, w.b_h),))


def mean_over_units(a, s):
    return jnp.mean(a[0], -1, keepdims=True)


def in_half_precision(a, s):
    return jnp.tanh(a[0]).astype(jnp.float16)


def two_gates(a, s):
    first, second = a
    return jnp.tanh(first * second)


def two_parts(a, s):
    return jnp.tanh(a[0]), s[0]


def nothing(a, s):
    """Forgot to return."""


def leaky(a, s, rate):
    return s[0] + rate * (jnp.tanh(a[0]) - s[0])


def of_four_units(a, s):
    return jnp.tanh(a[0]) * jnp.ones(4)


def in_groups(a, s):
    """A norm over groups of 16 units."""
    groups = a[0].reshape(*a[0].shape[:-1], -1, 16)
    return jnp.tanh(jax.nn.standardize(groups).reshape(a[0].shape))


def made(fn=leaky, **changes):
    return rnn_jax.elementwise(fn, **({"own": {"rate": 0.5}} if fn is leaky else {}) | changes)


LACKS = "Half lacks parts, from_states, lean, kept, backward, check: see `rnn_jax.typing.Cell`."
ONLY = "`activation` and `leak` are for the vanilla cell only, got"
KINDS = "`cell` must be one of 'vanilla', 'gru', 'lstm' or a class of cells"
BAD = [
    # the arguments of one class
    (lambda: init(cell="gru", leak=0.5), ValueError, f"{ONLY} 'tanh' and 0.5 with GRUParams: leave them out."),
    (lambda: init(cell="gru", leak=jnp.ones(3)), ValueError, f"{ONLY} 'tanh' and float64[3] with GRUParams: leave them out."),
    (lambda: jax.jit(lambda leak: init(cell="gru", leak=leak))(0.5), ValueError, f"{ONLY} 'tanh' and float64[] with GRUParams"),
    (lambda: make_problem(Case(cell="lstm", activation="relu")), ValueError, f"{ONLY} 'relu' and 1.0 with LSTMParams"),
    (lambda: init(cell=rnn_jax.LeakyParams), ValueError, "`leak` must be an array (hid,) = (3,) for LeakyParams, got 1.0."),
    (lambda: init(cell=rnn_jax.LeakyParams, leak=jnp.ones(2)), ValueError, "`leak` must have shape (hid,) = (3,) to match `hidden_size`, got (2,)."),
    # classes and cells of your own
    (lambda: init(cell=LSTM.cells[0]), TypeError, f"{KINDS}, got a cell, LSTMParams: pass its class, LSTMParams."),
    (lambda: init(cell=3), TypeError, f"{KINDS}, got int."),
    (lambda: init(cell=dict), TypeError, f"{KINDS}, which is a dataclass, got dict."),
    (lambda: init(cell=Half), TypeError, f"{KINDS}, but {LACKS}"),
    (lambda: apply(with_cell(Half)), TypeError, f"`params.cells[0]` must be a cell, but {LACKS}"),
    (lambda: init(cell=Unregistered), TypeError, "`params.cells[0]` must be a tree of JAX, but Unregistered is not registered: put `@jax.tree_util.register_dataclass` before the class."),
    # states
    (lambda: apply(h_0=((H, C),)), TypeError, "`h_0[0]` must be one array, got tuple: use `jnp.concatenate([h, c], -1)`."),
    (lambda: apply(h_0=(H, C)), ValueError, "`h_0` must hold one state for each of the 1 layers, got 2: use `(jnp.concatenate([h, c], -1),)`."),
    (lambda: apply(TWO_LSTM, (H, C)), ValueError, "`h_0[0]` must have shape (*batch, 2 hid) = (3, 8) to match `inputs` and `params.cells[0].w_hh`, got (3, 4): use `jnp.concatenate([h, c], -1)`."),
    (lambda: rnn_jax.step(LSTM.cells[0], (H, C), BATCH.inputs[0]), TypeError, "must be one array, got tuple: use `jnp.concatenate([h, c], -1)`."),
    (lambda: rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), rnn_jax.clipped_sgd(0.1), carry=True).init(LSTM, ((H, C),)), TypeError, "`h_0[0]` must be one array, got tuple: use `jnp.concatenate([h, c], -1)`."),
    (lambda: apply(VANILLA, (H, C)), ValueError, "`h_0` must hold one state for each of the 1 layers, got 2."),
    (lambda: rnn_jax.hidden(LSTM, H_0[0]), TypeError, "`cell` must be a cell, like CellParams, got Params, which holds cells: use `params.cells[0]`."),
    (lambda: rnn_jax.hidden(LSTM.cells[0], H_0), TypeError, "`s` must be one array, got tuple"),
    (lambda: rnn_jax.hidden(LSTM.cells[0], H), ValueError, "`s` must have shape (*steps, 2 hid) = (3, 8) to match `cell.w_hh`, got (3, 4): use `jnp.concatenate([h, c], -1)`."),
    (lambda: rnn_jax.hidden(VANILLA.cells[0], H_0[0]), ValueError, "`s` must have shape (*steps, hid) = (3, 4) to match `cell.w_hh`, got (3, 8)."),
    # gates
    (lambda: chrono(LSTM.cells[0]), TypeError, "`params` must be Params, got LSTMParams."),
    (lambda: chrono(LSTM._replace(cells=(LSTM.cells[0], make_problem(Case(num_layers=2))[0].cells[1]))), TypeError, "`params.cells[1]` must have gates that keep the past, like LSTMParams, got CellParams."),
    (lambda: chrono(init(cell=made())), TypeError, "`params.cells[0]` must have gates that keep the past, like LSTMParams, got leaky: give `memory` to `elementwise`."),
    (lambda: made(gate_names=3), TypeError, "`gate_names` must be a sequence of names, like (\"i\", \"f\", \"g\", \"o\"), got 3."),
    (lambda: made(gate_names=(1,)), TypeError, "`gate_names` must be a sequence of names, like (\"i\", \"f\", \"g\", \"o\"), got (1,)."),
    (lambda: made(gate_names="ab"), ValueError, "`gate_names` must be one name per gate, `num_gates=1`, each another, got ('a', 'b')."),
    (lambda: made(two_gates, num_gates=2, gate_names="aa"), ValueError, "`num_gates=2`, each another, got ('a', 'a')."),
    (lambda: made(bias={"a": 1.0}), ValueError, "`bias` must have names of `gate_names`, (), got 'a': name the gates."),
    (lambda: made(two_gates, num_gates=2, gate_names="if", bias={"if": 1.0}), ValueError, "`bias` must have names of `gate_names`, ('i', 'f'), got 'if'"),
    (lambda: made(gate_names="a", memory={"b": 1}), ValueError, "`memory` must have names of `gate_names`, ('a',), got 'b'"),
    (lambda: made(gate_names="a", bias=[1.0]), TypeError, "`bias` must map names to numbers, like {\"f\": 1.0}, got list."),
    (lambda: made(gate_names="a", memory=1), TypeError, "`memory` must map names to numbers, like {\"f\": 1, \"i\": -1}, got int."),
    (lambda: made(gate_names="a", bias={"a": float("nan")}), ValueError, "`bias['a']` must be a finite number, got nan."),
    (lambda: jax.jit(lambda x: made(gate_names="a", bias={"a": x}))(0.5), TypeError, "got float64[]: set traced values with `replace`, after `init_params`."),
    (lambda: made(gate_names="a", memory={"a": 2}), ValueError, "`memory['a']` must be the number 1 or -1, got 2."),
    (lambda: made(gate_names="a", memory={"a": "keeps"}), TypeError, "`memory['a']` must be the number 1 or -1, got 'keeps'."),
    # maps of your own
    (lambda: made(lambda a, s: a[0]), TypeError, "`fn` must have a name, which the class gets, got <lambda>: give it a name with def."),
    (lambda: made(3), TypeError, "`fn` must be a function, got 3."),
    (lambda: made(own=None), TypeError, "`fn` (leaky) must be a function to be called as fn(a, s), as `own` and `apart=False` say, but its arguments are (a, s, rate): change them, `own` or `apart`."),
    (lambda: made(own={"gain": 1.0}), TypeError, "to be called as fn(a, s, gain=gain), as `own` and `apart=False` say, but its arguments are (a, s, rate)"),
    (lambda: made(two_parts, apart=True), TypeError, "to be called as fn(z, u, s), as `own` and `apart=True` say, but its arguments are (a, s)"),
    (lambda: made(two_parts), ValueError, "`fn` (two_parts) must return one array per part of the state, `num_parts=1`, got 2: change what it returns, or `num_parts`."),
    (lambda: made(num_parts=2), ValueError, "`fn` (leaky) must return one array per part of the state, `num_parts=2`, got 1"),
    (lambda: made(two_gates), ValueError, "`fn` (two_gates) must work for any number of units, with `num_gates=1` and `num_parts=1`, but with arrays (2, 960) it raised ValueError, not enough values to unpack (expected 2, got 1): change it or these numbers, and give it values of units by `own`."),
    (lambda: made(of_four_units), ValueError, "`fn` (of_four_units) must work for any number of units"),
    (lambda: made(mean_over_units), ValueError, "`fn` (mean_over_units) must return arrays like those it gets, (*batch, hid), got (2, 1) for (2, 960) as part 0: return one value per unit and sequence."),
    (lambda: made(in_half_precision), TypeError, "`fn` (in_half_precision) must return arrays like those it gets, got float16 for float32 as part 0: cast it, `.astype(s[0].dtype)`."),
    (lambda: made(nothing), TypeError, "`fn` (nothing) must return arrays like those it gets, got NoneType as part 0: return an array, or a tuple of arrays."),
    (lambda: made(apart=1), TypeError, "`apart` must be True or False, got 1."),
    (lambda: made(num_gates=0), ValueError, "`num_gates` must be at least 1, got 0."),
    (lambda: made(own=["rate"]), TypeError, "`own` must map names to numbers, like {\"gain\": 1.0}, got list."),
    (lambda: made(own={"rate": jnp.ones(3)}), TypeError, "`own['rate']` must be a finite number, got float64[3]."),
    (lambda: made(own={"rate": None}), TypeError, "`own['rate']` must be a finite number, got None."),
    (lambda: jax.jit(lambda x: made(own={"rate": x}))(0.5), TypeError, "got float64[]: set traced values with `replace`, after `init_params`."),
    (lambda: made(own={"my rate": 0.5}), ValueError, "`own` must have names of arguments of `fn`, like \"gain\", got 'my rate'."),
    (lambda: made(own={"lambda": 0.5}), ValueError, "like \"gain\", got 'lambda'."),
    (lambda: made(own={3: 0.5}), ValueError, "like \"gain\", got 3."),
    (lambda: made(own={"gates": 0.5}), ValueError, "`own` must have names that cells do not use, got 'gates': take another, my_gates."),
]  # fmt: skip


@pytest.mark.parametrize(
    "call, error, message", BAD, ids=[f"{i} {message[:40]}" for i, (*_, message) in enumerate(BAD)]
)
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error) as raised:
        call()
    said = str(raised.value)
    assert message in said and said.endswith(".") and "\n" not in said


def test_what_a_cell_may_lack_is_nothing_of_the_protocol():
    methods = {name for name in vars(Cell) if not name.startswith("_") and name != "register"}
    assert set(MEMBERS) == methods | {*Cell.__annotations__}


def test_a_leak_for_each_unit_makes_leaky_params_by_name_and_by_class():
    by_name, by_class = (init(cell=cell, leak=jnp.full(3, 0.3)) for cell in ("vanilla", rnn_jax.LeakyParams))
    for params in (by_name, by_class):
        assert type(params.cells[0]) is rnn_jax.LeakyParams
        assert jnp.all(params.cells[0].leak == 0.3)
    assert init(cell=rnn_jax.LeakyParams, leak=jnp.ones(3), activation="relu").cells[0].activation == "relu"


@pytest.mark.parametrize(
    "name",
    "w_xh b_h gates parts fn apart slope slopes backward_by_slope gate_names bias memory own_start forward check replace from_states a z u s".split(),
)
def test_an_own_parameter_takes_no_name_of_a_cell(name):
    with pytest.raises(ValueError, match=f"got '{name}': take another"):
        made(own={name: 0.0})


def test_maps_that_are_right_are_taken():
    """Units in groups; more arguments with defaults; a callable object; no signature; `own` of NumPy numbers."""

    def with_default(a, s, rate, power=2):
        return leaky(a, s, rate) ** power

    assert made(in_groups).__name__ == "in_groups"
    assert made(with_default, own={"rate": np.float32(0.5)}).own_start == {"rate": 0.5}
    assert made(functools.partial(leaky, rate=0.1), own={}).__name__ == "partial"
    assert made(jax.jit(leaky), own={"rate": 0}).__name__ == "leaky"
