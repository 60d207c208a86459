"""A program of JAX evaluated by NumPy, one operation after the other.

Most tests ask whether two programs compute the same numbers, not what XLA makes of them. Compiling a loop of seven
steps takes XLA half a second; NumPy evaluates it in milliseconds. `by_numpy(fn)` traces `fn` as `jax.jit` would and
evaluates what it traced. Tests of the compiled form use `run_compiled` (`problems.py`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal


def by_numpy(fn: Callable) -> Callable:
    """`fn` traced by JAX and evaluated by NumPy; it returns NumPy arrays."""

    def call(*args: Any, **options: Any) -> Any:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **options)
        with np.errstate(all="ignore"):
            out = evaluate(program.jaxpr, program.consts, jax.tree.leaves((args, options)))
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return call


def by_numpy_unless_traced(fn: Callable) -> Callable:
    """`by_numpy(fn)` where the arguments are numbers, `fn` where JAX traces them."""
    evaluated = by_numpy(fn)

    def call(*args: Any) -> Any:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        return fn(*args) if traced else evaluated(*args)

    return call


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_array, consts), strict=True))
    values |= {v: _of_type(x, v.aval.dtype) for v, x in zip(jaxpr.invars, args, strict=True)}

    def read(v: Any) -> Any:
        return v.val if type(v) is Literal else values[v]

    for equation in jaxpr.eqns:
        rule = RULES.get(equation.primitive.name, _by_jax)
        found = rule(equation, *map(read, equation.invars))
        values |= zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True)
    return [read(v) for v in jaxpr.outvars]


def _array(x: Any) -> Any:
    return x if _is_key(x) else np.asarray(x)


def _of_type(x: Any, dtype: Any) -> Any:
    return x if _is_key(x) else np.asarray(x, dtype)


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _by_jax(equation: Any, *xs: Any) -> Any:
    """The operation computed by JAX, for rare ones: random numbers, sorting, decompositions."""
    xs = tuple(x if _is_key(x) else jnp.asarray(x) for x in xs)
    found = equation.primitive.bind(*xs, **equation.params)
    return list(map(_array, found)) if equation.primitive.multiple_results else _array(found)


RULES: dict[str, Callable] = {}


def rule(*names: str) -> Callable:
    def register(fn: Callable) -> Callable:
        return [RULES.setdefault(name, fn) for name in names][0]

    return register


def _entrywise(fn: Callable) -> Callable:
    return lambda equation, *xs: np.asarray(fn(*xs))


RULES |= {name: _entrywise(fn) for name, fn in {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs,
    "max": np.maximum, "min": np.minimum, "sign": np.sign, "square": np.square, "sqrt": np.sqrt,
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "cosh": np.cosh,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "is_finite": np.isfinite, "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert,
    "copy": np.asarray, "stop_gradient": np.asarray,
}.items()}  # fmt: skip


@rule("div")
def _div(equation, x, y):
    floating = jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating)
    return np.divide(x, y) if floating else _by_jax(equation, x, y)  # integers: towards zero


@rule("integer_pow")
def _integer_pow(equation, x):
    return np.asarray(x ** equation.params["y"])


@rule("select_n")
def _select_n(equation, which, *cases):
    return np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)


@rule("convert_element_type")
def _convert_element_type(equation, x):
    return np.asarray(x).astype(equation.params["new_dtype"])


@rule("reshape")
def _reshape(equation, x):
    return np.reshape(x, equation.params["new_sizes"])


@rule("squeeze")
def _squeeze(equation, x):
    return np.squeeze(x, equation.params["dimensions"])


@rule("transpose")
def _transpose(equation, x):
    return np.transpose(x, equation.params["permutation"])


@rule("rev")
def _rev(equation, x):
    return np.flip(x, equation.params["dimensions"])


@rule("concatenate")
def _concatenate(equation, *xs):
    return np.concatenate(xs, equation.params["dimension"])


@rule("stack")
def _stack(equation, *xs):
    return np.stack(xs, equation.params["axis"])


@rule("broadcast_in_dim")
def _broadcast_in_dim(equation, x):
    shape, kept = equation.params["shape"], dict(zip(equation.params["broadcast_dimensions"], np.shape(x), strict=True))
    return np.broadcast_to(np.reshape(x, [kept.get(axis, 1) for axis in range(len(shape))]), shape)


@rule("iota")
def _iota(equation):
    shape, axis = equation.params["shape"], equation.params["dimension"]
    line = np.arange(shape[axis], dtype=equation.params["dtype"])
    return np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


@rule("pad")
def _pad(equation, x, value):
    config = equation.params["padding_config"]
    if any(low < 0 or high < 0 or interior for low, high, interior in config):
        return _by_jax(equation, x, value)
    return np.pad(x, [(low, high) for low, high, _ in config], constant_values=value)


@rule("slice")
def _slice(equation, x):
    p = equation.params
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], p["strides"] or (1,) * np.ndim(x)))]


def _window(shape, starts, sizes):
    """Where a slice of `sizes` lies, moved inside of `shape` as XLA does."""
    first = (min(max(int(start), 0), n - size) for start, n, size in zip(starts, shape, sizes, strict=True))
    return tuple(slice(start, start + size) for start, size in zip(first, sizes, strict=True))


@rule("dynamic_slice")
def _dynamic_slice(equation, x, *starts):
    return x[_window(x.shape, starts, equation.params["slice_sizes"])]


@rule("dynamic_update_slice")
def _dynamic_update_slice(equation, x, update, *starts):
    x = np.array(x)
    x[_window(x.shape, starts, update.shape)] = update
    return x


def _reduce(fn):
    def reduce(equation, x):
        return np.asarray(fn(_wide(x), axis=tuple(equation.params["axes"])), equation.outvars[0].aval.dtype)

    return reduce


def _wide(x):
    """Half precision as float32, in which XLA adds it up on a CPU."""
    half = jnp.issubdtype(np.asarray(x).dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return np.asarray(x, np.float32) if half else x


RULES |= {
    "reduce_sum": _reduce(np.sum),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "reduce_and": _reduce(np.all),
    "reduce_or": _reduce(np.any),
}


@rule("cumsum")
def _cumsum(equation, x):
    axis, turned, dtype = equation.params["axis"], equation.params["reverse"], np.asarray(x).dtype
    sums = lambda x: np.cumsum(_wide(x), axis).astype(dtype)  # noqa: E731
    return np.flip(sums(np.flip(x, axis)), axis) if turned else sums(x)


@rule("argmax")
def _argmax(equation, x):
    return np.argmax(x, *equation.params["axes"]).astype(equation.params["index_dtype"])


@rule("dot_general")
def _dot_general(equation, x, y):
    (summed_x, summed_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    dtype = equation.params["preferred_element_type"]
    x, y = (_wide(a if dtype is None else np.asarray(a).astype(dtype, copy=False)) for a in (x, y))
    free_x, free_y = (
        [axis for axis in range(a.ndim) if axis not in (*summed, *batch)]
        for a, summed, batch in ((x, summed_x, batch_x), (y, summed_y, batch_y))
    )
    together, rows, columns = ([a.shape[i] for i in axes] for a, axes in ((x, batch_x), (x, free_x), (y, free_y)))
    inner = math.prod(x.shape[i] for i in summed_x)
    left = np.transpose(x, [*batch_x, *free_x, *summed_x]).reshape(*together, math.prod(rows), inner)
    right = np.transpose(y, [*batch_y, *summed_y, *free_y]).reshape(*together, inner, math.prod(columns))
    product = np.matmul(left, right).reshape([*together, *rows, *columns])
    return product.astype(equation.outvars[0].aval.dtype, copy=False)


def _rows(indices, dims_of_index, sizes, shape, operand_batching, indices_batching):
    """For each index of a gather or scatter: its place among the indices, where its slice starts, whether it fits."""
    for place in np.ndindex(*indices.shape[:-1]):
        start = [0] * len(shape)
        for axis, value in zip(dims_of_index, indices[place], strict=True):
            start[axis] = int(value)
        for axis, among in zip(operand_batching, indices_batching, strict=True):
            start[axis] = place[among]
        inside = all(0 <= a <= n - size for a, n, size in zip(start, shape, sizes, strict=True))
        yield place, start, inside


@rule("gather")
def _gather(equation, x, indices):
    p, out = equation.params, equation.outvars[0].aval
    d, sizes, mode = p["dimension_numbers"], p["slice_sizes"], str(p["mode"])
    gone = sorted({*d.collapsed_slice_dims, *d.operand_batching_dims})
    found = np.empty([*indices.shape[:-1], *(n for axis, n in enumerate(sizes) if axis not in gone)], out.dtype)
    floating = jnp.issubdtype(out.dtype, jnp.floating)
    fill = p["fill_value"] if p["fill_value"] is not None else np.nan if floating else -1
    for place, start, inside in _rows(
        indices, d.start_index_map, sizes, x.shape, d.operand_batching_dims, d.start_indices_batching_dims
    ):
        drop = "FILL" in mode and not inside
        found[place] = fill if drop else np.squeeze(x[_window(x.shape, start, sizes)], tuple(gone))
    offset = d.offset_dims
    batch = [axis for axis in range(found.ndim) if axis not in offset]
    return np.transpose(found, np.argsort([*batch, *offset]))


@rule("scatter-add")
def _scatter_add(equation, x, indices, updates):
    d, mode = equation.params["dimension_numbers"], str(equation.params["mode"])
    window = d.update_window_dims
    gone = sorted({*d.inserted_window_dims, *d.operand_batching_dims})
    moved = np.transpose(updates, [*(i for i in range(updates.ndim) if i not in window), *window])
    of_window = iter(moved.shape[indices.ndim - 1 :])
    sizes = [1 if axis in gone else next(of_window) for axis in range(x.ndim)]
    x = np.array(x)
    for place, start, inside in _rows(
        indices,
        d.scatter_dims_to_operand_dims,
        sizes,
        x.shape,
        d.operand_batching_dims,
        d.scatter_indices_batching_dims,
    ):
        if inside or "CLIP" in mode:
            x[_window(x.shape, start, sizes)] += moved[place].reshape(sizes)
    return x


@rule("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2")
def _call(equation, *xs):
    inner = next(equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params)
    return evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), xs)


@rule("call_hi_primitive")
def _call_hi_primitive(equation, *xs):
    """Our `unroll_bptt`: what the primitive expands to."""
    primitive = equation.params["_prim"]
    found = by_numpy(primitive.expand)(*jax.tree.unflatten(primitive.in_tree, xs))
    return jax.tree.leaves(found) if equation.primitive.multiple_results else found


@rule("platform_index")
def _platform_index(equation):
    known = equation.params["platforms"]
    return np.int32(next(i for i, names in enumerate(known) if names is None or "cpu" in names))


@rule("cond")
def _cond(equation, which, *xs):
    branches = equation.params["branches"]
    chosen = branches[min(max(int(which), 0), len(branches) - 1)]
    return evaluate(chosen.jaxpr, chosen.consts, xs)


@rule("while")
def _while(equation, *xs):
    p = equation.params
    first, second = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    of_cond, of_body, carry = xs[:first], xs[first:second], list(xs[second:])
    while evaluate(p["cond_jaxpr"].jaxpr, p["cond_jaxpr"].consts, [*of_cond, *carry])[0]:
        carry = evaluate(p["body_jaxpr"].jaxpr, p["body_jaxpr"].consts, [*of_body, *carry])
    return carry


@rule("scan")
def _scan(equation, *xs):
    p = equation.params
    consts, carry, sequences = _parts_of_scan(p, xs)
    body, consts_of_body, length, num_carry = p["jaxpr"].jaxpr, p["jaxpr"].consts, p["length"], len(carry)
    made = [np.empty((length, *v.aval.shape), v.aval.dtype) for v in body.outvars[num_carry:]]
    for t in reversed(range(length)) if p["reverse"] else range(length):
        out = evaluate(body, consts_of_body, [*consts, *carry, *(x[t] for x in sequences)])
        carry = out[:num_carry]
        for ys, y in zip(made, out[num_carry:], strict=True):
            ys[t] = y
    return [*carry, *made]


def _parts_of_scan(params, xs):
    """The constants, the carry and the slices of a scan; JAX 0.12 has trees instead of numbers."""
    if "ft_in" in params:
        return map(list, params["ft_in"].update(xs).unpack())
    first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
    return xs[:first], list(xs[first:second]), xs[second:]
