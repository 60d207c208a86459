"""Checks of parameters, inputs, states and flags: their shapes and dtypes, at trace time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._cells.protocol import Cell, lacking, num_units, own_names
from ._require import (
    require_array,
    require_dtype,
    require_float,
    require_shape,
    require_storable,
)
from ._types import Drop, Params, ReadoutParams, States, state_dtype


def is_tokens(x: Array | np.ndarray | jax.ShapeDtypeStruct) -> bool:
    """Whether `x` holds integers that stand for one-hot vectors, rather than features."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def check_cell(cell: Cell, name: str = "cell") -> None:
    """Raise unless `cell` is a cell whose arrays fit each other."""
    kind = type(cell).__name__
    if not dataclasses.is_dataclass(cell) or isinstance(cell, type):
        hint = ", which holds cells: use `params.cells[0]`" if isinstance(cell, Params) else ""
        raise TypeError(f"`{name}` must be a cell, like CellParams, got {kind}{hint}.")
    if lacks := lacking(cell):
        raise TypeError(f"`{name}` must be a cell, but {kind} lacks {lacks}: see `rnn_jax.typing.Cell`.")
    if jax.tree_util.all_leaves([cell]):
        told = "put `@jax.tree_util.register_dataclass` before the class"
        raise TypeError(f"`{name}` must be a tree of JAX, but {kind} is not registered: {told}.")
    cell.check(name)
    own = own_names(cell)
    for leaf in ("w_xh", "w_hh", "b_h", *own):
        require_float(f"{name}.{leaf}", getattr(cell, leaf))
    if cell.w_xh.ndim != 2:
        raise ValueError(f"`{name}.w_xh` must have two axes (in, hid), got shape {cell.w_xh.shape}.")
    (first, wide), gates = cell.w_xh.shape, cell.gates
    agree = cell.b_h.ndim == 1 and cell.w_hh.shape[1:] == cell.b_h.shape == (gates * cell.w_hh.shape[0],)
    if agree and cell.b_h.shape != (wide,):  # `w_hh` and `b_h` agree, so `w_xh` is the wrong one
        right = cell.b_h.shape[0]
        fitting = (wide if first == right else first, right)
        require_shape(f"{name}.w_xh", cell.w_xh, "(in, hid)", fitting, f"`{name}.w_hh` and `{name}.b_h`")
    if wide % gates:
        raise ValueError(f"`{name}.w_xh` must have {gates} columns for each unit, got shape {cell.w_xh.shape}.")
    units, several = wide // gates, "" if gates == 1 else f"{gates} "
    shapes = {"w_hh": (f"(hid, {several}hid)", (units, wide)), "b_h": (f"({several}hid,)", (wide,))}
    for leaf, (legend, expected) in (shapes | dict.fromkeys(own, ("(hid,)", (units,)))).items():
        require_shape(f"{name}.{leaf}", getattr(cell, leaf), legend, expected, f"`{name}.w_xh`")
        require_dtype(f"{name}.{leaf}", getattr(cell, leaf), cell.w_xh.dtype, f"`{name}.w_xh`")


def check_readout(readout: ReadoutParams, hid: int, dtype: Any, match: str, name: str) -> None:
    """Raise unless `readout` reads a layer of `hid` units."""
    if not isinstance(readout, ReadoutParams):
        hint = ", which holds one: use `params.readout`" if isinstance(readout, Params) else ""
        raise TypeError(f"`{name}` must be ReadoutParams, got {type(readout).__name__}{hint}.")
    require_float(f"{name}.w_hy", readout.w_hy)
    require_float(f"{name}.b_y", readout.b_y)
    if readout.w_hy.ndim != 2:
        raise ValueError(f"`{name}.w_hy` must have two axes (hid, out), got shape {readout.w_hy.shape}.")
    out = readout.w_hy.shape[1]
    if readout.w_hy.shape == (*readout.b_y.shape, hid):
        (out,) = readout.b_y.shape
    require_shape(f"{name}.w_hy", readout.w_hy, "(hid, out)", (hid, out), match)
    require_shape(f"{name}.b_y", readout.b_y, "(out,)", (out,), f"`{name}.w_hy`")
    require_dtype(f"{name}.w_hy", readout.w_hy, dtype, match)
    require_dtype(f"{name}.b_y", readout.b_y, dtype, match)


