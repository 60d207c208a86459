"""All layers and the readout."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._cells.protocol import hidden
from .._checks import (
    check_drop,
    check_flags,
    check_inputs,
    check_layout,
    check_params,
    check_read,
    check_sequence,
    check_states,
)
from .._require import are_numbers, is_below, require_callable, require_sizes
from .._types import Drop, Flags, Inputs, Outputs, Params, ReadoutParams, State, States, Step, Trajectory
from .affine import affine
from .dropout import between_of, constant, dropped, recurrent_of
from .events import Events
from .step import step_forward
from .unroll import unroll


def readout(params: ReadoutParams, hs: Float[Array, "*steps hid"]) -> Float[Array, "*steps out"]:
    """`y_t = h_t W_hy + b_y`, over any leading axes."""
    check_read(params, hs)
    return affine(hs, params.w_hy, params.b_y)


def last_states(h_0: States, hs: tuple[Trajectory, ...]) -> States:
    """`h_T` of each layer; `h_0` when there are no steps."""
    return tuple(_last(h, layer) for h, layer in zip(h_0, hs, strict=True))


def _last(h: State, hs: Trajectory) -> State:
    if are_numbers(hs.shape[0]):
        return hs[-1] if hs.shape[0] else h
    return jnp.concatenate([h[None], hs])[-1]  # a number of steps that is a symbol may be zero


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
    """`(ys, h_T)`: the outputs of the last `last` steps (all, unless given) and the last state of each layer.

    Layer l + 1 reads the states of layer l. `mask` and `reset` act on every layer, see `unroll`; `drop` as in
    `Batch`. For a loss of your own with the derivative through time by hand, differentiate
    `apply(..., unroll=unroll_bptt)`; `grad_fn_of` does. An unroll of your own is called for each layer as
    `unroll(cell, h_0, xs, mask=mask, reset=reset)`, with `r=` too where recurrent units are dropped, and returns the
    states `(time, *batch, hid)`.

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
    """`(y_t, h_t)`: one step of all layers and the readout, for sequences that arrive as they happen.

    What `apply` computes, a step at a time: `h_t` is all there is to remember, a tuple of arrays that can be stored.

    `mask` and `reset` are one step of those of `apply`. Where `mask` is false the step does not exist: `h_t` is
    `h_{t-1}`, `y_t` is read from it, `x_t` and `reset` are not read. Where `reset` is true, `h_{t-1}` is zero. `drop`
    is that of the whole sequence: pass the same one at each step.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not.

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
        x_t = dropped(hidden(cell, h_t[-1]), constant(between_of(drop, layer)))
    return readout(params.readout, x_t), tuple(h_t)
