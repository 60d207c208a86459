"""`rnn_jax.interop`: round trips to the bit, what comes in, and that no other library is imported.

That values and gradients are those of the other libraries is in test_gated_parity.py and test_gated_torch.py; what is
refused is in test_interop_refusals.py.
"""

import os
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import rnn_jax
from rnn_jax import CellParams, GRUParams, LSTMParams, ReadoutParams, interop
from rnn_jax._cells.protocol import own_names

IN, HID = 2, 3
KINDS = {"rnn": CellParams, "gru": GRUParams, "lstm": LSTMParams}
DTYPES = ["float64", "float32", "float16", "bfloat16"]


def cell_of(kind, dtype="float64", inputs=IN, seed=0, **static):
    """A cell of random weights."""
    rng, wide = np.random.default_rng(seed), kind.gates * HID
    shapes = {"w_xh": (inputs, wide), "w_hh": (HID, wide), "b_h": (wide,), **dict.fromkeys(own_names(kind), (HID,))}
    return kind(**{name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}, **static)


def stack_of(kind, dtype="float64", both=False, num_layers=2, **static):
    """Layers of cells, or of pairs of cells."""
    wide = 2 * HID if both else HID
    cells = [cell_of(kind, dtype, wide if i // 2 else IN, i, **static) for i in range(2 * num_layers)]
    return tuple(zip(cells[::2], cells[1::2], strict=True)) if both else tuple(_of_one(cells))


def _of_one(cells):
    """Every second cell, each above the first as wide as a layer below it."""
    for i, cell in enumerate(cells[::2]):
        yield cell if i == 0 else cell.replace(w_xh=cell.w_xh[:HID])


def bits(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()) for x in leaves]


def odd(x):
    """The first numbers of an array are those that a sum can lose: minus zero, the smallest one, infinity, NaN."""
    info, flat = jnp.finfo(x.dtype), np.array(x).ravel()
    some = [-0.0, info.smallest_subnormal, -info.smallest_subnormal, info.max, -np.inf, np.nan]
    flat[: len(some)] = np.array(some, x.dtype)[: flat.size]
    return jnp.array(flat.reshape(x.shape))


# There and back


WAYS = {  # to, from, cells
    "torch": (interop.to_torch, interop.from_torch, lambda cell: (cell,)),
    "torch, with prefix": (
        lambda cells: interop.to_torch(cells, prefix="rnn.") | {"fc.weight": np.ones((1, HID), int)},
        lambda sd: interop.from_torch(sd, prefix="rnn."),
        lambda cell: (cell,),
    ),
    "keras": (interop.to_keras, interop.from_keras, None),
    "linen": (interop.to_linen, interop.from_linen, None),
    "nnx": (interop.to_nnx, interop.from_nnx, None),
    "haiku": (interop.to_haiku, interop.from_haiku, None),
    "haiku, one bias": (
        lambda c: interop.to_haiku(c, double_bias=False, prefix="a/"),
        lambda p: interop.from_haiku(p, prefix="a/"),
        None,
    ),
    "equinox": (interop.to_equinox, interop.from_equinox, None),
}
NOT_THERE = {("haiku", "gru"), ("haiku, one bias", "gru"), ("equinox", "rnn")}
PAIRS = [(way, kind) for way in WAYS for kind in KINDS if (way, kind) not in NOT_THERE]


def example(way, kind, dtype):
    """A cell that the other library has, with odd numbers; where haiku adds 1, with numbers that allow it."""
    cell = jax.tree.map(odd, cell_of(KINDS[kind], dtype))
    if "haiku" in way and kind == "rnn":
        cell = cell.replace(activation="relu")
    if "haiku" in way and kind == "lstm":
        cell = cell.replace(b_h=cell.b_h.at[HID : 2 * HID].set(jnp.asarray([0.5, 1.0, 1.984375], dtype)))
    return cell.replace(b_n=jnp.zeros(HID, dtype)) if (way, kind) == ("nnx", "gru") else cell


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


# What comes in, and what it leaves alone


def sources(way, kind, dtype="float64", cell=None):
    """Weights of another library, as NumPy arrays: of an example, or of this cell."""
    to, _, layers = WAYS[way]
    cell = example(way, kind, dtype) if cell is None else cell
    return jax.tree.map(lambda x: np.array(x), to(cell if layers is None else layers(cell)))


def aligned(x):
    """The same array where JAX on a CPU may take over its memory: from a multiple of 64 on."""
    room = np.zeros(x.nbytes + 64, np.uint8)
    first = -room.ctypes.data % 64
    at = room[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    at[...] = x
    return at


def test_jax_takes_over_aligned_memory():
    """Otherwise the next test could not fail."""
    theirs = aligned(np.ones((4, 4)))
    ours = jax.device_put(theirs)
    theirs[...] = 7
    assert np.all(ours == 7)


@pytest.mark.parametrize("way, kind", PAIRS)
def test_no_memory_is_shared(way, kind):
    """torch trains its weights in place. A gradient step of theirs does not change ours, nor the other way round."""
    to, back, layers = WAYS[way]
    theirs = jax.tree.map(aligned, sources(way, kind))
    ours = back(theirs)
    before = bits(ours)
    there = to(ours)
    for array in jax.tree.leaves(theirs):
        array[...] = 7
    assert bits(ours) == before
    for array in jax.tree.leaves(there):
        if isinstance(array, np.ndarray):
            array[...] = 7
    assert bits(ours) == before


@pytest.mark.parametrize("form", [jnp.asarray, np.ndarray.tolist, np.asfortranarray])
def test_anything_that_numpy_reads(form):
    theirs = {name: form(w) for name, w in sources("torch", "gru").items()}
    assert bits(interop.from_torch(theirs)) == bits(interop.from_torch(sources("torch", "gru")))


class Tensor:
    """What a tensor of torch is, as far as we use it: it has a gradient, is on another device, and may be bfloat16."""

    def __init__(self, values, where="cuda, with gradient"):
        self.values, self.where = values, where
        self.dtype = f"torch.{values.dtype}"

    def detach(self):
        return Tensor(self.values, "cuda")

    def cpu(self):
        assert self.where == "cuda"
        return Tensor(self.values, "cpu")

    def float(self):
        return Tensor(self.values.astype(np.float32), self.where)

    def __array__(self, dtype=None, copy=None):
        if self.where != "cpu" or self.values.dtype == ml_dtypes.bfloat16:
            raise TypeError("can't convert")
        return self.values


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_torch(dtype):
    theirs = sources("torch", "lstm", dtype)
    tensors = {name: Tensor(w) for name, w in theirs.items()}
    assert bits(interop.from_torch(tensors)) == bits(interop.from_torch(theirs))


def test_real_tensors_of_torch():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for module in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM):
            theirs = module(IN, HID, 2, bidirectional=True, dtype=dtype)
            parameters = dict(theirs.named_parameters())  # with gradient
            assert bits(interop.from_torch(parameters)) == bits(interop.from_torch(theirs.state_dict()))
            there = interop.to_torch(interop.from_torch(parameters))
            if dtype != torch.bfloat16:  # which NumPy's arrays of it cannot tell torch
                theirs.load_state_dict({name: torch.tensor(w) for name, w in there.items()})
    with pytest.raises(ValueError, match="without `proj_size`"):
        interop.from_torch(torch.nn.LSTM(IN, HID, proj_size=2).state_dict())
    fc = torch.nn.Linear(3, 2)
    there = interop.to_torch_linear(interop.from_torch_linear(fc.state_dict()))
    assert all(np.array_equal(there[name], w) for name, w in fc.state_dict().items())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in `get_weights`
def test_layers_of_keras():
    """`get_weights` and `set_weights`; both layers of a `Bidirectional`; the activation of a `SimpleRNN`."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it when it is imported
    keras = pytest.importorskip("keras")

    def built(make):
        """A layer with weights; Keras needs JAX's own rules of promotion."""
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            layer = make()
            layer.build((None, 5, IN))
            return layer

    for kind in (keras.layers.SimpleRNN, keras.layers.GRU, keras.layers.LSTM):
        for bias in (True, False):
            both = built(lambda kind=kind, bias=bias: keras.layers.Bidirectional(kind(HID, use_bias=bias)))
            for layer in (both.forward_layer, both.backward_layer):
                ours = interop.from_keras(layer.get_weights())
                ours = jax.tree.map(lambda x: x + 1 if x.ndim == 2 else x, ours)
                layer.set_weights(interop.to_keras(ours, bias=bias))
                assert bits(interop.from_keras(layer.get_weights())) == bits(ours)
            if bias:
                with pytest.raises(ValueError, match="got 6 arrays: convert one layer after the other"):
                    interop.from_keras(both.get_weights())
    gru = built(lambda: keras.layers.GRU(HID, reset_after=False))
    with pytest.raises(ValueError, match="with `reset_after=False` the reset comes before the product"):
        interop.from_keras(gru.get_weights())


def test_the_cells_of_linen_by_gates():
    """`LSTMCell` has the parameters of `OptimizedLSTMCell`; `RNN` and `Bidirectional` name their cells as we say."""
    nn = pytest.importorskip("flax.linen")
    key, xs = jax.random.key(0), jnp.ones((2, 5, IN), "float32")
    for kind in (nn.SimpleCell, nn.GRUCell, nn.LSTMCell, nn.OptimizedLSTMCell):
        params = nn.RNN(kind(HID)).init(key, xs)["params"]["cell"]
        assert bits(interop.to_linen(interop.from_linen(params))) == bits(params)
    both = nn.Bidirectional(nn.RNN(nn.GRUCell(HID)), nn.RNN(nn.GRUCell(HID))).init(key, xs)["params"]
    pair = tuple(interop.from_linen(both[name]["cell"]) for name in ("forward_rnn", "backward_rnn"))
    assert rnn_jax.bidirectional(pair, (jnp.zeros(HID, "float32"),) * 2, jnp.ones((5, IN), "float32")).shape == (
        5,
        2 * HID,
    )
    mgu = nn.RNN(nn.MGUCell(HID)).init(key, xs)["params"]["cell"]
    with pytest.raises(ValueError, match="^`params` must be of .*, got an MGUCell, in which one gate both"):
        interop.from_linen(mgu)


def test_the_states_of_nnx():
    """`nnx.state`, `nnx.to_pure_dict`, and a module that is updated; `LSTMCell` has a matrix for each gate."""
    nnx = pytest.importorskip("flax.nnx")
    for kind in (nnx.SimpleCell, nnx.GRUCell, nnx.OptimizedLSTMCell):
        module = kind(IN, HID, rngs=nnx.Rngs(0))
        state = nnx.state(module, nnx.Param)
        pure = nnx.to_pure_dict(state)
        cell = interop.from_nnx(state)
        assert bits(interop.from_nnx(pure)) == bits(cell) and bits(interop.to_nnx(cell)) == bits(pure)
        changed = jax.tree.map(lambda x: x + 1, cell)
        changed = changed.replace(b_n=jnp.zeros_like(changed.b_n)) if isinstance(cell, GRUParams) else changed
        nnx.replace_by_pure_dict(state, interop.to_nnx(changed))
        nnx.update(module, state)
        assert bits(interop.from_nnx(nnx.state(module, nnx.Param))) == bits(changed)
    rng, module = np.random.default_rng(0), nnx.LSTMCell(IN, HID, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    pure = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape)), nnx.to_pure_dict(nnx.state(module, nnx.Param))
    )
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, pure)
    nnx.update(module, state)
    x, h, c = (jnp.asarray(rng.standard_normal(n)) for n in (IN, HID, HID))
    with jax.numpy_rank_promotion("allow"):
        (new_c, new_h), _ = module((c, h), x)
    ours = rnn_jax.step(interop.from_nnx(pure), jnp.concatenate([h, c]), x)
    np.testing.assert_allclose(ours, np.concatenate([new_h, new_c]), rtol=1e-12)
    missing = {name: part for name, part in pure.items() if name != "if_"}
    with pytest.raises(ValueError, match="^`state` must have `if_/kernel`, to be of "):
        interop.from_nnx(missing)


