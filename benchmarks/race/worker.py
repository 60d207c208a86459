"""The process of a contender: it is told through a pipe to prepare, and then to take its turns."""

import contextlib
import gc
import math
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .contenders import Raced, builder, find
from .problems import Shape

TURN_S = 0.03  # a turn lasts at least this long
WARM_S = 0.3  # and so does the warm-up
COLD_S = 0.05  # a call that takes longer needs no untimed one before its turn: caches fill in a small part of it
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices of the large product
COPIED = {"cpu": 2**26, "cuda": 2**28}  # float32 numbers: 256 MiB, 1 GiB
WORK = {  # of the contenders that measure the machine: operations, bytes
    "product": {device: 2 * side**3 for device, side in SIDE.items()},
    "copy": {device: 8 * size for device, size in COPIED.items()},
}
Result = dict[str, np.ndarray]


def work(pipe: Connection, log: str, name: str, cell: str, shape: Shape, what: str, device: str) -> None:
    """Build the contender, say so, and obey until the pipe closes. Whatever is printed goes to the log."""
    os.setsid()  # Ctrl-C reaches the parent alone
    messages = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(messages, 1)
    os.dup2(messages, 2)
    os.environ.update(environment(device))
    try:
        _set_up(name)
        make = builder(name)
        pipe.send({"ready": True} | _about_device(name, device))
        with contextlib.suppress(EOFError):
            _obey(pipe, lambda: make(cell, shape, what))
    except NotImplementedError as e:
        pipe.send({"out": str(e)})


def environment(device: str) -> dict[str, str]:
    """One device, on a GPU every float32 product in full float32, and no compilation from a cache."""
    ours = {
        "JAX_PLATFORMS": device,
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "JAX_TRACEBACK_FILTERING": "off",  # its last line is then what went wrong
    }
    return ours | ({"JAX_DEFAULT_MATMUL_PRECISION": "highest"} if device == "cuda" else {})


def _set_up(name: str) -> None:
    """Where this library is, and the settings that JAX wants before it starts."""
    row = find(name)
    cores = row.cores
    if row.source:  # before anything of this library is imported
        sys.path.insert(0, row.source)
    if name == "truth" or cores > 1:  # the others may do without JAX
        import jax

        jax.config.update("jax_enable_x64", name == "truth")
        jax.config.update("jax_num_cpu_devices", cores)


def _about_device(name: str, device: str) -> dict[str, str]:
    """What JAX calls the device; asked of the contenders that measure the machine."""
    if find(name).role != "machine":
        return {}
    import jax

    try:
        return {"device_kind": jax.devices()[0].device_kind}
    except (RuntimeError, AssertionError) as e:
        raise NotImplementedError(f"JAX finds no {device} device") from e


def _obey(pipe: Connection, build: Callable[[], Raced]) -> None:
    """`result` answers with the arrays, `prepare` with what is known before the race, `time` with seconds per call."""
    while True:
        do, truth = pipe.recv()
        if do == "result":
            pipe.send(build().result())
        elif do == "prepare":
            raced = build()
            about = prepare(raced, truth)
            pipe.send(about)
        else:
            if about["call_s"] < COLD_S:
                raced.call()  # its data back into the caches
            pipe.send({"seconds": seconds_of(raced, about["calls"])})


def prepare(raced: Raced, truth: Result | None) -> dict[str, Any]:
    """What is known of a contender before it races: its errors, the seconds of a call, and how many fill a turn."""
    result = raced.result()
    about = {"compile_s": raced.compile_s, "temp_bytes": raced.temp_bytes}
    if truth is not None:
        about["errors"] = errors(result, truth)
    call_s = warm_up(raced)
    gc.collect()
    gc.disable()
    return about | {"call_s": call_s, "calls": max(1, math.ceil(TURN_S / call_s))}


def errors(result: Result, truth: Result) -> dict[str, float]:
    """The largest difference of each leaf, relative to the truth's largest entry; infinite where it is missing."""
    return {name: _error(result[name], truth[name]) if name in result else math.inf for name in truth}


def _error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape or not np.all(np.isfinite(actual)):
        return math.inf
    return float(np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300))


def seconds_of(raced: Raced, calls: int) -> float:
    """The mean over that many calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        raced.call()
    return (time.perf_counter() - start) / calls


def warm_up(raced: Raced) -> float:
    """The median of calls that together last long enough."""
    seconds = [seconds_of(raced, 1)]
    while sum(seconds) < WARM_S and len(seconds) < 100:
        seconds.append(seconds_of(raced, 1))
    return float(np.median(seconds))


def product(cell: str, shape: Shape, what: str) -> Raced:
    """A large float32 product, on all cores. `WORK` says how much work it is."""
    import jax

    del cell, shape, what
    side = SIDE[jax.devices()[0].platform.replace("gpu", "cuda")]
    a, b = (jax.random.normal(key, (side, side)) for key in jax.random.split(jax.random.key(0)))
    compiled = jax.jit(jax.numpy.matmul).lower(a, b).compile()
    return Raced(lambda: jax.block_until_ready(compiled(a, b)), dict)


def copy(cell: str, shape: Shape, what: str) -> Raced:
    """A large array read once and written back once."""
    import jax

    del cell, shape, what
    xs = jax.numpy.ones(COPIED[jax.devices()[0].platform.replace("gpu", "cuda")], jax.numpy.float32)
    compiled = jax.jit(lambda xs: -xs, donate_argnums=0).lower(xs).compile()
    held = [jax.block_until_ready(xs)]

    def call():  # into its own memory: fresh memory would time the operating system, which hands out its pages
        held[0] = jax.block_until_ready(compiled(held[0]))

    return Raced(call, dict)
