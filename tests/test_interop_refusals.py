"""What `rnn_jax.interop` refuses: one sentence with the name, what was expected, what came and what to do."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import HID, KINDS, NOT_THERE, cell_of, sources, stack_of

import rnn_jax
from rnn_jax import CellParams, GRUParams, LeakyParams, LSTMParams, ReadoutParams, interop

GRU = {
    "weight_ih_l0": np.ones((9, 2)),
    "weight_hh_l0": np.ones((9, 3)),
    "bias_ih_l0": np.ones(9),
    "bias_hh_l0": np.ones(9),
}
DEEP = {**GRU, **{name.replace("l0", "l1"): w for name, w in GRU.items()}, "weight_ih_l1": np.ones((9, 3))}
LINEN, NNX = sources("linen", "lstm"), sources("nnx", "gru")
KERAS, HAIKU, EQUINOX = sources("keras", "lstm"), sources("haiku", "lstm"), sources("equinox", "gru")
CELL, LSTM, GATED = cell_of(CellParams), cell_of(LSTMParams), cell_of(GRUParams)


def but(mapping, **changes):
    """The mapping with some entries changed; None removes one."""
    return {name: w for name, w in (mapping | changes).items() if w is not None}


def own(a, s):
    return jnp.tanh(a[0])


T, V = TypeError, ValueError
REFUSED = [
    # names
    (lambda: interop.from_torch([1]), T, "`state_dict` must be a mapping of names to arrays, got list: call `state_dict()` of the module."),
    (lambda: interop.from_torch({}), V, "`state_dict` must have names of arrays, the weights of nn.RNN, nn.GRU or nn.LSTM, got none."),
    (lambda: interop.from_torch(GRU, prefix="rnn."), V, "`state_dict` must have names that begin with 'rnn.', the weights of nn.RNN, nn.GRU or nn.LSTM, got `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`."),
    (lambda: interop.from_torch(GRU, prefix=None), T, "`prefix` must be a text, got None."),
    (lambda: interop.from_torch(but(GRU, bias_hh_l0=None)), V, "`state_dict` must have `bias_hh_l0`, to be of nn.RNN, nn.GRU or nn.LSTM, got `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`."),
    (lambda: interop.from_torch(but(DEEP, weight_hh_l1=None)), V, "`state_dict` must have `weight_hh_l1`, to be of nn.RNN, nn.GRU or nn.LSTM, got "),
    (lambda: interop.from_torch({name.replace("l1", "l2"): w for name, w in DEEP.items()}), V, "`state_dict` must have `weight_ih_l1`, to be of nn.RNN"),
    (lambda: interop.from_torch({name.replace("l1", "l9999999999999"): w for name, w in DEEP.items()}), V, "`state_dict` must have `weight_ih_l1`, to be of nn.RNN"),
    (lambda: interop.from_torch(GRU | {"weight_ih_l0_reverse": GRU["weight_ih_l0"]}), V, "`state_dict` must have `weight_hh_l0_reverse`, to be of"),
    (lambda: interop.from_torch(GRU | {"fc.weight": np.ones((1, 3))}), V, "`state_dict` must have only the weights of nn.RNN, nn.GRU or nn.LSTM, got `fc.weight` too: give the beginning of the names of the module as `prefix`, like `rnn.`."),
    (lambda: interop.from_torch(GRU | {"steps": np.ones(2, int)}), V, "got `steps` too."),
    (lambda: interop.from_torch({f"rnn.{name}": w for name, w in GRU.items()}, prefix="rnn"), V, "got `rnn.weight_ih_l0`, `rnn.weight_hh_l0`, `rnn.bias_ih_l0`, `rnn.bias_hh_l0`: `prefix` must end with a dot."),
    (lambda: interop.from_torch({"parametrizations.weight_hh_l0.original0": GRU["weight_hh_l0"]}), V, "got `parametrizations.weight_hh_l0.original0`: remove the parametrizations of the module first."),
    (lambda: interop.from_torch(GRU | {"weight_hr_l0": np.ones((2, 3))}), V, "`state_dict` must be of a module without `proj_size`, because a projected state is a second product in each step, which no cell here has."),
    (lambda: interop.from_torch_linear({"fc.weight": np.ones((1, 3))}), V, "`state_dict` must have `weight`, to be of nn.Linear, got `fc.weight`: give the beginning of the names of the module as `prefix`, like `fc.`."),
    (lambda: interop.from_keras(3), T, "`weights` must be a list of arrays, got int."),
    (lambda: interop.from_keras(KERAS[:1]), V, "`weights` must hold kernel, recurrent_kernel, and bias if any, got 1 arrays."),
    (lambda: interop.from_keras(2 * KERAS), V, "got 6 arrays: convert one layer after the other, and both layers of a `Bidirectional`."),
    (lambda: interop.from_linen(but(LINEN, hf=None)), V, "`params` must have `hf/kernel`, to be of OptimizedLSTMCell or LSTMCell, got "),
    (lambda: interop.from_linen(LINEN | {"extra": np.ones(3)}), V, "`params` must have only the weights of OptimizedLSTMCell or LSTMCell, got `extra` too."),
    (lambda: interop.from_linen({"params": {"cell": LINEN}}), V, "got `params/cell/hf/bias`, `params/cell/hf/kernel`, `params/cell/hg/bias`, `params/cell/hg/kernel`, `params/cell/hi/bias`, `params/cell/hi/kernel`, `params/cell/ho/bias`, `params/cell/ho/kernel`, ...: go down in the tree to the cell."),
    (lambda: interop.from_linen(None), T, "`params` must be a mapping of names to arrays, got NoneType: pass the `params` of a cell."),
    (lambda: interop.from_nnx({"cell": NNX}), V, "`state` must have `dense_h/kernel`, to be of SimpleCell, GRUCell, OptimizedLSTMCell or LSTMCell, got `cell/dense_h/kernel`, `cell/dense_i/bias`, `cell/dense_i/kernel`: go down in the state to the cell."),
    (lambda: interop.from_nnx(NNX | {"rngs": np.ones(2)}), V, "`state` must have only the weights of SimpleCell, GRUCell, OptimizedLSTMCell or LSTMCell, got `rngs` too"),
    (lambda: interop.from_haiku({"lstm/linear": HAIKU["linear"]}), V, "`params` must have `linear/w`, to be of VanillaRNN or LSTM, got `lstm/linear/b`, `lstm/linear/w`: give what comes before `linear` in the names as `prefix`, like `lstm/`."),
    (lambda: interop.from_haiku({"gru": {"w_i": np.ones((2, 9)), "w_h": np.ones((3, 9)), "b": np.ones(9)}}, prefix="gru/"), V, "`gru/w_h` of `params` must be of a VanillaRNN or LSTM, got a GRU: that of haiku resets before the product, `(r ∘ h) W`, which no cell here does."),
    (lambda: interop.from_equinox(but(EQUINOX, weight_hh=None)), V, "`cell` must have `weight_hh`, to be of GRUCell or LSTMCell, got `bias`, `bias_n`, `weight_ih`."),
    (lambda: interop.from_equinox(but(EQUINOX, bias_n=None)), V, "`cell` must have `bias_n`, to be of GRUCell, got `bias`, `weight_hh`, `weight_ih`."),
    (lambda: interop.from_equinox(sources("equinox", "lstm") | {"bias_n": np.ones(3)}), V, "`cell` must have only the weights of LSTMCell, got `bias_n` too."),
    (lambda: interop.from_equinox(3), T, "`cell` must be a GRUCell, an LSTMCell, or their arrays by name, got int."),
    # shapes
    (lambda: interop.from_torch(but(GRU, weight_hh_l0=np.ones((8, 3)))), V, "`weight_hh_l0` of `state_dict` must have shape (hid, hid) for nn.RNN or (3 hid, hid) for nn.GRU or (4 hid, hid) for nn.LSTM, got (8, 3)."),
    (lambda: interop.from_torch(but(GRU, weight_hh_l0=np.ones((3, 9)))), V, "got (3, 9)."),
    (lambda: interop.from_torch(but(GRU, weight_hh_l0=np.ones((0, 0)))), V, "got (0, 0)."),
    (lambda: interop.from_torch(but(GRU, weight_ih_l0=np.ones((2, 9)))), V, "`weight_ih_l0` of `state_dict` must have shape (3 hid, in) = (9, in), got (2, 9)."),
    (lambda: interop.from_torch(but(GRU, bias_hh_l0=np.ones((2, 9)))), V, "`bias_hh_l0` of `state_dict` must have shape (3 hid,) = (9,), got (2, 9)."),
    (lambda: interop.from_torch(but(DEEP, weight_ih_l1=np.ones((9, 2)))), V, "`weight_ih_l1` of `state_dict` must have shape (3 hid, hid) = (9, 3), got (9, 2)."),
    (lambda: interop.from_torch({f"a.{name}": w for name, w in but(GRU, bias_ih_l0=np.ones(8)).items()}, prefix="a."), V, "`a.bias_ih_l0` of `state_dict` must have shape (3 hid,) = (9,), got (8,)."),
    (lambda: interop.from_torch_linear({"weight": np.ones((2, 3)), "bias": np.ones(3)}), V, "`bias` of `state_dict` must have shape (out,) = (2,), got (3,)."),
    (lambda: interop.from_keras([*KERAS[:2], np.ones(9)]), V, "`bias` of `weights` must have shape (4 hid,) = (12,), got (9,)."),
    (lambda: interop.from_keras(KERAS[::-1]), V, "`kernel` of `weights` must have shape (in, 4 hid) = (in, 12), got (12,)."),
    (lambda: interop.from_keras([np.ones((2, 9)), np.ones((3, 9)), np.ones(9)]), V, "`bias` of `weights` must have two rows, as in a GRU with `reset_after=True`, got one: with `reset_after=False` the reset comes before the product, `(r ∘ h) W`, which no cell here has."),
    (lambda: interop.from_linen(LINEN | {"ho": {"kernel": np.ones((3, 3)), "bias": np.ones(4)}}), V, "`ho/bias` of `params` must have shape (hid,) = (3,), got (4,)."),
    (lambda: interop.from_nnx(NNX | {"dense_h": {"kernel": np.ones((3, 12))}}), V, "`dense_h/kernel` of `state` must have shape (hid, hid) for SimpleCell or (hid, 3 hid) for GRUCell, got (3, 12)."),
    (lambda: interop.from_haiku({"linear": {"w": np.ones((3, 12)), "b": np.ones(12)}}), V, "`linear/w` of `params` must have more than hid = 3 rows (in+hid), got 3."),
    (lambda: interop.from_haiku({"linear": {"w": np.ones((5, 12)), "b": np.ones(13)}}), V, "`linear/b` of `params` must have shape (4 hid,), got (13,)."),
    (lambda: interop.from_equinox(EQUINOX | {"weight_ih": np.ones((2, 9))}), V, "`weight_ih` of `cell` must have shape (3 hid, in) = (9, in), got (2, 9)."),
    # dtypes
    (lambda: interop.from_torch(but(GRU, bias_ih_l0=np.ones(9, np.float32))), T, "`bias_ih_l0` of `state_dict` must have dtype float64, as `weight_ih_l0` of `state_dict` has, got float32: cast it."),
    (lambda: interop.from_torch(but(GRU, bias_ih_l0=np.ones(9, int))), T, "`bias_ih_l0` of `state_dict` must be an array of float16, bfloat16, float32, float64, got dtype int64."),
    (lambda: interop.from_torch(but(GRU, bias_ih_l0="text")), T, "`bias_ih_l0` of `state_dict` must be an array of float16, bfloat16, float32, float64, got dtype <U4."),
    (lambda: interop.from_torch(but(GRU, bias_ih_l0=[[1.0], [1.0, 2.0]])), T, "`bias_ih_l0` of `state_dict` must be an array, got list."),
    (lambda: interop.from_torch(GRU | {"bias_ih_l0": None}), T, "`bias_ih_l0` of `state_dict` must be an array of float16, bfloat16, float32, float64, got NoneType."),
    (lambda: interop.from_torch(but(GRU, bias_ih_l0=jax.random.key(0))), T, "`bias_ih_l0` of `state_dict` must be an array"),
    # activations
    (lambda: interop.from_torch(GRU, activation="relu"), V, "`activation` is for nn.RNN only, got 'relu' with nn.GRU: leave it out."),
    (lambda: interop.from_torch(GRU, activation="sine"), V, "No activation named 'sine'; known names: "),
    (lambda: interop.from_keras(KERAS, activation=jax.nn.silu), V, "`activation` is for SimpleRNN only, got "),
    # cells that the other library lacks
    (lambda: interop.to_torch((CELL,), prefix=3), T, "`prefix` must be a text, got 3."),
    (lambda: interop.to_haiku(LSTM, prefix=3), T, "`prefix` must be a text, got 3."),
    (lambda: interop.to_torch_linear(ReadoutParams(CELL.w_hh, CELL.b_h), prefix=3), T, "`prefix` must be a text, got 3."),
    (lambda: interop.to_torch(()), T, "`cells` must be a tuple of at least one layer, got tuple."),
    (lambda: interop.to_torch(CELL), T, "`cells` must be a tuple of at least one layer, got CellParams."),
    (lambda: interop.to_torch(rnn_jax.Params((CELL,), None)), T, "`cells` must be a tuple of at least one layer, got Params: use `params.cells`."),
    (lambda: interop.to_torch((3,)), T, "`cells[0]` must be a cell, like CellParams, got int."),
    (lambda: interop.to_torch(((CELL, CELL), CELL)), T, "`cells` must all be cells, or all pairs of cells, got another as `cells[1]`."),
    (lambda: interop.to_torch(((CELL, CELL, CELL),)), T, "`cells` must all be cells, or all pairs of cells, got another as `cells[0]`."),
    (lambda: interop.to_torch((CELL, cell_of(GRUParams, inputs=HID))), T, "`cells[1]` must be a CellParams like `cells[0]`, because a module of torch has layers of one kind, got GRUParams."),
    (lambda: interop.to_torch((CELL, CELL)), V, "`cells[1]` must have 3 inputs and 3 units, because all layers of a module of torch have the same width, got 2 and 3."),
    (lambda: interop.to_torch(((CELL, cell_of(CellParams, inputs=5)),)), V, "`cells[0][1]` must have 2 inputs and 3 units"),
    (lambda: interop.to_torch((CELL, cell_of(CellParams, inputs=HID, activation="relu"))), V, "`cells[1].activation` must be 'tanh', like that of `cells[0]`, because an nn.RNN has one for all layers, got 'relu'."),
    (lambda: interop.to_torch((CELL.replace(activation="identity"),)), V, "`cells[0].activation` must be 'tanh' or 'relu', as in nn.RNN, got 'identity'."),
    (lambda: interop.to_torch((CELL.replace(leak=0.5),)), V, "`cells[0].leak` must be 1, because torch has no leak, got 0.5."),
    (lambda: interop.to_torch((cell_of(LeakyParams),)), T, "`cells[0]` must be one of the cells that torch has too, CellParams (nn.RNN), GRUParams (nn.GRU), LSTMParams (nn.LSTM), got LeakyParams."),
    (lambda: interop.to_keras(cell_of(rnn_jax.elementwise(own))), T, "`cell` must be one of the cells that Keras has too, CellParams (SimpleRNN), GRUParams (GRU), LSTMParams (LSTM), got own."),
    (lambda: interop.to_torch((CELL,), bias=False), V, "`cells[0].b_h` must be zero with `bias=False`, got numbers up to "),
    (lambda: interop.to_keras(GATED.replace(b_h=0 * GATED.b_h), bias=False), V, "`cell.b_n` must be zero with `bias=False`, got numbers up to "),
    (lambda: interop.to_equinox(GATED, bias=False), V, "`cell.b_h` must be zero with `bias=False`, got numbers up to "),
    (lambda: interop.to_nnx(GATED), V, "`cell.b_n` must be zero because a GRUCell of nnx has no such bias, got numbers up to "),
    (lambda: interop.to_haiku(GATED), T, "`cell` must be one of the cells that haiku has too, CellParams (VanillaRNN), LSTMParams (LSTM), got GRUParams."),
    (lambda: interop.to_haiku(CELL), V, "`cell.activation` must be 'relu', as in a VanillaRNN, got 'tanh'."),
    (lambda: interop.to_equinox(CELL), T, "`cell` must be one of the cells that equinox has too, GRUParams (GRUCell), LSTMParams (LSTMCell), got CellParams."),
    (lambda: interop.to_linen(rnn_jax.Params((CELL,), None)), T, "`cell` must be a cell, like CellParams, got Params, which holds cells: use `params.cells[0]`."),
    (lambda: interop.to_torch_linear(CELL), T, "`readout` must be ReadoutParams, got CellParams."),
    (lambda: interop.to_torch_linear(ReadoutParams(jnp.ones((3, 2)), jnp.ones(3))), V, "`readout.b_y` must have shape (out,) = (2,) to match `readout.w_hy`, got (3,)."),
    (lambda: jax.jit(lambda c: interop.to_torch((c,)))(CELL), T, "`to_torch` reads values, which do not exist under jit, vmap or grad: call it outside."),
    (lambda: jax.jit(interop.to_keras)(CELL), T, "`to_keras` reads values"),
    (lambda: jax.jit(interop.to_nnx)(GATED), T, "`to_nnx` reads values"),
    (lambda: interop.to_linen(jax.eval_shape(lambda: CELL)), T, "`cell` must hold arrays that have values, got ShapeDtypeStruct."),
]  # fmt: skip


@pytest.mark.usefixtures("annotations_unchecked")  # they would speak first
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused(number):
    call, error, sentence = REFUSED[number]
    with pytest.raises(error, match=re.escape(sentence)) as raised:
        call()
    said = str(raised.value).split("\n--------------------\n")[0]  # JAX adds a note under jit
    assert "\n" not in said and said.endswith(".")


def test_float64_without_x64():
    """It would become float32 without a word."""
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="^`weight_ih_l0` of `state_dict` holds float64, which JAX"),
    ):
        interop.from_torch(GRU)


BACK = {
    "torch": lambda w: interop.from_torch(w),
    "torch linear": lambda w: interop.from_torch_linear(w),
    "keras": lambda w: interop.from_keras(list(w.values())),
    "linen": interop.from_linen,
    "nnx": interop.from_nnx,
    "haiku": interop.from_haiku,
    "equinox": interop.from_equinox,
}


def whole(way):
    """Weights of each kind that the library has, flat."""
    if way == "torch linear":
        return [interop.to_torch_linear(ReadoutParams(jnp.ones((HID, 2)), jnp.ones(2)))]
    if way == "torch":
        return [interop.to_torch(stack_of(kind, both=both)) for kind in KINDS.values() for both in (False, True)]
    kinds = [kind for kind in KINDS if (way, kind) not in NOT_THERE]
    found = [sources(way, kind, cell=plain(way, kind)) for kind in kinds]
    return [_flat(dict(enumerate(w)) if isinstance(w, list) else w) for w in found]


def plain(way, kind):
    """A cell that the library has, of numbers that any dtype holds."""
    cell = cell_of(KINDS[kind], activation="relu") if (way, kind) == ("haiku", "rnn") else cell_of(KINDS[kind])
    return cell.replace(b_n=0 * cell.b_n) if kind == "gru" else cell


def _flat(tree, path=""):
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in (
            _flat(value, f"{path}{key}/") if isinstance(value, dict) else {f"{path}{key}": value}
        ).items()
    }


def broken(rng, weights):
    """The weights with one thing wrong: a name, a shape, a dtype, or what is there instead of an array."""
    weights, name = dict(weights), list(weights)[rng.integers(len(weights))]
    w = weights[name]
    change = rng.integers(11)
    if change == 0:
        del weights[name]
    elif change == 1:
        weights[f"{name}{rng.choice(['x', '/kernel', '_l1', '_reverse', '0'])}"] = w
    elif change == 2:
        weights = {f"module/{name}": w for name, w in weights.items()}
    elif change == 3:
        weights[name] = [w.tolist(), "ab", None, {}, {"kernel": w}, object(), b"x", 3, iter(()), lambda: w][
            rng.integers(10)
        ]
        if weights[name] == w.tolist():  # that is an array
            del weights[name]
    elif change == 4:
        weights[name] = w.astype([int, bool, complex, np.float32, "U8", object, np.longdouble][rng.integers(7)])
    elif change == 5:
        weights[name] = np.concatenate([w, w], rng.integers(w.ndim))
    elif change == 6:
        weights[name] = w[..., None]
    elif change == 7:
        weights[name] = w.ravel()[:0] if rng.integers(2) else w[..., :0]
    elif change == 8:
        weights[name] = np.float64(1.0)
    elif change == 9:
        weights[name] = np.pad(w, 1)
    else:
        weights[f"{name} "] = weights.pop(name)
    return weights


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("way", BACK)
def test_a_broken_mapping_is_one_sentence(way):
    """2,000 mappings with one thing wrong: nothing but our errors, and every error has a name in it."""
    rng, kinds, refused = np.random.default_rng(0), whole(way), 0
    for number in range(2000 // len(BACK)):
        weights = broken(rng, kinds[number % len(kinds)])
        try:
            BACK[way](weights)
        except (TypeError, ValueError) as error:
            said, refused = str(error), refused + 1
            assert re.fullmatch(r"`[^\n]+` (of `\w+` )?(must|holds) [^\n]+\.", said), said
    assert refused >= 0.8 * (2000 // len(BACK))
