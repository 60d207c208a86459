"""How fast this machine is: the seconds of a recurrent network in NumPy loops.

    python tests/yardstick.py

The seconds of the suite mean something on another machine beside this figure: it is one core, 10,000 steps there and
back of 16 sequences through 128 units, which is what Python and BLAS do all day in the tests. The best of three.
"""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

STEPS, BATCH, HID = 10_000, 16, 128


def loop() -> float:
    """Seconds of one forward and backward pass."""
    rng = np.random.default_rng(0)
    w, xs = rng.standard_normal((HID, HID)) / HID**0.5, rng.standard_normal((STEPS, BATCH, HID))
    start = time.perf_counter()
    hs = [np.zeros((BATCH, HID))]
    for x in xs:
        hs.append(np.tanh(x + hs[-1] @ w))
    d_h, d_w = np.zeros((BATCH, HID)), np.zeros((HID, HID))
    for t in reversed(range(STEPS)):
        d_a = (d_h + 1.0) * (1 - hs[t + 1] ** 2)
        d_w += hs[t].T @ d_a
        d_h = d_a @ w.T
    return time.perf_counter() - start


if __name__ == "__main__":
    print(f"yardstick: {min(loop() for _ in range(3)):.2f} s")
