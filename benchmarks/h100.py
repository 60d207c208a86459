"""The gradients as an H100 would run them: compiled for H100, not executed, on a machine that needs none.

    python -m pip install flatbuffers
    python -m pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2   # JAX's version; no driver
    python benchmarks/h100.py            # prints the tables
    python benchmarks/h100.py --save     # and keeps them in benchmarks/results/h100.json and h100.md
    python benchmarks/h100.py --check    # exits with 1 and a sentence for each claim that does not hold

XLA's compiler for GPUs runs on the CPU; `h100.txtpb` tells it what it compiles for (the values of openxla/xla's pull
request 25919). Without a GPU it cannot try out tiles, so a real run may choose other kernels for the products. The
counts are the same on each run, but belong to one version of XLA: `--check` passes over all JAX but 0.10.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import h100_claims
import h100_table

from rnn_jax._reporting.machine import machine_record

COMPILE = Path(__file__).with_name("h100_compile.py")
RESULTS = Path(__file__).parent / "results" / "h100.json"
GRAPH_FLAGS = (
    "--xla_gpu_enable_command_buffer=+WHILE,+DYNAMIC_SLICE_FUSION",
    "--xla_gpu_command_buffer_unroll_loops=true",
)
PLUGINS = ("xla_cuda12", "xla_cuda13")
COUNTED_WITH = "0.10."
CELLS = ("vanilla", "gru", "lstm")
DEVICES = 8


def measure() -> dict[str, Any]:
    """The facts of each contender, by cell and shape on one device; on eight those of the first."""
    problems = [{"cell": cell, "shape": shape} for cell in CELLS for shape in (0, 1)]
    plain = [problem | {"precision": None, "devices": 1} for problem in problems]
    highest = [job | {"precision": "highest"} for job in plain]
    *single, sharded = compile_under((), [*plain, *highest, plain[0] | {"devices": DEVICES}])
    graphs = compile_under(GRAPH_FLAGS, plain)
    one_device = {}
    for default, exact, graph in zip(single[: len(plain)], single[len(plain) :], graphs, strict=True):
        one_device[default["problem"]] = {
            name: facts
            | {"tf32_products_at_highest": exact["programs"][name]["tf32_products"]}
            | {"atomics_at_highest": exact["programs"][name]["atomics"]}
            | {"thunks_with_graph_flags": graph["programs"][name]["thunks"]}
            for name, facts in default["programs"].items()
        }
    return {
        "compiled for": "NVIDIA H100 80GB HBM3, not executed",
        "machine": machine_record(("jax", "jaxlib")),
        "graph flags": list(GRAPH_FLAGS),
        "one device": one_device,
        f"{DEVICES} devices": {sharded["problem"]: sharded["programs"]},
    }


def compile_under(flags: tuple[str, ...], jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The facts of all jobs, compiled under these flags; XLA reads flags once a process, so in one of their own."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "jobs.json"), Path(folder, "facts.json")
        asked.write_text(json.dumps(jobs))
        environment = os.environ | {
            "XLA_FLAGS": " ".join((f"--xla_dump_to={folder}", "--xla_dump_hlo_as_text", *flags)),
            "H100_DUMP": folder,
            "JAX_PLATFORMS": "cpu",  # the plug-in then registers its compiler without looking for a driver
            "JAX_ENABLE_COMPILATION_CACHE": "false",  # nothing is dumped of what is not compiled
        }
        command = [sys.executable, str(COMPILE), str(asked), str(answered)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        if child.returncode:
            sys.exit(f"The compilation failed:\n{child.stderr[-4000:]}")
        return json.loads(answered.read_text())


def why_not(check: bool) -> str | None:
    """Why nothing can be compiled here, or checked; None if it can."""
    if importlib.util.find_spec("jax_plugins") is None or not any(map(_has_plugin, PLUGINS)):
        return "JAX's CUDA plug-in (jax-cuda12-plugin and jax-cuda12-pjrt) is not installed"
    version = metadata.version("jax")
    if check and not version.startswith(COUNTED_WITH):
        return f"the counts are claimed for JAX {COUNTED_WITH}*, this is {version}"
    return None


def _has_plugin(name: str) -> bool:
    return importlib.util.find_spec(f"jax_plugins.{name}") is not None


def main() -> int:
    """Print the tables; keep or check them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep them in {RESULTS.name} and h100.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim does not hold")
    options = parser.parse_args()
    if reason := why_not(options.check):
        print(f"skipped: {reason}")
        return 0
    facts = measure()
    text = h100_table.markdown(facts)
    print(text)
    if options.save:
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(text + "\n")
    broken = list(h100_claims.broken(facts)) if options.check else []
    for sentence in broken:
        print(f"broken: {sentence}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
