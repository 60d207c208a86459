"""The methods of this library, as contenders. A gradient in the inputs or the first state is not asked for."""

import importlib
import math
import os

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import rnn_jax

from .compiled import OPTIMIZER, Model, race
from .contenders import OWN, Raced
from .problems import Shape, make_problem


def blocked_grad_fn(**options):
    """The method "blocked"."""
    devices = options.pop("devices", None)
    method = rnn_jax.Blocked(**options)
    return rnn_jax.make_grad_fn(method if devices is None else rnn_jax.Sharded(method, devices), loss="cross_entropy")


def textbook_bytes(shape: Shape) -> int:
    """About what the textbook's gradient reserves: four times the states and once the outputs, of all steps."""
    return 4 * shape.time * shape.batch * (4 * shape.hidden + shape.outputs)


def arguments(shape: Shape):
    """`(params, batch, h_0)` of a shape, without numbers."""
    time, batch, inputs, hidden, outputs = shape
    sizes = {"input_size": inputs, "hidden_size": hidden, "output_size": outputs}
    params = jax.eval_shape(lambda: rnn_jax.init_params(jax.random.key(0), **sizes))
    xs = jax.ShapeDtypeStruct((time, batch, inputs), jnp.float32)
    targets = jax.ShapeDtypeStruct((time, batch), jnp.int32)
    return params, rnn_jax.Batch(inputs=xs, targets=targets), (jax.ShapeDtypeStruct((batch, hidden), jnp.float32),)


def lean_plan(shape: Shape) -> rnn_jax.Plan:
    """The fastest plan within a quarter of the textbook's temporaries; without one, the contender is out."""
    try:
        return rnn_jax.plan_memory(arguments(shape), textbook_bytes(shape) / 4)
    except ValueError as e:
        raise NotImplementedError("no plan fits a quarter of the textbook's temporaries, so few are they") from e


def checkpointed_plan(shape: Shape) -> rnn_jax.Plan:
    """One state kept every √T / 2 steps, the others computed again.

    Not √T, for the steps of one segment need more than their states: 4 s of them and T / s are fewest at √T / 2.
    """
    divisors = (n for n in range(1, shape.time + 1) if shape.time % n == 0)
    size = min(divisors, key=lambda n: abs(math.log(4 * n * n / shape.time)))
    return rnn_jax.Plan(block=size, segments=(size,))


def leaves(params) -> dict:
    """The five leaves of one layer and its readout."""
    (cell,), readout = params
    return {"w_xh": cell.w_xh, "w_hh": cell.w_hh, "b_h": cell.b_h, "w_hy": readout.w_hy, "b_y": readout.b_y}


def _model(grad_fn, shape: Shape) -> Model:
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


def over_devices(model: Model, devices) -> Model:
    """The same with the batch split over devices, the weights on all, before the clock starts."""
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    everywhere, by_batch = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, "batch"))
    batch, h_0 = model.data
    data = jax.device_put(batch, by_batch), jax.device_put(h_0, NamedSharding(mesh, PartitionSpec("batch")))
    return model._replace(params=jax.device_put(model.params, everywhere), data=data)


def stepwise(shape: Shape, what: str) -> Raced:
    """The textbook by hand."""
    return race(_model(rnn_jax.make_grad_fn("stepwise", loss="cross_entropy"), shape), what)


def bptt(shape: Shape, what: str) -> Raced:
    """Weight gradients as products after the loop."""
    return race(_model(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), shape), what)


def blocked(shape: Shape, what: str) -> Raced:
    """A block of time at a time, the default plan."""
    return race(_model(blocked_grad_fn(), shape), what)


def lean(shape: Shape, what: str) -> Raced:
    """The same within a quarter of the textbook's temporaries."""
    return race(_model(blocked_grad_fn(plan=lean_plan(shape)), shape), what)


def checkpointed(shape: Shape, what: str) -> Raced:
    """The same with a plan that keeps little and recomputes the rest."""
    return race(_model(blocked_grad_fn(plan=checkpointed_plan(shape)), shape), what)


def own(shape: Shape, what: str) -> Raced:
    """The method that `RACE_METHOD=module:expression` names."""
    module, expression = os.environ[OWN].split(":", 1)
    method = eval(expression, {"rnn_jax": rnn_jax} | vars(importlib.import_module(module)))
    return race(_model(rnn_jax.make_grad_fn(method, loss="cross_entropy"), shape), what)


def sharded(shape: Shape, what: str) -> Raced:
    """The default plan with the batch over all devices of the process."""
    devices = jax.devices()
    model = over_devices(_model(blocked_grad_fn(devices=devices), shape), devices)
    if what == "step":
        make, (_, h_0) = model.init, model.data

        def init(params):
            state = jax.device_put(make(params), jax.tree.leaves(params)[0].sharding)
            return state._replace(h_0=jax.tree.map(jnp.copy, h_0))

        model = model._replace(init=init)
    return race(model, what)
