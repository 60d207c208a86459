"""Several processes train one network: the same numbers as one, and all end when one of them fails."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import ENVIRONMENT, REAL_TEXT, SMALL, command, losses, metrics, process, train

import rnn_jax
from rnn_jax._cli.processes import alive, launcher, messages, reading
from rnn_jax._cli.processes.group import ALONE, Group
from rnn_jax._cli.processes.placement import Placement, place
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training.model import initial_state, make_character_trainer, make_gradient
from rnn_jax._cli.training.steps import make_dispatch, make_next_batch
from rnn_jax._reporting.errors import InputError
from rnn_jax._reporting.signals import signals
from rnn_jax.data import _corpus as corpus_module
from rnn_jax.data._held_out import make_validate, prepare

GATED = ["--cell", "gru", "--drop-between", "0.1", "--drop-recurrent", "0.1"]
LONG = ["--run", "run", *SMALL[:-4], "--eval-every", "100", "--schedule", "constant", "--steps", "100000"]
WAIT = 15  # seconds; on a busy machine, the first process needs several for its first picture


def numbers(run, *, watched=False):
    """Every number of the training and the validations of a run, without times; or those of --watch."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in metrics(run)]
    return np.array(jax.tree.leaves([row for row in rows if ("watch" in row) == watched]), np.float64)


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


def compiled_dispatch(num_devices):
    """The optimised program of five steps on several devices."""
    config = TrainConfig(hidden_size=16, streams=4, window=20, drop_between=0.1)
    placement = place(ALONE, num_devices)
    trainer = make_character_trainer(config, 10, placement.devices)
    dispatch = make_dispatch(trainer, make_next_batch(config, 100), placement)
    state = jax.eval_shape(lambda: initial_state(config, trainer, 10))
    return dispatch.lower(state, jax.ShapeDtypeStruct((5, 21, 4), np.uint8)).compile().as_text()


@pytest.mark.usefixtures("annotations_unchecked")
def test_one_reduction_a_step():
    """Of the loss and all gradients together; the hidden states are gathered once, at the end of a call."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        lines = compiled_dispatch(2).splitlines()
    exchanges = [re.findall(r"\b(all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", line) for line in lines]
    reductions = [line for line, found in zip(lines, exchanges, strict=True) if "all-reduce" in found]
    assert sorted(itertools.chain(*exchanges)) == ["all-gather", "all-reduce"]
    assert "while/body" in reductions[0] and "f32[16,16]" in reductions[0]
    gathering = next(line for line, found in zip(lines, exchanges, strict=True) if "all-gather" in found)
    assert "while/body" not in gathering.partition("metadata")[2] and "f32[4,16]" in gathering


@pytest.mark.parametrize("num_devices", [2, 3, 4])
def test_devices_share_the_validation(num_devices):
    """Also where they do not have equally many streams, or one has none, and the last window is not full."""
    rng = np.random.default_rng(0)
    data = prepare(corpus_module.corpus_of_text("".join(rng.choice(list("abcde"), 2100))), 5, 20)
    assert data.held_out.shape == (21, 5) and data.held_out.shape[1] % num_devices
    params = rnn_jax.init_params(jax.random.key(0), input_size=5, hidden_size=4, output_size=5)
    alone, shared = (make_validate(data, "bptt", 8, None, devices) for devices in ((), jax.devices()[:num_devices]))
    np.testing.assert_allclose(shared(params), alone(params), rtol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_make_the_steps_of_one(tmp_path, size):
    """Losses, norms and validations in float64 to 1e-12; the rest of the run on one process goes on as well."""
    options = ["--dtype", "float64", *SMALL, *GATED, "--schedule", "constant", "--watch", "--watch-every", "50"]
    train(tmp_path, REAL_TEXT, "--run", "one", "--steps", 75, *options)
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 50, "--processes", size, *options, call=process)
    assert f"processes {size} with {size} devices in all, which share the streams" in out
    assert out.count("step 50:") == 1  # one process prints
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["processes"] == size
    before = "Before, the run had {}: it goes on with the same mathematics, but other rounding"
    assert before.format(size) in train(tmp_path, "--resume", "run", "--steps", 75)
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=1e-12)
    watched = [numbers(tmp_path / run, watched=True) for run in ("run", "one")]
    np.testing.assert_allclose(*watched, rtol=2e-5)  # they are rounded to six digits
    for run in ("run", "one"):
        assert sorted(path.name for path in (tmp_path / run / "checkpoint").iterdir()) == ["50", "75"]


@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-4), ("bfloat16", 0.1)])
def test_lower_precision_on_two_processes(tmp_path, dtype, rtol):
    options = ["--dtype", dtype, *SMALL, "--steps", 50]
    train(tmp_path, REAL_TEXT, "--run", "one", *options)
    train(tmp_path, REAL_TEXT, "--run", "run", "--processes", 2, *options, call=process)
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=rtol)


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


def test_of_a_large_text_only_the_own_streams_are_read(tmp_path, monkeypatch):
    """From the cache of the first process. Where it is not there, or damaged, all of the text is read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(corpus_module, "IN_MEMORY", 1)
    config = TrainConfig(files=(str(REAL_TEXT),))
    first = corpus_module.read_corpus(config.files)
    told = reading._about(first)
    assert Path(told["entry"]).parent == tmp_path / "rnn_jax" / "tokens"
    again = reading._corpus(config, told)
    assert (again.symbols, again.sha256, again.source) == (first.symbols, first.sha256, first.source)
    np.testing.assert_array_equal(again.tokens, first.tokens)

    def whole(*_):
        raise AssertionError("all of the text is read")

    monkeypatch.setattr(reading, "read_corpus", whole)
    reading._corpus(config, told)
    monkeypatch.undo()
    data, tokens = Path(told["entry"]).read_bytes(), first.tokens.copy()
    for damaged in (data[:-1], data[:1000] + data[1001:], b""):
        Path(told["entry"]).unlink()  # what is mapped stays as it is
        Path(told["entry"]).write_bytes(damaged)
        np.testing.assert_array_equal(reading._corpus(config, told).tokens, tokens)
    assert reading._corpus(config, told | {"entry": ""}).sha256 == first.sha256


