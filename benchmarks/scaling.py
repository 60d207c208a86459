"""One gradient on one core, two cores, two devices and two processes, by splitting the batch or the hidden units.

    python benchmarks/scaling.py            # prints the tables of docs/scaling.md
    python benchmarks/scaling.py --save     # and keeps them in benchmarks/results/scaling.json
    python benchmarks/scaling.py --table    # prints what is kept, as in docs/scaling.md

Float32, vanilla tanh, one layer, cross-entropy. Each contender has its own process (or two), rounds are interleaved,
and a gradient that differs from that of one core is refused. Collectives and operations are counted in the compiled
programs; with JAX's CUDA plug-in (see h100.py) also in one for eight H100s. The last tables are an estimate, not a
measurement: `step_time` is its formula, `ASSUMED` its inputs. The machine must be free: `--save` ends with an error
after the first shape during which other processes used more than a tenth of a core.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import h100
import h100_hlo
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from scaling_estimate import ASSUMED, BATCHES, ESTIMATED, LAUNCHES, estimate, estimate_table
from sequences import name_of

import rnn_jax
from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "scaling.json"
SHAPES = [(64, 64, 64, 256, 64), (64, 64, 64, 1024, 64), (64, 32, 64, 1024, 64), (64, 32, 64, 2048, 64)]  # T B I H O
ROUNDS, SHORTEST = 7, 0.1  # a round lasts at least so many seconds
AGREE = 1e-4  # relative to the norm of each leaf of the gradient
MOST_BY_OTHERS = 0.1  # cores that other processes may use while we measure
AXIS = "devices"


class Contender(NamedTuple):
    """How many processes, devices in each and cores of each; `split` is the axis that the devices share out.

    Processes "apart" do not know of each other: each has half of the batch. No split can be faster than they are.
    """

    processes: int
    devices: int
    cores: int
    split: str
    how: str = ""


CONTENDERS = {
    "1 device, 1 core": Contender(1, 1, 1, ""),
    "1 device, 2 cores": Contender(1, 1, 2, ""),
    "2 processes, half each, nothing shared": Contender(2, 1, 1, "", "apart"),
    "2 devices, batch": Contender(1, 2, 2, "batch"),
    "2 processes, batch": Contender(2, 1, 1, "batch"),
    "2 devices, hidden, compiler, autodiff": Contender(1, 2, 2, "hidden", "autodiff"),
    "2 devices, hidden, compiler, blocked": Contender(1, 2, 2, "hidden", "blocked"),
    "2 devices, hidden, by hand": Contender(1, 2, 2, "hidden", "by hand"),
    "2 processes, hidden, by hand": Contender(2, 1, 1, "hidden", "by hand"),
}
EXCHANGE = {  # the loops of "by hand" without their products
    "2 devices": Contender(1, 2, 2, "hidden", "exchange"),
    "2 devices, nothing exchanged": Contender(1, 2, 2, "hidden", "no exchange"),
    "2 processes": Contender(2, 1, 1, "hidden", "exchange"),
    "2 processes, nothing exchanged": Contender(2, 1, 1, "hidden", "no exchange"),
}


# The programs


def problem(shape):
    """Parameters, a batch and first states as NumPy arrays."""
    time, batch, inputs, hid, out = shape
    rng = np.random.default_rng(0)
    draw = lambda scale, *dims: (scale * rng.standard_normal(dims)).astype(np.float32)  # noqa: E731
    cell = rnn_jax.CellParams(draw(0.1, inputs, hid), draw(hid**-0.5, hid, hid), draw(0.1, hid))
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(draw(hid**-0.5, hid, out), draw(0.1, out)))
    targets = rng.integers(0, out, (time, batch), dtype=np.int32)
    return params, rnn_jax.Batch(inputs=draw(1.0, time, batch, inputs), targets=targets), (draw(0.1, batch, hid),)


def specs(split):
    """Which axis of each array the devices share out: of `params`, `batch` and `h_0`."""
    of = lambda *axes: PartitionSpec(*(AXIS if axis and axis == split else None for axis in axes))  # noqa: E731
    cell = rnn_jax.CellParams(of("", "hidden"), of("", "hidden"), of("hidden"))
    params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(of("hidden", ""), of("")))
    return params, rnn_jax.Batch(inputs=of("", "batch", ""), targets=of("", "batch")), (of("batch", "hidden"),)


def program(contender, devices):
    """The jitted loss and weight gradients, and the sharding of each of its arguments."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    over_mesh = lambda tree: jax.tree.map(lambda spec: NamedSharding(mesh, spec), tree)  # noqa: E731
    arguments, whole = specs(contender.split), NamedSharding(mesh, PartitionSpec())
    if contender.how in ("by hand", "exchange", "no exchange"):
        fn = hidden_by_hand if contender.how == "by hand" else exchange(contender.how == "exchange", len(devices))
        of_values = (PartitionSpec(), arguments[0]) if contender.how == "by hand" else PartitionSpec(None, AXIS)
        fn = jax.shard_map(fn, mesh=mesh, in_specs=arguments, out_specs=of_values, check_vma=False)
        return jax.jit(fn), over_mesh(arguments)
    method = rnn_jax.Autodiff() if contender.how == "autodiff" else rnn_jax.Blocked()
    if contender.split == "batch":
        method = rnn_jax.Sharded(method, devices)
    grad_fn = rnn_jax.make_grad_fn(method, loss="cross_entropy")

    def loss_and_weights(params, batch, h_0):
        (loss, _), gradients = grad_fn(params, batch, h_0)
        return loss, gradients.params

    shardings = over_mesh(arguments)
    return jax.jit(loss_and_weights, in_shardings=shardings, out_shardings=(whole, shardings[0])), shardings


