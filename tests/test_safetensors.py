"""A file whose name ends in `.safetensors`: what is in it, who reads it, and 2,000 broken ones."""

import contextlib
import json
import re
import struct
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from rnn_jax import CellParams, LSTMParams, Params, ReadoutParams, saving
from rnn_jax._reporting.files import replacing
from rnn_jax._saving import safetensors
from test_saving_params import HID, assert_same, cell_of, params_of, refuses

OURS = "`path` must be a file that `save_params` wrote, but "
DAMAGED = "is no .safetensors file, or is damaged."
CHANGED = "is damaged: its contents do not have its `crc32`."


def network(dtype="float32"):
    """Two layers, with arrays of equal shape."""
    return params_of(cell_of(CellParams, dtype, leak=0.5), cell_of(CellParams, dtype, HID, activation="relu"))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "network.safetensors"
    saving.save_params(path, network())
    return path


def parts(data):
    """The header and the arrays of a file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def whole(header, data, length=None):
    """The file with these parts; `header` may be bytes."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def test_what_is_in_the_file(saved):
    """Names, shapes, dtypes and places; the arrays begin at a multiple of eight, in little endian."""
    data = saved.read_bytes()
    header, arrays = parts(data)
    metadata, params = header.pop("__metadata__"), network()
    assert set(header) == {f"cells[{i}].{w}" for i in (0, 1) for w in ("w_xh", "w_hh", "b_h")} | {
        "readout.w_hy",
        "readout.b_y",
    }
    assert header["cells[0].w_xh"]["dtype"] == "F32" and header["cells[0].w_xh"]["shape"] == [3, 4]
    assert (len(data) - len(arrays)) % 8 == 0
    begin, end = header["cells[1].w_hh"]["data_offsets"]
    assert arrays[begin:end] == np.asarray(params.cells[1].w_hh, "<f4").tobytes()
    assert max(told["data_offsets"][1] for told in header.values()) == len(arrays)
    assert list(metadata) == ["rnn_jax"]
    structure = json.loads(metadata["rnn_jax"])
    assert [cell["static"] for cell in structure["cells"]] == [
        {"activation": "tanh", "leak": 0.5},
        {"activation": "relu", "leak": 1.0},
    ]
    crc = structure.pop("crc32")
    leaves = [np.asarray(getattr(cell, w), "<f4") for cell in params.cells for w in ("w_xh", "w_hh", "b_h")]
    leaves += [np.asarray(leaf, "<f4") for leaf in params.readout]
    assert crc == zlib.crc32(json.dumps(structure).encode() + b"".join(leaf.tobytes() for leaf in leaves))


def test_the_same_network_is_the_same_file(saved):
    before = saved.read_bytes()
    for _ in range(16):
        saving.save_params(saved, network())
        assert saved.read_bytes() == before


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_other_programs_read_and_write_it(dtype, tmp_path):
    """They read each array under its name. A file that they wrote is checked by its checksum, if it has one."""
    path, params = tmp_path / "network.safetensors", network(dtype)
    saving.save_params(path, params)
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    assert arrays["cells[1].w_hh"].dtype == dtype and np.array_equal(arrays["cells[1].w_hh"], params.cells[1].w_hh)
    structure = json.loads(metadata["rnn_jax"])
    del structure["crc32"]
    changed = arrays | {"readout.b_y": arrays["readout.b_y"] + np.ones(2, dtype)}
    theirs, without = tmp_path / "theirs.safetensors", {"rnn_jax": json.dumps(structure), "of": "another program"}
    save_file(arrays, theirs, metadata)
    assert_same(saving.load_params(theirs), params)
    save_file(changed, theirs, without)
    b_y = saving.load_params(theirs).readout.b_y
    assert np.array_equal(b_y, params.readout.b_y + jnp.ones(2, dtype))
    save_file(changed, theirs, metadata)
    refuses(lambda: saving.load_params(theirs), ValueError, CHANGED)


