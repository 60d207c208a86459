"""An estimate, on paper, of the step of training on many devices: compute, then one all-reduce, with no overlap."""

import math
from typing import NamedTuple


class Cluster(NamedTuple):
    """What the estimate assumes. Bandwidths are in bytes per second in one direction, latencies in seconds."""

    peak: float  # operations per second
    launch: float  # seconds of one kernel at least
    per_node: int  # devices
    in_node: float  # bandwidth of a device to the others of its node
    between: float  # bandwidth of a node: all its network cards
    hop_in_node: float
    hop_between: float


# Data sheets: H100 SXM, TF32 without sparsity and NVLink; DGX H100, eight cards of 400 Gbit/s.
# Latencies: those of the rings ("Simple") in NCCL's own model, src/graph/tuning.cc. A launch: our assumption.
ASSUMED = Cluster(494.7e12, 3e-6, 8, 450e9, 8 * 50e9, 3.4e-6, 9.6e-6)
DEVICES = (1, 8, 64, 256, 1024)


def operations(shape):
    """Multiplications and additions of all products of a gradient, without that of the inputs."""
    time, batch, inputs, hid, out = shape
    return 2 * time * batch * (3 * hid * hid + 2 * inputs * hid + 3 * hid * out)


def weight_bytes(shape, itemsize=4):
    """What one all-reduce adds up: the weight gradients and the loss."""
    _, _, inputs, hid, out = shape
    return itemsize * (inputs * hid + hid * hid + hid + hid * out + out + 1)


def all_reduce_time(num_bytes, devices, cluster=ASSUMED):
    """Seconds: each device sends 2 (N - 1) / N of the bytes; a ring in a node, a ring or a tree between nodes."""
    if devices == 1:
        return 0.0
    inside = min(devices, cluster.per_node)
    nodes = math.ceil(devices / cluster.per_node)
    bandwidth = cluster.in_node if nodes == 1 else min(cluster.in_node, cluster.between)
    hops = min(nodes - 1, math.ceil(math.log2(nodes)))
    latency = 2 * (inside - 1) * cluster.hop_in_node + 2 * hops * cluster.hop_between
    return 2 * (devices - 1) / devices * num_bytes / bandwidth + latency


def step_time(shape, launches, devices, cluster=ASSUMED):
    """Seconds of a gradient of the part `shape` of the batch on each device, and of the all-reduce after it.

    The loops cannot be faster than their launches, `launches` per step; the other products run at the peak.
    """
    time, batch, _, hid, _ = shape
    in_loops = 4 * time * batch * hid * hid
    loops = max(in_loops / cluster.peak, time * launches * cluster.launch)
    compute = loops + (operations(shape) - in_loops) / cluster.peak
    return compute, all_reduce_time(weight_bytes(shape), devices, cluster)


def estimate(shape, launches, batch, grows, cluster=ASSUMED):
    """A row for each number of devices; the batch is that of each device (`grows`) or of all."""
    rows, alone = [], sum(step_time(with_batch(shape, batch), launches, 1, cluster))
    for devices in DEVICES:
        part = batch if grows else max(batch // devices, 1)
        compute, added = step_time(with_batch(shape, part), launches, devices, cluster)
        done = devices * part / batch / (compute + added) * alone
        row = {"devices": devices, "batch of a device": part, "compute ms": compute * 1e3, "all-reduce ms": added * 1e3}
        rows.append(row | {"speed": done, "efficiency": done / devices})
    return rows


def estimate_table(rows):
    """Rows of `estimate` in Markdown."""
    lines = [
        "| devices | sequences of a device | compute, ms | all-reduce, ms | speed | efficiency |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        devices, batch, compute, added, speed, efficiency = row.values()
        lines.append(f"| {devices} | {batch} | {compute:.2f} | {added:.3f} | {speed:.1f} | {efficiency:.3f} |")
    return "\n".join(lines)


def with_batch(shape, batch):
    """The same sizes for another batch."""
    return (shape[0], batch, *shape[2:])


ESTIMATED = (128, 64, 64, 1024, 64)
LAUNCHES = 2.25 + 2.38  # of a step, forward and back, with `unroll=8`: results/h100.json
BATCHES = {"weak scaling, 64 sequences on each device": (64, True), "strong scaling, 8192 sequences": (8192, False)}
