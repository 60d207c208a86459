"""The network in JAX, as people write it and JAX differentiates it; and how a model in JAX becomes a contender.

Each of `textbook` to `split` builds a contender of a cell and a shape; `race` compiles it. A loss takes the step of a
cell: `step(p, z_t, s_tm1) -> s_t` with `z_t = x_t W_xh + b_h`, and states as tuples of parts, h first.
"""

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import rnn_jax

from .contenders import Raced
from .problems import Shape, make_problem

OPTIMIZER = rnn_jax.clipped_sgd(0.1, momentum=0.9, max_norm=1.0)
Builder = Callable[[str, Shape, str], Raced]


class Model(NamedTuple):
    """A network in a contender's own terms, over `data`: `loss(params, *data)`, and the way back to our `leaves`.

    `value_and_grad(params, *data)` is autodiff's unless given, `init` and `step` are optax around it unless given.
    """

    params: Any
    data: tuple[Any, ...]
    loss: Callable[..., Any]
    leaves: Callable[[Any], dict[str, Any]]
    value_and_grad: Callable[..., Any] | None = None
    init: Callable[[Any], Any] | None = None
    step: Callable[..., Any] | None = None
    params_of: Callable[[Any], Any] | None = None


def race(model: Model, what: str) -> Raced:
    """The forward pass, gradient or training step of a model, compiled; its data is on the device already."""
    params, data = jax.block_until_ready((model.params, model.data))
    value_and_grad = model.value_and_grad or jax.value_and_grad(model.loss)
    if what == "step":
        return _trained(model, value_and_grad)
    compiled, seconds = _compile(jax.jit(value_and_grad if what == "gradient" else model.loss), params, *data)

    def result():
        out = compiled(params, *data)
        return as_numpy({"loss": out} if what == "forward" else {"loss": out[0], **model.leaves(out[1])})

    call = lambda: jax.block_until_ready(compiled(params, *data))  # noqa: E731
    return Raced(call, result, seconds, temporaries(compiled))


def _trained(model: Model, value_and_grad: Callable[..., Any]) -> Raced:
    """A step after the other, each from the state the last one left; the state is donated."""

    def by_optax(state, *data):
        params, opt_state = state
        loss, gradient = value_and_grad(params, *data)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    init = model.init or (lambda params: (params, OPTIMIZER.init(params)))
    params_of = model.params_of or (lambda state: state[0])
    before = as_numpy(model.leaves(model.params))
    state = jax.block_until_ready(init(jax.tree.map(jnp.copy, model.params)))
    where = jax.tree.map(lambda x: x.sharding, state), None  # a step leaves its state where it found it
    step = jax.jit(model.step or by_optax, donate_argnums=0, out_shardings=where)
    compiled, seconds = _compile(step, state, *model.data)
    held = [state]

    def call():
        held[0], loss = jax.block_until_ready(compiled(held[0], *model.data))
        return loss

    def result():  # the first call's: what the weights moved by
        loss = as_numpy({"loss": call()})
        after = as_numpy(model.leaves(params_of(held[0])))
        return loss | {name: after[name] - before[name] for name in after}

    return Raced(call, result, seconds, temporaries(compiled))


def _compile(jitted: Any, *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = jitted.lower(*args).compile()
    return compiled, time.perf_counter() - start


def temporaries(compiled: Any) -> int | None:
    """The bytes that XLA reserves beside arguments and results, on all devices of the program together."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    devices = {device for s in jax.tree.leaves(compiled.input_shardings) for device in s.device_set}
    return analysis.temp_size_in_bytes * max(len(devices), 1)


def as_numpy(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same in float64, for differences that do not round."""
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}


# Autodiff


def vanilla(p, z, s):
    """One step of tanh units."""
    (h,) = s
    return (jnp.tanh(z + h @ p["w_hh"]),)


def gru(p, z, s):
    """One step of gated recurrent units, the reset after the product."""
    (h,) = s
    (z_r, z_k, z_n), (u_r, u_k, u_n) = jnp.split(z, 3, -1), jnp.split(h @ p["w_hh"], 3, -1)
    r, k = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_k + u_k)
    n = jnp.tanh(z_n + r * (u_n + p["b_n"]))
    return ((1 - k) * n + k * h,)


def lstm(p, z, s):
    """One step of long short-term memory."""
    h, c = s
    i, f, g, o = jnp.split(z + h @ p["w_hh"], 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


STEPS = {"vanilla": vanilla, "gru": gru, "lstm": lstm}


def cross_entropy(ys, targets):
    """The mean over all steps."""
    log_p = jax.nn.log_softmax(ys)
    return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], -1))


def textbook_loss(step, p, xs, targets, s_0):
    """The whole step inside the scan, readout included."""

    def body(s, x):
        s = step(p, x @ p["w_xh"] + p["b_h"], s)
        return s, s[0] @ p["w_hy"] + p["b_y"]

    return cross_entropy(lax.scan(body, s_0, xs)[1], targets)


def hidden_states(step, p, xs, s, scan=lax.scan):
    """The last states and all h, with the input projection before the scan."""

    def body(s, z):
        s = step(p, z, s)
        return s, s[0]

    return scan(body, s, xs @ p["w_xh"] + p["b_h"])


def hoisted_loss(step, p, xs, targets, s_0, *, scan=lax.scan):
    """The input projection before the scan, the readout after it."""
    _, hs = hidden_states(step, p, xs, s_0, scan)
    return cross_entropy(hs @ p["w_hy"] + p["b_y"], targets)


def remat_loss(step, p, xs, targets, s_0):
    """A block of about √T steps at a time, projection and readout inside, recomputed in the backward pass."""
    block = nearest_divisor(xs.shape[0], lambda k: abs(k - xs.shape[0] ** 0.5))

    @jax.checkpoint
    def body(s, now):
        xs_block, targets_block = now
        s, hs = hidden_states(step, p, xs_block, s)
        return s, cross_entropy(hs @ p["w_hy"] + p["b_y"], targets_block)

    parts = jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), (xs, targets))
    return jnp.mean(lax.scan(body, s_0, parts)[1])


def nearest_divisor(number: int, distance: Callable[[int], float]) -> int:
    """The divisor of the number with the least distance."""
    return min((k for k in range(1, number + 1) if number % k == 0), key=distance)


def _by_autodiff(loss, dtype=jnp.float32) -> Builder:
    def build(cell: str, shape: Shape, what: str) -> Raced:
        weights, xs, targets, s_0 = make_problem(cell, shape)
        weights, xs, s_0 = jax.tree.map(lambda x: jnp.asarray(x, dtype), (weights, xs, s_0))
        return race(Model(weights, (xs, jnp.asarray(targets), s_0), partial(loss, STEPS[cell]), dict), what)

    return build


textbook = _by_autodiff(textbook_loss)
hoisted = _by_autodiff(hoisted_loss)
unrolled = _by_autodiff(partial(hoisted_loss, scan=partial(lax.scan, unroll=8)))
remat = _by_autodiff(remat_loss)
truth = _by_autodiff(remat_loss, jnp.float64)  # the process has 64 bits enabled; recomputed, so that any length fits


def split(cell: str, shape: Shape, what: str) -> Raced:
    """Hoisted, with the weight gradient's products moved out of the reverse scan by JAX itself, where it can."""
    if "_split_transpose" not in inspect.signature(lax.scan).parameters:
        raise NotImplementedError(f"lax.scan of JAX {jax.__version__} has no `_split_transpose`")
    return _by_autodiff(partial(hoisted_loss, scan=partial(lax.scan, _split_transpose=True)))(cell, shape, what)
