"""Sampling: the outputs of the network are its next inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from .._checks import check_params, check_sequence, is_tokens, steps_shape
from .._require import (
    POSITIVE,
    Number,
    are_numbers,
    is_below,
    require_array,
    require_callable,
    require_key,
    require_number,
    require_sizes,
)
from .._types import Flags, Inputs, Params, States, accumulation_dtype
from .apply import apply, apply_step
from .parameters import zero_state

Draw = Callable[[Key[Array, ""], Array], Array]  # (key, y_t) -> x_{t+1}


def categorical(temperature: Number) -> Draw:
    """A `draw` for `generate`: tokens with the probabilities `softmax(y_t / temperature)`, in float32 or better.

    In a lower precision the noise has so few different values that rare tokens are drawn too rarely.

    Args:
        temperature: a number above zero. If it is too small for float32, the most probable tokens are drawn. For the
            limit at zero use `greedy`.

    Returns:
        A function `(key, y_t) -> tokens`, from outputs (*batch, out) to integers (*batch,).

    Raises:
        ValueError: unless `temperature` is above zero.
    """
    temperature = require_number("temperature", temperature, POSITIVE)

    def draw(key: Key[Array, ""], y_t: Float[Array, "*batch out"]) -> Int[Array, "*batch"]:
        y = y_t.astype(accumulation_dtype(y_t.dtype))
        most = jnp.max(y, axis=-1, keepdims=True)
        divisor = jnp.maximum(jnp.asarray(temperature, y.dtype), jnp.finfo(y.dtype).tiny)  # never 0 / 0
        logits = jnp.where(y == most, 0, (y - most) / divisor)
        return jax.random.categorical(key, logits)

    return draw


def greedy(key: Key[Array, ""], y_t: Float[Array, "*batch out"]) -> Int[Array, "*batch"]:
    """A `draw` for `generate`: the most probable token, or the first of several that are equally probable.

    Args:
        key: not used.
        y_t: outputs (*batch, out).

    Returns:
        The tokens, integers (*batch,).
    """
    del key
    return jnp.argmax(y_t, axis=-1)


def feedback(key: Key[Array, ""], y_t: Float[Array, "*batch out"]) -> Float[Array, "*batch out"]:
    """A `draw` for `generate`: the output itself, for a network that predicts its own next input.

    Args:
        key: not used.
        y_t: outputs (*batch, out), with as many features as the inputs.

    Returns:
        `y_t`.
    """
    del key
    return y_t


def generate(
    key: Key[Array, ""],
    params: Params,
    prompt: Inputs,
    length: int,
    *,
    draw: Draw = categorical(1.0),  # noqa: B008  (a pure function)
    h_0: States | None = None,
    mask: Flags | None = None,
    reset: Flags | None = None,
) -> tuple[Float[Array, "length *batch in"] | Int[Array, "length *batch"], States]:
    """Continue `prompt` by `length` inputs that the network draws itself: `x_{t+1} = draw(key_t, y_t)`.

    Pad prompts of different lengths, in any place, and set `mask` to false at the padding. Each sequence continues from
    the output of its last step that exists (of `h_0` if no step exists), as if it had no padding.

    The keys are `jax.random.split(key, length)`, one for each step, shared by all sequences of the batch. What a
    sequence draws does not depend on the padding, but it does depend on the shape of the batch.

    Args:
        key: the randomness of the draws.
        params: the network.
        prompt: at least one step of features (time, *batch, in) or integer tokens (time, *batch).
        length: the number of inputs to draw, at least 1.
        draw: `categorical(temperature)`, `greedy`, `feedback`, or your own function `(key_t, y_t) -> x_{t+1}`.
        h_0: the states before the prompt, one (*batch, hid) per layer; zero by default.
        mask: booleans (time, *batch), false at the steps of the prompt that do not exist.
        reset: booleans (time, *batch), true where the state is set to zero before a step of the prompt.

    Returns:
        `(outputs, h_T)`: the inputs drawn, (length, *batch, in) or tokens (length, *batch), and the states after the
        prompt and all outputs except the last. So `generate(key, params, outputs[-1:], more, h_0=h_T)` continues where
        this call ended.

    Raises:
        ValueError: if `prompt` has no step or does not fit `params`, `mask` or `reset`, if `length` < 1, or if what
            `draw` returns cannot be the next input, for example because its width is not that of the input.
        TypeError: if the dtypes of the arguments do not fit each other.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=9, hidden_size=8, output_size=9)
    >>> outputs, h_T = rnn_jax.generate(jax.random.key(1), params, jnp.zeros((3, 2), int), 5)
    >>> outputs.shape  # 5 tokens for each of 2 prompts
    (5, 2)
    >>> prompts = jnp.array([[1, 2, 3], [4, 0, 0]]).T
    >>> mask = rnn_jax.data.lengths_to_mask([3, 1], 3)
    >>> outputs, h_T = rnn_jax.generate(jax.random.key(1), params, prompts, 5, mask=mask)
    """
    require_key(key)
    require_sizes(length=length)
    require_callable(draw=draw)
    require_array("prompt", prompt)
    check_params(params)
    if h_0 is None:
        h_0 = zero_state(params, *steps_shape(prompt)[1:])
    check_sequence(params, h_0, prompt, mask, reset, name="prompt")
    time = prompt.shape[0]
    if not are_numbers(time):
        is_below("prompt", time, 2)  # JAX has no loop over a number of steps that may be zero
    if time < 1:
        raise ValueError(f"`prompt` must have at least one step, got shape {prompt.shape}.")
    _check_draw(draw, key, params, h_0, prompt)
    mask_before, reset_before = jax.tree.map(lambda flag: flag[:-1], (mask, reset))
    h = h_0 if time == 1 else apply(params, h_0, prompt[:-1], last=0, mask=mask_before, reset=reset_before)[1]
    exists = _then(mask, True, length)  # the last step of the prompt may not exist; drawn steps do
    fresh = _then(reset, False, length)

    def body(carry: tuple[States, Array], now: tuple[Array, Array | None, Array | None]) -> tuple[Any, Array]:
        (h_tm1, x_t), (key_t, exists_t, fresh_t) = carry, now
        y_t, h_t = apply_step(params, h_tm1, x_t, mask=exists_t, reset=fresh_t)
        x_tp1 = draw(key_t, y_t).astype(prompt.dtype)
        return (h_t, x_tp1), x_tp1

    (h_T, _), outputs = lax.scan(body, (h, prompt[-1]), (jax.random.split(key, length), exists, fresh))
    return outputs, h_T


def _then(flag: Flags | None, value: bool, length: int) -> Bool[Array, "length *batch"] | None:
    """The flags of the last step of the prompt and of the `length - 1` steps drawn after it, which have `value`."""
    return None if flag is None else jnp.concatenate([flag[-1:], jnp.full((length - 1, *flag.shape[1:]), value)])


def _check_draw(draw: Draw, key: Key[Array, ""], params: Params, h_0: States, prompt: Inputs) -> None:
    """Raise unless what `draw` returns can be the next input."""
    y_t = jax.eval_shape(lambda: apply_step(params, h_0, prompt[0])[0])
    x_t = jax.eval_shape(draw, key, y_t)
    tokens = is_tokens(prompt) and is_tokens(x_t)
    if x_t.shape != prompt.shape[1:] or not (tokens or x_t.dtype == prompt.dtype):
        raise ValueError(
            f"`draw` must return a next input of shape {prompt.shape[1:]} and dtype {prompt.dtype}, "
            f"got {x_t.shape} and {x_t.dtype}."
        )
    num_inputs, num_outputs = params.cells[0].w_xh.shape[0], y_t.shape[-1]
    if tokens and num_outputs > num_inputs:
        raise ValueError(
            f"`params.readout` must have at most {num_inputs} outputs, the number of input tokens, "
            f"for its outputs to be fed back, got {num_outputs}."
        )
    if tokens and num_outputs - 1 > jnp.iinfo(prompt.dtype).max:
        raise TypeError(f"`prompt` must have a dtype that holds tokens up to {num_outputs - 1}, got {prompt.dtype}.")
