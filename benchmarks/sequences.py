"""What masks, resets, leaks and packing cost, and what truncation saves: time and memory of one gradient, side by side.

    python benchmarks/sequences.py            # prints the tables
    python benchmarks/sequences.py --save     # and keeps them in benchmarks/results/sequences.json

As in derivative_forms.py the contenders of a row take turns in one process; a ratio is to the first, above 1 is slower.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from derivative_forms import ROUNDS, race

import rnn_jax
from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "sequences.json"
SHAPES = [(100, 8, 64, 128, 64), (100, 32, 64, 128, 64), (256, 64, 128, 256, 128), (1000, 16, 64, 128, 64)]
WINDOWS = [(10, 10), (10, 20), (10, 50), (50, 50), (50, 100)]


def name_of(shape):
    """`T100 B32 I64 H128 O64`."""
    return "T{} B{} I{} H{} O{}".format(*shape)


def gradient(batch, params, method="blocked", **options):
    """Jitted loss and weight gradients of one batch; of its arrays the inputs are what is given."""
    grad_fn = rnn_jax.make_grad_fn(rnn_jax.GRADIENTS[method].kind(**options), loss="cross_entropy")
    h_0 = rnn_jax.zero_state(params, batch.inputs.shape[1])

    def fn(params, inputs):
        (loss, _), gradients = grad_fn(params, batch._replace(inputs=inputs), h_0)
        return loss, gradients.params

    compiled = jax.jit(fn).lower(params, batch.inputs).compile()
    return Alone(compiled, (params, batch.inputs))


class Alone:
    """A compiled call with arguments of its own, for `race`, which hands the same to all."""

    def __init__(self, compiled, args):  # noqa: D107
        self.compiled, self.args = compiled, args
        self.memory_analysis = compiled.memory_analysis

    def lower(self):
        """What it is."""
        return self

    def compile(self):
        """What it is."""
        return self

    def __call__(self):
        """The gradient."""
        return self.compiled(*self.args)


def problem(shape, **options):
    """`(params, batch)` of a shape, from a fixed seed."""
    time, num, in_size, hid, out = shape
    sizes = {"input_size": in_size, "hidden_size": hid, "output_size": out}
    params = rnn_jax.init_params(jax.random.key(0), **sizes, **options)
    inputs = jax.random.normal(jax.random.key(1), (time, num, in_size))
    return params, rnn_jax.Batch(inputs, jax.random.randint(jax.random.key(2), (time, num), 0, out))


def flags(shape):
    """A gradient with masks and resets, and of leaky units, beside the plain one."""
    params, batch = problem(shape)
    leaky, _ = problem(shape, leak=0.2)
    mask = jax.random.bernoulli(jax.random.key(3), 0.9, batch.targets.shape)
    reset = jax.random.bernoulli(jax.random.key(4), 0.05, batch.targets.shape)
    contenders = {
        "plain": gradient(batch, params),
        "mask": gradient(batch._replace(mask=mask), params),
        "reset": gradient(batch._replace(reset=reset), params),
        "mask and reset": gradient(batch._replace(mask=mask, reset=reset), params),
        "leak": gradient(batch, leaky),
    }
    return race(contenders, ())


def packing(seed, num=256, longest=200):
    """Sequences whose lengths fall off geometrically, padded and packed."""
    lengths = np.clip(np.random.default_rng(seed).geometric(1 / 40, num), 1, longest)
    params, _ = problem((1, 1, 32, 128, 64))
    inputs = [np.random.default_rng(i).standard_normal((n, 32)).astype(np.float32) for i, n in enumerate(lengths)]
    targets = [np.random.default_rng(i).integers(0, 64, n).astype(np.int32) for i, n in enumerate(lengths)]
    padded, _ = rnn_jax.data.pad_sequences(inputs, targets)
    packed, _ = rnn_jax.data.pack_sequences(inputs, targets)
    rows = padded.inputs.shape[1], packed.inputs.shape[1], padded.inputs.shape[0]
    name = "{} sequences in {} rows of {}".format(*rows)
    return name, race({"padded": gradient(padded, params), "packed": gradient(packed, params)}, ())


def truncation(shape):
    """Windows beside the full gradient."""
    params, batch = problem(shape)
    contenders = {"full": gradient(batch, params)}
    for k1, k2 in WINDOWS:
        contenders[f"k1={k1} k2={k2}"] = gradient(batch, params, "truncated", k1=k1, k2=k2)
    contenders["adaptive k1=10, 10 %"] = gradient(batch, params, "adaptive", k1=10, bias=0.1)
    return race(contenders, ())


def main():
    """Run all races."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    tables = {
        "masks, resets, leaks": {name_of(shape): flags(shape) for shape in SHAPES},
        "packing": dict(packing(seed) for seed in (0, 1)),
        "truncation": {name_of(shape): truncation(shape) for shape in SHAPES[1:]},
    }
    for title, rows in tables.items():
        print(f"\n{title}")
        for name, row in rows.items():
            for contender, f in row.items():
                print(f"  {name:36} {contender:24} {f['ms']:9.3f} ms  {f['ratio']:6.3f} x  {f['temp_mib']:8.2f} MiB")
    if save:
        settings = {"rounds": ROUNDS, "dtype": "float32"}
        found = {"machine": machine_record(), "settings": settings, "tables": tables}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
