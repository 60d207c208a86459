"""The network in JAX: as people write it and JAX differentiates it, and by the methods of this library.

Each of `textbook` to `own` builds a contender of a shape; `race` compiles it. Our methods are not asked for a gradient
in the inputs or the first state.
"""

import importlib
import inspect
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import rnn_jax

from .contenders import OWN, Raced
from .problems import Shape, make_problem

OPTIMIZER = rnn_jax.clipped_sgd(0.1, momentum=0.9, max_norm=1.0)
Builder = Callable[[Shape, str], Raced]


class Model(NamedTuple):
    """A network in a contender's own terms, over `data`: `loss(params, *data)`, and the way back to our five leaves.

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


def cross_entropy(ys, targets):
    """The mean over all steps."""
    log_p = jax.nn.log_softmax(ys)
    return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], -1))


def textbook_loss(p, xs, targets, h_0):
    """The whole step inside the scan, readout included."""

    def body(h, x):
        h = jnp.tanh(x @ p["w_xh"] + h @ p["w_hh"] + p["b_h"])
        return h, h @ p["w_hy"] + p["b_y"]

    return cross_entropy(lax.scan(body, h_0, xs)[1], targets)


def hoisted_loss(p, xs, targets, h_0, *, scan=lax.scan):
    """The input projection before the scan, the readout after it."""

    def body(h, z):
        h = jnp.tanh(z + h @ p["w_hh"])
        return h, h

    _, hs = scan(body, h_0, xs @ p["w_xh"] + p["b_h"])
    return cross_entropy(hs @ p["w_hy"] + p["b_y"], targets)


def remat_loss(p, xs, targets, h_0):
    """A block of about √T steps at a time, projection and readout inside, recomputed in the backward pass."""
    block = nearest_divisor(xs.shape[0], lambda k: abs(k - xs.shape[0] ** 0.5))

    @jax.checkpoint
    def body(h, now):
        xs_block, targets_block = now
        zs = xs_block @ p["w_xh"] + p["b_h"]

        def inner(h, z):
            h = jnp.tanh(z + h @ p["w_hh"])
            return h, h

        h, hs = lax.scan(inner, h, zs)
        return h, cross_entropy(hs @ p["w_hy"] + p["b_y"], targets_block)

    parts = jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), (xs, targets))
    return jnp.mean(lax.scan(body, h_0, parts)[1])


def nearest_divisor(number: int, distance: Callable[[int], float]) -> int:
    """The divisor of the number with the least distance."""
    return min((k for k in range(1, number + 1) if number % k == 0), key=distance)


def _by_autodiff(loss, dtype=jnp.float32) -> Builder:
    def build(shape: Shape, what: str) -> Raced:
        weights, xs, targets, h_0 = make_problem(shape)
        weights = {name: jnp.asarray(w, dtype) for name, w in weights.items()}
        data = jnp.asarray(xs, dtype), jnp.asarray(targets), jnp.asarray(h_0, dtype)
        return race(Model(weights, data, loss, dict), what)

    return build


textbook = _by_autodiff(textbook_loss)
hoisted = _by_autodiff(hoisted_loss)
unrolled = _by_autodiff(partial(hoisted_loss, scan=partial(lax.scan, unroll=8)))
remat = _by_autodiff(remat_loss)
truth = _by_autodiff(remat_loss, jnp.float64)  # the process has 64 bits enabled; recomputed, so that any length fits


def split(shape: Shape, what: str) -> Raced:
    """Hoisted, with the weight gradient's products moved out of the reverse scan by JAX itself, where it can."""
    if "_split_transpose" not in inspect.signature(lax.scan).parameters:
        raise NotImplementedError(f"lax.scan of JAX {jax.__version__} has no `_split_transpose`")
    return _by_autodiff(partial(hoisted_loss, scan=partial(lax.scan, _split_transpose=True)))(shape, what)


# By hand


