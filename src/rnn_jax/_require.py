"""What any argument must be: a number in range, an array of a shape and dtype, a function, a known name.

The rule for numbers (docs/transformations.md): a number that enters arithmetic goes through `require_number` and may be
traced. A number that decides a shape, a program or a static field must be known: `require_known_number`,
`require_sizes`.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim
from jaxtyping import Array


def require_known(what: str, name: object, known: Mapping[str, Any]) -> None:
    """Raise a `ValueError` that lists the known names unless `name` is one of them."""
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"No {what} named {name!r}; known names: {', '.join(map(repr, known))}.")


Number = float | int | np.number | np.ndarray | Array
"""One real number of Python, NumPy or JAX (an array without axes). It may be traced unless stated otherwise."""


class Range(NamedTuple):
    """What a number must be, in words, and a test of it."""

    words: str
    holds: Callable[[float], bool]


POSITIVE = Range("a finite number above zero", lambda x: x > 0)
RATE = Range("a number from 0 to below 1", lambda x: 0 <= x < 1)


def require_number(name: str, x: object, expected: Range) -> Any:
    """`x` for arithmetic: a known number as a Python float, which takes the dtype of the arrays; a traced one as it is.

    The range of a traced number is not checked, and the caller casts it.

    Raises:
        TypeError: if `x` is not one real number; a boolean does not count as one.
        ValueError: if it is known and out of range, or not finite.
    """
    value: Any = x
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        if x.shape != () or not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise TypeError(f"`{name}` must be {expected.words}, got {x.dtype}{list(x.shape)}.")
        if isinstance(x, jax.core.Tracer):
            return x
        value = x.item()  # type: ignore[attr-defined]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be {expected.words}, got {x!r}.")
    if not (abs(value) <= sys.float_info.max and expected.holds(value)):
        raise ValueError(f"`{name}` must be {expected.words}, got {x!r}.")
    return float(value)


def require_known_number(name: str, x: object, expected: Range, otherwise: str) -> float:
    """A number that must be known when the program is made; `otherwise` says what to do with a traced one."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"`{name}` must be {expected.words} that is known, not traced by jit, vmap or grad, "
            f"got {x.dtype}{list(x.shape)}: {otherwise}."
        )
    number: float = require_number(name, x, expected)
    return number


def require_sizes(*, least: int = 1, **sizes: object) -> None:
    """Raise for the first size that is not an integer of at least `least`."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool):
            raise TypeError(f"`{name}` must be an integer of at least {least}, got {size!r}.")
        if size < least:
            raise ValueError(f"`{name}` must be at least {least}, got {size}.")


def require_integer(name: str, x: object) -> None:
    """Raise a `TypeError` unless `x` is one integer, of Python, NumPy or JAX."""
    whole = isinstance(x, int) and not isinstance(x, bool)  # of any size
    if not whole and (np.ndim(x) or not np.issubdtype(np.asarray(x).dtype, np.integer)):  # type: ignore[arg-type]
        raise TypeError(f"`{name}` must be an integer, got {x!r}.")


def require_storable(name: str, x: Any) -> None:
    """Raise if JAX would wrap integers in `x`: without `jax_enable_x64`, those beyond 32 bits."""
    if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.integer) or x.size == 0:
        return
    kind = jax.dtypes.canonicalize_dtype(x.dtype)
    least, most = int(x.min()), int(x.max())
    if least < np.iinfo(kind).min or most > np.iinfo(kind).max:
        raise ValueError(f"`{name}` must hold integers that fit {kind}, JAX's type for them, got {least} to {most}.")


def are_numbers(*sizes: Any) -> bool:
    """Whether all sizes are numbers; most comparisons with a symbol of `jax.export` cannot be decided."""
    return not any(is_symbolic_dim(size) for size in sizes)


def is_below(name: str, steps: Any, least: Any) -> bool:
    """Whether a number of steps is below `least`; both may be symbols of `jax.export`.

    Raises:
        ValueError: if the constraints of the symbols do not decide it.
    """
    try:
        return bool(steps < least)
    except InconclusiveDimensionOperation as error:
        raise ValueError(
            f"`{name}` must be known to have at least {least} steps, got {steps}: export it for symbols with this "
            f'constraint, `jax.export.symbolic_shape(..., constraints=["{steps} >= {least}"])`.'
        ) from error


def require_values(who: str, tree: Any) -> None:
    """Raise a `TypeError` if a leaf has no value because it is traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(f"`{who}` reads values, which do not exist under jit, vmap or grad: call it outside.")


