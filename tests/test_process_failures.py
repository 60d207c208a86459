"""One of several processes fails, dies, hangs, is late or gets a signal: all end, and the run resumes."""

import os
import signal
import sys
import threading
import time

import pytest
from commands import REAL_TEXT, SMALL, losses, process, train
from groups import LONG, children, ended, free_port, started, until_saved, variables

from rnn_jax._cli.processes import alive, messages
from rnn_jax._reporting.signals import signals

WAIT = 15  # seconds; on a busy machine, the first process needs several for its first picture


def test_stopped_by_sigterm_and_resumed_to_the_bit(tmp_path):
    """A signal to any process is one to all: here to the second, then to the launcher."""
    short = [*LONG[:-1], "300", "--drop-between", "0.1"]
    train(tmp_path, REAL_TEXT, *short, "--processes", 2, call=process)
    uninterrupted = losses(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "whole")
    first = started(tmp_path, REAL_TEXT, *short, "--processes", 2, environment={})
    until_saved(tmp_path / "run")
    os.kill(children(first)[1], signal.SIGTERM)
    [(status, out, err)] = ended([first])
    assert status == 143 and "Traceback" not in err and "rnn-jax train --resume run" in out, err
    second = started(tmp_path, "--resume", "run", "--processes", 2, environment={})
    time.sleep(5)
    second.send_signal(signal.SIGTERM)
    [(status, _, err)] = ended([second])
    assert "Traceback" not in err, err
    if status:
        train(tmp_path, "--resume", "run", "--processes", 2, call=process)
    assert losses(tmp_path / "run") == uninterrupted


def test_a_signal_that_another_process_told_is_no_second_one():
    """Of Slurm's SIGTERM, that of another machine may come first; the own one must not interrupt what is saved."""
    with signals() as received:
        received[:] = [signal.SIGTERM]  # told by another process
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_failure_is_not_told_for_ever(monkeypatch, capsys):
    """The first process hangs, so its service does not answer: this process ends all the same."""
    hangs = threading.Event()
    monkeypatch.setattr(messages, "tell", lambda *_: hangs.wait(60))
    monkeypatch.setattr(os, "_exit", sys.exit)
    one = object.__new__(alive.Alive)
    one.index, one.size, one.leaving = 1, 2, threading.Lock()
    began = time.monotonic()
    with pytest.raises(SystemExit):
        one.fail(alive.Failure(1, 1, "it has waited"))
    hangs.set()
    assert time.monotonic() - began < alive.LATER + 1 and capsys.readouterr().err == "rnn-jax: it has waited\n"


def test_a_killed_process_ends_all_and_the_run_resumes(tmp_path):
    parent = started(tmp_path, REAL_TEXT, *LONG, "--processes", 2, "--wait-seconds", WAIT, environment={})
    until_saved(tmp_path / "run")
    pids = children(parent)
    os.kill(pids[1], signal.SIGKILL)
    began = time.monotonic()
    [(status, _, err)] = ended([parent])
    assert time.monotonic() - began < WAIT + 10
    assert status == 1 and "process 1 of 2 was ended by SIGKILL, so the others end too" in err and "Trace" not in err
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    more = max(losses(tmp_path / "run")) + 50
    out = train(tmp_path, "--resume", "run", "--processes", 2, "--steps", more, call=process)
    assert "from step " in out and "from step 0 " not in out


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_hangs_ends_all(tmp_path, stopped):
    """Stopped by SIGSTOP, as a machine that no longer answers: the other process says which one, and ends in time."""
    port = free_port()
    args = [REAL_TEXT, *LONG, "--wait-seconds", WAIT]
    both = [started(tmp_path, *args, environment=variables(2, index, port)) for index in (0, 1)]
    until_saved(tmp_path / "run")
    both[stopped].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    [(status, _, err)] = ended([both[1 - stopped]])
    assert time.monotonic() - began < 2 * WAIT + 5
    both[stopped].kill()
    ended([both[stopped]])
    said = f"process {stopped} of 2: on " if stopped else "process 1 of 2 ends: process 0 "
    assert said in err and f"has not been heard of for {WAIT} seconds" in err, err
    assert status == 1 and "Traceback" not in err
    assert "from step 0 " not in train(tmp_path, "--resume", "run", "--steps", max(losses(tmp_path / "run")) + 50)


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_does_not_start(tmp_path, index):
    environment = variables(2, index, free_port())
    args = [REAL_TEXT, "--run", "run", *SMALL, "--wait-seconds", 3]
    [(status, out, err)] = ended([started(tmp_path, *args, environment=environment)])
    assert status == 2 and "all processes must start within 3 seconds (--wait-seconds)" in err, (status, out, err)
    assert "Traceback" not in err and not (tmp_path / "run").exists()


def test_processes_with_different_texts(tmp_path):
    """A folder that is not shared: the first process says which one reads another text, and all end."""
    port, both = free_port(), []
    for index in (0, 1):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "text.txt").write_text(f"the text of machine {index}. " * 500)
        environment = variables(2, index, port)
        both.append(started(tmp_path / str(index), "text.txt", "--run", "run", *SMALL, environment=environment))
    (first, _, err), (second, _, silent) = ended(both)
    assert (first, second) == (2, 2) and silent == ""
    assert "process 1 of 2: all processes must read the same text, but on " in err and "is its folder shared?" in err
    assert not any((tmp_path / str(index) / "run").exists() for index in (0, 1))


def test_a_run_that_is_not_finite_ends_all(tmp_path):
    """The first process says why, once."""
    args = ["--run", "run", *SMALL, "--learning-rate", "1e30", "--max-skipped", 3, "--activation", "identity"]
    result = process("train", REAL_TEXT, *args, "--processes", 2, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.count("became infinite or NaN") == 1, result.stderr
    assert "Traceback" not in result.stderr and (tmp_path / "run" / "diagnosis.txt").exists()


def test_a_refusal_comes_from_the_first_process(tmp_path):
    for args in (["missing.txt"], ["--resume", "missing"], [REAL_TEXT, "--window", 10**7]):
        result = process("train", *args, "--processes", 2, cwd=tmp_path)
        assert result.returncode == 2 and result.stdout == "", result.stdout
        assert result.stderr.startswith("rnn-jax: ") and "Traceback" not in result.stderr, result.stderr
        assert result.stderr.count("rnn-jax: ") == 1, result.stderr


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_process_ends_last(monkeypatch, index):
    """Without its service, JAX would abort the others, and print where."""
    happened = []
    monkeypatch.setattr(messages, "tell", lambda name, _: happened.append(f"tells {name}"))
    monkeypatch.setattr(messages, "wait_for", lambda name, _: happened.append(f"waits for {name}"))
    monkeypatch.setattr(messages, "heard", lambda _: '[0, 2, "why"]')
    monkeypatch.setattr(os, "_exit", sys.exit)
    one = object.__new__(alive.Alive)
    one.index, one.size, one.leaving = index, 3, threading.Lock()
    with pytest.raises(SystemExit, match="2"):
        one.fail(alive.Failure(0, 2, "why"))
    waits = ["waits for ends/1", "waits for ends/2"] if index == 0 else ["tells ends/1"]
    assert happened == ["tells failed", *waits]


def test_a_launcher_that_is_killed_ends_its_processes(tmp_path):
    """They save, and do not go on for ever."""
    parent = started(tmp_path, REAL_TEXT, *LONG, "--processes", 2, environment={})
    until_saved(tmp_path / "run")
    pids = children(parent)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stderr.close()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    saved = max(int(path.name) for path in (tmp_path / "run" / "checkpoint").iterdir())
    assert saved == max(losses(tmp_path / "run"))