def test_each_process_has_its_streams():
    """Together they have all, each of them once, in order."""
    streams = np.arange(12 * 5).reshape(5, 12)
    parts = [Placement(Group(3, index)).own_streams(streams) for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), streams)
    assert all(part.shape == (5, 4) and np.shares_memory(part, streams) for part in parts)


def test_only_the_first_process_needs_the_folder_of_the_run(tmp_path):
    """Nothing is written elsewhere, and a run that is not there on the other machines resumes all the same."""
    for steps in (25, 50):
        port, both = free_port(), []
        for index in (0, 1):
            (tmp_path / str(index)).mkdir(exist_ok=True)
            run = ["--resume", "run"] if steps == 50 else [REAL_TEXT, "--run", "run", *SMALL]
            environment = variables(2, index, port)
            both.append(started(tmp_path / str(index), *run, "--steps", steps, environment=environment))
        for status, _, err in ended(both, 120):
            assert status == 0, err
    assert not list((tmp_path / "1").iterdir())
    assert max(losses(tmp_path / "0" / "run")) == 50


def test_two_devices_of_each_process(tmp_path):
    """What a run and its continuation on four processes print is theirs alone."""
    options = ["--dtype", "float64", *SMALL, "--schedule", "constant"]
    train(tmp_path, REAL_TEXT, "--run", "one", "--steps", 50, *options)
    both = ["--processes", 2, "--devices", 2]
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *both, *options, call=process)
    assert "processes 2 with 4 devices in all" in out and "Gloo" not in out
    out = train(tmp_path, "--resume", "run", "--steps", 50, "--processes", 2, call=process)
    assert out.startswith("text") and "Gloo" not in out and "from step 25 " in out
    np.testing.assert_allclose(numbers(tmp_path / "run"), numbers(tmp_path / "one"), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")
def test_memory_for_a_part_of_the_batch():
    """What one process examines alone is planned like the training, which all share: it is not refused."""
    config = TrainConfig(hidden_size=16, streams=4, window=60, memory="15KB")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with pytest.raises(InputError, match="--memory 15KB is too little"):
            make_gradient(config, 150)
        make_gradient(config, 150, (), 2)


def test_a_run_that_is_not_finite_ends_all(tmp_path):
    """The first process says why, once."""
    args = ["--run", "run", *SMALL, "--learning-rate", "1e30", "--max-skipped", 3, "--activation", "identity"]
    result = process("train", REAL_TEXT, *args, "--processes", 2, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.count("became infinite or NaN") == 1, result.stderr
    assert "Traceback" not in result.stderr and (tmp_path / "run" / "diagnosis.txt").exists()


LAUNCHERS = {
    "Slurm": lambda index, port: {
        "SLURM_JOB_ID": str(port),
        "JAX_COORDINATOR_PORT": str(port),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    },
    "Open MPI": lambda index, port: {
        "OMPI_MCA_orte_hnp_uri": f"1531576320.0;tcp://127.0.0.1:{port}",
        "JAX_COORDINATOR_PORT": str(port),
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
    },
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers(tmp_path, name):
    """With the variables that they set."""
    port = free_port()
    args = [REAL_TEXT, "--run", "run", *SMALL, "--steps", 25]
    both = [started(tmp_path, *args, environment=LAUNCHERS[name](index, port)) for index in (0, 1)]
    (first, out, err), (second, nothing, _) = ended(both, 120)
    assert (first, second, nothing) == (0, 0, ""), err
    assert "processes 2 with 2 devices in all" in out


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI 4")
def test_open_mpi(tmp_path):
    """Started by it, and not only with its variables."""
    words = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "rnn_jax", "train"]
    args = [*map(str, [REAL_TEXT, "--run", "run", *SMALL, "--steps", 25])]
    result = subprocess.run([*words, *args], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.count("this network") == 1, result.stderr
    assert "processes 2 with 2 devices in all" in result.stdout and "Gloo" not in result.stdout


def test_one_process_asks_no_launcher(tmp_path):
    environment = LAUNCHERS["Slurm"](1, 1)
    args = [REAL_TEXT, "--run", "run", *SMALL, "--steps", 25, "--processes", 1]
    [(status, out, err)] = ended([started(tmp_path, *args, environment=environment)], 120)
    assert status == 0 and "this network" in out, err


@pytest.mark.parametrize("processes", [None, 2])
def test_without_a_launcher(tmp_path, processes):
    """In a pod, for example, that is no job: there is one process, or as many as are asked for."""
    args = [REAL_TEXT, "--run", "run", *SMALL, "--steps", 25] + ["--processes", 2] * (processes is not None)
    [(status, out, err)] = ended([started(tmp_path, *args, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})], 120)
    assert status == 0 and "this network" in out and ("processes 2" in out) == (processes == 2), err


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


def test_another_number_than_the_launcher_has_started(tmp_path):
    args, port = [REAL_TEXT, "--run", "run", *SMALL, "--processes", 4], free_port()
    both = [started(tmp_path, *args, environment=variables(2, index, port)) for index in (0, 1)]
    (first, _, err), (second, _, _) = ended(both)
    said = "--processes must be left out where a launcher starts the processes: it has started 2, got --processes 4."
    assert (first, second) == (2, 2) and said in err and not (tmp_path / "run").exists()


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


REFUSED = [
    (
        ["--streams", "6", "--processes", "4"],
        "--streams must be a multiple of the 4 devices of all processes, got 6.",
    ),
    (["-", "--processes", "2"], "FILE must be one that every process can read, got standard input."),
    (["--processes", "0"], "--processes must be from 1 to 1,024, got 0."),
    (["--wait-seconds", "0"], "--wait-seconds must be from 1 to 1e+06, got 0.0."),
]


@pytest.mark.parametrize("args, said", REFUSED)
def test_refused(tmp_path, args, said):
    result = command("train", *args, "--run", "run", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, f"rnn-jax: {said}\n")


WRONG = [
    ({"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set together"),
    (variables(2, 2, 1), "JAX_PROCESS_ID one below it, got '2' and '2'"),
    (variables("two", 0, 1), "JAX_NUM_PROCESSES must be a number above 0"),
    (variables(2, 0, "x"), "JAX_COORDINATOR_ADDRESS must be like 10.0.0.1:1234, got '127.0.0.1:x'"),
]


@pytest.mark.parametrize("environment, said", WRONG)
def test_variables_that_do_not_fit(tmp_path, monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = command("train", REAL_TEXT, "--run", "run", cwd=tmp_path)
    assert result.returncode == 2 and said in result.stderr and result.stderr.count("\n") == 1
