"""The benchmark of scaling: the formulas of its estimate, and the collectives of its programs on two CPU devices."""

import functools
import json
import os
import types
from pathlib import Path

import h100_hlo
import jax
import numpy as np
import pytest
import scaling
import scaling_estimate
from commands import as_users_have_it

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
SHAPE = (6, 4, 3, 8, 5)  # time, batch, in, hid, out
CLUSTER = scaling_estimate.Cluster(
    peak=1e6, launch=1e-3, per_node=2, in_node=100.0, between=50.0, hop_in_node=0.5, hop_between=3.0
)


@pytest.mark.parametrize(
    ("devices", "seconds"),
    [
        (1, 0.0),
        (2, 2 * 1 / 2 * 1000 / 100 + 2 * 1 * 0.5),  # one node: each device sends all bytes once, two hops
        (4, 2 * 3 / 4 * 1000 / 50 + 2 * 1 * 0.5 + 2 * 1 * 3.0),  # two nodes
        (16, 2 * 15 / 16 * 1000 / 50 + 2 * 1 * 0.5 + 2 * 3 * 3.0),  # eight nodes: a tree of three levels
    ],
)
def test_the_time_of_an_all_reduce(devices, seconds):
    assert scaling_estimate.all_reduce_time(1000, devices, CLUSTER) == pytest.approx(seconds)


def test_the_time_of_a_step():
    """Of 6 steps, 4 sequences, 8 units: 4 * 6 * 4 * 64 = 6144 operations in the loops, 11136 outside."""
    assert scaling_estimate.operations(SHAPE) == 2 * 6 * 4 * (3 * 64 + 2 * 24 + 3 * 40) == 17280
    assert scaling_estimate.weight_bytes(SHAPE) == 4 * (24 + 64 + 8 + 40 + 5 + 1) == 568
    compute, added = scaling_estimate.step_time(SHAPE, 1, 2, CLUSTER)
    assert compute == pytest.approx(6144e-6 + 11136e-6)  # the launches take 6 ms, less than the products
    assert added == pytest.approx(568 / 100 + 1)
    bound_by_launches, _ = scaling_estimate.step_time(SHAPE, 2, 2, CLUSTER)
    assert bound_by_launches == pytest.approx(12e-3 + 11136e-6)


def test_the_rows_of_the_estimate():
    """With no cost of exchange, weak scaling is perfect; strong scaling ends where launches bind."""
    free = CLUSTER._replace(in_node=1e30, between=1e30, hop_in_node=0.0, hop_between=0.0)
    estimate = functools.partial(scaling_estimate.estimate, SHAPE, 1, cluster=free)
    weak = estimate(batch=4, grows=True)
    assert [row["efficiency"] for row in weak] == pytest.approx([1] * len(weak))
    strong = {row["devices"]: row for row in estimate(batch=1024, grows=False)}
    assert strong[8]["batch of a device"] == 128 and strong[8]["efficiency"] == pytest.approx(1)
    assert strong[1024]["compute ms"] == pytest.approx(6 + 11136e-3 / 4)  # launches, and one sequence's products
    assert strong[1024]["speed"] == pytest.approx(256 * (6144 + 11136) / (6000 + 11136 / 4))


@functools.cache
def compiled(name):
    """The program of a contender, its arguments, and its module."""
    with as_users_have_it():
        contender = scaling.CONTENDERS[name]
        fn, shardings = scaling.program(contender, jax.devices()[: contender.devices])
        args = jax.tree.map(jax.device_put, scaling.problem(SHAPE), shardings)
        program = fn.lower(*args).compile()
        return program, args, h100_hlo.read_module(program)


def test_the_batch_needs_one_all_reduce():
    """One per gradient, outside all loops, of the bytes that the estimate assumes."""
    *_, module = compiled("2 devices, batch")
    assert list(h100_hlo.exchanges(module)) == [("all-reduce", 1, scaling_estimate.weight_bytes(SHAPE), False)]


def test_the_operations_are_those_of_the_formula():
    """Each device does half of them."""
    *_, module = compiled("2 devices, batch")
    assert 2 * h100_hlo.operations(module) == scaling_estimate.operations(SHAPE)


def test_hidden_units_need_a_collective_per_step_and_direction():
    """A gather forward and a scatter back, at each step, each of a state of the batch."""
    *_, module = compiled("2 devices, hidden, by hand")
    time, batch, _, hid, out = SHAPE
    in_loops = [exchange for exchange in h100_hlo.exchanges(module) if exchange.in_a_loop]
    assert sorted(in_loops) == [
        ("all-gather", time, 4 * batch * hid, True),
        ("reduce-scatter", time, 4 * batch * hid // 2, True),
    ]
    (once,) = [exchange for exchange in h100_hlo.exchanges(module) if not exchange.in_a_loop]
    assert once == ("all-reduce", 1, 4 * time * batch * out, False)  # the outputs


@pytest.mark.parametrize("name", [name for name, of in scaling.CONTENDERS.items() if of.devices == 2])
def test_every_split_computes_the_same_gradient(name):
    found, expected = (program(*args) for program, args, _ in (compiled(name), compiled("1 device, 1 core")))
    for mine, its in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, its, rtol=2e-5, atol=1e-6)


def test_another_gradient_is_refused():
    values = [[2.0, 1.0], [3.0, -1.0]]
    scaling.require_equal(values, values, "it")
    with pytest.raises(AssertionError, match="it computes another gradient"):
        scaling.require_equal([[2.0, 1.0], [3.0, -1.1]], values, "it")


def test_what_other_processes_use(tmp_path):
    """All cores' user, nice, system and stolen time, less user and system time of our processes."""
    (tmp_path / "stat").write_text("cpu  1000 20 300 9999 50 0 7 4 0 0\ncpu0 1 2 3\n")
    of_pid = {os.getpid(): (100, 10), 123456: (600, 14)}
    for pid, (user, system) in of_pid.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / f"{pid}/stat").write_text(f"{pid} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {user} {system} 5 5 20 0")
    ticks = scaling.seconds_of_others([types.SimpleNamespace(pid=123456)], tmp_path) * os.sysconf("SC_CLK_TCK")
    assert ticks == pytest.approx(1324 - 724)


def test_the_page_has_the_estimate():
    for batch, grows in scaling_estimate.BATCHES.values():
        rows = scaling_estimate.estimate(scaling_estimate.ESTIMATED, scaling_estimate.LAUNCHES, batch, grows)
        assert scaling_estimate.estimate_table(rows) in PAGE.read_text(encoding="utf-8"), "python benchmarks/scaling.py"


def test_the_committed_figures():
    """They come from a free machine, and the page quotes them."""
    if not scaling.RESULTS.exists():
        pytest.skip("not measured yet")
    found = json.loads(scaling.RESULTS.read_text())
    assert found["cores used by others"] <= scaling.MOST_BY_OTHERS
    assert scaling.table(found) in PAGE.read_text(encoding="utf-8"), "python benchmarks/scaling.py --table"
