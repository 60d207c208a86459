"""The whole network: all layers and the readout, over a sequence or for one step."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._cells import protocol
from .._cells.protocol import Cell
from .._checks import (
    check_cell,
    check_drop,
    check_flags,
    check_inputs,
    check_layout,
    check_params,
    check_read,
    check_sequence,
    check_states,
    check_width,
)
from .._require import are_numbers, is_below, require_callable, require_sizes
from .._types import (
    Drop,
    Flags,
    Hidden,
    Inputs,
    Outputs,
    Params,
    ReadoutParams,
    State,
    States,
    Step,
    Trajectories,
    Trajectory,
)
from .affine import affine
from .dropout import between_of, constant, dropped, recurrent_of
from .events import Events
from .step import step_forward
from .unroll import unroll


def hidden(cell: Cell, s: State) -> Hidden:
    """The part h of states: what `W_hh`, the layer above and the readout read.

    Args:
        cell: the cell of the layer.
        s: its states, (*steps, hid), or (*steps, 2 hid) for an LSTM.

    Returns:
        The h of each, (*steps, hid).

    Raises:
        ValueError: if `s` has another width than the states of the cell.
        TypeError: if `cell` is not a cell, or `s` holds no floating point numbers.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), cell="lstm", input_size=2, hidden_size=3, output_size=1)
    >>> states = rnn_jax.unroll_bptt(params.cells[0], rnn_jax.zero_state(params, 5)[0], jnp.ones((7, 5, 2)))
    >>> states.shape, rnn_jax.hidden(params.cells[0], states).shape
    ((7, 5, 6), (7, 5, 3))
    """
    check_cell(cell)
    check_width(cell, s)
    return protocol.hidden(cell, s)


def readout(params: ReadoutParams, hs: Float[Array, "*steps hid"]) -> Float[Array, "*steps out"]:
    """Outputs `y_t = h_t W_hy + b_y`, over any leading axes.

    Args:
        params: the weights `w_hy` (hid, out) and `b_y` (out,).
        hs: hidden states (*steps, hid).

    Returns:
        The outputs (*steps, out).

    Raises:
        ValueError: if the shapes of `params` and `hs` do not fit each other.
        TypeError: if their dtypes do not fit.

    >>> import jax.numpy as jnp, rnn_jax
    >>> rnn_jax.readout(rnn_jax.ReadoutParams(jnp.ones((3, 4)), jnp.zeros(4)), jnp.ones((7, 5, 3))).shape
    (7, 5, 4)
    """
    check_read(params, hs)
    return affine(hs, params.w_hy, params.b_y)


def last_states(h_0: States, hs: Trajectories) -> States:
    """`h_T` of each layer; `h_0` when there are no steps."""
    return tuple(_last(h, layer) for h, layer in zip(h_0, hs, strict=True))


def _last(h: State, hs: Trajectory) -> State:
    if are_numbers(hs.shape[0]):
        return hs[-1] if hs.shape[0] else h
    return jnp.concatenate([h[None], hs])[-1]  # a symbolic number of steps may be zero


def apply(
    params: Params,
    h_0: States,
    inputs: Inputs,
    *,
    last: int | None = None,
    mask: Flags | None = None,
    reset: Flags | None = None,
    drop: Drop | None = None,
    unroll: Callable[..., Trajectory] = unroll,
) -> tuple[Outputs, States]:
    """Run all layers and the readout over a sequence. Layer l + 1 reads the states of layer l.

    To differentiate your own loss with our hand-written derivative through time, use
    `apply(..., unroll=unroll_bptt)`. `grad_fn_of` does this for you.

    Args:
        params: the network.
        h_0: initial states, one (*batch, hid) per layer; `zero_state` makes zeros.
        inputs: features (time, *batch, in) or integer tokens (time, *batch).
        last: the number of last steps to read out; all steps if None.
        mask: booleans (time, *batch), false at steps that do not exist; see `unroll`. It acts on every layer.
        reset: booleans (time, *batch), true where the state is set to zero before the step. It acts on every layer.
        drop: dropout masks; see `Batch`.
        unroll: `unroll`, `unroll_bptt`, or your own function. It is called for each layer as
            `unroll(cell, h_0, xs, mask=mask, reset=reset)`, with `r=` too where recurrent units are dropped, and must
            return the states (time, *batch, hid).

    Returns:
        `(ys, h_T)`: the outputs (last, *batch, out), and the last state of each layer, (*batch, hid) each.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other, or `last` is not in 0..T.
        TypeError: if their dtypes do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=4, num_layers=2)
    >>> ys, h_T = rnn_jax.apply(params, rnn_jax.zero_state(params, 5), jnp.ones((7, 5, 2)))
    >>> ys.shape, [h.shape for h in h_T]
    ((7, 5, 4), [(5, 3), (5, 3)])
    """
    check_sequence(params, h_0, inputs, mask, reset, drop)
    time = inputs.shape[0]
    last = time if last is None else last
    require_callable(unroll=unroll)
    if are_numbers(last):
        require_sizes(least=0, last=last)
    if is_below("inputs", time, last):
        raise ValueError(f"`last` must be from 0 to the {time} steps of `inputs`, got {last}.")
    xs, hs = inputs, []
    for layer, (cell, h) in enumerate(zip(params.cells, h_0, strict=True)):
        r = recurrent_of(drop, layer)
        hs.append(unroll(cell, h, xs, mask=mask, reset=reset, **({} if r is None else {"r": r})))
        xs = dropped(hidden(cell, hs[-1]), constant(between_of(drop, layer)))
    return readout(params.readout, xs[time - last :]), last_states(h_0, tuple(hs))


def apply_step(
    params: Params,
    h_tm1: States,
    x_t: Step,
    *,
    mask: Bool[Array, "*batch"] | None = None,
    reset: Bool[Array, "*batch"] | None = None,
    drop: Drop | None = None,
) -> tuple[Float[Array, "*batch out"], States]:
    """One step of all layers and the readout, for sequences that arrive one step at a time.

    It computes what `apply` computes. Between steps, keep only `h_t`, a tuple of arrays.

    Args:
        params: the network.
        h_tm1: the states before the step, one (*batch, hid) per layer.
        x_t: features (*batch, in) or integer tokens (*batch,) of one step.
        mask: booleans (*batch,). Where false the step does not exist: `h_t` is `h_{t-1}`, `y_t` is the readout of that,
            and `x_t` and `reset` are ignored.
        reset: booleans (*batch,). Where true, `h_{t-1}` is zero.
        drop: the dropout masks of the whole sequence: pass the same ones at each step.

    Returns:
        `(y_t, h_t)`: the outputs (*batch, out), and the new state of each layer, (*batch, hid) each.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not fit.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=4, num_layers=2)
    >>> step = jax.jit(rnn_jax.apply_step)
    >>> h_t = rnn_jax.zero_state(params)
    >>> for x_t in jnp.ones((7, 2)):
    ...     y_t, h_t = step(params, h_t, x_t)
    >>> ys, h_T = rnn_jax.apply(params, rnn_jax.zero_state(params), jnp.ones((7, 2)))
    >>> bool(jnp.allclose(y_t, ys[-1], atol=1e-6))
    True
    """
    check_params(params)
    batch = check_inputs(params.cells[0], x_t, (), "x_t", "params.cells[0]")
    if isinstance(h_tm1, tuple) and h_tm1:
        check_layout(x_t, h_tm1[0], params.cells[0].w_xh.shape[0], (), names=("x_t", "h_tm1[0]"))
    check_states(params, h_tm1, batch, "x_t", "h_tm1")
    check_flags(batch, legend="(*batch,)", mask=mask, reset=reset)
    check_drop(params, drop, batch, "x_t")
    event, h_t = Events(mask, reset), []
    for layer, (cell, h) in enumerate(zip(params.cells, h_tm1, strict=True)):
        h_new, _ = step_forward(cell, event.enter(h), event.visible(x_t), constant(recurrent_of(drop, layer)))
        h_t.append(event.leave(h_new, h))
        x_t = dropped(protocol.hidden(cell, h_t[-1]), constant(between_of(drop, layer)))
    return readout(params.readout, x_t), tuple(h_t)
