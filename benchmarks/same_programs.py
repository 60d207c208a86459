"""Whether a change of the source changed a program: the StableHLO of 62 programs, before and after.

    git worktree add ../before COMMIT
    python benchmarks/same_programs.py ../before/src          # against this checkout

Each checkout lowers the programs in a process of its own. Names (of the module, of functions, of results) and locations
do not count. Where the text differs, the operations may still be the same in another order; where they are not, both
programs are compiled and run: equal output bits, temporary bytes and counts of compiled operations are listed. The exit
status is 1 if anything differs in outputs, bytes or operations.
"""

import argparse
import collections
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def programs():
    """`name -> (function, arguments)` of every program; methods by name, and as values where the package has them."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_num_cpu_devices", 2)
    import rnn_jax
    from rnn_jax import Plan

    namespaces = not hasattr(rnn_jax, "anatomy")  # before there were any, all names stood at the top
    verify, analysis = (rnn_jax.verify, rnn_jax.analysis) if namespaces else (rnn_jax, rnn_jax)
    Case, make_problem = verify.Case, verify.make_problem

    cases = {
        "flags": Case(time=13, batch=(4,), num_layers=2, weights=True, mask=True, reset=True, last="some"),
        "plain": Case(time=12, batch=(4,), num_layers=2),
        "leak": Case(time=12, batch=(4,), num_layers=2, leak=0.3, mask=True, drop=True),
        "tokens": Case(time=12, batch=(4,), num_layers=1, inputs="tokens"),
    }

    def gradient(method, case, **options):
        params, batch, h_0 = make_problem(case, dtype=jnp.float32)
        if method == "randomised":
            batch = batch._replace(key=jax.random.key(0))
        return make(method, case, options), (params, batch, h_0)

    def make(method, case, options):
        devices, shared = options.pop("devices", None), {"loss": case.loss, "reduction": case.reduction}
        if "compute_dtype" in options:
            shared["compute_dtype"] = options.pop("compute_dtype")
        if not hasattr(rnn_jax, "Blocked"):  # before methods were values
            of_devices = {} if devices is None else {"devices": devices}
            return rnn_jax.make_grad_fn(method, **shared, **options, **of_devices)
        value = rnn_jax.GRADIENTS[method].kind(**options)
        return rnn_jax.make_grad_fn(value if devices is None else rnn_jax.Sharded(value, devices), **shared)

    found = {}
    for name, case in cases.items():
        for method in ("autodiff", "stepwise", "bptt", "blocked"):
            found[f"{method}, {name}"] = gradient(method, case)
        for plan in (Plan(4), Plan(2, (4,), 3), Plan(2, (6, 3), 2)):
            found[f"blocked {(plan.block, plan.segments, plan.keep)}, {name}"] = gradient("blocked", case, plan=plan)
        found[f"truncated 3 3, {name}"] = gradient("truncated", case, k1=3, k2=3)
        found[f"truncated 2 5, {name}"] = gradient("truncated", case, k1=2, k2=5)
        found[f"truncated 2 5 planned, {name}"] = gradient("truncated", case, k1=2, k2=5, plan=Plan(2, (4,), 2))
        found[f"adaptive, {name}"] = gradient("adaptive", case, k1=2, bias=0.5)
        found[f"randomised, {name}"] = gradient("randomised", case, mean_reach=3.0)
        found[f"last_steps, {name}"] = gradient("last_steps", case, k=3)
    found["blocked, two devices"] = gradient("blocked", cases["flags"], devices=jax.devices())
    found["blocked, bfloat16"] = gradient("blocked", cases["leak"], compute_dtype=jnp.bfloat16)
    found["bptt, two steps a turn"] = gradient("bptt", cases["plain"], unroll=2)
    found["blocked, two steps a turn"] = gradient("blocked", cases["plain"], unroll=2)

    params, batch, h_0 = problem = make_problem(cases["leak"], dtype=jnp.float32)
    layer = params.cells[0], h_0[0], batch.inputs

    def loss(cell, h, xs):
        return jnp.sum(rnn_jax.unroll_bptt(cell, h, xs, mask=batch.mask) ** 2)

    first = jax.grad(loss)
    found["unroll_bptt, grad"] = jax.grad(loss, (0, 1, 2)), layer
    found["unroll_bptt, jvp"] = lambda *args: jax.jvp(loss, args, args), layer
    found["unroll_bptt, vmap"] = jax.vmap(lambda x, h: rnn_jax.unroll_bptt(layer[0], h, x), (1, 0)), layer[:0:-1]
    found["unroll_bptt, grad of grad"] = jax.grad(lambda cell: jnp.sum(first(cell, *layer[1:]).w_hh ** 2)), layer[:1]
    options = {"loss": cases["leak"].loss}
    found["anatomy"] = lambda *args: analysis.anatomy(*args, lags=3, k1=2, k2=5, **options), problem
    found["step_gradients"] = lambda *args: analysis.step_gradients(*args, **options), problem
    return found


def lowered(names):
    """For each program its StableHLO; for those named in `names` also what the compiled one does."""
    import jax
    import numpy as np

    found = {}
    for name, (fn, args) in programs().items():
        program = jax.jit(fn).lower(*args)
        found[name] = {"text": program.as_text()}
        if name in names:
            compiled = program.compile()
            bits = hashlib.sha256()
            for leaf in jax.tree.leaves(compiled(*args)):
                bits.update(np.asarray(leaf).tobytes())
            operations = collections.Counter(re.findall(r"= \S+ ([\w-]+)\(", compiled.as_text()))
            found[name]["compiled"] = {
                "output bits": bits.hexdigest(),
                "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
                "operations": dict(sorted(operations.items())),
            }
    return found


def without_names(text):
    """The program without locations and the names of functions and results."""
    text = re.sub(r"\s*loc\([^)]*\)|^#loc.*$", "", text, flags=re.M)
    text = re.sub(r'jax\.result_info = "[^"]*"', "", text)
    return re.sub(r"@[\w.]+", "@", text)


def in_any_order(text):
    """The operations as a multiset, whatever their order and the names of their operands."""
    text = re.sub(r"%[\w#:]+", "%", without_names(text))
    return sorted(line.strip() for line in text.splitlines())


def from_checkout(source, names=()):
    """What `lowered` finds in the package under `source`, in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        environment = os.environ | {"PYTHONPATH": str(source), "JAX_PLATFORMS": "cpu"}
        subprocess.run(
            [sys.executable, __file__, "--lower", file.name, *names], env=environment, check=True, stdout=sys.stderr
        )
        return json.loads(Path(file.name).read_text())