def check_read(params: ReadoutParams, hs: Array) -> None:
    """Raise unless the arrays of the readout `params` fit each other and the states `hs` `(*steps, hid)`."""
    require_float("hs", hs)
    if hs.ndim < 1:
        raise ValueError(f"`hs` must have the axes (*steps, hid), got shape {hs.shape}.")
    fits_itself = isinstance(params, ReadoutParams) and jnp.shape(params.w_hy)[1:] == jnp.shape(params.b_y)
    hid = params.w_hy.shape[0] if fits_itself else hs.shape[-1]
    check_readout(params, hid, params.w_hy.dtype if fits_itself else hs.dtype, "`hs`", "params")
    require_shape("hs", hs, "(*steps, hid)", (*hs.shape[:-1], hid), "`params.w_hy`")
    require_dtype("hs", hs, params.w_hy.dtype, "`params.w_hy`")


def check_params(params: Params) -> None:
    """Raise unless `params` is a stack of at least one layer and a readout that fit each other."""
    if not isinstance(params, Params):
        raise TypeError(f"`params` must be Params, got {type(params).__name__}.")
    if not isinstance(params.cells, tuple):
        raise TypeError(f"`params.cells` must be a tuple of cells, like CellParams, got {type(params.cells).__name__}.")
    if not params.cells:
        raise ValueError("`params.cells` must hold at least one layer, got none.")
    for layer, cell in enumerate(params.cells):
        check_cell(cell, f"params.cells[{layer}]")
    below = params.cells[0]
    for layer, cell in enumerate(params.cells[1:], start=1):
        name, match = f"params.cells[{layer}].w_xh", f"the layer below, `params.cells[{layer - 1}]`"
        expected = (num_units(below), cell.w_xh.shape[1])
        require_shape(name, cell.w_xh, "(hid below, hid)", expected, match)
        require_dtype(name, cell.w_xh, below.w_xh.dtype, match)
        below = cell
    check_readout(params.readout, num_units(below), below.w_xh.dtype, "the highest of `params.cells`", "params.readout")


def check_inputs(cell: Cell, x: Array, leading: tuple[str, ...], name: str, cell_name: str) -> tuple[int, ...]:
    """Raise unless `x`, with the axes `leading` before the batch axes, fits `cell`; return its batch sizes."""
    require_array(name, x)
    require_storable(name, x)
    axes = (*leading, "*batch") if is_tokens(x) else (*leading, "*batch", "in")
    if x.ndim < len(axes) - 1:
        raise ValueError(f"`{name}` must have the axes ({', '.join(axes)}), got shape {x.shape}.")
    if not is_tokens(x):
        require_array(name, x, jnp.floating, "floating point features or integer tokens")
        match = f"`{cell_name}.w_xh`"
        require_shape(name, x, f"({', '.join(axes)})", (*x.shape[:-1], cell.w_xh.shape[0]), match)
        require_dtype(name, x, cell.w_xh.dtype, match)
    return steps_shape(x)[len(leading) :]


