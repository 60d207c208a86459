"""The package's test problems, runs of a method on them, and the comparison of two results leaf by leaf."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax.extend.core import jaxprs_in_params

import rnn_jax
from rnn_jax.verify import _grid as verify_grid
from rnn_jax.verify._problems import HID, IN, OUT, Case, make_problem

EXACT = [name for name, method in rnn_jax.GRADIENTS.items() if method.exact]

OPTIONS = verify_grid.OPTIONS | {"activation": ["tanh", "relu"], "num_layers": [1, 3], "time": [13, 7, 1]}
"""What the grids of the engines cover, every pair of values: longer than `gradcheck`, for blocks and segments."""

GATED = ("gru", "lstm")

__all__ = [
    "EXACT",
    "GATED",
    "HID",
    "IN",
    "OPTIONS",
    "OUT",
    "Case",
    "assert_trees_close",
    "cast",
    "equations",
    "grad_fn_of",
    "innermost_loops",
    "make_problem",
    "method_of",
    "and_gated",
    "options_of",
    "run",
    "run_compiled",
    "thinned",
]


def options_of(method: str) -> dict:
    """The options of the example of a method."""
    example = rnn_jax.GRADIENTS[method].example
    return {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}


def method_of(method: str, *, devices=None, **options):
    """A method by name, its options as keywords."""
    value = rnn_jax.GRADIENTS[method].kind(**options)
    return value if devices is None else rnn_jax.Sharded(value, devices)


def grad_fn_of(method: str, case: Case, *, compute_dtype=None, **options):
    """The gradient function of a method for a case."""
    value = method_of(method, **options)
    return rnn_jax.make_grad_fn(value, loss=case.loss, reduction=case.reduction, compute_dtype=compute_dtype)


def run(method: str, case: Case, problem, **options):
    """`((loss, h_T), gradients)` of a method, its program evaluated by NumPy."""
    return by_numpy(grad_fn_of(method, case, **options))(*problem)


def run_compiled(method: str, case: Case, problem, **options):
    """The same, compiled by XLA."""
    grad_fn = grad_fn_of(method, case, **options)
    return jax.jit(grad_fn)(*problem)


def and_gated(values, *quick):
    """Pytest parameters `(*value, cell)`: all with the vanilla cell; with the gated ones those of `quick`, in turn.

    The rest runs in the thorough suite.
    """
    every = [(*_as_tuple(value), cell) for cell in ("vanilla", *GATED) for value in values]
    chosen = [(*_as_tuple(value), cell) for value, cell in zip(quick, itertools.cycle(GATED), strict=False)]
    assert set(chosen) <= set(every)
    return [
        one if one[-1] == "vanilla" or one in chosen else pytest.param(*one, marks=pytest.mark.thorough)
        for one in every
    ]


def thinned(values, keep: int):
    """Pytest parameters of which every `keep`-th runs in the quick suite and the others in the thorough one.

    Every value of each part of the combinations is among the quick ones.
    """
    values, marks = list(values), pytest.mark.thorough
    for parts in zip(*filter(lambda one: type(one) is tuple, values), strict=True):
        quick = [repr(part) for part in parts[::keep]]
        missing = sorted({repr(part) for part in parts} - set(quick))
        assert not missing or len(set(map(repr, parts))) == len(values), f"never in the quick suite: {missing}"
    return [one if i % keep == 0 else pytest.param(*_as_tuple(one), marks=marks) for i, one in enumerate(values)]


def _as_tuple(value):
    return value if type(value) is tuple else (value,)


def assert_trees_close(actual, expected, *, rtol: float, floor: float = 1e-30) -> None:
    """Each leaf within `rtol` of the largest entry of that leaf, at least `floor`; the message names the leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, x), y in pairs:
        x, y, name = np.asarray(x), np.asarray(y), jax.tree_util.keystr(path)
        assert x.shape == y.shape and x.dtype == y.dtype, f"{name}: {x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
        if x.size == 0:
            continue
        off = np.abs(x.astype(np.float64) - y.astype(np.float64))
        at = tuple(map(int, np.unravel_index(np.argmax(off), off.shape)))  # of NaN the first
        scale = max(np.max(np.abs(y.astype(np.float64))), floor)
        said = f"{name}: {off[at] / scale:.1e} > {rtol:.0e} at {at}, {x[at]} where {y[at]} is expected"
        assert off[at] <= rtol * scale, said


def cast(tree, dtype):
    """Every floating leaf in `dtype`, by NumPy, which compiles nothing."""

    def to(x):
        x = np.asarray(x)
        return jnp.asarray(x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x)

    return jax.tree.map(to, tree)


def equations(jaxpr):
    """Every equation of a program, including nested ones."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def innermost_loops(jaxpr, runs=1):
    """`(body, runs)` of each scan with no scan in it, in order: a loop over steps, and how often its body runs."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            body, length = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
            if any(inner.primitive.name == "scan" for inner in equations(body)):
                yield from innermost_loops(body, runs * length)
            else:
                yield body, runs * length
        else:
            for inner in jaxprs_in_params(eqn.params):
                yield from innermost_loops(inner, runs)
