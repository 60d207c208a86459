"""The network as people write it in JAX, differentiated by JAX: textbook, hoisted, and the variants of the scan."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from .compiled import Model, race
from .contenders import Raced
from .problems import Shape, make_problem


def cross_entropy(ys, targets):
    """Mean over all steps."""
    log_p = jax.nn.log_softmax(ys)
    return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], -1))


def textbook_loss(p, xs, targets, h_0):
    """All of a step inside the scan, readout included."""

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


def blocks_of(time: int) -> int:
    """The divisor of `time` nearest to its root."""
    return min((k for k in range(1, time + 1) if time % k == 0), key=lambda k: abs(k - time**0.5))


def remat_loss(p, xs, targets, h_0):
    """A block of about √T steps at a time, projection and readout inside, recomputed in the backward pass."""
    block = blocks_of(xs.shape[0])

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


def _model(loss, shape: Shape, dtype=jnp.float32) -> Model:
    weights, xs, targets, h_0 = make_problem(shape)
    weights = {name: jnp.asarray(w, dtype) for name, w in weights.items()}
    return Model(weights, (jnp.asarray(xs, dtype), jnp.asarray(targets), jnp.asarray(h_0, dtype)), loss, dict)


def textbook(shape: Shape, what: str) -> Raced:
    """`jax.grad` of the textbook's scan."""
    return race(_model(textbook_loss, shape), what)


def hoisted(shape: Shape, what: str) -> Raced:
    """`jax.grad` with the two products outside that need not be inside."""
    return race(_model(hoisted_loss, shape), what)


def split(shape: Shape, what: str) -> Raced:
    """Hoisted, with the weight gradient's products moved out of the reverse scan by JAX itself, where it can."""
    if "_split_transpose" not in inspect.signature(lax.scan).parameters:
        raise NotImplementedError(f"lax.scan of JAX {jax.__version__} has no `_split_transpose`")
    scan = partial(lax.scan, _split_transpose=True)
    return race(_model(partial(hoisted_loss, scan=scan), shape), what)


def unrolled(shape: Shape, what: str) -> Raced:
    """Hoisted, eight steps an iteration of the loop."""
    return race(_model(partial(hoisted_loss, scan=partial(lax.scan, unroll=8)), shape), what)


def remat(shape: Shape, what: str) -> Raced:
    """Hoisted and rematerialised."""
    return race(_model(remat_loss, shape), what)


def truth(shape: Shape, what: str) -> Raced:
    """Float64, none of our code in it; the process has 64 bits enabled. Rematerialised, so that any length fits."""
    return race(_model(remat_loss, shape, jnp.float64), what)
