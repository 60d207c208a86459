"""Compiles programs for an H100 under the `XLA_FLAGS` of this process and writes down what they are.

A part of `h100.py`, which starts it as `h100_compile.py JOBS FACTS`, two JSON files, with flags that make XLA dump to
the folder named by H100_DUMP.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h100_hlo
import h100_programs
import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rnn_jax import Batch, Gradients

TARGET = Path(__file__).with_name("h100.txtpb")
DUMP_VARIABLE = "H100_DUMP"
ATOMIC = re.compile(r"\b(?:atom|red)\.")
TF32_PRODUCT = re.compile(r"\bw?g?mma\S*\.tf32\b")
THUNK = re.compile(r"^( *)\d+: k(\w+)", re.MULTILINE)


def compile_all(cell: str, shape: int, precision: str | None, devices: int) -> dict[str, Any]:
    """What the program of each contender is, once compiled, and for which cell and sizes."""
    sizes = h100_programs.SHAPES[shape]
    programs = {}
    for contender, grad_fn in h100_programs.contenders(cell).items():
        name = re.sub(r"\W+", "_", f"{cell} {contender} {shape} {precision} {devices}")
        with jax.default_matmul_precision(precision):
            compiled = _jitted(grad_fn, name, devices).lower(*h100_programs.arguments(cell, sizes)).compile()
        module = h100_hlo.read_module(compiled)
        facts = _loops(module, sizes) | _memory(compiled) | _dumped(name)
        programs[contender] = facts | {"collectives": h100_hlo.collectives(module)}
    return {"problem": f"{cell}, {sizes}", "programs": programs}


def _jitted(grad_fn: Callable[..., Any], name: str, devices: int) -> Any:
    """`grad_fn` for that many H100s, the batch shared out among them; the dumped files carry `name`."""

    def named(*args: Any) -> Any:
        return grad_fn(*args)

    named.__name__ = name
    topology = topologies.get_topology_desc(
        topology_name="h100", platform="cuda", topology=f"{devices}x1x1", target_config=TARGET.read_text()
    )
    mesh = Mesh(np.array(topology.devices), ("batch",), axis_types=(AxisType.Auto,))
    everywhere, state, steps = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("batch",), (None, "batch")))
    inputs = (everywhere, Batch(inputs=steps, targets=steps), (state,))
    outputs = ((everywhere, (state,)), Gradients(everywhere, (state,), steps))
    return jax.jit(named, in_shardings=inputs, out_shardings=outputs)


def _loops(module: h100_hlo.Module, shape: h100_programs.Shape) -> dict[str, Any]:
    """Launches a time step of each loop over steps, launches a turn of each loop around those, and of the whole."""
    loops = list(h100_hlo.loops(module))
    steps = [loop for loop in loops if loop.innermost]
    return {
        "launches_per_step": [round(loop.launches * loop.turns / shape.time, 2) for loop in steps],
        "products_per_step": [round(len(loop.products) * loop.turns / shape.time, 2) for loop in steps],
        "weight_gradients_of_a_step": sum(_is_weight_gradient(p, shape) for loop in loops for p in loop.products),
        "launches_per_block": [loop.launches for loop in loops if not loop.innermost],
        "launches": h100_hlo.total_launches(module),
    }


def _is_weight_gradient(product: h100_hlo.Product, shape: h100_programs.Shape) -> bool:
    """A sum over the sequences of one step. One over a block of steps has more terms: that is how it should be."""
    return product.terms == shape.batch not in (product.left, product.right)


def _memory(compiled: Any) -> dict[str, int]:
    memory = compiled.memory_analysis()
    return {"temp_bytes": memory.temp_size_in_bytes, "peak_bytes": memory.peak_memory_in_bytes}


def _dumped(name: str) -> dict[str, Any]:
    """What only the files say that XLA dumps: the machine code's products and atomics, the launch list's graphs."""
    folder = Path(os.environ[DUMP_VARIABLE])
    code = [path.read_text() for path in folder.glob(f"*.jit_{name}.*.ptx")]
    (thunks,) = folder.glob(f"*.jit_{name}.*thunk_sequence_after_thunk_passes.txt")
    if not code:
        raise RuntimeError(f"No machine code of {name} was dumped.")
    return {
        "kernels": len(code),
        "atomics": sum(len(ATOMIC.findall(text)) for text in code),
        "tf32_products": sum(len(TF32_PRODUCT.findall(text)) for text in code),
        "thunks": [kind for indent, kind in THUNK.findall(thunks.read_text()) if not indent],
    }


def main() -> None:
    """Compile the jobs of one file, write their facts, in order, to another."""
    jobs, facts = map(Path, sys.argv[1:])
    facts.write_text(json.dumps([compile_all(**job) for job in json.loads(jobs.read_text())]))


if __name__ == "__main__":
    main()
