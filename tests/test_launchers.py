"""How several processes begin: launchers, variables, --processes, and what is refused."""

import re
import shutil
import subprocess
import sys

import pytest
from commands import ENVIRONMENT, REAL_TEXT, SMALL, command
from groups import ended, free_port, started, variables

from rnn_jax._cli.processes import launcher

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


def test_another_number_than_the_launcher_has_started(tmp_path):
    args, port = [REAL_TEXT, "--run", "run", *SMALL, "--processes", 4], free_port()
    both = [started(tmp_path, *args, environment=variables(2, index, port)) for index in (0, 1)]
    (first, _, err), (second, _, _) = ended(both)
    said = "--processes must be left out where a launcher starts the processes: it has started 2, got --processes 4."
    assert (first, second) == (2, 2) and said in err and not (tmp_path / "run").exists()


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


class Ended:
    """A process that has ended."""

    def __init__(self, status):
        self.returncode = status

    def poll(self):
        """Its status."""
        return self.returncode

    def wait(self):
        """Its status, at once."""
        return self.returncode

    def kill(self):
        """Nothing is left to end."""


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    "statuses, status, killed",
    [
        ([0, 0], 0, ""),
        ([1, -9], 1, "1"),
        ([-6, -9], 1, "1"),
        ([-15, 1], 1, "0"),
        ([1, 2], 2, ""),
        ([143, 143], 143, ""),
    ],
)
def test_the_process_that_was_killed_is_named(capsys, statuses, status, killed):
    """The others end because of it, with 1, or are aborted by JAX; they may be seen first."""
    assert launcher._first_failure([Ended(one) for one in statuses]) == status
    assert re.findall("process (.) of 2 was ended by SIG", capsys.readouterr().err) == list(killed)
