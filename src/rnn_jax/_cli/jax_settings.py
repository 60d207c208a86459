"""The settings of JAX that the command needs, whatever the environment says."""

import contextlib
import os
import re
from collections.abc import Iterator

import jax
from jax.extend import backend

from .._reporting.caches import cache_folder, remove_old
from .._reporting.errors import InputError

SETTINGS = {  # every setting that changes a result, or stops a correct program
    "jax_disable_jit": False,
    "jax_debug_nans": False,  # a message says so when a run diverges
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_check_tracer_leaks": False,
    "jax_enable_checks": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_matmul_precision": None,
    "jax_default_device": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_array_garbage_collection_guard": None,
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
}
COMPILED, MOST_PROGRAMS, MOST_BYTES = "compiled", 500, 2**29  # the cache of compiled programs, and its size


@contextlib.contextmanager
def jax_settings(dtype: str = "float32", num_devices: int = 1) -> Iterator[None]:
    """Set JAX to `SETTINGS`, with 64-bit numbers only for "float64"; restore its settings afterwards.

    A CPU becomes `num_devices` devices, unless JAX has started already or XLA_FLAGS set the number.

    Raises:
        InputError: if the environment asks for a platform that JAX does not find, or for zero devices.
    """
    if num_devices > 1:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)
    check_platform()
    ours = {name: value for name, value in SETTINGS.items() if name in jax.config.values}  # not every JAX has all
    ours["jax_enable_x64"] = dtype == "float64"
    ours |= _cache_of_programs()
    before = {name: getattr(jax.config, name) for name in ours}
    try:
        for name, value in ours.items():
            jax.config.update(name, value)  # for all threads: orbax restores in another one
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _cache_of_programs() -> dict[str, str | float]:
    """Settings that keep compiled programs for the next start, unless the environment names a folder for them.

    If the folder cannot be made or read, nothing is kept.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return {}
    try:
        folder = cache_folder(COMPILED)
        folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder, most_files=MOST_PROGRAMS, most_bytes=MOST_BYTES)
    except OSError:
        return {}
    return {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.1}


def check_platform() -> None:
    """Raise an `InputError` if JAX does not start: the environment asks for a missing platform or no device."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError or AssertionError, by platform and version
        if variable := _variable_of_no_cpu():
            raise InputError(
                f"{variable} must ask for at least one device of the CPU, got {os.environ[variable]!r}. "
                f"Unset it, or set it to 1 or more."
            ) from error
        for variable in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
            if asked := os.environ.get(variable):
                raise InputError(
                    f"{variable} must name a platform that JAX finds here, got {asked!r}: it finds "
                    f"{', '.join(_platforms())}. Unset {variable}, or set it to one of these."
                ) from error
        raise InputError(f"JAX must find a device, but it does not start: {error}") from error


def _variable_of_no_cpu() -> str | None:
    """The environment variable that gives the CPU zero devices, if there is one."""
    if "JAX_NUM_CPU_DEVICES" in os.environ and jax.config.values.get("jax_num_cpu_devices") == 0:
        return "JAX_NUM_CPU_DEVICES"
    counts = re.findall(r"--xla_force_host_platform_device_count=(\S*)", os.environ.get("XLA_FLAGS", ""))
    return "XLA_FLAGS" if counts and re.fullmatch("0+", counts[-1]) else None


def _platforms() -> list[str]:
    """The platforms that JAX finds when no variable names one."""
    before = jax.config.values["jax_platforms"]
    try:
        jax.config.update("jax_platforms", None)
        backend.clear_backends()
        return sorted(backend.backends())
    except RuntimeError:
        return ["none"]
    finally:
        jax.config.update("jax_platforms", before)