def test_the_cells_of_equinox():
    """The module itself, one without bias, and one whose arrays are replaced by ours."""
    eqx = pytest.importorskip("equinox")
    for kind in (eqx.nn.GRUCell, eqx.nn.LSTMCell):
        module = kind(IN, HID, key=jax.random.key(0), dtype="float32")
        cell = interop.from_equinox(module)
        changed = jax.tree.map(lambda x: x + 1, cell)
        arrays = interop.to_equinox(changed)
        module = eqx.tree_at(
            lambda m, names=tuple(arrays): [getattr(m, n) for n in names], module, list(arrays.values())
        )
        assert bits(interop.from_equinox(module)) == bits(changed)
        without = kind(IN, HID, use_bias=False, key=jax.random.key(0), dtype="float32")
        assert not np.any(interop.from_equinox(without).b_h)
    with pytest.raises(TypeError, match="^`cell` must be a GRUCell, an LSTMCell, or their arrays by name, got Linear."):
        interop.from_equinox(eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0)).layers[0])


def test_the_names_of_haiku():
    hk = pytest.importorskip("haiku")
    for core, prefix, double in (
        (hk.LSTM, "lstm/", True),
        (hk.VanillaRNN, "vanilla_rnn/", True),
        (hk.VanillaRNN, "vanilla_rnn/", False),
    ):
        options = {} if core is hk.LSTM else {"double_bias": double}
        net = hk.without_apply_rng(hk.transform(lambda x, s, core=core, options=options: core(HID, **options)(x, s)))
        s = hk.LSTMState(jnp.zeros(HID), jnp.zeros(HID)) if core is hk.LSTM else jnp.zeros(HID)
        params = net.init(jax.random.key(0), jnp.zeros(IN), s)
        cell = interop.from_haiku(params | {"linear": {"w": "not read"}}, prefix=prefix)
        there = interop.to_haiku(cell, prefix=prefix, double_bias=double)
        assert jax.tree.structure(there) == jax.tree.structure(dict(params))
        assert cell.activation == "relu" if core is hk.VanillaRNN else isinstance(cell, LSTMParams)
        net.apply(there, jnp.zeros(IN), s)


def test_no_other_library_is_imported(monkeypatch):
    for name in ("torch", "keras", "tensorflow", "flax", "haiku", "equinox"):
        for module in [one for one in sys.modules if one.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    for way, kind in PAIRS:
        WAYS[way][1](sources(way, kind))


@pytest.mark.parametrize("way", ["linen", "nnx", "equinox", "haiku"])
def test_a_conversion_may_be_traced(way):
    """The gradient has the names of the other library; back, ours become theirs inside of a program."""
    to, back, _ = WAYS[way]
    kind = "rnn" if way == "nnx" else "lstm"
    theirs = jax.tree.map(jnp.asarray, sources(way, kind))
    plain = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), theirs)
    d = jax.grad(lambda w: jnp.sum(rnn_jax.unroll(back(w), jnp.zeros(KINDS[kind].parts * HID), jnp.ones((3, IN)))))(
        plain
    )
    assert jax.tree.structure(d) == jax.tree.structure(plain) and all(map(np.any, jax.tree.leaves(d)))
    cell = back(plain)
    assert bits(jax.jit(lambda cell: back(to(cell)))(cell)) == bits(cell)
