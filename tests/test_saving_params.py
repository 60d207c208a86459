"""`load_params` returns the network that `save_params` wrote; a damaged file is refused in one sentence."""

import dataclasses
import io
import json
import re
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_jax
from rnn_jax import CellParams, GRUParams, LeakyParams, LSTMParams, Params, ReadoutParams, saving
from rnn_jax._cells.protocol import own_names
from rnn_jax._saving import npz

IN, HID, OUT = 3, 4, 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Gru(GRUParams):
    """Your own class, which a file can only name."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Counting(LSTMParams):
    """An LSTM with static fields of every kind that a file holds."""

    size: int = dataclasses.field(default=1, metadata={"static": True})
    rate: Any = dataclasses.field(default=0.5, metadata={"static": True})
    flag: bool = dataclasses.field(default=False, metadata={"static": True})
    word: str | None = dataclasses.field(default=None, metadata={"static": True})


def cell_of(kind, dtype, inputs=IN, **static):
    """A cell of random weights."""
    rng = np.random.default_rng(0)
    wide = kind.gates * HID
    own = own_names(kind)
    shapes = {"w_xh": (inputs, wide), "w_hh": (HID, wide), "b_h": (wide,), **dict.fromkeys(own, (HID,))}
    return kind(**{name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}, **static)


def params_of(*cells):
    dtype = cells[-1].w_xh.dtype
    return Params(cells, ReadoutParams(jnp.ones((HID, OUT), dtype) / 3, jnp.arange(OUT, dtype=dtype)))


def assert_same(again, params):
    """Structure, static fields and their types, dtypes, and every bit."""
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for cell, before in zip(again.cells, params.cells, strict=True):
        assert type(cell) is type(before)
        for field in dataclasses.fields(cell):
            if field.metadata.get("static"):
                assert getattr(cell, field.name) == getattr(before, field.name), field.name
    for leaf, before in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert isinstance(leaf, jax.Array) and (leaf.dtype, leaf.shape) == (before.dtype, before.shape)
        assert np.asarray(leaf).tobytes() == np.asarray(before).tobytes()


CELLS = {
    **{
        f"{phi}-{leak}": (CellParams, {"activation": phi, "leak": leak})
        for phi in ("tanh", "relu", "identity")
        for leak in (1.0, 1, 0.1, np.float32(0.3))
    },
    **{f"leaky-{phi}": (LeakyParams, {"activation": phi}) for phi in ("tanh", "relu", "identity")},
    "gru": (GRUParams, {}),
    "lstm": (LSTMParams, {}),
    "your own": (Gru, {}),
    "counting": (Counting, {"size": 2**70, "rate": float("inf"), "flag": True, "word": "ø \ud800"}),
}
DTYPES = ["bfloat16", "float16", "float32", "float64"]
FILES = ["file", "file.safetensors"]


@pytest.mark.usefixtures("annotations_unchecked")  # of the types of fields
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", CELLS)
def test_every_kind_comes_back(name, file, tmp_path):
    kind, static = CELLS[name]
    params = params_of(cell_of(kind, "float32", **static))
    saving.save_params(tmp_path / file, params)
    own = [kind] if kind in (Gru, Counting) else []
    assert_same(saving.load_params(tmp_path / file, cells=own), params)
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_with_every_bit(dtype, file, tmp_path):
    """Layers of several kinds; NaN with its bits, infinities, minus zero, the smallest and the largest numbers."""
    cells = [cell_of(CellParams, dtype, activation="relu"), cell_of(Gru, dtype, HID), cell_of(LeakyParams, dtype, HID)]
    cells.append(cell_of(CellParams, dtype, HID, leak=0.25))
    info = jnp.finfo(dtype)
    odd = jnp.stack([jnp.asarray(x, dtype) for x in (jnp.nan, -jnp.inf, -0.0, info.smallest_subnormal)])
    params = params_of(cells[0].replace(b_h=odd), *cells[1:])
    saving.save_params(str(tmp_path / file), params)
    assert_same(saving.load_params(str(tmp_path / file), cells=(Gru,)), params)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("file", FILES)
def test_arrays_of_numpy_are_saved_too(file, tmp_path):
    params = params_of(cell_of(CellParams, "float32"))
    for change in (np.asfortranarray, lambda x: x.astype(x.dtype.newbyteorder())):  # the other order of bytes
        saving.save_params(tmp_path / file, jax.tree.map(lambda x, change=change: change(np.asarray(x)), params))
        assert_same(saving.load_params(tmp_path / file), params)


def test_numpy_reads_the_file_without_pickle(tmp_path):
    params = params_of(cell_of(CellParams, "float32", leak=0.5))
    saving.save_params(tmp_path / "file", params)
    with np.load(tmp_path / "file", allow_pickle=False) as found:
        assert np.array_equal(found["cells[0].w_hh"], params.cells[0].w_hh)
        structure = json.loads(str(found["structure"]))
    assert structure["cells"][0]["static"] == {"activation": "tanh", "leak": 0.5} and structure["format"] == 1


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path, monkeypatch):
    first, second = (params_of(cell_of(CellParams, "float32", leak=leak)) for leak in (1.0, 0.5))
    saving.save_params(tmp_path / "file", first)

    def stopped(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(npz.np, "savez", stopped)
        with pytest.raises(OSError, match="no space left"):
            saving.save_params(tmp_path / "file", second)
    assert_same(saving.load_params(tmp_path / "file"), first)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    saving.save_params(tmp_path / "file", second)
    assert_same(saving.load_params(tmp_path / "file"), second)
    with pytest.raises(FileNotFoundError):
        saving.save_params(tmp_path / "no folder" / "file", first)


# What is refused


def refuses(call, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)) as raised:
        call()
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def same_name(kind):
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(type("Gru", (kind,), {})))


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_a_file_cannot_hold(tmp_path):
    plain = cell_of(CellParams, "float32")
    own = rnn_jax.typing.Activation(jnp.tanh)
    gru = cell_of(Gru, "float32", HID)
    for params, error, sentence in [
        (params_of(plain.replace(activation=jax.nn.swish)), TypeError, "`params.cells[0].activation` must be a name"),
        (params_of(plain.replace(activation=own)), TypeError, "`params.cells[0].activation` must be a name to be"),
        (
            params_of(cell_of(Counting, "float32", rate=(1, 2))),
            TypeError,
            "`params.cells[0].rate` must be a text, a number or None to be saved, got (1, 2).",
        ),
        (
            params_of(cell_of(same_name(CellParams), "float32"), gru),
            ValueError,
            "`params.cells` must be classes with different names, got two named 'Gru'.",
        ),
        (
            params_of(cell_of(CellParams, "float8_e4m3fn")),
            TypeError,
            "must be an array of float16, bfloat16, float32, float64 to be saved, got float8_e4m3fn.",
        ),
        (jax.eval_shape(lambda: params_of(plain)), TypeError, "to be saved, got ShapeDtypeStruct."),
        (params_of(plain).cells, TypeError, "`params` must be Params, got tuple."),
    ]:
        refuses(lambda params=params: saving.save_params(tmp_path / "file", params), error, sentence)
    with pytest.raises(TypeError, match="`save_params` reads values"):
        jax.jit(lambda params: saving.save_params(tmp_path / "file", params))(params_of(plain))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("annotations_unchecked")
def test_kinds_that_are_not_known(tmp_path):
    path = tmp_path / "file"
    saving.save_params(path, params_of(cell_of(Gru, "float32")))
    refuses(
        lambda: saving.load_params(path),
        ValueError,
        f"layer 0 of {str(path)!r} is a 'Gru', and only CellParams, LeakyParams, GRUParams, LSTMParams are known: "
        "give its class, `load_params(path, cells=(Gru,))`.",
    )
    refuses(
        lambda: saving.load_params(path, cells=[same_name(CellParams)]),
        ValueError,
        f"Gru must have the fields that were saved in {str(path)!r}, b_h, b_n, w_hh, w_xh, but has activation, ",
    )
    for cells in (Gru(1, 2, 3, 4), [int]):
        with pytest.raises(TypeError):
            saving.load_params(path, cells=cells)
    refuses(lambda: saving.load_params(path, cells=[Gru, same_name(Gru)]), ValueError, "got two named 'Gru'.")
    with pytest.raises(FileNotFoundError):
        saving.load_params(tmp_path / "other")


def test_float64_is_not_rounded_without_a_word(tmp_path):
    path, params = tmp_path / "file", params_of(cell_of(CellParams, "float64"))
    saving.save_params(path, params)
    with jax.enable_x64(False):
        refuses(
            lambda: saving.load_params(path), ValueError, f"{str(path)!r} holds float64, which JAX cannot hold without"
        )
    with jax.enable_x64(True):
        assert_same(saving.load_params(path), params)


@pytest.fixture
def saved(tmp_path):
    params = params_of(cell_of(CellParams, "float32", leak=0.5), cell_of(LeakyParams, "float32", HID))
    saving.save_params(tmp_path / "file", params)
    return tmp_path / "file", params


def test_a_file_that_ends_early(saved):
    path, _ = saved
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 29), len(whole) - 1}:
        path.write_bytes(whole[:length])
        refuses(lambda: saving.load_params(path), ValueError, "`path` must be a file that `save_params` wrote, but ")


def test_a_file_with_a_changed_byte(saved):
    """It is refused, or the byte meant nothing, as a date does."""
    path, params = saved
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            again = saving.load_params(path)
        except ValueError as error:
            assert str(error).startswith("`path` must be a file that `save_params` wrote, but "), error
            refused += 1
        else:
            assert_same(again, params)
    assert refused > len(range(0, len(whole), 7)) / 2


def rewritten(path, change):
    """The file with other contents: `change(structure, arrays)` changes both in place."""
    with np.load(path) as found:
        arrays = dict(found)
    structure = json.loads(str(arrays.pop("structure")))
    structure = change(structure, arrays) or structure
    text = structure if isinstance(structure, (str, bytes)) else json.dumps(structure)
    with open(path, "wb") as file:
        np.savez(file, structure=np.array(text), **arrays)


CHANGES = [
    (lambda s, a: s.update(format=2), "is of format 2, and this version of rnn_jax reads up to 1: update it."),
    (lambda s, a: s.update(format=0), "has a `structure` that is not one of ours."),
    (lambda s, a: s.update(format=True), "has a `structure` that is not one of ours."),
    (lambda s, a: s.pop("cells") and None, "has a `structure` that is not one of ours."),
    (lambda s, a: s["cells"][0].pop("static") and None, "has a `structure` that is not one of ours."),
    (lambda s, a: s["cells"][0].update(kind=3), "has a `structure` that is not one of ours."),
    (lambda s, a: s["readout"].update(b_y="object"), "has a `structure` that is not one of ours."),
    (lambda s, a: s["readout"].update(b_y=[1]), "has a `structure` that is not one of ours."),
    (lambda s, a: s.update(readout=7), "has a `structure` that is not one of ours."),
    (lambda s, a: "no JSON", "has a `structure` that is not JSON."),
    (lambda s, a: "[" * 100_000, "has a `structure` that is not JSON."),
    (lambda s, a: b"\xff\xfe", "has a `structure` that is not JSON."),
    (lambda s, a: "[1, 2]", "has a `structure` that is not one of ours."),
    (lambda s, a: a.pop("cells[1].leak") is None or None, "lacks the array `cells[1].leak`."),
    (lambda s, a: a.update(more=np.ones(2)), "has `more`, which its `structure` does not name."),
    (
        lambda s, a: a.update({"readout.b_y": np.ones(2)}),
        "has `readout.b_y` as float64, where float32 is expected.",
    ),
    (
        lambda s, a: a.update({"readout.b_y": np.ones(7, "float32")}),
        "does not hold parameters: `params.readout.b_y` must have shape (out,) = (2,) to match `params.readout.w_hy`, "
        "got (7,).",
    ),
    (
        lambda s, a: s["cells"][0]["static"].update(activation="swish"),
        "does not hold parameters: No activation named 'swish'",
    ),
    (
        lambda s, a: s["cells"][0]["static"].update(leak="a"),
        "does not hold parameters: `leak` must be a number above 0 and at most 1, got",
    ),
]


@pytest.mark.usefixtures("annotations_unchecked")  # of the types of fields
@pytest.mark.parametrize("change, sentence", CHANGES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_whose_parts_do_not_fit(saved, change, sentence):
    path, _ = saved
    rewritten(path, change)
    refuses(lambda: saving.load_params(path), ValueError, sentence)


def test_files_of_other_things(tmp_path):
    path = tmp_path / "file"
    archive, arrays, array, pickled = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    np.savez(arrays, np.ones(3))
    np.save(array, np.ones(3))
    np.savez(pickled, structure=np.array([{"format": 1}], object))
    for data, sentence in [
        (b"", "is no .npz file."),
        (b"a text", "is no .npz file."),
        (b"PK but no more", "is damaged: it cannot be read."),
        (array.getvalue(), "is no .npz file."),
        (archive.getvalue(), "is another .npz file: it has no `structure`."),
        (arrays.getvalue(), "is another .npz file: it has no `structure`."),
        (pickled.getvalue(), "is damaged: it cannot be read."),
    ]:
        path.write_bytes(data)
        refuses(lambda: saving.load_params(path), ValueError, sentence)


# A run of the command


def test_a_folder_that_is_missing_is_named_as_the_user_did(tmp_path):
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
    for name in ("net.npz", "net.safetensors"):
        with pytest.raises(FileNotFoundError) as raised:
            saving.save_params(tmp_path / "missing" / name, params)
        assert raised.value.filename == str(tmp_path / "missing" / name)


def test_what_the_structure_does_not_name_is_not_read(tmp_path, monkeypatch):
    """A file with a further array, which may be huge, is refused before any array is read."""
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
    saving.save_params(tmp_path / "net.npz", params)
    with np.load(tmp_path / "net.npz") as found:
        np.savez_compressed(tmp_path / "more.npz", **found, huge=np.zeros(1000))
    read, before = [], np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda file, name: read.append(name) or before(file, name))
    with pytest.raises(ValueError, match="has `huge`, which its `structure` does not name"):
        saving.load_params(tmp_path / "more.npz")
    assert read == ["structure"]


def test_the_ending_may_be_in_capitals(tmp_path):
    params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
    saving.save_params(tmp_path / "NET.SAFETENSORS", params)
    assert b'"crc32"' in (tmp_path / "NET.SAFETENSORS").read_bytes().replace(b"\\", b"")
    assert saving.load_params(tmp_path / "NET.SAFETENSORS").cells[0].activation == "tanh"