def require_floating(name: str, dtype: Any) -> None:
    """Raise a `TypeError` unless `dtype` names a floating point type."""
    try:
        floating = jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(f"`{name}` must be a floating point type, got {dtype!r}.")


def require_callable(**functions: object) -> None:
    """Raise a `TypeError` for the first argument that cannot be called."""
    for name, function in functions.items():
        if not callable(function):
            came = repr(function) if len(repr(function)) < 80 else type(function).__name__
            raise TypeError(f"`{name}` must be a function, got {came}.")


def takes(function: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether `function` can be called with these arguments, as far as its signature is known."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:  # not a function, or it takes other arguments
        return False
    except ValueError:  # a built-in whose signature is not known
        return True
    return True


def require_key(key: object) -> None:
    """Raise a `TypeError` unless `key` is one typed key, as `jax.random.key` makes it."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape != ():
        came = f"{key.dtype}{key.shape}" if isinstance(key, jax.Array) else type(key).__name__
        raise TypeError(f"`key` must be one typed key, as jax.random.key(seed) makes it, got {came}.")


def require_array(name: str, x: object, kind: Any = None, described: str = "") -> None:
    """Raise unless `x` is an array and, if a `kind` of dtype is given, has that kind."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"`{name}` must be an array, got {type(x).__name__}.")
    if kind is not None and not jnp.issubdtype(x.dtype, kind):
        raise TypeError(f"`{name}` must hold {described}, got dtype {x.dtype}.")


def require_float(name: str, x: object) -> None:
    """Raise a `TypeError` unless `x` is an array of floating point numbers."""
    require_array(name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):  # type: ignore[attr-defined]
        raise TypeError(
            f"`{name}` must hold floating point numbers, got dtype {x.dtype}. "  # type: ignore[attr-defined]
            f"Cast it: `{name}.astype(float)`."
        )


def require_float64(what: str) -> None:
    """Raise a `ValueError` if JAX would round 64-bit numbers to 32 bits; `what` says which numbers these are."""
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise ValueError(
            f"{what}, which JAX cannot hold without 64-bit numbers: turn them on first, "
            f'`jax.config.update("jax_enable_x64", True)`.'
        )


def require_shape(name: str, x: Array, legend: str, expected: tuple[int, ...], match: str, hint: str = "") -> None:
    """Raise a `ValueError`, with a `hint` what to do, unless `x` has the shape `expected` of the axes `legend`."""
    if x.shape != expected:
        swapped = len(expected) > 1 and x.shape == (expected[1], expected[0], *expected[2:])
        hint = ": swap its first two axes" if swapped else hint
        for axis in range(2, len(expected)):
            if x.shape == (*expected[1 : axis + 1], expected[0], *expected[axis + 1 :]):
                hint = f": use `jnp.moveaxis({name}, {axis}, 0)`"
        raise ValueError(f"`{name}` must have shape {legend} = {expected} to match {match}, got {x.shape}{hint}.")


def require_dtype(name: str, x: Array, dtype: Any, match: str) -> None:
    """Raise a `TypeError` unless `x` has the dtype."""
    if x.dtype != dtype:
        raise TypeError(
            f"`{name}` must have dtype {dtype} to match {match}, got {x.dtype}. Cast it: `{name}.astype(jnp.{dtype})`."
        )
