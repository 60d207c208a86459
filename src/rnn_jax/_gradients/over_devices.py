"""A gradient method on several devices: each one takes its part of the batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

from .._checks import is_tokens, steps_shape
from .._mesh import mesh_of, vary
from .._results import require_method
from .._types import Batch, Gradients, Method, Objective, Params, Result, States
from .autodiff import Autodiff

AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class Sharded:
    """`method` with the first batch axis split evenly over `devices`.

    Loss and gradients are those of the whole batch: each device computes those of its sequences, and one `psum` adds up
    the losses and the weight gradients. States and input gradients stay on the device of their sequences. Each device
    draws from its own key, made from `batch.key`. JAX refuses arrays that are committed to other devices. To use the
    cores of one CPU, call `jax.config.update("jax_num_cpu_devices", 2)` before anything else.

    Args:
        method: the gradient method that each device uses.
        devices: a list of devices, like `jax.devices()`, each once. Their number must divide the first batch axis.

    Raises:
        TypeError: if `method` is not a method, or `devices` are not devices.
        ValueError: if there are no devices, one is named twice, or `method` is `Sharded` already; in a call, if the
            first batch axis is not a multiple of the number of devices.

    >>> import jax, rnn_jax
    >>> method = rnn_jax.Sharded(rnn_jax.Blocked(), jax.devices())
    >>> grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    """

    method: Method
    devices: Sequence[jax.Device]

    def __post_init__(self) -> None:
        require_method(self.method, "a gradient method")
        if isinstance(self.method, Sharded):
            raise ValueError("`method` must not be `Sharded` itself: give all devices at once.")
        check_devices(self.devices)
        object.__setattr__(self, "devices", tuple(self.devices))  # hashable

    @property
    def reference(self) -> Any:
        """`Autodiff()` for an exact method; otherwise the reference of `method` on the same devices.

        The devices matter for that reference: each one draws its own numbers, or chooses its own reach.
        """
        reference = self.method.reference
        if isinstance(reference, Autodiff):
            return reference
        return self if reference == self.method else Sharded(reference, self.devices)

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """The loss, last states and gradients of the whole batch."""
        _, *batch_axes = steps_shape(batch.inputs)
        if not batch_axes or batch_axes[0] % len(self.devices):
            raise ValueError(
                f"The first batch axis must be a multiple of the {len(self.devices)} `devices`, got the batch axes "
                f"{tuple(batch_axes)}."
            )

        def on_each(scale: Any, params: Params, batch: Batch, h_0: States, key: Any) -> Result:
            if key is not None:
                batch = batch._replace(key=jax.random.fold_in(key, lax.axis_index(AXIS)))
            of_part = Objective(objective.loss, vary(scale, AXIS))
            (loss, h_T), gradients = self.method.gradient(of_part, vary(params, AXIS), batch, h_0)
            loss, d_params = lax.psum((loss, gradients.params), AXIS)
            return (loss, h_T), gradients._replace(params=d_params)

        mesh = mesh_of(self.devices, AXIS)
        key, batch = batch.key, batch._replace(key=None)
        whole, first, second = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)
        of_batch: Any = jax.tree.map(lambda _: second, batch._replace(drop=None))
        of_batch = of_batch._replace(drop=jax.tree.map(lambda _: first, batch.drop))
        d_inputs: Any = None if is_tokens(batch.inputs) else second
        of_gradients: Any = Gradients(whole, first, d_inputs)  # type: ignore[arg-type]
        in_specs, out_specs = (whole, whole, of_batch, first, whole), ((whole, first), of_gradients)
        sharded = jax.shard_map(on_each, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
        return sharded(objective.scale, params, batch, h_0, key)


def check_devices(devices: Sequence[jax.Device]) -> None:
    """Raise unless `devices` are devices of JAX, each once."""
    if not isinstance(devices, (list, tuple)) or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(f"`devices` must be a list of devices, like jax.devices(), got {devices!r}.")
    if not devices or len(set(devices)) != len(devices):
        raise ValueError(f"`devices` must hold at least one device, each once, got {devices!r}.")