def check_layout(x: Array, h: object, in_size: int, leading: tuple[str, ...], *, names: tuple[str, str]) -> None:
    """Raise if the sizes of `x` and of a state `h` show that the axes of `x` are in the wrong order.

    `leading` are the axes before the batch axes. If the sizes do not show it, `check_state` says what shape `h` must
    have.
    """
    x_name, h_name = names
    if not hasattr(h, "shape") or steps_shape(x)[len(leading) :] == h.shape[:-1]:
        return
    batch, steps = h.shape[:-1], steps_shape(x)
    has_features = x.shape[-1:] == (in_size,) or (batch and x.shape[len(leading) : -1] == batch)
    if is_tokens(x) and x.ndim == len(leading) + len(batch) + 1 and has_features:
        raise TypeError(
            f"`{x_name}` must hold floating point numbers to be features, got {x.dtype} in the shape {x.shape}: "
            f"integers are tokens and have no feature axis, so cast them, `{x_name}.astype(jnp.float32)`."
        )
    for axis in range(0 if leading else len(steps)):
        if (*steps[:axis], *steps[axis + 1 :]) == batch:
            one = f"jnp.moveaxis({x_name}, {axis}, 0)[t]" if axis else f"{x_name}[t]"
            raise ValueError(f"`{x_name}` must be one step, without a time axis, got shape {x.shape}: use `{one}`.")
    if leading and steps == batch:
        raise ValueError(
            f"`{x_name}` must have time as its first axis, got shape {x.shape}, which is one step for the batch of "
            f"`{h_name}`: use `{x_name}[None]`."
        )
    legend = "(time, *batch)" if is_tokens(x) else "(time, *batch, in)"
    for axis in range(1, len(steps)) if leading and len(steps) == len(batch) + 1 else ():
        if (*steps[:axis], *steps[axis + 1 :]) == batch:
            which = "axis is" if axis == 1 else f"{axis} axes are"
            move = f"jnp.swapaxes({x_name}, 0, 1)" if axis == 1 else f"jnp.moveaxis({x_name}, {axis}, 0)"
            raise ValueError(
                f"`{x_name}` must have time as its first axis, {legend}, got shape {x.shape}, whose first {which} as "
                f"long as the batch of `{h_name}`: use `{move}`."
            )
    if is_tokens(x):
        raise ValueError(
            f"`{h_name}` must have the batch axes {steps[len(leading) :]} of `{x_name}`, whose integers are tokens, "
            f"{legend if leading else '(*batch,)'} = {steps}, got {h.shape}: if they are features, cast them, "
            f"`{x_name}.astype(jnp.float32)`."
        )


def check_state(
    cell: Cell,
    h: Array,
    batch: tuple[int, ...],
    *,
    names: tuple[str, str],
    cell_name: str,
    parts: int | None = None,
) -> None:
    """Raise unless `h` is a state `(*batch, parts · hid)` of `cell`; `parts` is the cell's unless given.

    The state of leaky units and of cells with gates may be in float32 while the weights have fewer bits.
    """
    h_name, x_name = names
    dtype = state_dtype(cell) if parts is None and getattr(h, "dtype", None) == state_dtype(cell) else cell.w_hh.dtype
    parts = cell.parts if parts is None else parts
    _require_one(h_name, h, parts)
    match = f"`{cell_name}.w_hh`" if x_name == h_name else f"`{x_name}` and `{cell_name}.w_hh`"
    _require_wide(h_name, h, "*batch", batch, parts, num_units(cell), match)
    require_dtype(h_name, h, dtype, f"`{cell_name}.w_hh`")


def check_width(cell: Cell, s: Array) -> None:
    """Raise unless the last axis of `s` is that of the states of `cell`."""
    _require_one("s", s, cell.parts)
    _require_wide("s", s, "*steps", s.shape[:-1], cell.parts, num_units(cell), "`cell.w_hh`")


def _require_one(name: str, s: object, parts: int) -> None:
    """Raise unless a state is one array."""
    if parts > 1 and isinstance(s, (tuple, list)):
        raise TypeError(f"`{name}` must be one array, got {type(s).__name__}: use `{_side_by_side(parts)}`.")
    require_float(name, s)


def _require_wide(name: str, s: Array, axes: str, steps: tuple[int, ...], parts: int, hid: int, match: str) -> None:
    """Raise unless `s` has the shape of states, `(*steps, parts · hid)`."""
    legend = f"({axes}, hid)" if parts == 1 else f"({axes}, {parts} hid)"
    hint = f": use `{_side_by_side(parts)}`" if parts > 1 and s.shape == (*steps, hid) else ""
    require_shape(name, s, legend, (*steps, parts * hid), match, hint)


def _side_by_side(parts: int) -> str:
    """How to make a state of its parts."""
    return f"jnp.concatenate([h, {'c' if parts == 2 else '...'}], -1)"