def hidden_by_hand(params, batch, h_0):
    """Each device computes its columns of `h_{t-1} W_hh`: it gathers `h_{t-1}`, and scatters `d_a_t W_hh^T` back."""
    ((w_xh, w_hh, b_h),), (w_hy, b_y) = ((c.w_xh, c.w_hh, c.b_h) for c in params.cells), params.readout
    xs, targets = batch.inputs, batch.targets

    def forward(h_tm1, z_t):
        met = lax.all_gather(h_tm1, AXIS, axis=1, tiled=True)
        h_t = jnp.tanh(z_t + met @ w_hh)
        return h_t, (h_t, met)

    _, (hs, met) = lax.scan(forward, h_0[0], xs @ w_xh + b_h)
    log_p = jax.nn.log_softmax(lax.psum(hs @ w_hy, AXIS) + b_y)
    chosen = targets[..., None] == jnp.arange(b_y.size)
    d_ys = (jnp.exp(log_p) - chosen) / targets.size

    def backward(d_h, of_step):
        h_t, d_h_out = of_step
        d_a = (d_h + d_h_out) * (1 - h_t**2)
        return lax.psum_scatter(d_a @ w_hh.T, AXIS, scatter_dimension=1, tiled=True), d_a

    _, d_as = lax.scan(backward, jnp.zeros_like(h_0[0]), (hs, d_ys @ w_hy.T), reverse=True)
    product = lambda left, right: jnp.einsum("tbi,tbk->ik", left, right)  # noqa: E731
    d_cell = rnn_jax.CellParams(product(xs, d_as), product(met, d_as), jnp.sum(d_as, (0, 1)))
    readout = rnn_jax.ReadoutParams(product(hs, d_ys), jnp.sum(d_ys, (0, 1)))
    return -jnp.sum(log_p * chosen) / targets.size, rnn_jax.Params((d_cell,), readout)


def exchange(really, num_devices):
    """The loops of `hidden_by_hand` without products, with its collectives or without."""

    def loops(params, batch, h_0):
        del params
        steps = jnp.zeros(batch.inputs.shape[0])
        width = h_0[0].shape[-1]

        def forward(h, z):
            met = lax.all_gather(h, AXIS, axis=1, tiled=True) if really else jnp.tile(h, num_devices)
            return met[:, :width] + z, None

        def backward(d, z):
            wide = jnp.tile(d, num_devices) + z
            return lax.psum_scatter(wide, AXIS, scatter_dimension=1, tiled=True) if really else wide[:, :width], None

        h_T, _ = lax.scan(forward, h_0[0], steps)
        return lax.scan(backward, h_T, steps)[0]

    return loops


# One process of a contender


