"""How fast the machine multiplies and copies, measured as the contenders are."""

from .contenders import Raced
from .problems import Shape

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices of the large product
COPIED = {"cpu": 2**26, "cuda": 2**28}  # float32 numbers: 256 MiB, 1 GiB


def product(shape: Shape, what: str) -> Raced:
    """A large float32 product, on all cores. `flops_of_product` says how much work it is."""
    import jax
    import jax.numpy as jnp

    del shape, what
    side = SIDE[jax.devices()[0].platform.replace("gpu", "cuda")]
    a, b = (jax.random.normal(key, (side, side)) for key in jax.random.split(jax.random.key(0)))
    compiled = jax.jit(jnp.matmul).lower(a, b).compile()
    return Raced(lambda: jax.block_until_ready(compiled(a, b)), dict)


def copy(shape: Shape, what: str) -> Raced:
    """A large array read once and written back once."""
    import jax
    import jax.numpy as jnp

    del shape, what
    xs = jnp.ones(COPIED[jax.devices()[0].platform.replace("gpu", "cuda")], jnp.float32)
    compiled = jax.jit(lambda xs: -xs, donate_argnums=0).lower(xs).compile()
    held = [jax.block_until_ready(xs)]

    def call():  # into its own memory: fresh memory would time the operating system, which hands out its pages
        held[0] = jax.block_until_ready(compiled(held[0]))

    return Raced(call, dict)


def rate(name: str, device: str, seconds: float) -> float:
    """Flop/s of the product, bytes/s of the copy."""
    return (2 * SIDE[device] ** 3 if name == "product" else 8 * COPIED[device]) / seconds
