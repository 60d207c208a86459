"""Three ways to give the unroll its hand-written derivative, and what `vmap` costs: time and memory, side by side.

    python benchmarks/derivative_forms.py            # prints the tables of docs/transformations.md
    python benchmarks/derivative_forms.py --save     # and keeps them in benchmarks/results/derivative_forms.json

The contenders of a row take turns in one process, each call blocked until ready; the ratio is the median over rounds of
the ratio to the first. `temp` is what XLA reserves beside arguments and results (`memory_analysis`).
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import rnn_jax
from rnn_jax._nn.events import Events
from rnn_jax._nn.layer import Layer
from rnn_jax._nn.loops import forward
from rnn_jax._nn.unroll_bptt import _fallback
from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "derivative_forms.json"
SIZES = [(128, 32, 64, 256), (512, 16, 64, 128), (50, 32, 128, 512)]  # time, batch, in, hid
ROUNDS = 15


def custom_vjp(cell, h_0, xs):
    """The fallback of `unroll_bptt`: stable interface, no forward mode."""
    return _fallback((cell, h_0, xs, Events(), None))


@jax.custom_jvp
def custom_jvp(cell, h_0, xs):
    """A tangent recurrence that JAX transposes: stable interface, both modes, the reverse pass not written by hand."""
    return forward(Layer(cell), h_0, xs, Events())[0]


@custom_jvp.defjvp
def _(primals, tangents):
    (cell, h_0, xs), (cell_dot, h_0_dot, xs_dot) = primals, tangents
    hs = custom_jvp(cell, h_0, xs)
    h_tm1s = jnp.concatenate([h_0[None], hs[:-1]])
    u = xs_dot @ cell.w_xh + xs @ cell_dot.w_xh + cell_dot.b_h + h_tm1s @ cell_dot.w_hh

    def body(h_tm1_dot, now):
        slope_t, u_t = now
        h_t_dot = slope_t * (u_t + h_tm1_dot @ cell.w_hh)
        return h_t_dot, h_t_dot

    return hs, lax.scan(body, h_0_dot, (1 - hs * hs, u))[1]


def per_sequence(unroll):
    """The same states, written for one sequence and vmapped over the batch."""
    return lambda cell, h_0, xs: jax.vmap(lambda h, x: unroll(cell, h, x), (0, 1), 1)(h_0, xs)


def gradient(unroll):
    """Jitted value and gradient with respect to weights, state and inputs."""
    return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(unroll(*args))), argnums=(0, 1, 2)))


def of_ensemble(unroll):
    """Value and gradient of eight networks on the same data."""
    fn = jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(unroll(*args))))
    return jax.jit(jax.vmap(fn, (0, None, None)))


def problem(size, members=None):
    """`(cell, h_0, xs)` in float32, the cell with an axis of members if asked."""
    steps, batch, in_size, hid = size
    keys = jax.random.split(jax.random.key(0), 3)
    make = lambda key: rnn_jax.init_params(key, input_size=in_size, hidden_size=hid, output_size=1).cells[0]  # noqa: E731
    cell = make(keys[0]) if members is None else jax.vmap(make)(jax.random.split(keys[0], members))
    return cell, jax.random.normal(keys[1], (batch, hid)), jax.random.normal(keys[2], (steps, batch, in_size))


def race(contenders, args):
    """Milliseconds and MiB of temporaries of each, and the median ratio of its time to the first one's."""
    compiled = {name: fn.lower(*args).compile() for name, fn in contenders.items()}
    for fn in compiled.values():
        jax.block_until_ready(fn(*args))
    seconds = {name: [] for name in compiled}
    for _ in range(ROUNDS):
        for name, fn in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(fn(*args))
            seconds[name].append(time.perf_counter() - start)
    first = np.array(next(iter(seconds.values())))
    return {
        name: {
            "ms": round(float(np.median(s)) * 1e3, 3),
            "ratio": round(float(np.median(np.array(s) / first)), 3),
            "temp_mib": round(compiled[name].memory_analysis().temp_size_in_bytes / 2**20, 2),
        }
        for name, s in seconds.items()
    }


def main():
    """Run all races."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    by_hand, autodiff = rnn_jax.unroll_bptt, rnn_jax.unroll
    forms = {"custom_vjp": custom_vjp, "primitive": by_hand, "custom_jvp": custom_jvp, "plain scan": autodiff}
    batched = {"batch written in": by_hand, "vmap": per_sequence(by_hand), "vmap, custom_vjp": per_sequence(custom_vjp)}
    tables = {"gradient": {}, "grad of vmap": {}, "vmap, values": {}, "ensemble of 8": {}}
    for size in SIZES:
        name = "T{} B{} I{} H{}".format(*size)
        tables["gradient"][name] = race({k: gradient(f) for k, f in forms.items()}, problem(size))
        tables["grad of vmap"][name] = race({k: gradient(f) for k, f in batched.items()}, problem(size))
        tables["vmap, values"][name] = race({k: jax.jit(f) for k, f in batched.items()}, problem(size))
        pair = {"plain scan": of_ensemble(autodiff), "unroll_bptt": of_ensemble(by_hand)}
        tables["ensemble of 8"][name] = race(pair, problem(size, members=8))
    for title, rows in tables.items():
        print(f"\n{title}")
        for name, row in rows.items():
            for contender, f in row.items():
                print(
                    f"  {name:22} {contender:17} {f['ms']:9.3f} ms  {f['ratio']:6.3f} x  {f['temp_mib']:8.2f} MiB temp"
                )
    if save:
        settings = {"rounds": ROUNDS, "dtype": "float32"}
        found = {"machine": machine_record(), "settings": settings, "tables": tables}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
