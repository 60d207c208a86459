"""Is the default plan of "blocked" ever larger or slower than autodiff? 60 shapes drawn at random, and the worst five.

    python benchmarks/random_shapes.py             # prints the worst five in memory and in time
    python benchmarks/random_shapes.py --save      # and keeps all of them in benchmarks/results/random_shapes.json
    python benchmarks/random_shapes.py --memory    # compiles and times nothing: memory alone

A shape is a length, a batch, widths, layers, how many steps are read, and what else a batch may have; float32. Both are
compiled once. They take turns in one process, each turn of as many calls as take 20 ms, each call blocked until ready.
`time` is the ratio of the fastest turns, `median` the median over rounds of the ratio of a round; `memory` is the ratio
of `memory_analysis().temp_size_in_bytes`. Below 1 the default plan is better.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnn_jax
from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "random_shapes.json"
SEED, COUNT, ROUNDS, TURN_S = 17, 60, 15, 0.02
MOST_FLOPS = 3e9  # of one gradient


class Shape(NamedTuple):
    """Sizes, and what a batch has; `last` steps are read."""

    time: int
    batch: int
    inputs: int
    hidden: int
    outputs: int
    layers: int
    last: int
    tokens: bool
    flags: bool
    leak: float
    activation: str
    loss: str

    @property
    def name(self) -> str:
        """All of it, in a line."""
        what = f"T{self.time} B{self.batch} I{self.inputs} H{self.hidden} O{self.outputs} L{self.layers}"
        more = [f"last {self.last}", "tokens" if self.tokens else "", "flags" if self.flags else ""]
        more += ["leaky" if self.leak != 1 else "", self.activation, self.loss]
        return " ".join([what, *filter(None, more)])


def draw_shapes(seed: int, count: int) -> list[Shape]:
    """`count` shapes, sizes uniform in their logarithm, none with more work than `MOST_FLOPS`."""
    rng, shapes = np.random.default_rng(seed), []

    def size(most: int) -> int:
        return int(round(np.exp(rng.uniform(0, np.log(most)))))

    while len(shapes) < count:
        steps, batch, inputs, hidden, outputs, layers = (size(most) for most in (2000, 128, 300, 512, 2000, 4))
        last = [steps, 1, size(steps)][rng.integers(3)]
        tokens, flags = bool(rng.integers(2)), rng.random() < 0.25
        leak, activation = float(rng.choice([1.0, 1.0, 1.0, 0.3])), str(rng.choice(["tanh", "relu"]))
        loss = str(rng.choice(["cross_entropy", "squared_error"]))
        flops = 6 * batch * hidden * (steps * (inputs + (2 * layers - 1) * hidden) + last * outputs)
        if flops <= MOST_FLOPS:
            shapes.append(
                Shape(steps, batch, inputs, hidden, outputs, layers, last, tokens, flags, leak, activation, loss)
            )
    return shapes


def problem(shape: Shape, seed: int):
    """`(params, batch, h_0)`, by NumPy but for the parameters."""
    rng = np.random.default_rng((seed, *shape[:7]))
    params = rnn_jax.init_params(
        jax.random.key(seed),
        input_size=shape.inputs,
        hidden_size=shape.hidden,
        output_size=shape.outputs,
        num_layers=shape.layers,
        activation=shape.activation,
        leak=shape.leak,
        dtype=jnp.float32,
    )
    steps, read = (shape.time, shape.batch), (shape.last, shape.batch)
    vectors = shape.loss == "squared_error"
    normal = lambda *size: rng.standard_normal(size, np.float32)  # noqa: E731
    batch = rnn_jax.Batch(
        rng.integers(0, shape.inputs, steps, np.int32) if shape.tokens else normal(*steps, shape.inputs),
        normal(*read, shape.outputs) if vectors else rng.integers(0, shape.outputs, read, np.int32),
        mask=rng.random(steps) < 0.9 if shape.flags else None,
        reset=rng.random(steps) < 0.05 if shape.flags else None,
    )
    return jax.device_put((params, batch, rnn_jax.zero_state(params, shape.batch)))


def turn(fn, args, calls: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(fn(*args))
    return (time.perf_counter() - start) / calls


def race(shape: Shape, seed: int, timed: bool) -> dict:
    """Memory and time of both on one shape."""
    args = problem(shape, seed)
    compiled = {}
    for method in ("autodiff", "blocked"):
        grad_fn = rnn_jax.make_grad_fn(method, loss=shape.loss)
        compiled[method] = jax.jit(grad_fn).lower(*args).compile()
    row = {"shape": shape.name}
    for method, fn in compiled.items():
        row[f"{method}_bytes"] = fn.memory_analysis().temp_size_in_bytes
    row["memory"] = round(row["blocked_bytes"] / max(row["autodiff_bytes"], 1), 4)
    if not timed:
        return row
    once = max(turn(fn, args, 2) for fn in compiled.values())
    calls = max(1, round(TURN_S / once))
    seconds = {method: [] for method in compiled}
    for i in range(ROUNDS):
        for method in sorted(compiled, reverse=i % 2 == 1):
            seconds[method].append(turn(compiled[method], args, calls))
    for method, of_turns in seconds.items():
        row[f"{method}_ms"] = round(min(of_turns) * 1e3, 4)
    row["time"] = round(min(seconds["blocked"]) / min(seconds["autodiff"]), 3)
    row["median"] = round(float(np.median(np.divide(seconds["blocked"], seconds["autodiff"]))), 3)
    return row


def main():
    """Race all shapes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    parser.add_argument("--memory", action="store_true", help="compile, and time nothing")
    parser.add_argument("--seed", type=int, default=SEED, help="what the shapes are drawn from")
    parser.add_argument("--count", type=int, default=COUNT, help="how many shapes")
    args = parser.parse_args()
    if args.save and (args.memory or (args.seed, args.count) != (SEED, COUNT)):
        parser.error("`--save` keeps the whole race of the default shapes: leave out the other options.")
    rows = []
    for shape in draw_shapes(args.seed, args.count):
        rows.append(race(shape, args.seed, not args.memory))
        jax.clear_caches()
    for by in ["memory"] if args.memory else ["memory", "time"]:
        ratios = np.array([row[by] for row in rows])
        print(
            f"\n{by}: {np.sum(ratios > 1)} of {len(rows)} above 1, geometric mean {np.exp(np.log(ratios).mean()):.3f}"
        )
        for row in sorted(rows, key=lambda row: -row[by])[:5]:
            print(f"  {row[by]:.3f}  {row['shape']}", "" if by == "memory" else f"(median {row['median']:.3f})")
    if args.save:
        settings = {"seed": SEED, "rounds": ROUNDS, "dtype": "float32"}
        found = {"machine": machine_record(), "settings": settings, "shapes": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
