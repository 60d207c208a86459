"""A gradient method on several devices, each with its part of the batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec

from ._checks import is_tokens, steps_shape
from ._losses import Objective, loss_scale, step_weights
from ._sharding import vary
from ._types import Batch, GradFn, Gradients, Params, Scalar, States, accumulation_dtype

AXIS = "batch"


def check_devices(devices: Sequence[jax.Device]) -> None:
    """Raise unless `devices` are devices of JAX, each once."""
    if not isinstance(devices, (list, tuple)) or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(f"`devices` must be a list of devices, like jax.devices(), got {devices!r}.")
    if not devices or len(set(devices)) != len(devices):
        raise ValueError(f"`devices` must hold at least one device, each once, got {devices!r}.")


def shard_batch(make: Callable[[Objective], GradFn], objective: Objective, devices: Sequence[jax.Device]) -> GradFn:
    """The method `make(objective)`, with the first batch axis split evenly over `devices`.

    Each device sums `w ℓ` over its sequences, the normalisation of the whole batch in the weights, so that loss and
    weight gradients of all add up by one `psum`. States and input gradients stay where their sequences are. Each draws
    from a key of its own, made of `batch.key`.
    """
    mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
    of_part = make(Objective(objective.loss, "sum"))

    def on_each(params: Params, batch: Batch, h_0: States, key: Any) -> tuple[tuple[Scalar, States], Gradients]:
        if key is not None:
            batch = batch._replace(key=jax.random.fold_in(key, lax.axis_index(AXIS)))
        (loss, h_T), gradients = of_part(vary(params, AXIS), batch, h_0)
        loss, d_params = lax.psum((loss, gradients.params), AXIS)
        return (loss, h_T), gradients._replace(params=d_params)

    def grad_fn(params: Params, batch: Batch, h_0: States) -> tuple[tuple[Scalar, States], Gradients]:
        _, *batch_axes = steps_shape(batch.inputs)
        if not batch_axes or batch_axes[0] % len(devices):
            raise ValueError(
                f"The first batch axis must be a multiple of the {len(devices)} `devices`, got the batch axes "
                f"{tuple(batch_axes)}."
            )
        dtype, key = accumulation_dtype(params.readout.b_y.dtype), batch.key
        batch = batch._replace(weights=loss_scale(objective, batch, dtype) * step_weights(batch, dtype), key=None)
        whole, first, second = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)
        of_batch: Any = jax.tree.map(lambda _: second, batch._replace(drop=None))
        of_batch = of_batch._replace(drop=jax.tree.map(lambda _: first, batch.drop))
        d_inputs: Any = None if is_tokens(batch.inputs) else second
        of_gradients: Any = Gradients(whole, first, d_inputs)  # type: ignore[arg-type]
        sharded = jax.shard_map(
            on_each, mesh=mesh, in_specs=(whole, of_batch, first, whole), out_specs=((whole, first), of_gradients)
        )
        return sharded(params, batch, h_0, key)

    return grad_fn
