"""`rnn-jax sweep` and its runs as processes: signals, kills, several at a time."""

import os
import re
import signal
import subprocess
import time

import pytest
from commands import COMMAND, ENVIRONMENT, REAL_TEXT, metrics
from sweeps import TINY, in_this_process, same_numbers, sweep

from rnn_jax._reporting.lock import LOCK, locked

REAL = [
    "--over",
    "hidden-size=4,6",
    "--seeds",
    "1",
    "--run",
    "s",
    "--steps",
    "3000",
    *map(str, TINY),
    "--eval-every",
    "500",
]


@pytest.fixture(scope="module")
def uninterrupted(made_once):
    def make(cwd):
        with in_this_process():
            sweep(cwd, REAL_TEXT, *REAL)

    return made_once("swept-uninterrupted", make) / "s"


def start(cwd, *more):
    args = [str(COMMAND), "sweep", str(REAL_TEXT), *REAL, *more]
    return subprocess.Popen(args, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(process, run):
    deadline = time.monotonic() + 120
    while not (run / "checkpoint" / "500").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def test_ctrl_c_and_sigterm_save_the_cell_that_runs(uninterrupted, tmp_path):
    """The status is that of the signal; what the cell did is saved; nothing is lost, to the bit."""
    for number, status, size in ((signal.SIGTERM, 143, 4), (signal.SIGINT, 130, 6)):
        process = start(tmp_path)
        run = tmp_path / f"s/hidden-size={size}/seed-0"
        wait_for_checkpoint(process, run)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (status, "")
        assert f"hidden-size={size}, seed 0: stopped\nstopped; what was trained is kept in 's', and the same" in out
        with locked(run):  # no process trains it any more
            saved = {int(path.name) for path in (run / "checkpoint").iterdir()}
        assert max(saved) < 3000 and max(saved) == max(r["step"] for r in metrics(run))
    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "") and out.count("(kept)") == 1
    same_numbers(tmp_path / "s", uninterrupted)


def test_a_sweep_that_is_killed_goes_on(uninterrupted, tmp_path):
    """After kill -9 of the sweep its run goes on, and the same command says so. Then that is killed, too."""
    process = start(tmp_path)
    run = tmp_path / "s/hidden-size=4/seed-0"
    wait_for_checkpoint(process, run)
    trainer = int((run / LOCK).read_text().split()[1])
    os.kill(trainer, signal.SIGSTOP)  # it does not end by itself
    second = start(tmp_path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2 and f"'s' must not be in training already, but process {process.pid} on" in err
    process.kill()
    process.communicate()
    second = start(tmp_path)
    _, err = second.communicate(timeout=60)
    assert (
        second.returncode == 2
        and f"'s/hidden-size=4/seed-0' must not be in training already, but process {trainer}" in err
    )
    os.kill(trainer, signal.SIGKILL)
    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), err
    same_numbers(tmp_path / "s", uninterrupted)


def test_two_jobs_train_the_same(uninterrupted, tmp_path):
    out, err = start(tmp_path, "--jobs", "2").communicate(timeout=120)
    assert not err and len(re.findall(r"^hidden-size=\d, seed 0: best ", out, re.MULTILINE)) == 2
    same_numbers(tmp_path / "s", uninterrupted)
