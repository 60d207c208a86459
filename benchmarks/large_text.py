"""What a large text costs `rnn-jax train`: seconds until the first step is done, and the memory of the process.

python benchmarks/large_text.py            # texts of 10 MB, 100 MB and 1 GB: prints the table
python benchmarks/large_text.py --save     # and keeps it in benchmarks/results/large_text.json

The texts are the sources of Python's standard library, again and again, with a number before each line. Each row is a
process of its own. The cache of tokens is empty for the first row of a size, and filled by it for the second.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "large_text.json"
SIZES = {"10 MB": 10**7, "100 MB": 10**8, "1 GB": 10**9}
OPTIONS = ["--hidden-size", "32", "--steps", "50", "--eval-every", "50"]


def write_text(path, size):
    """Write `size` bytes of text."""
    lines = [
        line
        for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        if source.read_bytes().isascii()
        for line in source.read_text().splitlines()
    ]
    number, left = 0, size
    with open(path, "w") as file:
        while left:
            text = "".join(f"{number + i} {line}\n" for i, line in enumerate(lines))[:left]
            file.write(text)
            number, left = number + len(lines), left - len(text)


def timed(seconds, module, name):
    """Keep how long a function takes, each time it is called."""
    function = getattr(module, name)

    def call(*args):
        start = time.perf_counter()
        result = function(*args)
        seconds[name] = time.perf_counter() - start
        return result

    setattr(module, name, call)


def measure(text, run):
    """Train in this process, and print the seconds and the memory as JSON."""
    start, seconds = time.perf_counter(), {}
    from rnn_jax._cli import before_jax, main

    timed(seconds, before_jax, "read_corpus")
    from rnn_jax._cli.training import outputs, train

    timed(seconds, train, "ngram_bits")
    append = outputs.append_metrics

    def append_metrics(folder, record):
        seconds.setdefault("first steps", time.perf_counter() - start)
        append(folder, record)

    outputs.append_metrics = append_metrics
    status = main.main(["train", text, "--run", run, *OPTIONS])
    if status:
        raise SystemExit(status)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "seconds to read the text": seconds["read_corpus"],
                "seconds for the baselines": seconds["ngram_bits"],
                "seconds until the first 50 steps are done": seconds["first steps"],
                "seconds of the command": time.perf_counter() - start,
                "peak MiB": peak / 2**10,
            }
        )
    )


def measured(text, run, cache):
    """The row of a new process."""
    words = [sys.executable, __file__, "--measure", str(text), str(run)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measure each size, without and with the cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    parser.add_argument("--measure", nargs=2, metavar=("TEXT", "RUN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure)
        return

    from rnn_jax._reporting.machine import machine_record

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            text = Path(folder) / "text.txt"
            write_text(text, size)
            for kind in ("first time", "second time"):
                row = measured(text, Path(folder) / f"{size} {kind}", Path(folder) / "cache")
                results[f"{name}, {kind}"] = row
                print(f"{name}, {kind}:", {key: round(value, 2) for key, value in row.items()}, flush=True)
    if given.save:
        found = {"machine": machine_record(), "options": OPTIONS, "results": results}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