@pytest.mark.parametrize("missing", ["safetensors", "safetensors.numpy"])
def test_it_needs_the_extra(missing, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    sentence = f"A .safetensors file needs {missing}: pip install 'rnn-jax-bptt[app]'."
    refuses(lambda: saving.load_params(saved), ModuleNotFoundError, sentence)
    refuses(lambda: saving.save_params(saved, network()), ModuleNotFoundError, sentence)


def test_the_name_decides(tmp_path):
    """Also for reading: a file that was renamed is of the wrong kind."""
    saving.save_params(tmp_path / "a.safetensors", network())
    saving.save_params(tmp_path / "a", network())
    (tmp_path / "a").rename(tmp_path / "b.safetensors")
    refuses(lambda: saving.load_params(tmp_path / "b.safetensors"), ValueError, DAMAGED)
    (tmp_path / "a.safetensors").rename(tmp_path / "b")
    refuses(lambda: saving.load_params(tmp_path / "b"), ValueError, "is no .npz file.")
    for name, error in (("nothing.safetensors", FileNotFoundError), ("folder.safetensors", IsADirectoryError)):
        (tmp_path / "folder.safetensors").mkdir(exist_ok=True)
        with pytest.raises(error) as raised:
            saving.load_params(tmp_path / name)
        assert raised.value.filename == str(tmp_path / name)


def change_entry(**changes):
    def change(header):
        header["cells[0].w_hh"] |= changes

    return change


def change_structure(change):
    def of_header(header):
        structure = json.loads(header["__metadata__"]["rnn_jax"])
        change(structure)
        header["__metadata__"] = {"rnn_jax": json.dumps(structure)}

    return of_header


def longer(told, entries):
    """Say that an array at the end has so many entries."""
    begin, _ = told["data_offsets"]
    told.update(shape=[entries], data_offsets=[begin, begin + 4 * entries])


LIES = [  # of the header
    (lambda h: h.pop("readout.b_y") and None, DAMAGED),
    (lambda h: h.update(more=h["readout.b_y"]), DAMAGED),
    (lambda h: h.update({"more": h["readout.b_y"] | {"shape": [0], "data_offsets": [0, 0]}}), "has `more`, which its "),
    (lambda h: h.update({"readout.b": h.pop("readout.b_y")}), "lacks the array `readout.b_y`."),
    (lambda h: h.pop("__metadata__") and None, "is another .safetensors file: its metadata has no `rnn_jax`."),
    (lambda h: h.update(__metadata__={"rnn": "{}"}), "is another .safetensors file: its metadata has no `rnn_jax`."),
    (lambda h: h.update(__metadata__=["rnn_jax"]), DAMAGED),
    (lambda h: h["__metadata__"].update(rnn_jax=3), DAMAGED),
    (lambda h: h["__metadata__"].update(rnn_jax="["), "has a `rnn_jax` that is not JSON."),
    (lambda h: h["__metadata__"].update(rnn_jax=h["__metadata__"]["rnn_jax"].replace("0.5", "0.7")), CHANGED),
    (change_structure(lambda s: s.update(crc32="3")), CHANGED),
    (change_structure(lambda s: s.update(format=2)), "is of format 2, and this version of rnn_jax reads up to 1"),
    (change_structure(lambda s: s["readout"].update(b_y="float16")), "has `readout.b_y` as F32, where F16 is"),
    (change_entry(shape=[16]), "does not hold parameters: `params.cells[0].w_hh` must have shape"),
    (change_entry(shape=[4, 4, 1]), "does not hold parameters: `params.cells[0].w_hh` must have shape"),
    (change_entry(dtype="I32"), "has `cells[0].w_hh` as I32, where F32 is expected."),
    (change_entry(dtype="F8_E4M3", shape=[4, 16]), "has `cells[0].w_hh` as F8_E4M3, where F32 is expected."),
    (change_entry(dtype="F16"), DAMAGED),
    (change_entry(dtype=["F32"]), DAMAGED),
    (change_entry(shape=[4, 5]), DAMAGED),
    (change_entry(shape=[4, 4.0]), DAMAGED),
    (change_entry(shape=[-4, -4]), DAMAGED),
    (change_entry(shape=None), DAMAGED),
    (change_entry(shape=[2**40, 2**40]), DAMAGED),
    (change_entry(data_offsets=[48]), DAMAGED),
    (change_entry(data_offsets=[112, 48]), DAMAGED),
    (change_entry(data_offsets=[0, 64]), DAMAGED),
    (lambda h: h.update({"cells[0].w_hh": 3}), DAMAGED),
    (lambda h: longer(h["readout.b_y"], 10**15), DAMAGED),
]  # fmt: skip


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("number", range(len(LIES)))
def test_a_header_that_lies(number, saved):
    change, sentence = LIES[number]
    header, data = parts(saved.read_bytes())
    change(header)
    saved.write_bytes(whole(header, data))
    refuses(lambda: saving.load_params(saved), ValueError, sentence)
    with pytest.raises(ValueError, match=re.escape(OURS)):
        saving.load_params(saved)


def test_files_of_other_things(saved):
    header, data = parts(saved.read_bytes())
    other = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    for content in [
        b"",
        b"a text",
        b"a longer text",
        whole(header, data, 2**64 - 1),
        whole(header, b"", 10**12),
        whole(b"", data),
        whole(b"\xff\xfe", data),
        whole(b"[" * 100_000, data),
        whole(b"9" * 100_000, data),
        whole(b"[1]", data),
        whole(header, data + b"0"),
        whole(header, data[:-1]),
    ]:
        saved.write_bytes(content)
        refuses(lambda: saving.load_params(saved), ValueError, OURS + f"{str(saved)!r} {DAMAGED}")
    for content in (whole({}, b""), whole(other, b"1234")):
        saved.write_bytes(content)
        refuses(lambda: saving.load_params(saved), ValueError, "is another .safetensors file: its metadata has no")


def test_a_file_larger_than_the_memory(tmp_path):
    """A consistent header over a file of 4 TB that takes no room on the disk."""
    path, hid = tmp_path / "huge.safetensors", 10**6
    params = network()
    params = Params((params.cells[0],), params.readout)
    saving.save_params(path, params)
    header, _ = parts(path.read_bytes())
    shapes = {"cells[0].w_xh": [3, hid], "cells[0].w_hh": [hid, hid], "cells[0].b_h": [hid]}
    shapes |= {"readout.w_hy": [hid, 2], "readout.b_y": [2]}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] |= {"shape": shape, "data_offsets": [begin, end]}
    path.write_bytes(whole(header, b""))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + end)
    assert path.stat().st_size > 4e12
    refuses(
        lambda: saving.load_params(path),
        ValueError,
        f"has {path.stat().st_size:,} bytes, which the memory cannot hold.",
    )


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(saved, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        with replacing(path) as file:
            yield file
            raise OSError("no space left")

    before, other = saved.read_bytes(), network("float16")
    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "replacing", full)
        with pytest.raises(OSError, match="no space left"):
            saving.save_params(saved, other)
    assert saved.read_bytes() == before and [path.name for path in saved.parent.iterdir()] == [saved.name]
    saving.save_params(saved, other)
    assert_same(saving.load_params(saved), other)


