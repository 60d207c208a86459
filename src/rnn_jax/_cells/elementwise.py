"""A cell of your own, from its map alone: JAX differentiates the map, the engine does the rest."""

import dataclasses
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._require import Range, require_callable, require_known_number, require_sizes
from .gates import Gated, joined, split
from .maps import check_map, name_of, parts_of
from .protocol import Deltas, Leaf


class Elementwise(Gated):
    """A cell whose `backward` is the transposed derivative of its map, by `jax.vjp`."""

    gates: ClassVar[int]
    parts: ClassVar[int]
    fn: ClassVar[Callable[..., Any]]
    own_start: ClassVar[Mapping[str, float]]
    apart: ClassVar[bool]

    def forward(self, z_t: Array, u_t: Array, s_tm1: Array) -> Array:
        """`s_t`, the parts of a state side by side."""
        return self._of_map(self._point(z_t, u_t, s_tm1), self._own_of(s_tm1))

    def kept(self, z: Array, u: Array, s_before: Array, s: Array) -> tuple[tuple[Array, ...], Array]:
        """The arguments of the map."""
        return self._point(z, u, s_before)

    def backward(self, kept_t: tuple[tuple[Array, ...], Array], d_s_t: Array) -> tuple[Deltas, Array]:
        """`d_s_t` through the map, by JAX."""
        steps = d_s_t.shape[:-1]  # of many cotangents at one point, the point is the same
        kept_t = jax.tree.map(lambda x: jnp.broadcast_to(x, (*steps, x.shape[-1])), kept_t)
        _, pull = jax.vjp(self._of_map, kept_t, self._own_of(kept_t[1]))
        (d_before, d_s_tm1), d_own = pull(d_s_t)
        return Deltas(*d_before)._replace(own=d_own), d_s_tm1

    def _point(self, z: Array, u: Array, s_before: Array) -> tuple[tuple[Array, ...], Array]:
        return ((z, u) if self.apart else (z + u,)), s_before

    def _own_of(self, s: Array) -> dict[str, Array]:
        """The own parameters of each unit, once for each step and sequence."""
        shape = (*s.shape[:-1], s.shape[-1] // self.parts)
        return {name: jnp.broadcast_to(getattr(self, name).astype(s.dtype), shape) for name in self.own_start}

    def _of_map(self, point: tuple[tuple[Array, ...], Array], own: dict[str, Array]) -> Array:
        before, s_before = point
        s_t = type(self).fn(*(split(x, self.gates) for x in before), split(s_before, self.parts), **own)
        return joined(*parts_of(s_t))


def elementwise(
    fn: Callable[..., Any],
    *,
    num_gates: int = 1,
    num_parts: int = 1,
    own: Mapping[str, float] | None = None,
    apart: bool = False,
    gate_names: Sequence[str] = (),
    bias: Mapping[str, float] | None = None,
    memory: Mapping[str, int] | None = None,
) -> type[Elementwise]:
    """Make a class of cells from a map of each unit; the derivative is JAX's, of this map alone.

        a_t = x_t W_xh + b_h + h_{t-1} W_hh        s_t = fn(a_t, s_{t-1})

    All methods, plans and transformations take it. The products, the loop over time and the weight gradients stay
    those of the library; only the map is differentiated by JAX, step by step.

    Args:
        fn: `fn(a, s, **own) -> s_t`. `a` is a list of one array (*batch, hid) per gate, `s` a list of one per part of
            the state, h first. It returns the parts of the new state: an array, or a tuple for several. Each sequence
            and step must be computed from its own values; units may be mixed, as layer normalisation does. It must work
            for any number of units; values of single units go into `own`.
        num_gates: the number of gates: of values per unit in `a`.
        num_parts: the number of parts of the state. The first is h, which the recurrence and the readout read.
        own: the names of further parameters with one value per unit (hid,), with the value that `init_params` gives
            them. `fn` gets each by its name.
        apart: whether `fn(z, u, s, **own)` takes `z = x_t W_xh + b_h` and `u = h_{t-1} W_hh` apart, as a GRU needs,
            whose reset gate multiplies one of them only.
        gate_names: a name for each gate, in the order of `a`: like ("i", "f", "g", "o"), or "ifgo". What
            `check_gradients` finds is then told by gate. Empty if the gates have no names.
        bias: what `init_params` adds to the bias of a gate, by its name: like {"f": 1.0} for a forget gate.
        memory: how `initializers.chrono` reads a gate, by its name: 1 for one that keeps the past, -1 for one that lets
            the present in; like {"f": 1, "i": -1}.

    Returns:
        A class of cells, with the fields `w_xh` (in, num_gates · hid), `w_hh` (hid, num_gates · hid), `b_h`
        (num_gates · hid,), and one (hid,) for each name of `own`. Its name is that of `fn`. Make it once: with a new
        class in each call, each call is compiled again.

    Raises:
        TypeError: if `fn` is not a function with a name, or does not take these arguments; if it returns another dtype
            than it takes; if `own`, `bias` or `memory` is not a mapping from names to numbers, or `gate_names` not a
            sequence of names; if a number of gates or parts is not an integer, or `apart` is not a boolean.
        ValueError: if a number is below 1, or a name of `own` is one that cells use; if `gate_names` are not
            `num_gates` different names, or `bias` or `memory` has another name, or a number that it cannot have; if
            `fn` raises an error, or returns another number of parts, or other shapes. It is tried once with float32
            arrays, without computing.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> def light_gru(a, s):  # Ravanelli et al. (2018), without its batch normalisation
    ...     k = jax.nn.sigmoid(a[0])
    ...     return k * s[0] + (1 - k) * jax.nn.relu(a[1])
    >>> LightGRU = rnn_jax.elementwise(light_gru, num_gates=2)
    >>> params = rnn_jax.init_params(jax.random.key(0), cell=LightGRU, input_size=3, hidden_size=5, output_size=2)
    >>> batch = rnn_jax.Batch(jnp.ones((7, 3)), jnp.ones(7, int))
    >>> grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    >>> rnn_jax.check_gradients(grad_fn, params, batch, rnn_jax.zero_state(params)).passed
    True
    """
    require_callable(fn=fn)
    require_sizes(num_gates=num_gates, num_parts=num_parts)
    if not isinstance(apart, bool):
        raise TypeError(f"`apart` must be True or False, got {apart!r}.")
    start = _starts(own)
    check_map(fn, num_gates, num_parts, tuple(start), apart)
    static = {"gates": num_gates, "parts": num_parts, "own_start": start, "apart": apart, "fn": staticmethod(fn)}
    static |= _of_gates(num_gates, gate_names, bias, memory)
    name = name_of(fn)
    made = dataclasses.make_dataclass(
        name,
        [(field, Leaf) for field in ("w_xh", "w_hh", "b_h", *start)],
        bases=(Elementwise,),
        namespace={**static, "__doc__": fn.__doc__ or f"Cells made by `elementwise` from `{name}`."},
        frozen=True,
        eq=False,
    )
    made.__module__ = getattr(fn, "__module__", __name__)
    return jax.tree_util.register_dataclass(made)


PROBED = {"slope", "slopes", "backward_by_slope", "gate_names", "bias", "memory", "own_start"}
"""What a cell may have, and is then used."""

TAKEN = (
    {name for kind in Elementwise.__mro__ for name in (*vars(kind), *getattr(kind, "__annotations__", {}))}
    | {"w_xh", "w_hh", "b_h", "a", "z", "u", "s"}
    | PROBED
)
"""Names that an own parameter cannot have: those of a cell, and those of the arguments of a map."""

ANY = Range("a finite number", lambda x: True)
SIGN = Range("the number 1 or -1", lambda x: abs(x) == 1)


def _starts(own: Any) -> dict[str, float]:
    """The first value of each own parameter, checked."""
    _require_mapping("own", own, '{"gain": 1.0}')
    for name in own or {}:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f'`own` must have names of arguments of `fn`, like "gain", got {name!r}.')
        if name in TAKEN:
            raise ValueError(f"`own` must have names that cells do not use, got {name!r}: take another, my_{name}.")
    return _known("own", own, ANY)


