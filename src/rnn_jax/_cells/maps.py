"""What the map of a cell must be: a function with a name, which makes a new state from values per unit."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .._require import takes

EACH = jax.ShapeDtypeStruct((2, 960), jnp.float32)
"""What a map is tried with. 960 units can be cut into groups of most sizes."""


def name_of(fn: Any) -> str:
    """The name of `fn`, which must be one that a class can have."""
    name: str = getattr(fn, "__name__", type(fn).__name__)
    if not name.isidentifier():
        raise TypeError(f"`fn` must have a name, which the class gets, got {name}: give it a name with def.")
    return name


def parts_of(s_t: Any) -> tuple[Any, ...]:
    """The parts of a new state, as a map returns them: an array, or several."""
    return tuple(s_t) if isinstance(s_t, (tuple, list)) else (s_t,)


def check_map(fn: Callable[..., Any], num_gates: int, num_parts: int, own: Iterable[str], apart: bool) -> None:
    """Raise unless `fn` takes what `elementwise` gives it, and returns a new state. Nothing is computed."""
    before, state, more = [[EACH] * num_gates] * (1 + apart), [EACH] * num_parts, dict.fromkeys(own, EACH)
    who = f"`fn` ({name_of(fn)})"
    if not takes(fn, *before, state, **more):
        called = ", ".join([*("zu" if apart else "a"), "s", *(f"{name}={name}" for name in more)])
        raise TypeError(
            f"{who} must be a function to be called as fn({called}), as `own` and `apart={apart}` say, but its "
            f"arguments are {inspect.signature(fn)}: change them, `own` or `apart`."
        )
    try:
        s_t = jax.eval_shape(lambda before, state, more: fn(*before, state, **more), before, state, more)
    except Exception as error:
        raise ValueError(
            f"{who} must work for any number of units, with `num_gates={num_gates}` and `num_parts={num_parts}`, but "
            f"with arrays {EACH.shape} it raised {type(error).__name__}, {_words(error)}: change it or these numbers, "
            "and give it values of units by `own`."
        ) from error
    parts = parts_of(s_t)
    if len(parts) != num_parts:
        raise ValueError(
            f"{who} must return one array per part of the state, `num_parts={num_parts}`, got {len(parts)}: change "
            "what it returns, or `num_parts`."
        )
    for i, part in enumerate(parts):
        _check_part(f"{who} must return arrays like those it gets", f"as part {i}", part)


def _check_part(must: str, place: str, part: Any) -> None:
    """Raise unless one part of the new state has the shape and dtype of the old one."""
    if not hasattr(part, "shape"):
        raise TypeError(f"{must}, got {type(part).__name__} {place}: return an array, or a tuple of arrays.")
    if part.shape != EACH.shape:
        raise ValueError(
            f"{must}, (*batch, hid), got {part.shape} for {EACH.shape} {place}: return one value per unit and sequence."
        )
    if part.dtype != EACH.dtype:
        raise TypeError(f"{must}, got {part.dtype} for {EACH.dtype} {place}: cast it, `.astype(s[0].dtype)`.")


def _words(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or ["without words"])[0].removesuffix(".")