def main():
    """Lower in both checkouts, compare, and compile what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", nargs="?", type=Path, help="the `src` folder of the other checkout")
    parser.add_argument("--lower", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.lower:
        file, *names = args.lower
        Path(file).write_text(json.dumps(lowered(set(names))))
        return 0
    if args.before is None or not (args.before / "rnn_jax").is_dir():
        parser.error(f"`before` must be the `src` folder of another checkout, got {args.before}")
    before, after = (from_checkout(source) for source in (args.before.resolve(), SOURCE))
    if set(before) != set(after):
        parser.error(f"the checkouts have different programs: {sorted(set(before) ^ set(after))}")
    texts = {name: [without_names(side[name]["text"]) for side in (before, after)] for name in before}
    equal = [name for name, (mine, its) in texts.items() if mine == its]
    reordered = [n for n in texts if n not in equal and in_any_order(texts[n][0]) == in_any_order(texts[n][1])]
    rest = [name for name in texts if name not in equal and name not in reordered]
    print(f"{len(equal)} of {len(texts)} programs have the same text, {len(reordered)} the same operations reordered")
    print(f"{len(rest)} differ" + (", compiled:" if rest else ""))
    if not rest:
        return 0
    before, after = (from_checkout(source, rest) for source in (args.before.resolve(), SOURCE))
    worst = 0
    for name in rest:
        mine, its = before[name]["compiled"], after[name]["compiled"]
        differing = [what for what in mine if mine[what] != its[what]]
        worst = worst or bool(differing)
        print(
            f"  {name}: " + (f"differs in {', '.join(differing)}" if differing else "same bits, bytes and operations")
        )
        if "temporary bytes" in differing:
            print(f"    temporary bytes: {mine['temporary bytes']} -> {its['temporary bytes']}")
        if "operations" in differing:
            counts = [collections.Counter(side["operations"]) for side in (mine, its)]
            changed = {op: counts[1][op] - counts[0][op] for op in sorted(counts[0] | counts[1])}
            print("    operations: " + ", ".join(f"{op} {by:+}" for op, by in changed.items() if by))
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
