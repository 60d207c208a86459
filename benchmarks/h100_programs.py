"""The programs that `h100.py` compiles, at two shapes, without data.

They are the textbook and every gradient method; of gated cells, autodiff and `Blocked`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import rnn_jax


class Shape(NamedTuple):
    """Sizes of one problem."""

    time: int
    batch: int
    input: int
    hidden: int
    output: int

    def __str__(self) -> str:
        """As in the results of the other benchmarks."""
        return f"T{self.time} B{self.batch} I{self.input} H{self.hidden} O{self.output}"


SHAPES = (Shape(128, 32, 64, 256, 64), Shape(256, 64, 128, 256, 128))
OPTIONS: dict[str, dict[str, Any]] = {}  # of a method that needs some
CHECKPOINTED = rnn_jax.Plan(block=16, segments=(16,))  # a state a block is kept; a block runs again in its turn
UNROLLED = 8
OF_GATED = ("autodiff", "blocked")


def textbook(params: rnn_jax.Params, batch: rnn_jax.Batch, h_0: Any) -> Any:
    """The scan as textbooks write it, readout inside, differentiated by JAX: a `GradFn` for one layer."""

    def loss_fn(params: rnn_jax.Params, h_0: Any, xs: jax.Array) -> tuple[jax.Array, Any]:
        (cell,), out = params.cells, params.readout

        def body(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
            h_t = jnp.tanh(x_t @ cell.w_xh + h_tm1 @ cell.w_hh + cell.b_h)
            return h_t, h_t @ out.w_hy + out.b_y

        h_T, ys = lax.scan(body, h_0[0], xs)
        log_p = jax.nn.log_softmax(ys)
        return -jnp.mean(jnp.take_along_axis(log_p, batch.targets[..., None], axis=-1)), (h_T,)

    value_and_grad = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
    value, gradients = value_and_grad(params, h_0, batch.inputs)
    return value, rnn_jax.Gradients(*gradients)


def contenders(cell: str) -> dict[str, Callable[..., Any]]:
    """Gradients by name: the textbook, the methods of `GRADIENTS`, and the variants of them worth a row."""
    made = {"textbook": textbook}
    for name, method in _methods():
        made[name] = rnn_jax.make_grad_fn(method, loss="cross_entropy")
    return made if cell == "vanilla" else {name: made[name] for name in OF_GATED}


def arguments(cell: str, shape: Shape) -> tuple[Any, Any, Any]:
    """`(params, batch, h_0)` in float32, as shapes."""
    sizes = {"input_size": shape.input, "hidden_size": shape.hidden, "output_size": shape.output, "cell": cell}
    params = jax.eval_shape(lambda: rnn_jax.init_params(jax.random.key(0), **sizes))
    inputs = jax.ShapeDtypeStruct((shape.time, shape.batch, shape.input), jnp.float32)
    targets = jax.ShapeDtypeStruct((shape.time, shape.batch), jnp.int32)
    h_0 = jax.eval_shape(lambda: rnn_jax.zero_state(rnn_jax.init_params(jax.random.key(0), **sizes), shape.batch))
    return params, rnn_jax.Batch(inputs=inputs, targets=targets), h_0


def _methods() -> Iterator[tuple[str, rnn_jax.typing.Method]]:
    for name, named in rnn_jax.GRADIENTS.items():
        if not named.exact:
            continue
        yield name, named.kind(**OPTIONS.get(name, {}))
        if name == "blocked":
            yield "blocked, checkpointed", rnn_jax.Blocked(plan=CHECKPOINTED)
        if hasattr(named.example, "unroll"):
            yield f"{name}, unroll={UNROLLED}", named.kind(unroll=UNROLLED)
