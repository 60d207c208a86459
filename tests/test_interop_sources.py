"""`rnn_jax.interop`: what comes in, what it leaves alone, and that no other library is imported."""

import os
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from weights import DTYPES, HID, IN, KINDS, PAIRS, WAYS, bits, sources

import rnn_jax
from rnn_jax import GRUParams, LSTMParams, interop


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
