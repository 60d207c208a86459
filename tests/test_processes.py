"""The command in a separate process: signals, terminals and pipes, what it imports."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands import COMMAND, ENVIRONMENT, REAL_TEXT, SMALL, command, losses, metrics, process, train

from rnn_jax._cli.training import train as train_module

UNCACHED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # killed while it writes there, it would leave half of a program
LONG = ["--steps", "600", *SMALL[:-4], "--eval-every", "100"]


@pytest.fixture(scope="module")
def uninterrupted(made_once):
    return losses(made_once("uninterrupted", lambda cwd: train(cwd, REAL_TEXT, "--run", "run", *LONG)) / "run")


def stop_in_the_middle(cwd, number):
    """Start a run, send it a signal once it is past its first checkpoint, and return its exit status and output."""
    args = [str(COMMAND), "train", str(REAL_TEXT), "--run", "run", *LONG]
    environment = ENVIRONMENT | (UNCACHED if number == signal.SIGKILL else {})
    process = subprocess.Popen(
        args, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        path = cwd / "run" / "metrics.jsonl"
        saved = (cwd / "run" / "checkpoint" / "100").exists()
        if saved and path.read_text().count("\n") >= 4:
            break
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_and_resumed(uninterrupted, tmp_path, number, status):
    """Ctrl-C saves all and ends; whatever ended it, the resumed run has the losses of one that was not, to the bit."""
    returncode, out, err = stop_in_the_middle(tmp_path, number)
    assert returncode == status, out + err
    stopped_at = max(losses(tmp_path / "run"), default=0)
    assert 0 < stopped_at < 600
    if number != signal.SIGKILL:
        assert "Traceback" not in err
        assert f"after {stopped_at:,} of 600 steps" in out and "--resume run" in out
        assert (tmp_path / "run" / "learning-curve.png").exists()
    resumed = train(tmp_path, "--resume", "run", call=process if number == signal.SIGKILL else command)
    if number != signal.SIGKILL:
        assert f"from step {stopped_at:,} to 600" in resumed
    assert losses(tmp_path / "run") == uninterrupted


def test_a_signal_before_the_first_step_is_saved_too(tmp_path, monkeypatch):
    """Whenever it comes, a turn of the loop is finished, saved and summed up."""
    monkeypatch.setattr(train_module, "signals", lambda: contextlib.nullcontext([2]))
    out = train(tmp_path, REAL_TEXT, "--run", "run", *LONG, status=130)
    assert "after 50 of 600 steps" in out
    assert [path.name for path in (tmp_path / "run" / "checkpoint").iterdir()] == ["50"]


def test_who_sends_sigterm_does_not_wait_for_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
    out = train(tmp_path, REAL_TEXT, "--run", "run", *LONG, status=143)
    assert "stopped and saved after 50 of 600 steps" in out and "train --resume run" in out
    assert [record["step"] for record in metrics(tmp_path / "run")] == [50]


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_that_cannot_show_the_text(tmp_path, settings):
    (tmp_path / "text.txt").write_text("äöü☃ abc" * 200, encoding="utf-8")
    result = process("train", "text.txt", "--run", "run", "--steps", 1, *SMALL, cwd=tmp_path, **settings)
    assert result.returncode == 0, result.stderr


def test_training_goes_on_when_nobody_reads(tmp_path):
    """`rnn-jax train --devices 2 | head -1`: the run is made all the same, and one device reads it."""
    args = " ".join([str(COMMAND), "train", str(REAL_TEXT), "--run", "run", "--steps", "30", "--devices", "2", *SMALL])
    line = f"set -o pipefail; {args} | head -1"
    shell = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=300)
    assert shell.returncode == 0 and b"Traceback" not in shell.stderr, shell.stderr
    assert max(losses(tmp_path / "run")) == 30
    sampled = process("sample", "run", "--length", 9, cwd=tmp_path)
    assert sampled.returncode == 0 and len(sampled.stdout) == 1 + 9 + 1, sampled.stderr


@pytest.mark.parametrize("variable, asked", [("JAX_PLATFORMS", "cuda"), ("JAX_PLATFORM_NAME", "gpu")])
def test_a_platform_that_is_not_there(finished, variable, asked):
    """Of one command a process; that each command asks is in test_refusals.py."""
    environment = {"JAX_PLATFORMS": "", variable: asked}
    result = process("sample", "run", cwd=finished[0], **environment)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == (
        f"rnn-jax: {variable} must name a platform that JAX finds here, got {asked!r}: it finds cpu. "
        f"Unset {variable}, or set it to one of these.\n"
    )


@pytest.mark.parametrize(
    "variable, asked", [("JAX_NUM_CPU_DEVICES", "0"), ("XLA_FLAGS", "--xla_force_host_platform_device_count=0")]
)
def test_an_environment_that_asks_for_no_device(finished, variable, asked):
    """Its variable is named, whatever platform is asked for."""
    for platforms in ("", "cpu"):
        environment = {"XLA_FLAGS": "", "JAX_PLATFORMS": platforms, variable: asked}
        result = process("sample", "run", cwd=finished[0], **environment)
        assert result.returncode == 2 and result.stdout == ""
        assert result.stderr == (
            f"rnn-jax: {variable} must ask for at least one device of the CPU, got {asked!r}. "
            "Unset it, or set it to 1 or more.\n"
        )


BRIEF = f"'{REAL_TEXT}' --run new --steps 1 {' '.join(SMALL)}"
FULL = "rnn-jax: standard output cannot be written: No space left on device.\n"
WRITES = {  # the command and where its words go; its status, and what it says on standard error
    "sample, full": ("sample run --length 9 > /dev/full", 1, FULL),
    "sample, closed": ("sample run --length 9 >&-", 0, ""),
    "version, full": ("--version > /dev/full", 1, FULL),
    "list, full": ("experiment list > /dev/full", 1, FULL),
    "help, full": ("sample --help > /dev/full", 1, "rnn-jax: No space left on device.\n"),
    "error, full": ("sample nowhere 2> /dev/full", 2, ""),
    "error, closed": ("sample nowhere 2>&-", 2, ""),
    "train, full": (f"train {BRIEF} > /dev/full", 1, FULL),
    "train, deaf": (f"train {BRIEF} 2>&-", 0, ""),
    "train, nothing open": (f"train {BRIEF} --overwrite <&- >&- 2>&-", 0, ""),
    "train, no input": (
        "train - <&-", 2, "rnn-jax: FILE must name readable text, but standard input is closed.\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("label", WRITES)
def test_where_the_words_go(finished, tmp_path, label):
    """Every write to a standard stream may fail: a sentence where one is heard, a status, and no traceback."""
    line, status, said = WRITES[label]
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shell = ["bash", "-c", f"'{COMMAND}' {line}"]
    result = subprocess.run(shell, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (status, said)
    assert (tmp_path / "new" / "checkpoint" / "1").exists() == (line.startswith("train '") and status == 0)


@pytest.mark.parametrize("what", ["_METADATA", "ocdbt.process_0/d/*"])
def test_only_our_words_reach_the_terminal(finished, tmp_path, what):
    """Of a damaged checkpoint orbax and tensorstore have much to say, until long after."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoint" / "60").rglob(what):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    args = "sample", "run", "--length", 9
    result = process(*args, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr.startswith("rnn-jax: step 60 of 'run' is damaged: ")
    assert result.stderr.count("\n") == 1, result.stderr


def test_libraries_speak_where_they_are_asked_to(finished, tmp_path):
    args = "sample", finished[0] / "run", "--length", 9
    results = [process(*args, *more, cwd=tmp_path, JAX_LOG_COMPILES="1") for more in ((), ("--verbose",))]
    assert [result.returncode for result in results] == [0, 0] and results[0].stdout == results[1].stdout
    assert results[0].stderr == "" and "ompil" in results[1].stderr


@pytest.mark.thorough
def test_the_default_run_beats_the_trigram_clearly(tmp_path):
    """The README's main job: about two minutes."""
    train(tmp_path, call=process)
    run = tmp_path / "runs" / "char-1"
    trigram = json.loads((run / "settings.json").read_text())["baselines"]["trigram"]
    assert metrics(run)[-1]["validation_bits"] < trigram - 0.4


def test_help_imports_no_jax():
    code = (
        "import sys; from rnn_jax._cli.main import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    for args in ([], ["train"], ["sample"]):
        result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and "usage: rnn-jax" in result.stdout, result.stderr


def test_without_the_extra_it_says_how_to_get_it():
    code = "import sys; sys.modules['tyro'] = None; from rnn_jax._cli.main import main; sys.exit(main(['train']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "rnn-jax: needs tyro: pip install 'rnn-jax-bptt[app]'\n"


def test_without_tensorboard_no_run_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = command("train", REAL_TEXT, "--run", "run", "--tensorboard", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        2, "rnn-jax: needs tensorboardX: pip install 'rnn-jax-bptt[tensorboard]'\n"
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
