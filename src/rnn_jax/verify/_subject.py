"""What a gradient check examines: a scalar function of one vector, and its gradient as `fn` computes it."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_tokens
from .._results import require_result, same_structure
from .._types import Batch, GradFn, Gradients, Params


class Leaf(NamedTuple):
    name: str
    shape: tuple[int, ...]
    entries: slice  # of the vector θ
    gates: tuple[str, ...] = ()  # the gates whose columns stand in it, one after the other


class Subject(NamedTuple):
    """A scalar function of one vector θ, and its gradient as `fn` computes it."""

    value: Callable[[Array], Array]
    theta: np.ndarray
    gradient: np.ndarray
    leaves: list[Leaf]
    unravel: Callable[[Any], Any]
    gradient_at: Callable[[np.ndarray], np.ndarray]

    def moved(self, theta: np.ndarray) -> "Subject":
        """The same function at another place, with its gradient there."""
        return self._replace(theta=theta, gradient=self.gradient_at(theta))


def gates_of(params: Any) -> dict[str, tuple[str, ...]]:
    """The gates of the leaves that have a group of columns for each, by the name of the leaf."""
    cells = enumerate(params.cells) if isinstance(params, Params) else ()
    return {
        f"params.cells[{layer}].{field}": getattr(cell, "gate_names", ())
        for layer, cell in cells
        for field in ("w_xh", "w_hh", "b_h")
    }


def in_float64(x: Any) -> Any:
    if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    x = jnp.asarray(x)
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _flatten(tree: Any) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """The leaves of a tree as one vector, and the inverse, for a NumPy vector or a traced one.

    `ravel_pytree` would compile a dozen small programs for this.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)]).tolist()
    shapes = [leaf.shape for leaf in leaves]

    def unravel(theta: Any) -> Any:
        parts = [theta[start:end] for start, end in itertools.pairwise(ends)]
        return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves]), unravel


def _traced(fn: Callable[..., Any], *args: Any) -> Any:
    """The shapes of what `fn` returns; a clear error if JAX cannot trace it."""
    try:
        return jax.eval_shape(fn, *args)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(
            "`fn` must be a function that JAX can trace, because it is called many times: without `if` on values and "
            "without NumPy. A GradFn that cannot be traced can be compared with a `witness`."
        ) from error


def of_grad_fn(fn: GradFn, params: Any, batch: Batch, h_0: Any) -> Subject:
    at = Gradients(params, h_0, None if is_tokens(batch.inputs) else batch.inputs)
    theta, unravel = _flatten(at)
    require_result(_traced(fn, params, batch, h_0), "fn")

    def value(theta: Array) -> Array:
        params, h_0, inputs = unravel(theta)
        return fn(params, batch if inputs is None else batch._replace(inputs=inputs), h_0)[0][0]

    def gradients(theta: Any) -> Any:
        params, h_0, inputs = unravel(theta)
        return fn(params, batch if inputs is None else batch._replace(inputs=inputs), h_0)[1]

    subject, gates = _subject(value, theta, unravel, at, gradients, ""), gates_of(params)
    return subject._replace(leaves=[leaf._replace(gates=gates.get(leaf.name, ())) for leaf in subject.leaves])


def of_rule(fn: Callable[..., Any], args: tuple[Any, ...], seed: int) -> Subject:
    tree: Any
    leaves, tree = jax.tree.flatten(args)
    _refuse_complex("`args`", leaves)
    floating = [bool(jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size) for leaf in leaves]
    if not any(floating):
        raise ValueError("`args` must hold a floating point number to differentiate with respect to, got none.")
    at = tree.unflatten([leaf if varies else None for leaf, varies in zip(leaves, floating, strict=True)])
    theta, unravel = _flatten(at)

    def outputs(theta: Array) -> list[Array]:
        varied = iter(jax.tree.leaves(unravel(theta)))
        moved = [next(varied) if varies else leaf for leaf, varies in zip(leaves, floating, strict=True)]
        results = [jnp.asarray(y) for y in jax.tree.leaves(fn(*tree.unflatten(moved)))]
        _refuse_complex("the result of `fn`", results)
        return [y for y in results if jnp.issubdtype(y.dtype, jnp.floating)]

    shapes = [y.shape for y in _traced(outputs, theta)]
    if not shapes:
        raise ValueError("`fn` must return a floating point number to differentiate, got none.")
    rng = np.random.default_rng(seed)
    cotangents = [jnp.ones(())] if shapes == [()] else [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]

    def value(theta: Array) -> Array:
        pairs = zip(outputs(theta), cotangents, strict=True)
        return sum((jnp.sum(y.astype(jnp.float64) * c) for y, c in pairs), jnp.zeros(()))

    gradient = jax.jit(jax.grad(value))
    return _subject(value, theta, unravel, at, lambda theta: unravel(gradient(theta)), "args")


def _refuse_complex(what: str, leaves: list[Any]) -> None:
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves):
        raise TypeError(f"{what} must be real, got complex numbers: pass real and imaginary parts.")


def _subject(
    value: Callable[[Array], Array],
    theta: np.ndarray,
    unravel: Callable[[Any], Any],
    at: Any,
    gradients_at: Callable[[Any], Any],
    root: str,
) -> Subject:
    gradients = gradients_at(jnp.asarray(theta))
    if not same_structure(gradients, at):
        came, like = jax.tree.structure(gradients), jax.tree.structure(at)
        raise ValueError(f"`fn` must return a gradient of the tree structure of its arguments, {like}, got {came}.")
    leaves, start = [], 0
    for (path, x), d in zip(jax.tree.leaves_with_path(at), jax.tree.leaves(gradients), strict=True):
        name = f"{root}{jax.tree_util.keystr(path)}".lstrip(".")
        if d.shape != x.shape:
            raise ValueError(f"`fn` must return a gradient of shape {x.shape} for {name}, got {d.shape}.")
        leaves.append(Leaf(name, x.shape, slice(start, start + x.size)))
        start += x.size

    def flat(gradients: Any) -> np.ndarray:
        return np.concatenate([np.asarray(d, np.float64).ravel() for d in jax.tree.leaves(gradients)])

    def gradient_at(theta: np.ndarray) -> np.ndarray:
        return flat(gradients_at(jnp.asarray(theta)))

    return Subject(value, theta, flat(gradients), leaves, unravel, gradient_at)


def low_precision(subject: Subject) -> str:
    """The first floating point type narrower than float64 in the program of the value; "" if there is none."""
    pending = [jax.make_jaxpr(subject.value)(subject.theta).jaxpr]
    while pending:
        for equation in pending.pop().eqns:
            for variable in equation.outvars:
                dtype = getattr(variable.aval, "dtype", None)
                if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 64:
                    return str(dtype)
            pending += [inner for inner in map(_program, jax.tree.leaves(equation.params)) if inner is not None]
    return ""


def _program(param: Any) -> Any:
    inner = getattr(param, "jaxpr", param)
    return inner if hasattr(inner, "eqns") else None