def worker(contender, shape, rank, port):
    """Compile, say what the program is and what it computes; then one round for each line of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # gloo greets on standard output
    os.sched_setaffinity(0, [rank] if contender.cores == 1 else range(contender.cores))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", contender.devices)
    if contender.how == "apart":
        shape = with_batch(shape, shape[1] // contender.processes)
    elif contender.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=contender.processes, process_id=rank)
    fn, shardings = program(contender, jax.devices())
    place = lambda x, on: jax.make_array_from_callback(x.shape, on, lambda part: x[part])  # noqa: E731
    args = jax.tree.map(place, problem(shape), shardings)
    compiled = fn.lower(*args).compile()
    module = h100_hlo.read_module(compiled)
    found = {"exchanges": [e._asdict() for e in h100_hlo.exchanges(module)], "operations": h100_hlo.operations(module)}
    found["by cost_analysis"] = compiled.cost_analysis().get("flops")
    values = jax.block_until_ready(compiled(*args))
    if contender.how not in ("exchange", "no exchange", "apart"):
        leaves = jax.tree.leaves(jax.jit(lambda tree: jax.tree.map(fingerprint, tree))(values))
        found["values"] = [np.asarray(leaf).tolist() for leaf in leaves]
    print(json.dumps(found), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            jax.block_until_ready(compiled(*args))
        print(json.dumps((time.perf_counter() - start) / int(line)), file=answers, flush=True)


def fingerprint(x):
    """The norm, and the sum with weights that differ from entry to entry."""
    wave = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    return jnp.stack([jnp.sqrt(jnp.sum(x**2)), jnp.sum(wave * x)])


def start(group, name, shape):
    """The processes of a contender."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--worker", group, name, json.dumps(shape)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ranks = range(GROUPS[group][name].processes)
    return [subprocess.Popen([*command, str(rank), str(port)], env=environment, **pipes) for rank in ranks]


def asked(processes, line=None):
    """What each process answers."""
    for process in processes:
        if line is not None:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
    answers = [process.stdout.readline() for process in processes]
    if not all(answers):
        raise RuntimeError(f"A process ended: {processes[0].args}.")
    return [json.loads(answer) for answer in answers]


GROUPS = {"gradient": CONTENDERS, "exchange": EXCHANGE}


def measured(group, shape):
    """By contender: milliseconds, speed relative to the first, what the program does; and cores used by others."""
    running = {}
    try:
        for name in GROUPS[group]:
            running[name] = start(group, name, shape)
        facts = {name: asked(processes)[0] for name, processes in running.items()}
        first = next(iter(facts))
        for name, found in facts.items():
            require_equal(found.pop("values", None), facts[first].get("values") if name != first else None, name)
        repeats = {name: math.ceil(SHORTEST / max(asked(processes, 1))) for name, processes in running.items()}
        seconds = {name: [] for name in running}
        every = sum(running.values(), [])
        begin, others = time.perf_counter(), seconds_of_others(every)
        for _ in range(ROUNDS):
            for name, processes in running.items():
                seconds[name].append(max(asked(processes, repeats[name])))
        others = (seconds_of_others(every) - others) / (time.perf_counter() - begin)
    finally:
        every = sum(running.values(), [])
        for process in every:
            process.stdin.close()  # the worker ends; those of `jax.distributed` wait for each other
        for process in every:
            stop(process)
    rows = {
        name: {
            "ms": round(statistics.median(of_name) * 1e3, 3),
            "range": [round(min(of_name) * 1e3, 3), round(max(of_name) * 1e3, 3)],
            "speed": round(statistics.median(b / s for b, s in zip(seconds[first], of_name, strict=True)), 3),
            **facts[name],
        }
        for name, of_name in seconds.items()
    }
    return rows, round(others, 3)


def seconds_of_others(processes, proc=Path("/proc")):
    """Seconds of all cores so far, without those of these processes and of this one."""
    user, nice, system, _, _, _, _, stolen = map(int, (proc / "stat").read_text().split()[1:9])
    total = user + nice + system + stolen
    for pid in (os.getpid(), *(process.pid for process in processes)):
        fields = (proc / f"{pid}/stat").read_text().rpartition(")")[2].split()
        total -= int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def stop(process):
    """Wait until the process ends, and kill it if it does not."""
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def require_equal(values, of_first, name):
    """Raise if a loss or a gradient differs from that of the first contender."""
    for mine, its in zip(values or [], of_first or values or [], strict=True):
        if not np.allclose(mine, its, rtol=0, atol=AGREE * its[0]):
            raise AssertionError(f"{name} computes another gradient: {mine} instead of {its}.")


