"""The command: called in this process, or in a separate one if a test needs that."""

import contextlib
import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import jaxtyping

from rnn_jax._cli import main as cli

COMMAND = Path(sys.executable).with_name("rnn-jax")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "0")
XLA_FLAGS = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]  # one, as a user has it
ENVIRONMENT = os.environ | {  # a folder for each worker: JAX warns of what another process has half written there
    "COLUMNS": "200",
    "XLA_FLAGS": " ".join(XLA_FLAGS),
    "JAX_COMPILATION_CACHE_DIR": f"{os.environ['JAX_COMPILATION_CACHE_DIR']}-{WORKER}",
}
REAL_TEXT = Path(sysconfig.get_path("stdlib")) / "textwrap.py"
SMALL = ["--hidden-size", "16", "--streams", "4", "--window", "20", "--eval-every", "25", "--seed", "3"]
BRIEF = [*SMALL, "--schedule", "constant"]  # at a constant rate 25 steps are one program, however many follow


@contextlib.contextmanager
def unchecked():
    """Turn off the runtime checks of annotations, which only our tests have. They check arrays, not shapes."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextlib.contextmanager
def as_users_have_it():
    """The settings that JAX comes with, annotations unchecked."""
    with unchecked(), jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@contextlib.contextmanager
def jax_configured(settings):
    """Set settings of JAX by name, for all threads, as the environment does."""
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


class Said(NamedTuple):
    """The result of a call of the command."""

    returncode: int
    stdout: str
    stderr: str


class Terminal(io.StringIO):
    """A stream that counts as a terminal."""

    def isatty(self):
        """Yes."""
        return True


def command(*args, cwd, stdin="", out=io.StringIO) -> Said:
    """`rnn-jax ARGS` in the folder `cwd`, in this process."""
    out, err, before = out(), io.StringIO(), (os.getcwd(), sys.stdin)
    os.chdir(cwd)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), unchecked():
            status = cli.main([str(arg) for arg in args])
    except SystemExit as error:  # what tyro refuses
        status = error.code
    finally:
        os.chdir(before[0])
        sys.stdin = before[1]
    return Said(status, out.getvalue(), err.getvalue())


def process(*args, cwd, **environment) -> subprocess.CompletedProcess:
    """`rnn-jax ARGS` as a person starts it."""
    words, environment = [str(COMMAND), *map(str, args)], ENVIRONMENT | environment
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def train(cwd, *args, status=0, call=command):
    """What `rnn-jax train ARGS` prints, if it ends as it should."""
    result = call("train", *args, cwd=cwd)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr
    return result.stdout


def blank(path, *_):
    """Write an empty file instead of a picture."""
    path.touch()


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return {record["step"]: (record["bits"], record["grad_norm"]) for record in metrics(run) if "bits" in record}


def everything(folder):
    """Every file in a folder, and what is in it."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
