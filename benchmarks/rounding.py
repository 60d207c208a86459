"""What rounding costs: the error of each method in float32 and bfloat16 against float64, on the problems of the tests.

    python benchmarks/rounding.py    # prints the figures of docs/gradient-checks.md

Errors are those of the worst leaf, relative to its largest entry, in units of the machine epsilon: 2⁻²³ or 2⁻⁸.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from precision import (  # noqa: E402
    F32_EPS,
    TIMES,
    bfloat16_errors,
    compiled,
    float64_truth,
    leaf_errors,
    long_problem,
    slow_problem,
)

from rnn_jax import GRADIENTS  # noqa: E402


def main():
    """One line a method: float32 for 10 to 10,000 steps, bfloat16 compute for 64. Then long memories in bfloat16."""
    loss, seeds = "squared_error", (0, 1)
    print(f"{'':10}" + "".join(f"{f'T = {time}':>12}" for time in TIMES) + f"{'bfloat16':>12}")
    for method in (name for name, method in GRADIENTS.items() if method.exact):
        cells = []
        for time in TIMES:
            errors = [
                leaf_errors(compiled(method, loss)(*long_problem(loss, time, s)), float64_truth(loss, "sum", time, s))
                for s in seeds
            ]
            cells.append(max(max(error.values()) for error in errors) / F32_EPS)
        cells.append(max(bfloat16_errors(method, loss, long_problem(loss, 64, 0), jnp.bfloat16).values()))
        print(f"{method:10}" + "".join(f"{cell:12.1f}" for cell in cells))
    print("\nbfloat16 compute, 500 steps of units that hardly forget: the last states, and the worst leaf")
    for kind in ("leaky", "leaks", "gru", "lstm"):
        errors = bfloat16_errors("blocked", "cross_entropy", slow_problem(kind, 500), jnp.bfloat16)
        print(f"{kind:10}{errors['[0][1][0]']:12.1f}{max(errors.values()):12.1f}")


if __name__ == "__main__":
    main()