def broken(rng, data):
    """The file with one to three things wrong in it."""
    for _ in range(rng.integers(1, 4)):
        change, at = rng.integers(8), int(rng.integers(len(data)) if len(data) else 0)
        head = 8 + int.from_bytes(data[:8], "little") if len(data) > 8 else 8
        if rng.integers(2) and head < 4000:  # in the header, which is the part that can lie
            at = int(rng.integers(min(head, max(len(data), 1))))
        if change < 3:
            data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else data
        elif change == 3:
            data = data[:at]
        elif change == 4:
            data = data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]
        elif change == 5:
            data = data[:at] + data[at + int(rng.integers(1, 9)) :]
        elif change == 6:  # a digit of a number
            digits = [m.start() for m in re.finditer(rb"\d", data[:head])]
            if digits:
                i = digits[rng.integers(len(digits))]
                data = data[:i] + str(rng.integers(10)).encode() + data[i + 1 :]
        else:
            other = int(rng.integers(len(data)) if len(data) else 0)
            first, last = sorted((at, other))
            data = data[:first] + data[last:] + data[first:last]
    return data


def test_2000_broken_files(saved):
    """Each is refused in one sentence of ours, or is the same network to the bit: a space more, a checksum less."""
    rng, data, params, refused = np.random.default_rng(0), saved.read_bytes(), network(), 0
    for _ in range(2000):
        saved.write_bytes(broken(rng, data))
        try:
            again = saving.load_params(saved)
        except ValueError as error:
            said, refused = str(error), refused + 1
            own = said.startswith("`cells` must hold your own classes of cells, but layer ")  # another name of a class
            fields = re.match(r"CellParams must have the fields that were saved in ", said)  # another name of a field
            assert said.startswith(OURS) or own or fields, said
            assert "\n" not in said and said.endswith(".")
        else:
            assert_same(again, params)
    assert refused > 1800


def test_gradients_are_saved_too(tmp_path):
    """They are `Params` as well; an LSTM has no static fields."""
    params = Params((cell_of(LSTMParams, "float64"),), ReadoutParams(jnp.ones((HID, 2)), jnp.zeros(2)))
    gradients = jax.tree.map(lambda x: -x, params)
    saving.save_params(tmp_path / "d.safetensors", gradients)
    assert_same(saving.load_params(tmp_path / "d.safetensors"), gradients)
