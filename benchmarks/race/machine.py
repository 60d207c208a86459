"""The machine: what it is, and how fast it multiplies and copies, measured as the contenders are."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from .contenders import Raced
from .problems import Shape

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices of the large product
COPIED = {"cpu": 2**26, "cuda": 2**28}  # float32 numbers: 256 MiB, 1 GiB
DISTRIBUTIONS = ("jax", "jaxlib", "numpy", "optax", "dm-haiku", "flax", "equinox", "torch")
SETTINGS = ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name, where the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def installed() -> dict[str, str]:
    """Versions of what takes part, by distribution."""
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return {name: found[name] for name in DISTRIBUTIONS if name in found}


def record() -> dict:
    """Processor, cores, versions, and the environment's settings that matter; no names, no paths."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed(),
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }
