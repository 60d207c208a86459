"""What cells with gates share."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array


class Gated:
    """A cell whose `backward` reads more than its states, and that has no static fields.

    `gate_names`  the gates, in the order of their columns in `w_xh`, `w_hh` and `b_h`.
    `bias`        what `init_params` adds to the bias of a gate.
    `memory`      how chrono initialisation reads the gates: 1 for one that keeps the past, -1 for one that lets the
                  present in.
    """

    from_states: ClassVar[bool] = False
    lean: ClassVar[bool] = False
    gate_names: ClassVar[tuple[str, ...]]
    bias: ClassVar[Mapping[str, float]] = {}
    memory: ClassVar[Mapping[str, int]] = {}

    def check(self, name: str) -> None:
        """Nothing is static, so nothing can be wrong."""

    def replace(self, **changes: Any) -> Any:
        """The cell with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def split(x: Array, count: int) -> list[Array]:
    """The values of each gate, or the parts of a state: `count` arrays (*steps, hid)."""
    return jnp.split(x, count, -1)


def joined(*parts: Array) -> Array:
    """The inverse of `split`."""
    return jnp.concatenate(parts, -1)


def of_sigmoid(g: Array) -> Array:
    """`σ'(a) = g (1 - g)` from `g = σ(a)`."""
    return g * (1 - g)


def of_tanh(g: Array) -> Array:
    """`tanh'(a) = 1 - g²` from `g = tanh(a)`."""
    return 1 - g * g
