"""Processes that train one network: started as a launcher starts them, waited for, found."""

import os
import re
import socket
import subprocess
import sys
import time

from commands import ENVIRONMENT, SMALL, losses

from rnn_jax._cli.processes import launcher

LONG = ["--run", "run", *SMALL[:-4], "--eval-every", "100", "--schedule", "constant", "--steps", "100000"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def variables(size, index, port):
    return {launcher.ADDRESS: f"127.0.0.1:{port}", launcher.SIZE: str(size), launcher.INDEX: str(index)}


def started(cwd, *args, environment):
    """`rnn-jax train ARGS`, started as a launcher starts it."""
    words = [sys.executable, "-m", "rnn_jax", "train", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(words, cwd=cwd, env=ENVIRONMENT | environment, start_new_session=True, **pipes)


def ended(processes, seconds=60):
    """`(status, output, errors)` of each process; they must end in time."""
    found = []
    deadline = time.monotonic() + seconds
    try:
        for one in processes:
            out, err = one.communicate(timeout=max(0.1, deadline - time.monotonic()))
            found.append((one.returncode, out, err))
    finally:
        for one in processes:
            one.kill()
    return found


def until_saved(run, step=100):
    """Wait until a run is past its first checkpoint."""
    deadline = time.monotonic() + 120
    while not (run / "checkpoint" / str(step)).exists() or max(losses(run), default=0) < step + 50:
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.02)


def children(parent):
    """The processes that one of ours has started, in the order of their numbers."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file, open(f"/proc/{name}/environ", "rb") as environ:
                if int(file.read().rpartition(")")[2].split()[1]) == parent.pid:
                    found[int(re.search(rb"JAX_PROCESS_ID=(\d+)", environ.read())[1])] = int(name)
        except (OSError, TypeError):  # it has ended meanwhile
            continue
    return [found[index] for index in sorted(found)]
