"""Float64, strict promotion, two CPU devices: set before JAX starts. The command's own tests take none of it."""

import os

os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        "--xla_backend_optimization_level=0",  # thousands of tiny programs: compiling them is what the tests wait for
        "--xla_llvm_disable_expensive_passes=true",
    )
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "Agg")

import itertools

import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def getkey():
    """A function that returns a new key at each call."""
    counter = itertools.count()
    return lambda: jax.random.fold_in(jax.random.key(20), next(counter))


@pytest.fixture
def annotations_unchecked():
    """As users have it: the annotations are checked in our tests only, and know arrays, not their shapes alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
