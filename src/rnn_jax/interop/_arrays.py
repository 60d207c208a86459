"""Arrays by their names in another library: which there must be, their dtype and shapes.

Arrays with values are handled by NumPy, so that every bit stays, also of numbers so small that XLA makes them zero.
Traced arrays are handled by JAX, so a conversion can be differentiated: the gradient then has the names of the other
library.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._require import require_float64
from .._saving.structure import DTYPES

Axes = tuple[str, ...]
"""The axes of an array: `in`, `hid`, a multiple like `3 hid`, or a number."""

SHOWN = 8  # names in a message


class Source(NamedTuple):
    """What an argument holds.

    `who`      the argument.
    `module`   the modules of the other library that it may be.
    `prefix`   what comes before the names of the module there.
    `arrays`   its leaves by their names in the module; arrays after `with_names` or `with_arrays`.
    """

    who: str
    module: str
    prefix: str
    arrays: dict[str, Any]

    def name(self, name: str) -> str:
        """An array as messages call it."""
        return f"`{self.prefix}{name}` of `{self.who}`"


def of_mapping(who: str, tree: object, module: str, *, prefix: str = "", hint: str = "") -> Source:
    """The leaves of a mapping, which may hold further mappings, by their paths joined with `/`.

    Raises:
        TypeError: if it is not a mapping; `hint` says how to get it.
        ValueError: if no name begins with `prefix`.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(f"`{who}` must be a mapping of names to arrays, got {type(tree).__name__}{hint}.")
    require_prefix(prefix)
    leaves = dict(_leaves(tree))
    inside = {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}
    if not inside:
        begin = f"names that begin with {prefix!r}" if prefix else "names of arrays"
        raise ValueError(f"`{who}` must have {begin}, the weights of {module}, got {_listed(leaves)}.")
    return Source(who, module, prefix, inside)


def require_prefix(prefix: object) -> None:
    """Raise a `TypeError` unless it is a text."""
    if not isinstance(prefix, str):
        raise TypeError(f"`prefix` must be a text, got {prefix!r}.")