def check_cotangent(name: str, d_x: Array, x: Array, match: str) -> None:
    """Raise unless `d_x` has the shape and dtype of `x`."""
    require_array(name, d_x)
    if d_x.shape != x.shape:
        raise ValueError(f"`{name}` must have shape {x.shape} to match {match}, got {d_x.shape}.")
    require_dtype(name, d_x, x.dtype, match)


def check_flags(
    steps: tuple[int, ...], prefix: str = "", legend: str = "(time, *batch)", **flags: Array | None
) -> None:
    """Raise unless `mask` and `reset`, if given, are booleans of the shape `steps`, whose axes are `legend`.

    `prefix` is put before their names in messages.
    """
    for field, flag in flags.items():
        name = f"{prefix}{field}"
        if flag is not None:
            require_array(name, flag, jnp.bool_, "booleans")
            require_shape(name, flag, legend, steps, "the inputs")


def check_states(
    params: Params,
    h_0: States,
    batch: tuple[int, ...] | None = None,
    match: str = "",
    name: str = "h_0",
    parts: int | None = None,
) -> None:
    """Raise unless `h_0`, or another tuple named `name`, has one state `(*batch, hid)` per layer.

    The batch axes are those of the argument named `match`; without `batch`, those of the first state.
    """
    if not isinstance(h_0, tuple):
        several = f"tuple({name})" if len(params.cells) > 1 else f"({name},)"
        hint = f": use `{several}`" if hasattr(h_0, "shape") else ""
        raise TypeError(f"`{name}` must be a tuple of one state per layer, got {type(h_0).__name__}{hint}.")
    layers, first = len(params.cells), params.cells[0].parts if parts is None else parts
    if len(h_0) != layers:
        hint = f": use `({_side_by_side(first)},)`" if layers == 1 < len(h_0) == first else ""
        raise ValueError(f"`{name}` must hold one state for each of the {layers} layers, got {len(h_0)}{hint}.")
    if batch is None:
        _require_one(f"{name}[0]", h_0[0], first)
        batch, match = h_0[0].shape[:-1], f"{name}[0]"
    for layer, (cell, h) in enumerate(zip(params.cells, h_0, strict=True)):
        names, cell_name = (f"{name}[{layer}]", match), f"params.cells[{layer}]"
        check_state(cell, h, batch, names=names, cell_name=cell_name, parts=parts)


def steps_shape(inputs: Array) -> tuple[int, ...]:
    """The shape of the steps, `(time, *batch)`, without the feature axis that tokens lack."""
    return inputs.shape if is_tokens(inputs) else inputs.shape[:-1]


def check_sequence(
    params: Params,
    h_0: States,
    inputs: Array,
    mask: Array | None,
    reset: Array | None,
    drop: Drop | None = None,
    *,
    name: str = "inputs",
) -> None:
    """Raise unless states, inputs and flags fit `params` and each other. Messages call the inputs `name`."""
    check_params(params)
    batch = check_inputs(params.cells[0], inputs, ("time",), name, "params.cells[0]")
    if isinstance(h_0, tuple) and h_0:
        check_layout(inputs, h_0[0], params.cells[0].w_xh.shape[0], ("time",), names=(name, "h_0[0]"))
    check_states(params, h_0, batch, name)
    prefix = "batch." if name.startswith("batch.") else ""
    check_flags(steps_shape(inputs), prefix, mask=mask, reset=reset)
    check_drop(params, drop, batch, name, f"{prefix}drop")


def check_drop(params: Params, drop: Drop | None, batch: tuple[int, ...], match: str, name: str = "drop") -> None:
    """Raise unless `drop`, if there is one, holds one array `(*batch, hid)` per layer.

    `match` names the argument that has these batch axes.
    """
    if drop is not None and not isinstance(drop, Drop):
        raise TypeError(f"`{name}` must be a Drop, got {type(drop).__name__}.")
    for field, units in (drop or Drop())._asdict().items():
        if units is not None:
            check_states(params, units, batch, match, f"{name}.{field}", parts=1)
