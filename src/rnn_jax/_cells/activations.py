"""The activations φ and their derivatives. Pass your own activation instead of a name."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Activation(NamedTuple):
    """An activation φ and its derivative φ', in two forms. All are elementwise.

    `phi`    `h = φ(a)`.
    `d_phi`  φ' as a function of `h`, so that the pre-activation `a` need not be kept. Without it the cell keeps `a`
             instead of `h`. Swish and gelu have none, because two different `a` can give the same `h`.
    `slope`  φ' as a function of `a`, accurate where φ saturates. Without it JAX differentiates `phi`.

    Where tanh saturates, `1 - h²` loses precision: in float32 it is 0 from |a| = 9 on. `slope` keeps full precision,
    which matters when you take its logarithm. A gradient reads `slope` only if there is no `d_phi`. To check both,
    compare `rnn_jax.dynamics.step_jacobians` with `jax.jacobian(rnn_jax.step, 1)`.

    An activation is part of the structure of the parameters. Make it once: with a new one in each call, each call is
    compiled again.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> softplus = rnn_jax.typing.Activation(jax.nn.softplus, d_phi=lambda h: -jnp.expm1(-h), slope=jax.nn.sigmoid)
    >>> sizes = {"input_size": 3, "hidden_size": 5, "output_size": 2}
    >>> params = rnn_jax.init_params(jax.random.key(0), activation=softplus, **sizes)
    >>> params = rnn_jax.init_params(jax.random.key(0), activation=jax.nn.swish, **sizes)  # or φ alone
    >>> params.cells[0].activation is jax.nn.swish
    True
    """

    phi: Callable[[Array], Array]
    d_phi: Callable[[Array], Array] | None = None
    slope: Callable[[Array], Array] | None = None

    def slope_at(self, a: Array) -> Array:
        """`φ'(a)`."""
        return jax.jvp(self.phi, (a,), (jnp.ones_like(a),))[1] if self.slope is None else self.slope(a)


def sech_squared(a: Array) -> Array:
    """`1 / cosh²(a)`, by exponentials that cannot overflow."""
    e = jnp.exp(-2 * jnp.abs(a))
    return 4 * e / (1 + e) ** 2


def _is_positive(x: Array) -> Array:
    return (x > 0).astype(x.dtype)  # φ'(0) = 0, as in jax.nn.relu


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda h: 1 - h * h, sech_squared),
    "relu": Activation(jax.nn.relu, _is_positive, _is_positive),
    "identity": Activation(lambda a: a, jnp.ones_like, jnp.ones_like),
}

Phi = str | Activation | Callable[[Array], Array]
"""A name of `ACTIVATIONS`, an `Activation`, or φ alone."""


def activation_of(given: Phi) -> Activation:
    """`given` as an `Activation`; it may be a name, an `Activation` or a function φ."""
    if isinstance(given, str):
        return ACTIVATIONS[given]
    return given if isinstance(given, Activation) else Activation(given)


def states_suffice(given: Phi) -> bool:
    """Whether φ' can be computed from `φ(a)`."""
    return isinstance(given, str) or (isinstance(given, Activation) and given.d_phi is not None)


def check_activation(given: object, name: str = "activation") -> None:
    """Raise unless `given` is a known name, an `Activation`, or a function, and is hashable."""
    if isinstance(given, str):
        if given not in ACTIVATIONS:
            raise ValueError(
                f"No activation named {given!r}; known names: {', '.join(map(repr, ACTIVATIONS))}; or pass a function, "
                f"like `jax.nn.sigmoid`."
            )
        return
    parts = tuple(given) if isinstance(given, Activation) else (given,)
    if not callable(parts[0]) or not all(part is None or callable(part) for part in parts):
        raise TypeError(f"`{name}` must be a name, an Activation or a function of an array, got {given!r}.")
    try:
        hash(given)
    except TypeError as error:
        raise TypeError(f"`{name}` must be hashable, because it is part of the structure of the parameters.") from error
