"""Initial parameters and states."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .._cells.activations import Phi, check_activation
from .._cells.kinds import require_kind, require_plain
from .._cells.leaky import LeakyParams
from .._cells.protocol import num_units, own_names
from .._cells.vanilla import LEAK, CellParams, known_leak
from .._checks import check_params
from .._require import (
    Number,
    are_numbers,
    require_float,
    require_floating,
    require_key,
    require_shape,
    require_sizes,
    takes,
)
from .._types import Params, ReadoutParams, States, accumulation_dtype
from ..initializers import Initializer, initializer_of


def init_params(
    key: Key[Array, ""],
    *,
    input_size: int,
    hidden_size: int,
    output_size: int,
    num_layers: int = 1,
    cell: str | type[Any] = "vanilla",
    activation: Phi = "tanh",
    leak: Number = 1.0,
    recurrent_init: str | Initializer = "orthogonal",
    input_init: str | Initializer = "lecun_normal",
    readout_init: str | Initializer = "lecun_normal",
    bias_init: str | Initializer = "zeros",
    dtype: Any = float,
) -> Params:
    """Draw the weights of `num_layers` layers of `hidden_size` units, and of a readout.

    An initialiser is a name of `initializers.INITS`, or a function `(key, shape, dtype) -> array` as in
    `jax.nn.initializers`.

    Args:
        key: the randomness of all weights.
        input_size: the number of features of an input, or of different tokens.
        hidden_size: the number of units of each layer.
        output_size: the number of outputs, or of classes.
        num_layers: the number of layers.
        cell: "vanilla", "gru", "lstm", or a class of cells, like one that `elementwise` made. `LeakyParams` is the
            vanilla cell with an array for `leak`.
        activation: a name ("tanh", "relu", "identity"), a function φ, or an `Activation`.
        leak: the α of leaky integration, above 0 and at most 1. Pass one number for all units (see `CellParams`), or an
            array (hid,) with one leak per unit. The array may be traced; each layer is then a `LeakyParams`, which
            trains it.
        recurrent_init: the initialiser of each gate's part of `w_hh`, (hid, hid); orthogonal by default.
        input_init: the initialiser of each gate's part of `w_xh`, (in, hid); by default normal with variance 1 / fan-in
            (LeCun).
        readout_init: the initialiser of `w_hy` (hid, out), with the same default as `input_init`.
        bias_init: the initialiser of the biases `b_h` and `b_y`; zeros by default. The bias of an LSTM's forget gate is
            1 larger. The `b_n` of a GRU starts at 0, whatever `bias_init` is.
        dtype: a floating point type of the weights.

    Returns:
        The parameters of the network.

    Raises:
        ValueError: for a size below one, an unknown name or a leak out of range; for an activation or a leak with a
            cell that has none, or `LeakyParams` without one leak per unit.
        TypeError: for an argument of the wrong type, a class of cells that lacks something, or a traced leak for all
            units.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=5, output_size=2, num_layers=2)
    >>> [cell.w_xh.shape for cell in params.cells], params.readout.w_hy.shape
    ([(3, 5), (5, 5)], (5, 2))
    """
    require_key(key)
    require_sizes(input_size=input_size, hidden_size=hidden_size, output_size=output_size, num_layers=num_layers)
    check_activation(activation)
    require_floating("dtype", dtype)
    dtype = jnp.zeros((), dtype).dtype  # float64 without jax_enable_x64: JAX warns here and gives float32
    kind = require_kind(cell)
    layer_of = _layers(kind, activation, leak, hidden_size, dtype)
    draw_dtype = accumulation_dtype(dtype)  # JAX has no matrix decompositions in half precision

    inits: dict[str, str | Initializer] = {
        "recurrent_init": recurrent_init,
        "input_init": input_init,
        "readout_init": readout_init,
        "bias_init": bias_init,
    }

    def draw(name: str, key: Key[Array, ""], *shape: int) -> Array:
        return _drawn(name, initializer_of(inits[name], name), key, shape, draw_dtype).astype(dtype)

    def draw_gates(name: str, key: Key[Array, ""], *shape: int) -> Array:
        """One array per gate, side by side."""
        keys = [key] if kind.gates == 1 else jax.random.split(key, kind.gates)
        return jnp.concatenate([draw(name, one, *shape, hidden_size) for one in keys], -1)

    ykey, *cell_keys = jax.random.split(key, num_layers + 1)
    cells = []
    for layer, cell_key in enumerate(cell_keys):
        xkey, hkey = jax.random.split(cell_key)
        cells.append(
            layer_of(
                w_xh=draw_gates("input_init", xkey, hidden_size if layer else input_size),
                w_hh=draw_gates("recurrent_init", hkey, hidden_size),
                b_h=_with_bias(kind, draw_gates("bias_init", jax.random.fold_in(cell_key, 2))),
            )
        )
    readout = ReadoutParams(
        w_hy=draw("readout_init", ykey, hidden_size, output_size),
        b_y=draw("bias_init", jax.random.fold_in(ykey, 2), output_size),
    )
    params = Params(tuple(cells), readout)
    check_params(params)  # the caller's own initialiser may return anything
    return params


def _layers(kind: type[Any], activation: Phi, leak: Any, hidden_size: int, dtype: Any) -> Callable[..., Any]:
    """What makes a layer from `w_xh`, `w_hh` and `b_h`: a class, with the rest of its fields."""
    if kind not in (CellParams, LeakyParams):
        require_plain(kind, activation, leak)
        start: Mapping[str, float] = getattr(kind, "own_start", {})
        own = {name: jnp.full(hidden_size, start.get(name, 0.0), dtype) for name in own_names(kind)}
        return lambda **weights: kind(**weights, **own)
    if not getattr(leak, "ndim", 0):  # static
        if kind is LeakyParams:
            raise ValueError(f"`leak` must be an array (hid,) = ({hidden_size},) for LeakyParams, got {leak!r}.")
        return partial(CellParams, activation=activation, leak=known_leak(leak))
    require_float("leak", leak)
    require_shape("leak", jnp.asarray(leak), "(hid,)", (hidden_size,), "`hidden_size`")
    if not isinstance(leak, jax.core.Tracer) and not all(map(LEAK.holds, np.asarray(leak, dtype).astype(float))):
        raise ValueError(f"`leak` must hold numbers above 0 and at most 1, got {leak!r}.")
    return lambda **weights: LeakyParams(**weights, activation=activation, leak=jnp.array(leak, dtype))  # each a copy


def _with_bias(kind: type[Any], b_h: Array) -> Array:
    """`b_h`, and what the cell adds to the bias of some of its gates."""
    more: Mapping[str, float] = getattr(kind, "bias", {})
    if not more:
        return b_h
    each = jnp.asarray([more.get(gate, 0.0) for gate in kind.gate_names], b_h.dtype)
    return b_h + jnp.repeat(each, b_h.shape[0] // kind.gates)


def _drawn(name: str, init: Any, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
    """`init(key, shape, dtype)`, where `init` may be the caller's own."""
    wanted = f"a function (key, shape, dtype) -> array, like `orthogonal()`, got {init!r}"
    if not takes(init, key, shape, dtype):
        raise TypeError(f"`{name}` must be {wanted}.")
    w = init(key, shape, dtype)
    if not isinstance(w, (jax.Array, np.ndarray)):
        hint = ": call it first" if callable(w) else ""
        raise TypeError(f"`{name}` must be {wanted}, which returns a {type(w).__name__}{hint}.")
    return jnp.asarray(w)


def zero_state(params: Params, *batch: int) -> States:
    """The initial states of all layers, all zeros.

    Args:
        params: the network.
        batch: the sizes of the batch axes; none for a single sequence.

    Returns:
        A tuple of one state (*batch, hid) per layer; (*batch, 2 hid) for an LSTM.

    Raises:
        ValueError: for a negative size, or `params` that do not fit each other.
        TypeError: for a size that is not an integer, or `params` of the wrong type.

    >>> import jax, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=3, hidden_size=5, output_size=2, num_layers=2)
    >>> [h.shape for h in rnn_jax.zero_state(params, 4)]
    [(4, 5), (4, 5)]
    """
    check_params(params)
    for size in filter(are_numbers, batch):
        require_sizes(least=0, batch=size)
    return tuple(jnp.zeros((*batch, cell.parts * num_units(cell)), cell.w_hh.dtype) for cell in params.cells)
