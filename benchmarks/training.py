"""`rnn-jax train` as a process: seconds of its first and of its second start, and its memory over many steps.

    python benchmarks/training.py --save

The second start finds the compiled programs of the first (`rnn_jax/compiled` in the folder of caches). Both train one
call of the default network, and take turns. The memory is that of the process, every `EVERY` steps of a small network.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from rnn_jax._reporting.machine import machine_record

RESULTS = Path(__file__).parent / "results" / "training.json"
COMMAND = [sys.executable, "-m", "rnn_jax", "train"]
SMALL = ["--hidden-size", "16", "--streams", "4", "--window", "20", "--eval-every", "5000"]
STEPS, EVERY, ROUNDS = 100_000, 10_000, 5


def start(folder, caches):
    """Seconds from the start of a process to its end after 50 steps, and of these, what the run itself counts."""
    words = [*COMMAND, "--run", str(folder), "--steps", "50", "--eval-every", "50"]
    begin = time.perf_counter()
    subprocess.run(words, env=_environment(caches), check=True, capture_output=True)
    whole = time.perf_counter() - begin
    return whole, json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]


def _environment(caches):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return environment | {"XDG_CACHE_HOME": str(caches)}


def starts(cwd):
    """Medians over rounds, each with empty caches of its own."""
    rows = {"first start": [], "second start": []}
    for number in range(ROUNDS):
        for name, of_name in rows.items():
            of_name.append(start(cwd / f"{name}-{number}", cwd / f"caches-{number}"))
    return {
        name: {
            "seconds": statistics.median(row[0] for row in of_name),
            "of the run": statistics.median(row[1] for row in of_name),
        }
        for name, of_name in rows.items()
    }


def memory(cwd):
    """MiB of the process after each `EVERY` steps, and the steps per second."""
    text = Path(sysconfig.get_path("stdlib")) / "textwrap.py"
    words = [*COMMAND, str(text), "--run", str(cwd / "long"), *SMALL, "--steps", str(STEPS)]
    process = subprocess.Popen(words, env=_environment(cwd / "caches"), stdout=subprocess.DEVNULL)
    path, found, begin = cwd / "long" / "metrics.jsonl", {}, time.perf_counter()
    while process.poll() is None:
        time.sleep(0.05)
        lines = path.read_text().splitlines() if path.exists() else []
        with_step = [line for line in lines[-1:] if line.endswith("}")]
        step = json.loads(with_step[0])["step"] if with_step else 0
        if step and step // EVERY not in found:
            status = Path(f"/proc/{process.pid}/status").read_text().split()
            found[step // EVERY] = round(int(status[status.index("VmRSS:") + 1]) / 1024, 1)
    assert process.returncode == 0
    return {
        "steps a second": round(STEPS / (time.perf_counter() - begin)),
        "MiB": {f"{at * EVERY}": mib for at, mib in found.items()},
    }


def main():
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    with tempfile.TemporaryDirectory() as folder:
        results = {"starts": starts(Path(folder)), "memory": memory(Path(folder))}
    print(json.dumps(results, indent=1))
    if save:
        RESULTS.write_text(json.dumps({"machine": machine_record(), **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
