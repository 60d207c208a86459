"""Cells with odd numbers, and the same weights as other libraries name them."""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_jax import CellParams, GRUParams, LSTMParams, interop
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


def sources(way, kind, dtype="float64", cell=None):
    """Weights of another library, as NumPy arrays: of an example, or of this cell."""
    to, _, layers = WAYS[way]
    cell = example(way, kind, dtype) if cell is None else cell
    return jax.tree.map(lambda x: np.array(x), to(cell if layers is None else layers(cell)))
