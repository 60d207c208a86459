"""The unroll as one primitive of JAX, with its rules for reverse mode, forward mode and `vmap` written by hand.

It derives from JAX's experimental base class for such primitives: `VJPHiPrimitive`, which JAX 0.11 renamed `HiPrim`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import hijax
from jaxtyping import Array

from .._cells.protocol import keeps_more
from .._require import are_numbers
from .._types import Hiddens, Trajectory
from .events import Events
from .layer import Layer
from .loops import Residuals, Room, forward, pullback, pushforward, residuals_of

if TYPE_CHECKING:

    class Base:
        """The members of JAX's base class used here, for type checkers. Its name depends on JAX's version."""

        in_avals_flat: list[Any]
        in_tree: jax.tree_util.PyTreeDef
        out_tree: jax.tree_util.PyTreeDef

        def __call__(self, *args: Any) -> Any: ...

else:
    Base = getattr(hijax, "HiPrim", None) or getattr(hijax, "VJPHiPrimitive", None)
    if Base is None:
        raise ImportError("jax.experimental.hijax has neither HiPrim nor VJPHiPrimitive")


class Members(NamedTuple):
    """One `vmap` over weights: an ensemble of `size` members.

    `mapped` tells which leaves of the arguments have the axis of members, as their first axis.
    """

    size: int
    mapped: tuple[bool, ...]


class Unroll(Base):
    """`(cell, h_0, xs, events, r) -> (hs, kept)` for arguments of the types `in_avals`.

    `kept` is what the derivative of a gated cell reads in addition to the states; None for the other cells. It is a
    result so that the way back need not recompute it. XLA drops it where nobody asks for a derivative.

    `ensemble` lists the `vmap`s over weights, outermost first. A `vmap` over sequences only is not in the list: it
    becomes one more batch axis.
    """

    ensemble: tuple[Members, ...]

    def __init__(self, in_avals: tuple[Any, ...], ensemble: tuple[Members, ...] = ()):
        cell, h_0, xs, *_ = in_avals
        sizes = tuple(members.size for members in ensemble)
        self.h_0 = len(jax.tree.leaves(cell))  # its index among the leaves; those of the cell come first
        time, batch_hid = xs.shape[_num_axes(ensemble, self.h_0 + 1)], h_0.shape[_num_axes(ensemble, self.h_0) :]
        self.in_avals, self.ensemble, self.in_tree = in_avals, ensemble, jax.tree.structure(in_avals)
        hs = h_0.update(shape=(*sizes, time, *batch_hid), weak_type=False)
        kept = jax.eval_shape(self._for_each_member(_run), in_avals, None)[1] if keeps_more(cell) else None
        self.out_aval = hs, jax.tree.map(lambda x: hs.update(shape=x.shape), kept)
        self.params = {"ensemble": ensemble}
        super().__init__()

    def __hash__(self) -> int:
        return hash((self.ensemble, tuple(map(str, self.in_avals_flat)), self.in_tree))

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def _key(self) -> tuple[Any, ...]:
        return self.ensemble, self.in_avals_flat, self.in_tree

    def expand(self, *args: Any) -> Any:
        return self._for_each_member(_run)(args, None)

    def vjp_fwd(self, nzs_in: Any, *args: Any) -> tuple[Any, Any]:
        del nzs_in
        results = self(*args)
        return results, (args, results)

    def vjp_bwd_retval(self, residuals: Any, d_results: Any) -> Any:
        (args, results), (d_hs, d_kept) = residuals, d_results
        unused = all(isinstance(d, hijax.Zero) for d in jax.tree.leaves(d_kept))  # but for derivatives of derivatives
        d_results = _dense(d_hs), None if unused else jax.tree.map(_dense, d_kept)
        d_args = self._for_each_member(_pullback, transposed=True)(args, None, results, d_results)
        return jax.tree.unflatten(self.in_tree, map(_or_float0, self._leaves(d_args), self.in_avals_flat))

    def jvp(self, primals: Any, tangents: Any) -> tuple[Any, Any]:
        results = self(*primals)
        return results, self.linearized((primals, results), *tangents)

    lin = vjp_fwd

    def linearized(self, residuals: Any, *tangents: Any) -> Any:
        args, results = residuals
        known = jax.tree.unflatten(self.in_tree, map(_or_none, self._leaves(tangents)))
        return self._for_each_member(_pushforward)(args, known, results)

    def transpose(self, out_ct: Any, *maybe_accums: Any) -> NoReturn:
        raise TypeError(
            "`unroll_bptt` cannot be transposed, because it is not linear in any single argument: transpose the result "
            "of `jax.linearize`, or use `unroll`."
        )

    def batch(self, axis_data: Any, args: Any, dims: Any) -> tuple[Any, Any]:
        xs, dims = self._leaves(args), self._leaves(dims)
        mapped = tuple(dim is not None for dim in dims)
        if not any(mapped):
            return self(*args), self._all_results(None)
        if any(mapped[: self.h_0]):
            ensemble = (Members(axis_data.size, mapped), *self.ensemble)
            leaves = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in zip(xs, dims, strict=True)]
            return bind(jax.tree.unflatten(self.in_tree, leaves), ensemble), self._all_results(0)

        r = () if args[-1] is None else (len(xs) - 1,)
        timeless = {self.h_0, *r}  # all others have time before the batch

        def as_batch_axis(leaf: int, x: Any, dim: int | None) -> Any:
            axis = _num_axes(self.ensemble, leaf) + (leaf not in timeless)
            if dim is not None:
                return jnp.moveaxis(x, dim, axis)
            return jnp.repeat(jnp.expand_dims(x, axis), axis_data.size, axis)

        first = self.h_0
        leaves = xs[:first] + [as_batch_axis(leaf, xs[leaf], dims[leaf]) for leaf in range(first, len(xs))]
        results = bind(jax.tree.unflatten(self.in_tree, leaves), self.ensemble)
        return results, self._all_results(len(self.ensemble) + 1)

    def _all_results(self, dim: int | None) -> Any:
        """The same axis for every result."""
        return jax.tree.unflatten(self.out_tree, [dim] * self.out_tree.num_leaves)

    def _leaves(self, tree: Any) -> list[Any]:
        """The entries of `tree`, including None, one for each leaf of the arguments."""
        leaves: list[Any] = self.in_tree.flatten_up_to(tree)
        return leaves

    def _for_each_member(self, rule: Callable[..., Any], *, transposed: bool = False) -> Callable[..., Any]:
        """`rule(args, dots, ...)`, with `dots` like `args` or None, vmapped over the ensemble.

        A transposed rule sums the cotangents of shared leaves.
        """
        for members in reversed(self.ensemble):
            rule = self._vmapped(rule, members, transposed)
        return rule

    def _vmapped(self, rule: Callable[..., Any], members: Members, transposed: bool) -> Callable[..., Any]:
        axes = jax.tree.unflatten(self.in_tree, [0 if mapped else None for mapped in members.mapped])

        def vmapped(args: tuple[Any, ...], dots: Any, *rest: Any) -> Any:
            in_axes = (axes, None if dots is None else axes, *(0 for _ in rest))
            out = jax.vmap(rule, in_axes, axis_size=members.size)(args, dots, *rest)
            if not transposed:
                return out
            pairs = zip(self._leaves(out), members.mapped, strict=True)
            leaves = [d if mapped or d is None else jnp.sum(d, 0) for d, mapped in pairs]
            return jax.tree.unflatten(self.in_tree, leaves)

        return vmapped


def bind(args: tuple[Any, ...], ensemble: tuple[Members, ...] = ()) -> Any:
    """The states and what is kept, computed by the primitive for arguments of these types."""
    return Unroll(jax.tree.map(jax.typeof, args), ensemble)(*args)


def states(args: tuple[Any, ...]) -> Trajectory:
    """The states."""
    hs: Trajectory = bind(args)[0]
    return hs


def _num_axes(ensemble: tuple[Members, ...], leaf: int) -> int:
    """How many axes of members a leaf of the arguments has."""
    return sum(members.mapped[leaf] for members in ensemble)


def _run(args: tuple[Any, ...], _: None) -> tuple[Trajectory, Any]:
    (cell, h_0, xs), (events, r) = args[:3], args[3:]
    hs, residuals = forward(Layer(cell, r), h_0, xs, events, room=Room())
    return hs, residuals.kept if keeps_more(cell) else None


def _residuals(args: tuple[Any, ...], hs: Hiddens, kept: Any) -> Residuals:
    (cell, h_0, xs), (events, r) = args[:3], args[3:]
    return residuals_of(Layer(cell, r), h_0, xs, hs, events, kept)


def _kept(args: tuple[Any, ...]) -> Callable[..., Any]:
    """What is kept as a function of `(cell, h_0, xs, hs)`: to differentiate it where derivatives are differentiated."""
    return lambda cell, h_0, xs, hs: _residuals((cell, h_0, xs, *args[3:]), hs, None).kept


def _pullback(args: tuple[Any, ...], _: None, results: Any, d_results: Any) -> tuple[Any, ...]:
    (hs, kept), (d_hs, d_kept), r = results, d_results, args[-1]
    d_r = None if r is None else jnp.zeros_like(r)  # a constant: this is never read
    if d_kept is None:
        return *pullback(_residuals(args, hs, kept), d_hs), Events(), d_r  # the flags are booleans: no cotangent
    *more, d_hs_more = jax.vjp(_kept(args), *args[:3], hs)[1](d_kept)
    d_args = pullback(_residuals(args, hs, kept), d_hs + d_hs_more)
    d_args = jax.tree.map(lambda d, d_more: d if d is None else d + d_more, d_args, tuple(more), is_leaf=_is_none)
    return *d_args, Events(), d_r


def _pushforward(args: tuple[Any, ...], tangents: tuple[Any, ...], results: Any) -> tuple[Array, Any]:
    hs, kept = results
    hs_dot = pushforward(_residuals(args, hs, kept), *tangents[:3])
    if kept is None:
        return hs_dot, None
    dots = jax.tree.map(_or_zeros, args[:3], tangents[:3], is_leaf=_is_none)
    return hs_dot, jax.jvp(_kept(args), (*args[:3], hs), (*dots, hs_dot))[1]


def _is_none(x: Any) -> bool:
    return x is None


def _or_zeros(x: Any, dot: Any) -> Any:
    """The tangent of `x`, with zeros for None; those of integers have a type of their own."""
    if dot is not None:
        return dot
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return jnp.zeros_like(x) if floating else np.zeros(x.shape, jax.dtypes.float0)


def _dense(d: Any) -> Any:
    """`d` as an array of JAX: a symbolic zero becomes zeros, and an array of NumPy, from eager calls, is converted."""
    return jnp.asarray(hijax.instantiate_zeros(d))


def _or_none(tangent: Any) -> Any:
    """The tangent, or None if it is zero or belongs to integers or booleans."""
    return None if isinstance(tangent, hijax.Zero) or tangent.dtype == jax.dtypes.float0 else tangent


def _or_float0(d: Any, aval: Any) -> Any:
    if d is not None:
        return d
    if are_numbers(*aval.shape):
        return np.zeros(aval.shape, jax.dtypes.float0)
    return hijax.Zero(aval.to_tangent_aval())  # NumPy has no symbolic sizes