def h100_exchanges(devices=8):
    """The collectives of the gradient sharded over that many H100s, compiled, not executed."""
    if reason := h100.why_not(False):
        return f"skipped: {reason}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--compile-for-h100", str(devices)]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def compile_for_h100(devices):
    """Print the collectives of the compiled program."""
    target = Path(__file__).with_name("h100.txtpb").read_text()
    topology = topologies.get_topology_desc(
        topology_name="h100", platform="cuda", topology=f"{devices}x1x1", target_config=target
    )
    fn, shardings = program(CONTENDERS["2 devices, batch"], list(topology.devices))
    shapes = problem(ESTIMATED)
    of = lambda x, on: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on)  # noqa: E731
    module = h100_hlo.read_module(fn.lower(*jax.tree.map(of, shapes, shardings)).compile())
    print(json.dumps([exchange._asdict() for exchange in h100_hlo.exchanges(module)]))


def main():
    """Measure, count and estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    parser.add_argument("--table", action="store_true", help=f"print the tables of {RESULTS.name}, measure nothing")
    parser.add_argument("--shapes", nargs="*", type=int, default=range(len(SHAPES)), help="which shapes are measured")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--compile-for-h100", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        group, name, shape, rank, port = options.worker
        return worker(GROUPS[group][name], json.loads(shape), int(rank), int(port))
    if options.compile_for_h100:
        return compile_for_h100(options.compile_for_h100)
    if options.table:
        return print(table(json.loads(RESULTS.read_text())))
    found = {"machine": machine_record(), "settings": {"rounds": ROUNDS, "dtype": "float32"}}
    found["cores used by others"] = 0.0
    for group in GROUPS:
        found[group] = {}
        for shape in (SHAPES[i] for i in options.shapes):
            rows, others = measured(group, shape)
            found[group][name_of(shape)] = rows
            found["cores used by others"] = max(found["cores used by others"], others)
            print(f"\n{group}, {name_of(shape)}; others used {others} cores")
            if options.save and others > MOST_BY_OTHERS:
                sys.exit(f"Other processes used {others} cores meanwhile: measure again when the machine is free.")
            for name, row in rows.items():
                print(
                    f"  {name:38} {row['ms']:9.3f} ms  {row['speed']:6.3f} x  {summary(row['exchanges'])}", flush=True
                )
    found["8 H100s, compiled, not executed"] = h100_exchanges()
    print(f"\n8 H100s: {found['8 H100s, compiled, not executed']}")
    found["estimate, not measured"] = {"assumed": ASSUMED._asdict(), "shape": name_of(ESTIMATED)}
    for title, (batch, grows) in BATCHES.items():
        rows = found["estimate, not measured"][title] = estimate(ESTIMATED, LAUNCHES, batch, grows)
        print(f"\n{title}, {name_of(ESTIMATED)}: an estimate, not measured\n{estimate_table(rows)}")
    if options.save:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def table(found):
    """The gradients' milliseconds and speeds, and microseconds of one collective, in Markdown."""
    shapes = list(found["gradient"])
    lines = [f"| | {' | '.join(shapes)} |", "|---|" + "---|" * len(shapes)]
    for name in CONTENDERS:
        rows = [found["gradient"][shape][name] for shape in shapes]
        lines.append(f"| {name} | " + " | ".join(f"{row['ms']:.1f} ms, {row['speed']:.2f}" for row in rows) + " |")
    for name in ("2 devices", "2 processes"):
        cells = []
        for shape in shapes:
            rows = found["exchange"][shape]
            turns = sum(exchange["turns"] for exchange in rows[name]["exchanges"])
            alone = rows[name]["ms"] - rows[f"{name}, nothing exchanged"]["ms"]
            cells.append(f"{turns} x {alone / turns * 1e3:.0f} µs")
        lines.append(f"| the collectives alone, {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(exchanges):
    """`1 all-reduce of 0.42 MB`, and what runs in loops as often as it runs."""
    return "; ".join(f"{e['turns']} {e['kind']} of {e['bytes'] / 1e6:.3f} MB" for e in exchanges) or "no collective"


if __name__ == "__main__":
    main()
