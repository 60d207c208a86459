"""One contender in a process of its own: told what to do by lines of JSON, one line back for each.

    python -m race.worker '{"contender": "bptt", "shape": [25, 1, 65, 100, 65], "what": "gradient", "device": "cpu"}'

Started by the race. It says `ready` when all is imported. `prepare` compiles, compares with the truth and warms up;
`time` makes a turn's calls, each blocked until ready, and answers with the seconds of one.
"""

import gc
import json
import math
import os
import sys
import time

import numpy as np

from .contenders import Raced, builder, find
from .problems import Shape

TURN_S = 0.03  # a turn lasts at least this long
WARM_S = 0.3  # and so does the warm-up
COLD_S = 0.05  # a call that takes longer needs no untimed one before its turn: caches fill in a small part of it


def set_up(contender: str) -> None:
    """The settings that JAX wants before it starts."""
    if contender == "truth":
        import jax

        jax.config.update("jax_enable_x64", True)
    if (cores := find(contender).cores) > 1:
        import jax

        jax.config.update("jax_num_cpu_devices", cores)


def errors(result: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of each leaf, relative to the truth's largest entry; infinite where it is missing."""
    missing = {name: math.inf for name in set(truth) - set(result)}
    return missing | {name: _error(result[name], truth[name]) for name in truth if name in result}


def _error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape or not np.all(np.isfinite(actual)):
        return math.inf
    return float(np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300))


def seconds_of(raced: Raced, calls: int) -> float:
    """The mean of so many calls in a row."""
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


def prepare(raced: Raced, truth: str | None, save: str | None) -> tuple[dict, float]:
    """What is known of a contender before it races, and the seconds of one call."""
    result = raced.result()
    about = {"compile_s": raced.compile_s, "temp_bytes": raced.temp_bytes}
    if save:
        np.savez(save, **result)
        return about, 0.0
    if truth:
        with np.load(truth) as right:
            about["errors"] = errors(result, dict(right))
    call_s = warm_up(raced)
    gc.collect()
    gc.disable()
    return about | {"call_s": call_s, "calls": max(1, math.ceil(TURN_S / call_s))}, call_s


def main() -> None:
    """Build, say so, and obey until the pipe closes."""
    spec = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def answer(**message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    set_up(spec["contender"])
    make = builder(spec["contender"])
    try:
        answer(ready=True, **about_device(spec))
    except NotImplementedError as e:
        answer(out=str(e))
        return
    raced, about, call_s = None, {}, 0.0
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "prepare":
            try:
                raced = make(Shape(*spec["shape"]), spec["what"])
            except NotImplementedError as e:
                answer(out=str(e))
                return
            about, call_s = prepare(raced, order.get("truth"), order.get("save"))
            answer(**about)
        elif order["do"] == "time":
            if call_s < COLD_S:
                raced.call()  # its data back into the caches
            answer(seconds=seconds_of(raced, about["calls"]))


def about_device(spec: dict) -> dict:
    """What JAX calls the device; asked of the contenders that measure the machine."""
    if find(spec["contender"]).role != "machine":
        return {}
    import jax

    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as e:
        raise NotImplementedError(f"JAX finds no {spec['device']} device") from e
    return {"device_kind": device.device_kind}


if __name__ == "__main__":
    main()