def lean_plan(shape: Shape) -> rnn_jax.Plan:
    """The fastest plan within a quarter of the textbook's temporaries; without one, the contender is out."""
    time, batch, inputs, hidden, outputs = shape
    sizes = {"input_size": inputs, "hidden_size": hidden, "output_size": outputs}
    params = jax.eval_shape(lambda: rnn_jax.init_params(jax.random.key(0), **sizes))
    xs = jax.ShapeDtypeStruct((time, batch, inputs), jnp.float32)
    targets = jax.ShapeDtypeStruct((time, batch), jnp.int32)
    h_0 = (jax.ShapeDtypeStruct((batch, hidden), jnp.float32),)
    textbook_bytes = 4 * time * batch * (4 * hidden + outputs)  # four times the states and once the outputs, about
    try:
        return rnn_jax.plan_memory((params, rnn_jax.Batch(inputs=xs, targets=targets), h_0), textbook_bytes / 4)
    except ValueError as e:
        raise NotImplementedError("the textbook has so few temporaries that no plan fits a quarter of them") from e


def checkpointed_plan(shape: Shape) -> rnn_jax.Plan:
    """One state kept every √T / 2 steps, the others recomputed.

    Not √T, for the steps of one segment need more than their states: 4 s of them and T / s are fewest at √T / 2.
    """
    size = nearest_divisor(shape.time, lambda n: abs(math.log(4 * n * n / shape.time)))
    return rnn_jax.Plan(block=size, segments=(size,))


def own_method(shape: Shape) -> Any:
    """The method that `RACE_METHOD=module:expression` names."""
    del shape
    module, expression = os.environ[OWN].split(":", 1)
    return eval(expression, {"rnn_jax": rnn_jax} | vars(importlib.import_module(module)))


def leaves(params) -> dict:
    """The five leaves of one layer and its readout."""
    (cell,), readout = params
    return {"w_xh": cell.w_xh, "w_hh": cell.w_hh, "b_h": cell.b_h, "w_hy": readout.w_hy, "b_y": readout.b_y}


def _by_hand(method: Any, shape: Shape) -> Model:
    grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    w, xs, targets, h_0 = jax.tree.map(jnp.asarray, make_problem(shape))
    cell = rnn_jax.CellParams(w["w_xh"], w["w_hh"], w["b_h"], "tanh")
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(w["w_hy"], w["b_y"]))
    trainer = rnn_jax.make_trainer(grad_fn, OPTIMIZER, carry=True)

    def loss(params, batch, h_0):
        return grad_fn(params, batch, h_0)[0][0]

    def value_and_grad(params, batch, h_0):
        (loss, _), gradients = grad_fn(params, batch, h_0)
        return loss, gradients.params

    def step(state, batch, h_0):
        state, info = trainer.step(state._replace(h_0=h_0), batch)  # from the same state each time, as the others
        return state, info.loss

    data = (rnn_jax.Batch(inputs=xs, targets=targets), (h_0,))
    init = lambda params: trainer.init(params, (h_0,))  # noqa: E731
    return Model(params, data, loss, leaves, value_and_grad, init, step, lambda state: state.params)


def _by_method(method: Callable[[Shape], Any]) -> Builder:
    return lambda shape, what: race(_by_hand(method(shape), shape), what)


stepwise = _by_method(lambda shape: rnn_jax.Stepwise())
bptt = _by_method(lambda shape: rnn_jax.BPTT())
blocked = _by_method(lambda shape: rnn_jax.Blocked())
lean = _by_method(lambda shape: rnn_jax.Blocked(plan=lean_plan(shape)))
checkpointed = _by_method(lambda shape: rnn_jax.Blocked(plan=checkpointed_plan(shape)))
own = _by_method(own_method)


def sharded(shape: Shape, what: str) -> Raced:
    """The default plan with the batch split over all devices of the process, before the clock starts."""
    devices = jax.devices()
    model = _by_hand(rnn_jax.Sharded(rnn_jax.Blocked(), devices), shape)
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    on = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))  # noqa: E731
    (batch, h_0), make = model.data, model.init
    h_0 = jax.device_put(h_0, on("batch"))

    def init(params):
        return jax.device_put(make(params), on())._replace(h_0=jax.tree.map(jnp.copy, h_0))

    data = jax.device_put(batch, on(None, "batch")), h_0
    return race(model._replace(params=jax.device_put(model.params, on()), data=data, init=init), what)
