"""`rnn_jax.interop`: round trips to the bit.

That values and gradients are those of the other libraries is in test_gated_parity.py and test_gated_torch.py; what
comes in is in test_interop_sources.py, and what is refused in test_interop_refusals.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import DTYPES, HID, IN, KINDS, NOT_THERE, PAIRS, WAYS, bits, cell_of, example, odd, stack_of

import rnn_jax
from rnn_jax import GRUParams, LSTMParams, ReadoutParams, interop


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way, kind", PAIRS)
def test_ours_come_back_to_the_bit(way, kind, dtype):
    """With minus zero, subnormal numbers, infinity and NaN in each array."""
    to, back, layers = WAYS[way]
    cell = example(way, kind, dtype)
    before = cell if layers is None else layers(cell)
    static = {"activation": cell.activation} if kind == "rnn" and "haiku" not in way else {}
    after = back(to(before), **static) if "prefix" not in way else back(to(before))
    assert bits(after) == bits(before)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind, activation", [("rnn", "relu"), ("rnn", "tanh"), ("gru", None), ("lstm", None)])
def test_stacks_of_torch_come_back_to_the_bit(kind, activation, both):
    """Layers and directions; with `bias=False` too. The cells are what `apply` and `bidirectional` take."""
    static = {"activation": activation} if activation else {}
    cells = stack_of(KINDS[kind], both=both, num_layers=3, **static)
    assert bits(interop.from_torch(interop.to_torch(cells), **static)) == bits(cells)
    without = jax.tree.map(lambda x: jnp.zeros_like(x) if x.ndim == 1 else x, cells)
    state_dict = interop.to_torch(without, bias=False)
    assert not [name for name in state_dict if "bias" in name]
    assert bits(interop.from_torch(state_dict, **static)) == bits(without)
    hs, parts = jnp.ones((4, IN)), KINDS[kind].parts
    if both:
        for pair in cells:
            hs = rnn_jax.bidirectional(pair, (jnp.zeros(parts * HID),) * 2, hs, unroll=rnn_jax.unroll)
        assert hs.shape == (4, 2 * HID)
    else:
        params = rnn_jax.Params(cells, ReadoutParams(jnp.ones((HID, 1)), jnp.zeros(1)))
        ys, _ = rnn_jax.apply(params, rnn_jax.zero_state(params), hs, unroll=rnn_jax.unroll)
        assert ys.shape == (4, 1)


def test_the_names_of_torch():
    names = interop.to_torch(stack_of(GRUParams, both=True), prefix="net.rnn.")
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert set(names) == {f"net.rnn.{kind}_l{i}{end}" for kind in kinds for i in (0, 1) for end in ("", "_reverse")}
    assert names["net.rnn.weight_ih_l1"].shape == (3 * HID, 2 * HID)
    assert all(w.flags.writeable and w.flags.c_contiguous for w in names.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_readout_of_torch(dtype):
    readout = jax.tree.map(odd, ReadoutParams(jnp.ones((HID, 4), dtype), jnp.ones(4, dtype)))
    there = interop.to_torch_linear(readout, prefix="fc.")
    assert {name: w.shape for name, w in there.items()} == {"fc.weight": (4, HID), "fc.bias": (4,)}
    assert bits(interop.from_torch_linear(there, prefix="fc.")) == bits(readout)
    (without,) = (interop.from_torch_linear({"weight": there["fc.weight"]}),)
    assert bits(without) == bits(readout._replace(b_y=jnp.zeros(4, dtype)))


@pytest.mark.parametrize("kind", KINDS)
def test_two_biases_of_torch_become_one(kind):
    """Which of them has what does not matter, except in n of a GRU; the weights come back to the bit."""
    rng, wide = np.random.default_rng(0), KINDS[kind].gates * HID
    shapes = {"weight_ih_l0": (wide, IN), "weight_hh_l0": (wide, HID), "bias_ih_l0": (wide,), "bias_hh_l0": (wide,)}
    theirs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    (cell,) = interop.from_torch(theirs)
    back = interop.to_torch((cell,))
    assert all(np.array_equal(back[name], theirs[name]) for name in shapes if "weight" in name)
    total = theirs["bias_ih_l0"] + theirs["bias_hh_l0"]
    assert np.array_equal(back["bias_ih_l0"] + back["bias_hh_l0"], total)
    if kind == "gru":
        assert np.array_equal(back["bias_ih_l0"][2 * HID :], theirs["bias_ih_l0"][2 * HID :])
        assert np.array_equal(back["bias_hh_l0"][2 * HID :], theirs["bias_hh_l0"][2 * HID :])
        assert np.array_equal(cell.b_n, theirs["bias_hh_l0"][2 * HID :])
        assert np.array_equal(cell.b_h[: 2 * HID], total[: 2 * HID])
    else:
        assert np.array_equal(cell.b_h, total)


EXACT = ["linen-rnn", "linen-gru", "linen-lstm", "nnx-rnn", "nnx-gru", "nnx-lstm"]
EXACT += ["equinox-gru", "equinox-lstm", "keras-rnn", "keras-lstm"]


@pytest.mark.parametrize("name", EXACT)
def test_theirs_come_back_to_the_bit(name):
    """Where no bias is a sum of two, and nothing is added to one."""
    way, kind = name.split("-")
    to, back, _ = WAYS[way]
    theirs = jax.tree.map(np.asarray, to(example(way, kind, "float64")))
    drawn = np.random.default_rng(1)
    theirs = jax.tree.map(lambda x: drawn.standard_normal(x.shape), theirs)
    assert bits(jax.tree.map(np.asarray, to(back(theirs)))) == bits(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_forget_bias_of_haiku_comes_back_within_one_rounding_of_one(dtype):
    """haiku adds 1 to it in each step, so it cannot be told more exactly; everything else has the same bits."""
    cell = cell_of(LSTMParams, dtype)
    again = interop.from_haiku(interop.to_haiku(cell))
    off = np.abs(np.asarray(again.b_h - cell.b_h, np.float64))
    scale = 1 + np.abs(np.asarray(cell.b_h, np.float64))
    assert np.all(off[HID : 2 * HID] <= scale[HID : 2 * HID] * float(jnp.finfo(dtype).eps))
    forget = slice(HID, 2 * HID)
    assert bits(again.replace(b_h=again.b_h.at[forget].set(0))) == bits(cell.replace(b_h=cell.b_h.at[forget].set(0)))
    fresh = rnn_jax.init_params(jax.random.key(0), cell="lstm", input_size=IN, hidden_size=HID, output_size=1)
    there = interop.to_haiku(fresh.cells[0])
    assert not np.any(there["linear"]["b"])
    assert bits(interop.from_haiku(there)) == bits(fresh.cells[0])


@pytest.mark.parametrize("way", ["keras", "equinox"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_bias(way, kind):
    if (way, kind) in NOT_THERE:
        pytest.skip("equinox has no vanilla cell")
    to, back, _ = WAYS[way]
    zero = jax.tree.map(lambda x: jnp.zeros_like(x) if x.ndim == 1 else x, cell_of(KINDS[kind]))
    there = to(zero, bias=False)
    assert len(there) == 2 and bits(back(there)) == bits(zero)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_where_they_belong(kind):
    """Each gate has its own constant, so a gate in the wrong place is seen by its number alone."""
    gates = {"rnn": "a", "gru": "rkn", "lstm": "ifgo"}[kind]
    value = {gate: i + 1.0 for i, gate in enumerate(gates)}
    wide = np.concatenate([np.full(HID, value[gate]) for gate in gates])
    own = [np.zeros(HID)] if kind == "gru" else []
    cell = KINDS[kind](*map(jnp.asarray, (np.tile(wide, (IN, 1)), np.tile(wide, (HID, 1)), wide, *own)))
    of_keras = {"rnn": "a", "gru": "krn", "lstm": "ifgo"}[kind]  # in our letters

    def says(array, order):
        assert np.array_equal(np.ravel(np.asarray(array)[..., ::HID])[: len(order)], [value[gate] for gate in order])

    state_dict = interop.to_torch((cell,))
    says(state_dict["weight_hh_l0"].T, gates)
    says(state_dict["bias_ih_l0"], gates)
    says(interop.to_keras(cell)[1], of_keras)
    says(interop.to_nnx(cell)["dense_h"]["kernel"], gates)
    linen = interop.to_linen(cell)
    theirs = {"rnn": {"a": ""}, "gru": {"r": "r", "k": "z", "n": "n"}, "lstm": {g: g for g in "ifgo"}}[kind]
    for gate, name in theirs.items():
        assert np.all(linen[f"i{name}"]["kernel"] == value[gate]) and np.all(linen[f"h{name}"]["kernel"] == value[gate])
        assert np.all(linen[f"{'h' if kind == 'lstm' else 'i'}{name}"]["bias"] == value[gate])
    if kind != "rnn":
        says(interop.to_equinox(cell)["weight_ih"].T, gates)
    if kind == "lstm":
        says(interop.to_haiku(cell)["linear"]["w"], "igfo")
        b = np.reshape(interop.to_haiku(cell)["linear"]["b"], (4, HID))[:, 0]
        assert np.array_equal(b, [value[gate] - (gate == "f") for gate in "igfo"])


def test_two_rows_of_the_bias_of_keras():
    """The first row is that of the input, the second that of the recurrence, whose n is `b_n`."""
    b_x, b_u = np.arange(3 * HID) + 1.0, 10.0 * np.arange(3 * HID)
    cell = interop.from_keras([np.zeros((IN, 3 * HID)), np.zeros((HID, 3 * HID)), np.stack([b_x, b_u])])
    assert cell.b_h.tolist() == [*(b_x + b_u)[HID : 2 * HID], *(b_x + b_u)[:HID], *b_x[2 * HID :]]
    assert cell.b_n.tolist() == b_u[2 * HID :].tolist()