def _of_gates(num_gates: int, names: Any, bias: Any, memory: Any) -> dict[str, Any]:
    """What a class of cells says of its gates, checked."""
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f'`gate_names` must be a sequence of names, like ("i", "f", "g", "o"), got {names!r}.')
    names = tuple(names)
    if names and not len(names) == len(set(names)) == num_gates:
        raise ValueError(f"`gate_names` must be one name per gate, `num_gates={num_gates}`, each another, got {names}.")
    _require_mapping("bias", bias, '{"f": 1.0}')
    _require_mapping("memory", memory, '{"f": 1, "i": -1}')
    for given, mapping in (("bias", bias or {}), ("memory", memory or {})):
        for name in mapping:
            if name not in names:
                raise ValueError(f"`{given}` must have names of `gate_names`, {names}, got {name!r}: name the gates.")
    signs = {name: int(sign) for name, sign in _known("memory", memory, SIGN).items()}
    return {"gate_names": names, "bias": _known("bias", bias, ANY), "memory": signs}


def _require_mapping(name: str, given: Any, example: str) -> None:
    """Raise unless an optional argument is None or a mapping."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"`{name}` must map names to numbers, like {example}, got {type(given).__name__}.")


def _known(name: str, given: Mapping[str, Any] | None, numbers: Range) -> dict[str, float]:
    """The numbers of an optional mapping, as floats."""
    later = "set traced values with `replace`, after `init_params`"
    return {key: require_known_number(f"{name}[{key!r}]", x, numbers, later) for key, x in (given or {}).items()}
