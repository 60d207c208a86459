"""What was tried inside the time-blocked gradient, each beside what it would replace: time and memory, side by side.

    python benchmarks/variants.py            # prints the tables
    python benchmarks/variants.py --save     # and keeps them in benchmarks/results/variants.json

As in derivative_forms.py the contenders of a row take turns in one process; a ratio is to the first, above 1 is slower.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from derivative_forms import ROUNDS, race
from jax import lax

import rnn_jax
from rnn_jax._gradients.plan import default_plan
from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "variants.json"
STEPS = [(8, 128), (32, 128), (64, 256), (32, 512), (64, 1024)]  # batch, hid
WIDE = [(700, 200, 10_000), (1024, 256, 10_000), (1600, 128, 64)]  # rows, hid, out
VOCABULARIES = [32, 100, 300, 1000, 10_000]
PROFILED = [(100, 32, 64, 128, 64), (256, 64, 128, 256, 128), (64, 64, 64, 1024, 64)]
OPTIONS = {
    "vectors of 512 bits": {"xla_cpu_prefer_vector_width": 512},
    "concurrent scheduler": {"xla_cpu_enable_concurrency_optimized_scheduler": True},
    "fast min max": {"xla_cpu_enable_fast_min_max": True},
}


def normal(*shape):
    """Numbers from a fixed seed."""
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def scan_in_place(body, carry, buffer):
    """`lax.scan` of `body(carry, buffer[t]) -> (carry, buffer[t])`, the new entries over the old ones."""

    def step(t, state):
        carry, buffer = state
        carry, new = body(carry, lax.dynamic_index_in_dim(buffer, t, keepdims=False))
        return carry, lax.dynamic_update_index_in_dim(buffer, new, t, 0)

    return lax.fori_loop(0, buffer.shape[0], step, (carry, buffer))


def forward_steps():
    """The recurrence of 100 steps: how the loop is written."""

    def scan(h, w, zs, unroll=1):
        return lax.scan(lambda h, z: (jnp.tanh(z + h @ w),) * 2, h, zs, unroll=unroll)[1]

    def in_place(h, w, zs):
        return scan_in_place(lambda h, z: (jnp.tanh(z + h @ w),) * 2, h, zs)[1]

    def transposed(h, w, zs):  # states (hid, batch): the large axis first
        return lax.scan(lambda h, z: (jnp.tanh(z + w @ h),) * 2, h.T, jnp.swapaxes(zs, 1, 2))[1]

    def halves(h, w, zs):  # two half batches in one body, independent of each other
        def body(carry, now):
            new = tuple(jnp.tanh(z + h @ w) for h, z in zip(carry, now, strict=True))
            return new, new

        return lax.scan(body, tuple(jnp.split(h, 2)), tuple(jnp.split(zs, 2, axis=1)))[1]

    contenders = {"scan": scan, "in place": in_place, "transposed": transposed, "two half batches": halves}
    contenders |= {f"unroll={u}": (lambda *a, u=u: scan(*a, unroll=u)) for u in (2, 8)}
    return {
        f"B{batch} H{hid}": race(
            {name: jax.jit(f) for name, f in contenders.items()},
            (normal(batch, hid), normal(hid, hid) / hid**0.5, normal(100, batch, hid)),
        )
        for batch, hid in STEPS
    }


def two_exponentials(ys, targets):
    """Cross-entropy with `log_softmax`, and `softmax` as its exponential."""
    log_p = jax.nn.log_softmax(ys)
    is_target = jax.nn.one_hot(targets, ys.shape[-1], dtype=bool)
    return -jnp.sum(jnp.where(is_target, log_p, 0), -1), jnp.exp(log_p) - is_target


def readouts():
    """Readout, loss and their gradients on one block of rows: the softmax, and the vocabulary in blocks."""

    def whole(loss):
        def fn(hs, w, targets):
            values, d_ys = loss(hs @ w, targets)
            return jnp.sum(values), d_ys @ w.T, hs.T @ d_ys

        return jax.jit(fn)

    def in_blocks(num_blocks):  # once over the vocabulary for the normaliser, once more for the gradients
        def fn(hs, w, targets):
            parts = jnp.moveaxis(w.reshape(w.shape[0], num_blocks, -1), 1, 0)
            first = jnp.arange(num_blocks) * parts.shape[-1]

            def normalise(carry, w_part):
                top, total = carry
                ys = hs @ w_part
                new_top = jnp.maximum(top, jnp.max(ys, -1))
                return (new_top, total * jnp.exp(top - new_top) + jnp.sum(jnp.exp(ys - new_top[:, None]), -1)), None

            start = jnp.full(hs.shape[0], -jnp.inf), jnp.zeros(hs.shape[0])
            (top, total), _ = lax.scan(normalise, start, parts)
            log_total = top + jnp.log(total)

            def gradients(carry, now):
                loss, d_hs = carry
                w_part, first = now
                ys = hs @ w_part
                is_target = first + jnp.arange(ys.shape[-1]) == targets[:, None]
                loss += jnp.sum(jnp.where(is_target, log_total[:, None] - ys, 0))
                d_ys = jnp.exp(ys - log_total[:, None]) - is_target
                return (loss, d_hs + d_ys @ w_part.T), hs.T @ d_ys

            (loss, d_hs), d_w = lax.scan(gradients, (jnp.zeros(()), jnp.zeros_like(hs)), (parts, first))
            return loss, d_hs, jnp.moveaxis(d_w, 0, 1).reshape(w.shape)

        return jax.jit(fn)

    contenders = {"one exponential": whole(rnn_jax.cross_entropy), "two": whole(two_exponentials)}
    contenders |= {"vocabulary in 4 blocks": in_blocks(4), "in 16 blocks": in_blocks(16)}
    return {
        f"{rows} rows, H{hid}, {out} classes": race(
            contenders, (normal(rows, hid), normal(hid, out), jax.random.randint(jax.random.key(0), (rows,), 0, out))
        )
        for rows, hid, out in WIDE
    }


def token_gradients():
    """`d_W_xh` of 1024 tokens: rows added to, or a product with one-hot vectors."""

    def rows(tokens, d_as, w):
        return jnp.zeros_like(w).at[tokens].add(d_as, mode="drop", wrap_negative_indices=False)

    def product(tokens, d_as, w):
        return jax.nn.one_hot(tokens, w.shape[0], dtype=d_as.dtype, axis=0) @ d_as

    contenders = {"rows added to": jax.jit(rows), "product": jax.jit(product)}
    return {
        f"{size} tokens, H{hid}": race(
            contenders, (jax.random.randint(jax.random.key(0), (1024,), 0, size), normal(1024, hid), normal(size, hid))
        )
        for size in VOCABULARIES
        for hid in (128, 512)
    }


def parts():
    """Where the time of a blocked gradient goes: each part of one block by itself, times the number of blocks."""
    return {"T{} B{} I{} H{} O{}".format(*shape): parts_of(*shape) for shape in PROFILED}


def parts_of(time, batch, in_size, hid, out):
    """Milliseconds of one gradient at this shape, in its parts, and GFLOP/s of the products in them."""
    weights = normal(in_size, hid), normal(hid, hid) / hid**0.5, normal(hid, out)
    readout = rnn_jax.ReadoutParams(weights[-1], jnp.zeros(out))
    params = rnn_jax.Params((rnn_jax.CellParams(*weights[:2], jnp.zeros(hid), "tanh"),), readout)
    batch_of = rnn_jax.Batch(normal(time, batch, in_size), jnp.zeros((time, batch), int))
    block = default_plan(params, batch_of).block
    xs, hs = normal(block, batch, in_size), jnp.tanh(normal(block, batch, hid))
    ys, targets = normal(block, batch, out), jnp.zeros((block, batch), int)

    def forward_loop(zs, w):
        return lax.scan(lambda h, z: (jnp.tanh(z + h @ w),) * 2, zs[0], zs)

    def backward_loop(d_hs, hs, w):
        def body(d_h, now):
            d_read, h = now
            d_a = (d_h + d_read) * (1 - h * h)
            return d_a @ w, d_a

        return lax.scan(body, d_hs[0], (d_hs, hs), reverse=True)

    def sums(xs, hs, ys):
        return [jnp.tensordot(x, d, ((0, 1), (0, 1))) for x, d in ((xs, hs), (hs, hs), (hs, ys))]

    w_xh, w_hh, w_hy = weights
    named = {
        "input projection": (lambda xs, w: xs @ w, (xs, w_xh), in_size * hid),
        "forward loop": (forward_loop, (hs, w_hh), hid * hid),
        "readout": (lambda hs, w: hs @ w, (hs, w_hy), hid * out),
        "loss and softmax": (rnn_jax.cross_entropy, (ys, targets), 0),
        "to the states": (lambda ys, w: ys @ w.T, (ys, w_hy), hid * out),
        "backward loop": (backward_loop, (hs, hs, w_hh), hid * hid),
        "weight gradients": (sums, (xs, hs, ys), hid * (in_size + hid + out)),
    }
    found = {}
    for name, (fn, args, multiplications) in named.items():
        ms = race({name: jax.jit(fn)}, args)[name]["ms"] * time / block
        rate = 2e-6 * multiplications * time * batch / ms
        found[name] = {"ms": round(ms, 2), "gflops": round(rate, 1)}
    grad_fn = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))
    whole = race({"whole": grad_fn}, (params, batch_of, (jnp.zeros((batch, hid)),)))["whole"]["ms"]
    multiplications = 3 * hid * (in_size + hid + out) - in_size * hid
    return found | {"all of it": {"ms": whole, "gflops": round(2e-6 * multiplications * time * batch / whole, 1)}}


def compiler_options():
    """One blocked gradient under options of XLA."""
    params = rnn_jax.init_params(jax.random.key(0), input_size=64, hidden_size=128, output_size=64)
    batch = rnn_jax.Batch(normal(100, 32, 64), jax.random.randint(jax.random.key(0), (100, 32), 0, 64))
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    plain = {"default": jax.jit(grad_fn)}
    with_options = {name: jax.jit(grad_fn, compiler_options=options) for name, options in OPTIONS.items()}
    return {"T100 B32 I64 H128 O64": race(plain | with_options, (params, batch, rnn_jax.zero_state(params, 32)))}


def main():
    """Run all races."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    tables = {
        "the loop over 100 steps": forward_steps(),
        "readout and loss": readouts(),
        "the gradient of tokens": token_gradients(),
        "options of the compiler": compiler_options(),
    }
    profile = parts()
    for title, rows in tables.items():
        print(f"\n{title}")
        for name, row in rows.items():
            for contender, f in row.items():
                print(
                    f"  {name:28} {contender:24} {f['ms']:9.3f} ms  {f['ratio']:6.3f} x  {f['temp_mib']:8.2f} MiB temp"
                )
    print("\nwhere the time goes")
    for name, row in profile.items():
        for part, f in row.items():
            print(f"  {name:28} {part:24} {f['ms']:9.2f} ms  {f['gflops']:8.1f} GFLOP/s")
    if save:
        settings = {"rounds": ROUNDS, "dtype": "float32"}
        found = {"machine": machine_record(), "settings": settings, "tables": tables, "parts": profile}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
