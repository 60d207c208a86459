"""The network by the methods of this library, not asked for a gradient in the inputs or the first state.

Each of `stepwise` to `sharded` builds a contender of a cell and a shape.
"""

import importlib
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import rnn_jax
from rnn_jax._gradients.plan import default_plan

from .contenders import CONTENDERS, OWN, Raced
from .networks import OPTIMIZER, Builder, Model, nearest_divisor, race
from .problems import CELLS, Shape, make_problem

KINDS = {"vanilla": "CellParams", "gru": "GRUParams", "lstm": "LSTMParams"}  # `before` may lack some of them


def lean_plan(cell: str, shape: Shape) -> rnn_jax.Plan:
    """Without gates, the fastest plan within a quarter of the textbook's temporaries; without one, it is out.

    With gates, the default plan, but gates are recomputed from the states: that is about a quarter.
    """
    params, batch, h_0 = problem_of(cell, shape)
    if CELLS[cell].gates > 1:
        return default_plan(params, batch)._replace(remake=True)
    textbook_bytes = (
        4 * shape.time * shape.batch * (4 * shape.hidden + shape.outputs)
    )  # states four times, outputs once
    try:
        return rnn_jax.plan_memory((params, batch, h_0), textbook_bytes / 4)
    except ValueError as e:
        raise NotImplementedError("the textbook has so few temporaries that no plan fits a quarter of them") from e


def checkpointed_plan(cell: str, shape: Shape) -> rnn_jax.Plan:
    """One state kept every √T / 2 steps; the others are recomputed, and then keep their gates.

    Not √T, for the steps of one segment need more than their states: 4 s of them and T / s are fewest at √T / 2.
    """
    del cell
    size = nearest_divisor(shape.time, lambda n: abs(math.log(4 * n * n / shape.time)))
    return rnn_jax.Plan(block=size, segments=(size,), remake=False)


def own_method(cell: str, shape: Shape) -> Any:
    """The method that `RACE_METHOD=module:expression` names."""
    del cell, shape
    module, expression = os.environ[OWN].split(":", 1)
    return eval(expression, {"rnn_jax": rnn_jax} | vars(importlib.import_module(module)))


def problem_of(cell: str, shape: Shape) -> tuple[rnn_jax.Params, rnn_jax.Batch, tuple[Any, ...]]:
    """The numbers of a problem as the arguments `(params, batch, h_0)` of a `GradFn`."""
    w, xs, targets, s_0 = jax.tree.map(jnp.asarray, make_problem(cell, shape))
    readout = rnn_jax.ReadoutParams(w.pop("w_hy"), w.pop("b_y"))
    params = rnn_jax.Params((getattr(rnn_jax, KINDS[cell])(**w),), readout)
    return params, rnn_jax.Batch(inputs=xs, targets=targets), (jnp.concatenate(s_0, -1),)


def leaves(names: tuple[str, ...], params: rnn_jax.Params) -> dict[str, Any]:
    """The arrays of one layer and its readout."""
    (cell,), readout = params
    return {name: getattr(cell if hasattr(cell, name) else readout, name) for name in names}


def _by_hand(method: Any, cell: str, shape: Shape) -> Model:
    grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    params, *data = problem_of(cell, shape)
    (_, h_0) = data
    trainer = rnn_jax.make_trainer(grad_fn, OPTIMIZER, carry=True)

    def loss(params, batch, h_0):
        return grad_fn(params, batch, h_0)[0][0]

    def value_and_grad(params, batch, h_0):
        (loss, _), gradients = grad_fn(params, batch, h_0)
        return loss, gradients.params

    def step(state, batch, h_0):
        state, info = trainer.step(state._replace(h_0=h_0), batch)  # from the same state each time, as the others
        return state, info.loss

    init = lambda params: trainer.init(params, h_0)  # noqa: E731
    of = partial(leaves, CELLS[cell].leaves)
    return Model(params, tuple(data), loss, of, value_and_grad, init, step, lambda state: state.params)


def _by_method(method: Callable[[str, Shape], Any]) -> Builder:
    return lambda cell, shape, what: race(_by_hand(method(cell, shape), cell, shape), what)


stepwise = _by_method(lambda *_: rnn_jax.Stepwise())
bptt = _by_method(lambda *_: rnn_jax.BPTT())
blocked = _by_method(lambda *_: rnn_jax.Blocked())
lean = _by_method(lambda *problem: rnn_jax.Blocked(plan=lean_plan(*problem)))
checkpointed = _by_method(lambda *problem: rnn_jax.Blocked(plan=checkpointed_plan(*problem)))
own = _by_method(own_method)


def before(cell: str, shape: Shape, what: str) -> Raced:
    """The default plan of the library in the folder that `RACE_BEFORE` names."""
    if not Path(rnn_jax.__file__).is_relative_to(CONTENDERS["before"].source):
        raise NotImplementedError(f"there is no rnn_jax in {CONTENDERS['before'].source}")
    if not hasattr(rnn_jax, KINDS[cell]):
        raise NotImplementedError(f"it has no {KINDS[cell]}")
    return blocked(cell, shape, what)


def sharded(cell: str, shape: Shape, what: str) -> Raced:
    """The default plan with the batch split over all devices of the process, before the clock starts."""
    devices = jax.devices()
    model = _by_hand(rnn_jax.Sharded(rnn_jax.Blocked(), devices), cell, shape)
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    on = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))  # noqa: E731
    (batch, h_0), make = model.data, model.init
    h_0 = jax.device_put(h_0, on("batch"))

    def init(params):
        return jax.device_put(make(params), on())._replace(h_0=jax.tree.map(jnp.copy, h_0))

    data = jax.device_put(batch, on(None, "batch")), h_0
    return race(model._replace(params=jax.device_put(model.params, on()), data=data, init=init), what)
