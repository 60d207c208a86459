"""What the caller's own functions and methods must be, and must return."""

from typing import Any

import jax
import jax.numpy as jnp

from ._checks import check_cotangent
from ._require import require_array
from ._types import Gradients


def require_result(result: Any, name: str) -> Any:
    """`result`, if it is what a `GradFn` returns."""
    pairs = isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], tuple) and len(result[0]) == 2
    if not pairs or not isinstance(result[1], Gradients):
        came = jax.tree.map(
            lambda leaf: str(jax.typeof(leaf)) if hasattr(leaf, "dtype") else type(leaf).__name__, result
        )
        raise TypeError(
            f"`{name}` of (params, batch, h_0) must return ((loss, h_T), Gradients), as a GradFn does, got {came}."
        )
    require_array(f"the loss of {name}", result[0][0], jnp.floating, "a floating point number")
    if jnp.shape(result[0][0]) != ():
        raise ValueError(f"`{name}` must return a loss of shape (), got {jnp.shape(result[0][0])}.")
    return result


def require_gradient(result: Any, arguments: Gradients, name: str) -> Any:
    """`result`, if it is what `gradient` of a method must return for these arguments; dtypes are not checked."""
    (_, h_T), gradients = require_result(result, name)
    for what, found, like in (("gradients", gradients, arguments), ("h_T", h_T, arguments.h_0)):
        mine, its = ([jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (found, like))
        if not same_structure(found, like) or mine != its:
            raise ValueError(f"`{name}` must return `{what}` with leaves of the shapes {its}, got {mine}.")
    return result


def require_method(method: Any, wanted: str) -> None:
    """Raise a `TypeError` unless `method` has what a `Method` must have; `reference` is not computed."""
    here = vars(method) if hasattr(method, "__dict__") else {}
    missing = [name for name in ("gradient", "reference") if name not in here and not hasattr(type(method), name)]
    if missing or isinstance(method, type):
        lacks = f", which lacks `{missing[0]}`" if len(missing) == 1 else ""
        made = f": make one, `{method.__name__}(...)`" if isinstance(method, type) and not missing else ""
        raise TypeError(f"`method` must be {wanted}, like Blocked(), got {method!r}{lacks}{made}.")


def same_structure(tree: Any, other: Any) -> bool:
    """Whether two trees have the same structure; leaves are not compared."""
    structures: tuple[Any, Any] = jax.tree.structure(tree), jax.tree.structure(other)
    return bool(structures[0] == structures[1])


def require_like(name: str, tree: Any, like: Any, match: str) -> None:
    """Raise unless `tree` has the structure, shapes and dtypes of `like`."""
    if not same_structure(tree, like):
        came = f"{jax.tree.structure(tree)} instead of {jax.tree.structure(like)}"
        raise ValueError(f"`{name}` must have the tree structure of `{match}`, got {came}.")
    for (path, leaf), other in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(like), strict=True):
        check_cotangent(f"{name}{jax.tree_util.keystr(path)}", leaf, other, f"`{match}`")
