"""The ways into the command: `rnn-jax`, `python -m rnn_jax`, `--version`, completion in a shell."""

import subprocess
import sys

import jax
from commands import ENVIRONMENT, command, process


def run_module(*args):
    words = [sys.executable, "-m", "rnn_jax", *args]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def test_the_module_is_the_command():
    found = run_module("experiment", "list")
    assert found.returncode == 0 and found.stdout == process("experiment", "list", cwd=".").stdout
    assert run_module("nonsense").returncode == 2


def test_version_says_what_a_report_of_a_bug_needs():
    first, versions, devices = run_module("--version").stdout.splitlines()
    assert first.startswith("rnn-jax ")
    assert f"jax {jax.__version__}, " in versions and versions.startswith("Python 3.")
    assert devices == "devices: cpu"


def test_completion_of_the_shell(tmp_path):
    script = process("--tyro-print-completion", "bash", cwd=tmp_path)
    assert script.returncode == 0 and "--hidden-size" in script.stdout and "gradcheck" in script.stdout
    assert subprocess.run(["bash", "-n"], input=script.stdout, text=True, capture_output=True).returncode == 0


def test_version_without_a_device(monkeypatch, tmp_path):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda': no device\nmore")

    monkeypatch.setattr(jax, "devices", none)
    found = command("--version", cwd=tmp_path)
    assert found.returncode == 0 and "devices: none, Unable to initialize backend 'cuda': no device\n" in found.stdout