def _leaves(tree: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def with_names(source: Source, expected: Iterable[str], hint: str = "") -> Source:
    """The source with its leaves as arrays, if they have exactly the expected names.

    Raises:
        ValueError: if a name is missing or left over; `hint` says what to do.
        TypeError: as in `with_arrays`.
    """
    expected, found = list(expected), source.arrays
    for name in expected:
        if name not in found:
            missing, here = f"`{source.prefix}{name}`", _listed(f"{source.prefix}{name}" for name in found)
            raise ValueError(f"`{source.who}` must have {missing}, to be of {source.module}, got {here}{hint}.")
    if more := [name for name in found if name not in expected]:
        raise ValueError(
            f"`{source.who}` must have only the weights of {source.module}, got `{source.prefix}{more[0]}` too{hint}."
        )
    return with_arrays(source)


def with_arrays(source: Source) -> Source:
    """The source with arrays of NumPy, or traced ones.

    Raises:
        TypeError: unless all are arrays of one floating dtype.
        ValueError: for float64 if `jax_enable_x64` is off.
    """
    arrays = {name: _array(source.name(name), leaf) for name, leaf in source.arrays.items()}
    first, dtype = next((name, array.dtype) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.dtype != dtype:
            as_first = f"as {source.name(first)} has"
            raise TypeError(f"{source.name(name)} must have dtype {dtype}, {as_first}, got {array.dtype}: cast it.")
    return source._replace(arrays=arrays)


def _array(name: str, leaf: Any) -> Any:
    """A leaf as an array: one of NumPy unless it is traced."""
    if hasattr(leaf, "__jax_array__") and not isinstance(leaf, jax.Array):  # a variable of flax or Keras
        leaf = leaf.__jax_array__()
    if isinstance(leaf, jax.core.Tracer):
        array: Any = leaf
    else:
        try:
            array = _of_torch(leaf) if hasattr(leaf, "detach") else np.asarray(leaf)
        except Exception as error:  # whatever it is, NumPy cannot read it
            raise TypeError(f"{name} must be an array, got {type(leaf).__name__}.") from error
    if array.dtype.name not in DTYPES:
        came = type(leaf).__name__ if array.dtype == object else f"dtype {array.dtype}"
        raise TypeError(f"{name} must be an array of {', '.join(DTYPES)}, got {came}.")
    if array.dtype == np.float64:
        require_float64(f"{name} holds float64")
    return array


def _of_torch(tensor: Any) -> np.ndarray:
    """The values of a tensor of torch. NumPy has no bfloat16 of torch; float32 holds all its values."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return np.asarray(tensor.float()).astype(jnp.bfloat16)
    return np.asarray(tensor)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = ", ..." if len(names) > SHOWN else ""
    return (", ".join(f"`{name}`" for name in names[:SHOWN]) or "none") + more


def require_axes(source: Source, axes: Mapping[str, Axes]) -> None:
    """Raise a `ValueError` unless the arrays have these axes. A size is that of the first array that has it."""
    sizes: dict[str, int] = {}
    for name, legend in axes.items():
        shape, parsed = source.arrays[name].shape, [_factor(axis) for axis in legend]
        fits = len(shape) == len(legend)
        for size, (factor, symbol) in zip(shape, parsed, strict=False):
            if fits and symbol and symbol not in sizes and size % factor == 0 < size:
                sizes[symbol] = size // factor
            fits = fits and size == factor * (sizes.get(symbol, 0) if symbol else 1)
        if not fits:
            known = [str(factor * sizes.get(symbol, 1)) if symbol in sizes or not symbol else axis
                     for axis, (factor, symbol) in zip(legend, parsed, strict=True)]  # fmt: skip
            equal = f" = {_tuple(known)}" if known != list(legend) else ""
            raise ValueError(f"{source.name(name)} must have shape {_tuple(legend)}{equal}, got {shape}.")


def _tuple(axes: Sequence[str]) -> str:
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _factor(axis: str) -> tuple[int, str]:
    """`3 hid` as (3, "hid"), `hid` as (1, "hid"), `2` as (2, "")."""
    if axis.isdigit():
        return int(axis), ""
    factor, _, symbol = axis.rpartition(" ")
    return int(factor or 1), symbol


def times(gates: int, axis: str = "hid") -> str:
    """The name of an axis with so many values per unit."""
    return axis if gates == 1 else f"{gates} {axis}"


def gates_of(source: Source, name: str, modules: Mapping[int, str], *, transposed: bool = False) -> int:
    """How many gates the recurrent weights have, (hid, gates · hid) or the transpose.

    Raises:
        ValueError: unless it is a number of gates of the `modules`.
    """
    shape = source.arrays[name].shape
    hid, wide = (shape[::-1] if transposed else shape) if len(shape) == 2 else (0, 0)
    gates = wide // hid if hid and wide % hid == 0 else 0
    if gates not in modules:

        def legend(gates: int) -> str:
            axes = ("hid", times(gates))
            return f"({', '.join(axes[::-1] if transposed else axes)}) for {modules[gates]}"

        raise ValueError(f"{source.name(name)} must have shape {' or '.join(map(legend, modules))}, got {shape}.")
    return gates


def joined(arrays: Sequence[Any]) -> Any:
    """The arrays side by side."""
    traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    return jnp.concatenate(arrays, -1) if traced else np.concatenate(arrays, -1)


def values(name: str, tree: Any) -> Any:
    """The arrays of a cell or a readout as arrays of NumPy; traced ones stay as they are.

    Raises:
        TypeError: if a leaf is only the shape of an array.
    """

    def value(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer):
            return leaf
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            raise TypeError(f"`{name}` must hold arrays that have values, got {type(leaf).__name__}.")
        return np.asarray(leaf)

    return jax.tree.map(value, tree)


def of_jax(tree: Any) -> Any:
    """The arrays of a tree as new arrays of JAX. They share no memory, because the other library may go on training."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.core.Tracer) else jnp.array(leaf), tree)


def of_numpy(array: Any) -> np.ndarray:
    """A new array of NumPy, which can be written to."""
    return np.array(array, order="C")
