"""`rnn-jax train` and what is done with a run, called in this process; what needs one of its own: test_processes.py."""

import gc
import io
import itertools
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import typing

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import (
    REAL_TEXT,
    SMALL,
    Terminal,
    command,
    everything,
    jax_configured,
    losses,
    metrics,
    process,
    train,
    unchecked,
)

import rnn_jax
from rnn_jax._cli import config, plots, run_folder, sample
from rnn_jax._cli.jax_settings import jax_settings
from rnn_jax._cli.training import advice, checkpoint, loop
from rnn_jax._reporting import console, lock

BRIEF = [*SMALL, "--schedule", "constant"]  # at a constant rate 25 steps are one program, however many follow
TRUNCATED = ["--k1", 5, "--k2", 10]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No learning curve at each validation, a third of the time; `finished` has one, and test_processes.py."""
    monkeypatch.setattr(loop, "learning_curve", blank)


def blank(path, *_):
    path.touch()


@pytest.fixture(scope="module")
def brief(made_once):
    """The losses of 50 steps, which the runs below have too, or differ from by one option."""
    made = made_once("brief", lambda cwd: train(cwd, REAL_TEXT, "--run", "run", "--steps", 50, *BRIEF))
    return losses(made / "run")


@pytest.fixture(scope="module")
def truncated(made_once):
    """The folder of a run whose gradients reach back 10 steps, and what it printed."""

    def make(cwd):
        out = train(cwd, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF, *TRUNCATED)
        (cwd / "printed.txt").write_text(out)

    cwd = made_once("truncated", make)
    return cwd, (cwd / "printed.txt").read_text()


def test_a_run(finished):
    cwd, printed = finished
    run = cwd / "run"
    assert {path.name for path in run.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint", "learning-curve.png", "sample.txt", "lock"
    }  # fmt: skip
    assert (run / "learning-curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    settings = json.loads((run / "settings.json").read_text())
    assert settings["settings"]["hidden_size"] == 16 and settings["versions"]["jax"]
    assert settings["symbols"] == rnn_jax.data.symbols_of(REAL_TEXT.read_text())
    difference = float(printed.split("differ by at most ")[1].split()[0])
    assert 0 <= difference < 1e-4
    validations = {r["step"]: r["validation_bits"] for r in metrics(run) if "validation_bits" in r}
    assert list(validations) == [25, 50, 60]
    assert validations[60] < np.log2(len(settings["symbols"]))
    for name, bits in [("this network", validations[60]), *settings["baselines"].items()]:
        assert any(line.split() == [*name.split(), f"{bits:.3f}"] for line in printed.splitlines()), name
    assert "next: rnn-jax sample run" in printed


def test_sample(finished):
    cwd, _ = finished
    args = ("sample", "run", "--prompt", "def ", "--length", 40, "--temperature", 0.9)
    first, again, other = (command(*args, "--seed", seed, cwd=cwd).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert first.startswith("def ") and len(first) == 4 + 40 + 1
    greedy = [command("sample", "run", "--temperature", 0, "--seed", seed, cwd=cwd).stdout for seed in (1, 2)]
    assert greedy[0] == greedy[1] and len(greedy[0]) == 502


def test_the_same_seed_gives_the_same_losses_to_the_last_bit(brief, tmp_path):
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
    assert losses(tmp_path / "run") == {25: brief[25]}
    train(tmp_path, REAL_TEXT, "--run", "run", "--overwrite", "--steps", 25, *BRIEF, "--seed", 4)
    assert losses(tmp_path / "run")[25] != brief[25]


UNUSUAL = {
    "jax_enable_x64": True,
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_check_tracer_leaks": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_transfer_guard": "disallow",
}


def test_the_settings_of_jax_in_the_environment_change_no_bit(brief, finished, tmp_path):
    """All at once; the suite itself has 64 bits, strict promotion and two devices. Afterwards they are as they were."""
    args = "sample", finished[0] / "run", "--length", 30
    expected = command(*args, cwd=tmp_path).stdout
    with jax_configured(UNUSUAL):
        train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
        assert command(*args, cwd=tmp_path).stdout == expected
        result = command("anatomy", "run", "--window", 9, "--streams", 2, "--lags", 3, "--gains", 1, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert {name: getattr(jax.config, name) for name in UNUSUAL} == UNUSUAL
    assert losses(tmp_path / "run") == {25: brief[25]}


def test_the_environment_itself(finished, tmp_path):
    """A variable is read when JAX starts, so this is a process."""
    args = "sample", finished[0] / "run", "--length", 30
    result = process(*args, cwd=tmp_path, JAX_ENABLE_X64="1", JAX_DISABLE_JIT="1", JAX_NUM_CPU_DEVICES="3")
    assert result.returncode == 0, result.stderr
    assert result.stdout == command(*args, cwd=tmp_path).stdout
    result = process(*args, cwd=tmp_path, JAX_DEFAULT_DEVICE="gpu")  # which device it is is the command's business
    assert result.returncode == 0, result.stderr
    result = process(*args, cwd=tmp_path, JAX_ENABLE_X64="maybe")
    assert result.returncode == 2 and "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'" in result.stderr
    assert result.stderr.startswith("rnn-jax: JAX must be able to read its settings") and result.stderr.count("\n") == 1


def test_dtypes(brief, tmp_path):
    """A run has its numbers in its settings; of bfloat16 only states and products, so that the weights are float32."""
    for dtype, kept in (("float64", "float64"), ("bfloat16", "float32")):
        out = train(tmp_path, REAL_TEXT, "--run", dtype, "--steps", 25, *BRIEF, "--dtype", dtype)
        difference = float(out.split("differ by at most ")[1].split()[0])
        assert difference < 1e-12 if dtype == "float64" else 1e-4 < difference < 0.1
        assert "MORE THAN ROUNDING" not in out
        train(tmp_path, "--resume", dtype, "--steps", 50)
        settings, facts = run_folder.read_settings(tmp_path / dtype)
        assert settings.dtype == dtype
        with jax_settings(dtype), unchecked():
            params = sample.trained(tmp_path / dtype, settings, facts["symbols"])
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {kept}
        assert command("sample", dtype, "--length", 9, cwd=tmp_path).returncode == 0
    ours = losses(tmp_path / "bfloat16")
    assert ours[25] != brief[25]
    np.testing.assert_allclose([ours[step] for step in (25, 50)], [brief[step] for step in (25, 50)], rtol=0.02)


def test_resume_for_longer(finished, tmp_path):
    """Refused for no longer; lines that are no metrics, left by a crash say, do not stop it."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    out = command("train", "--resume", "run", "--steps", 60, cwd=tmp_path)
    assert out.returncode == 2 and "--steps must be above the 60 that 'run' has done" in out.stderr
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        file.write(b'5\n{"a": 1}\n\xff\xfe\n')
    resumed = command("train", "--resume", "run", "--steps", 61, cwd=tmp_path)
    assert resumed.returncode == 0
    assert resumed.stderr == "rnn-jax: 3 damaged lines are skipped in 'run/metrics.jsonl'.\n"
    before, after = metrics(finished[0] / "run"), metrics(tmp_path / "run")
    assert after[:-2] == before and after[-1]["step"] == max(losses(tmp_path / "run")) == 61
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["steps"] == 61


def damage(step, change):
    """Change the largest file of a checkpoint, which holds the arrays."""
    path = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(change(bytearray(path.read_bytes())))


def flipped(data):
    data[len(data) // 2] ^= 1
    return data


def halved(data):
    return data[: len(data) // 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what orbax leaves half read
@pytest.mark.parametrize(
    "change, reason",
    [(flipped, "its arrays are not those that were saved, by their checksum"), (halved, "its arrays cannot be read")],
)
def test_a_damaged_checkpoint_does_not_hide_the_one_before(finished, tmp_path, change, reason):
    """Said, and gone on from what is whole: the same text and the same losses as if the damaged one were not there."""
    for name in ("run", "without"):
        shutil.copytree(finished[0] / "run", tmp_path / name)
    shutil.rmtree(tmp_path / "without" / "checkpoint" / "60")
    damage(tmp_path / "run" / "checkpoint" / "60", change)
    before = everything(tmp_path)
    sampled, expected = (command("sample", name, "--length", 40, cwd=tmp_path) for name in ("run", "without"))
    assert sampled.returncode == 0 and sampled.stdout == expected.stdout and not expected.stderr
    assert f"step 60 of 'run' is damaged: {reason}. Going on from step 50" in sampled.stderr
    assert everything(tmp_path) == before
    resumed = command("train", "--resume", "run", "--steps", 60, cwd=tmp_path)
    assert resumed.returncode == 0 and f"step 60 of 'run' is damaged: {reason}" in resumed.stderr, resumed.stderr
    assert "from step 50 to 60" in resumed.stdout
    assert losses(tmp_path / "run") == losses(finished[0] / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"50", "60", "60.damaged"}
    assert not command("sample", "run", "--length", 40, cwd=tmp_path).stderr
    gc.collect()  # here, not in the next test


def test_a_step_that_is_a_file_is_damaged(finished, tmp_path):
    """Named like one whose arrays are damaged, and put aside when the run goes on."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "60")
    (tmp_path / "run" / "checkpoint" / "60").write_text("a file")
    told = "step 60 of 'run' is damaged: it is not a folder. Going on from step 50"
    assert told in command("sample", "run", "--length", 9, cwd=tmp_path).stderr
    resumed = command("train", "--resume", "run", "--steps", 60, cwd=tmp_path)
    assert resumed.returncode == 0 and told in resumed.stderr, resumed.stderr
    assert losses(tmp_path / "run") == losses(finished[0] / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"50", "60", "60.damaged"}


def test_names_that_no_step_has(finished, tmp_path):
    """Folders beside the checkpoints whose names could be read as numbers change nothing."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    others = {"070", "٣٣٣", "1٣٣٣", "²", "+80", "8_0"}
    for name in others:
        (tmp_path / "run" / "checkpoint" / name).mkdir()
    assert not command("sample", "run", "--length", 9, cwd=tmp_path).stderr
    resumed = command("train", "--resume", "run", "--steps", 61, cwd=tmp_path)
    assert resumed.returncode == 0 and not resumed.stderr, resumed.stderr
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"60", "61"} | others


def test_a_checkpoint_without_a_checksum_is_read(tmp_path, monkeypatch):
    """As they were before there was one."""

    def save(manager, step, state):
        manager.save(step, args=ocp.args.StandardSave(checkpoint._named_leaves(state)))

    monkeypatch.setattr(loop, "save", save)
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
    sampled = command("sample", "run", "--length", 40, cwd=tmp_path)
    assert sampled.returncode == 0 and not sampled.stderr


def test_several_files_standard_input_and_other_settings(tmp_path):
    (tmp_path / "a.txt").write_text("Ein Text mit Umlauten: äöü. " * 20, encoding="utf-8")
    options = ["--steps", 4, *SMALL, "--optimizer", "adam", "--num-layers", 2, "--activation", "relu", "--watch"]
    options += ["--recurrent-init", "identity", "--schedule", "linear", "--max-norm", 0.1, "--method", "stepwise"]
    result = command("train", "a.txt", "-", "--run", "run", *options, cwd=tmp_path, stdin="Noch mehr davon. " * 20)
    assert result.returncode == 0, result.stderr
    assert "900 characters" in result.stdout and "2 layers of 16 relu units" in result.stdout
    look = metrics(tmp_path / "run")[0]["watch"]
    assert look["grad_norm"] > 0.1 and look["clip_ratio"] == pytest.approx(0.1 / look["grad_norm"], rel=1e-4)
    assert look["spectral_radius"] == pytest.approx([1, 1], abs=1e-4)  # drawn the identity
    assert_is_a_look(look, 2)
    assert (tmp_path / "run" / "watch.png").stat().st_size > 10_000


def test_little_memory_and_two_devices(brief, tmp_path):
    """The same losses as with all states kept on one device; a run of two devices is read by one."""
    options = ["--steps", 25, *BRIEF, "--memory", "10kB", "--devices", 2]
    out = train(tmp_path, REAL_TEXT, "--run", "run", *options)
    assert "one state is kept" in out and "again" in out
    np.testing.assert_allclose(losses(tmp_path / "run")[25], brief[25], rtol=1e-4)
    train(tmp_path, "--resume", "run", "--steps", 50)
    np.testing.assert_allclose(losses(tmp_path / "run")[50], brief[50], rtol=1e-4)
    assert command("sample", "run", "--length", 40, cwd=tmp_path).returncode == 0


def test_truncated(brief, truncated, tmp_path):
    """Trained with a gradient that reaches back 10 steps, or as far as it must; and what that would cost."""
    cwd, printed = truncated
    assert "by hand (truncated, k1 = 5, k2 = 10) and its definition" in printed and "MORE THAN ROUNDING" not in printed
    ours = losses(cwd / "run")
    assert list(ours) == [25] and ours[25] != brief[25]
    assert abs(ours[25][0] - brief[25][0]) < 0.5
    options = ["--steps", 25, *BRIEF, "--k1", 4, "--adaptive-bias", 0.1]
    out = train(tmp_path, REAL_TEXT, "--run", "adaptive", *options)
    assert "by hand (adaptive, k1 = 4, bias = 0.1)" in out and "MORE THAN ROUNDING" not in out

    options = ["--ks", 1, 18, "--window", 60, "--streams", 2]
    result = command("truncation", cwd / "run", *options, "--picture", "picture.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = [line.split() for line in result.stdout.splitlines() if line[:6].strip().isdigit()]
    errors = {(int(row[0]), int(row[1])): float(row[2]) for row in table}
    assert list(errors) == [(1, 1), (18, 18), (9, 18), (1, 18), (60, 60)]
    assert errors.pop((60, 60)) == 0 < min(errors.values())
    kept = [pair for pair, error in errors.items() if error <= 0.05]
    k1, k2 = min(kept, key=lambda pair: (pair[1] / pair[0], pair[1]))
    assert f"k1 = {k1}, k2 = {k2}: it loses {errors[k1, k2]:.1%} of" in result.stdout
    (hint,) = [line.removeprefix("next:") for line in result.stdout.splitlines() if line.startswith("next:")]
    assert f"--window {max(20, 3 * k2)} --k1 {k1} --k2 {k2}" in hint
    args = shlex.split(hint)
    assert args[:3] == ["rnn-jax", "train", str(REAL_TEXT)]
    out = train(tmp_path, *args[2:])
    again = json.loads((tmp_path / "runs" / "char-1" / "settings.json").read_text())["settings"]
    before = json.loads((cwd / "run" / "settings.json").read_text())["settings"]
    changed = {name for name, value in before.items() if again[name] != value}
    assert changed <= {"run", "window", "k1", "k2"} and f"truncated, k1 = {k1}, k2 = {k2}" in out
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_dropped_truncated_and_resumed(truncated, tmp_path):
    """In two parts the same bits as in one: which units are dropped is a function of the step."""
    options = [*BRIEF, *TRUNCATED, "--drop-between", 0.2, "--drop-recurrent", 0.3]
    train(tmp_path, REAL_TEXT, "--run", "whole", "--steps", 50, *options)
    train(tmp_path, REAL_TEXT, "--run", "parts", "--steps", 25, *options)
    train(tmp_path, "--resume", "parts", "--steps", 50)
    whole, all_units = losses(tmp_path / "whole"), losses(truncated[0] / "run")
    assert losses(tmp_path / "parts") == whole and all_units[25] != whole[25]


def test_watched(tmp_path, monkeypatch):
    """The gradient taken apart now and then, and the training the same; resumed, no look is missing or there twice.

    Of the gradient that is trained with, truncated and clipped.
    """
    monkeypatch.setattr(loop, "watched", blank)  # the picture is looked at above
    run = tmp_path / "run"
    options = [*BRIEF, *TRUNCATED, "--max-value", 0.01, "--eval-every", 1]
    train(tmp_path, REAL_TEXT, "--run", "plain", "--steps", 3, *options)
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 1, *options, "--watch", "--watch-every", 1)
    train(tmp_path, "--resume", "run", "--steps", 2)
    look = next(r for r in metrics(run) if "watch" in r)
    with open(run / "metrics.jsonl", "a") as file:  # as a run leaves it that is killed after its look
        file.write(json.dumps(look | {"step": 2}) + "\n")
    train(tmp_path, "--resume", "run", "--steps", 3)
    assert losses(run) == losses(tmp_path / "plain")
    assert [r["step"] for r in metrics(run) if "watch" in r] == [0, 1, 2]
    for step in (0, 1):
        (look,) = (r["watch"] for r in metrics(run) if "watch" in r and r["step"] == step)
        grad_norm = losses(run)[step + 1][1]
        assert look["grad_norm"] == pytest.approx(grad_norm, rel=1e-4)
        assert 0.01 < look["clip_ratio"] < min(1, 1 / grad_norm)
        assert_is_a_look(look, 1)
    assert (run / "watch.png").exists()
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 1, *SMALL, "--overwrite")  # a run of ours, to the last file


def assert_is_a_look(look, num_layers):
    assert len(look["d_h_quantiles"]) == len(look["saturated"]) == len(look["spectral_radius"]) == num_layers
    assert all(quantiles == sorted(quantiles) and quantiles[0] > 0 for quantiles in look["d_h_quantiles"])
    assert all(a <= b + 1e-5 for a, b in zip(look["spectral_radius"], look["largest_singular_value"], strict=True))
    assert 0 < look["growth"] < 3


def test_one_process_at_a_time_trains_a_run(finished, tmp_path, monkeypatch):
    """The second says which one does, and changes nothing; when that has ended, however, the run goes on."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    with lock.locked(tmp_path / "run"):
        before = everything(tmp_path)
        for options in (["--resume", "run", "--steps", 61], [REAL_TEXT, "--run", "run", "--overwrite", *SMALL]):
            result = command("train", *options, cwd=tmp_path)
            assert result.returncode == 2, result.stdout + result.stderr
            assert f"'run' must not be in training already, but process {os.getpid()} on " in result.stderr
        assert everything(tmp_path) == before
        assert command("sample", "run", "--length", 9, cwd=tmp_path).returncode == 0
    (tmp_path / "run" / "lock").write_text("process 1 on nowhere\n")  # as kill -9 leaves it
    train(tmp_path, "--resume", "run", "--steps", 61)
    monkeypatch.chdir(tmp_path)
    assert [str(run_folder._first_free()) for _ in range(2)] == ["runs/char-1", "runs/char-2"]


DRIVING = "\x1b[31m\x1b]0;title\x07 \x9b\u202eab\r\n\tc" * 60


def test_no_text_and_no_name_drives_the_terminal(tmp_path, monkeypatch):
    """To a terminal control characters are written out; a file has them exactly, and `--raw` sends them."""
    monkeypatch.setattr(loop, "learning_curve", plots.learning_curve)  # with a title that is no formula
    name, run = "a\x1b[31m$x_^$.txt", "it's a\x1b]0;run $(x)"
    (tmp_path / name).write_bytes(DRIVING.replace("\r\n", "\n\r").encode())
    made = command("train", name, "--run", run, "--steps", 1, *SMALL, cwd=tmp_path, out=Terminal)
    assert made.returncode == 0, made.stderr
    assert "a\\x1b[31m$x_^$.txt" in made.stdout and "\\x9b" in made.stdout
    exact = (tmp_path / run / "sample.txt").read_bytes().decode()
    args = "sample", run, "--length", 60
    piped, seen, raw = (
        command(*args, *more, cwd=tmp_path, out=out).stdout
        for more, out in (((), io.StringIO), ((), Terminal), (("--raw",), Terminal))
    )
    looked = command("anatomy", run, "--window", 9, "--streams", 1, "--gains", 1, cwd=tmp_path, out=Terminal)
    wrong = command("sample", "no\x1brun", cwd=tmp_path, out=Terminal)
    assert "no\\x1brun" in wrong.stderr and wrong.returncode == 2
    driving = set(DRIVING) - set("[31m]0;title abc\n\t")
    assert driving & set(piped) and driving & set(exact) and raw == piped and console.shown(piped) == seen
    for shown in (made.stdout, seen, looked.stdout, wrong.stderr):
        assert not driving & set(shown)
    if looked.returncode == 0:
        assert not driving & set((tmp_path / run / "anatomy.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["run", "a b", "it's", 'a"b$(c)`d`', "-n", "tab\tand\nline", "esc\x1b[1m'\\", "ü\u202e"]
)
def test_what_is_said_to_be_next_can_be_pasted(name):
    """As one word of bash, with nothing in it that drives the terminal."""
    word = console.pasted(pathlib.Path(name))
    assert console.shown(word) == word and "\n" not in word
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {word}"], capture_output=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout
    assert words.decode().split("\0") == ["./-n" if name == "-n" else name, ""]


def test_the_hints_of_a_run_with_an_odd_name(tmp_path):
    out = train(tmp_path, REAL_TEXT, "--run", "it's a run", "--steps", 25, *BRIEF)
    hints = [shlex.split(line.removeprefix("next:")) for line in out.splitlines() if " rnn-jax " in line]
    assert [hint[:3] for hint in hints[:2]] == [
        ["rnn-jax", "sample", "it's a run"],
        ["rnn-jax", "anatomy", "it's a run"],
    ]
    assert hints[2][:4] == ["rnn-jax", "train", "--resume", "it's a run"]


def test_what_is_left_out_of_files_is_counted(tmp_path):
    """A byte order mark at the start of each file, and the carriage returns of CRLF; others are symbols."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"one line\r\n" * 60)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + b"more\rof it\n" * 60 + b"\xef\xbb\xbf")
    out = train(tmp_path, "a.txt", "b.txt", "--run", "run", "--steps", 1, *SMALL)
    assert "left out  2 byte order marks and 60 carriage returns" in out
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["left_out"] == {"byte_order_marks": 2, "carriage_returns": 60}
    assert settings["num_characters"] == 9 * 60 + 11 * 60 + 1 and {"\r", "\ufeff"} < set(settings["symbols"])


def test_a_text_that_has_moved(tmp_path):
    """Every command that needs it takes it from where it is now, if it is the same; otherwise it says so."""
    text, moved, another = tmp_path / "text.txt", tmp_path / "moved.txt", tmp_path / "another.txt"
    text.write_text(REAL_TEXT.read_text())
    train(tmp_path, "text.txt", "--run", "run", "--steps", 25, *SMALL)
    text.rename(moved)
    another.write_text(moved.read_text() + "more")
    reads = {
        "train": (["--resume", "run"], ["--steps", 50]),
        "truncation": (["run"], ["--ks", 1, "--window", 20, "--streams", 2]),
        "anatomy": (["run"], ["--window", 12, "--streams", 2, "--lags", 5, "--gains", 1]),
    }
    for name, (run, options) in reads.items():
        before = everything(tmp_path)
        result = command(name, *run, *options, cwd=tmp_path)
        assert result.returncode == 2 and "text.txt' is not: No such file" in result.stderr, result.stderr
        assert "If the text of 'run' has moved, give its files after RUN." in result.stderr
        result = command(name, *run, "another.txt", *options, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert "'run' must find the text that it began with, but another.txt is another text." in result.stderr
        assert everything(tmp_path) == before
        if name == "anatomy":  # a few seconds, and what truncation does
            continue
        result = command(name, *run, "moved.txt", *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        if name == "train":  # it remembers the new place; here the others have to do without
            text_of = json.loads((tmp_path / "run" / "settings.json").read_text())
            assert text_of["settings"]["files"] == [str(moved)] and text_of["text"] == "moved.txt"
            text_of["settings"]["files"] = [str(text)]
            (tmp_path / "run" / "settings.json").write_text(json.dumps(text_of))


def test_standard_input_replaces_no_file(tmp_path):
    """A run that goes on with its text from there finds it the next time where it was."""
    text = REAL_TEXT.read_text()
    (tmp_path / "text.txt").write_text(text)
    train(tmp_path, "text.txt", "--run", "run", "--steps", 1, *SMALL)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    for steps in (2, 3):
        result = command("train", "--resume", "run", "-", "--steps", steps, cwd=tmp_path, stdin=text)
        assert result.returncode == 0 and "text      -: " in result.stdout, result.stderr
        assert "- < FILE" not in result.stdout
    settings["settings"]["steps"] = 3
    assert json.loads((tmp_path / "run" / "settings.json").read_text()) == settings
    train(tmp_path, "--resume", "run", "--steps", 4)


def test_a_run_that_cannot_go_on_stays_as_it_is(finished, tmp_path):
    """Its settings are written when all is checked: the checkpoint, the steps, the metrics."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    shutil.copy(REAL_TEXT, tmp_path / "moved.txt")
    damage(tmp_path / "run" / "checkpoint" / "60", flipped)
    before = everything(tmp_path)
    result = command("train", "--resume", "run", "moved.txt", "--steps", 70, cwd=tmp_path)
    assert result.returncode == 2, result.stdout
    assert "RUN must hold metrics that can be read, but 'run/metrics.jsonl' is not: Is a directory." in result.stderr
    assert everything(tmp_path) == before


def test_runs_are_numbered_and_their_text_must_not_change(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(REAL_TEXT.read_text())
    for _ in range(2):
        train(tmp_path, "text.txt", "--steps", 1, *SMALL)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"char-1", "char-2"}
    text.write_text(REAL_TEXT.read_text() + "more")
    result = command("train", "--resume", "runs/char-1", "--steps", 4, cwd=tmp_path)
    assert result.returncode == 2
    assert (
        "'runs/char-1' must find the text that it began with, but" in result.stderr and "has changed" in result.stderr
    )


def test_a_replaced_run_comes_back_unless_a_new_one_is_made(finished, tmp_path):
    """--overwrite deletes nothing before the new run has a checkpoint; one that diverges ends before it."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    before = everything(tmp_path)
    options = ["--run", "run", "--overwrite", *SMALL, "--max-norm", "None"]
    result = command("train", REAL_TEXT, *options, "--learning-rate", "1e38", cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "became infinite or NaN in steps" in result.stderr and "Traceback" not in result.stderr
    assert everything(tmp_path) == before
    train(tmp_path, REAL_TEXT, *options[:-2], "--steps", 1)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["steps"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_the_choices_are_the_library_s():
    """The settings import no jax, so they repeat the names of three tables."""
    hints = typing.get_type_hints(config.TrainConfig)
    exact = [name for name, method in rnn_jax.GRADIENTS.items() if method.exact]
    assert list(typing.get_args(hints["method"])) == exact  # the others are chosen by what they need: --k1, --k2, …
    assert typing.get_args(hints["activation"]) == tuple(rnn_jax._cells.activations.ACTIVATIONS)
    assert typing.get_args(hints["recurrent_init"]) == tuple(rnn_jax.initializers.RECURRENT_INITS)


def choices():
    """The choices of each option that has some."""
    hints = typing.get_type_hints(config.TrainConfig)
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def chosen(**values):
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


LEARNS = ["--hidden-size", 48, "--streams", 16, "--window", 20, "--steps", 300, "--eval-every", 300]
NUMBERS = {  # of the options without choices, one that is not the default
    "leak": 0.5, "num_layers": 2, "drop_between": 0.1, "drop_recurrent": 0.1, "max_value": 0.1, "momentum": 0.5,
}  # fmt: skip


def assert_it_learns(cwd, *options):
    """It beats the unigram on the text it reads, and nothing is wrong with it."""
    result = command("train", REAL_TEXT, "--run", "run", "--overwrite", *LEARNS, *options, cwd=cwd)
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
    unigram = json.loads((cwd / "run" / "settings.json").read_text())["baselines"]["unigram"]
    assert metrics(cwd / "run")[-1]["validation_bits"] < unigram


@pytest.mark.parametrize("row", range(max(map(len, choices().values()))))
def test_every_choice_of_every_option_learns(tmp_path, row):
    """Each in one of a few rows; alone and in pairs in the test below."""
    values = {name: known[row % len(known)] for name, known in choices().items()}
    assert_it_learns(tmp_path, *chosen(**values))


@pytest.mark.thorough
def test_every_choice_alone_and_the_main_ones_together_learn(tmp_path):
    for name, known in choices().items():
        for value in known:
            assert_it_learns(tmp_path, *chosen(**{name: value}))
    for name, value in NUMBERS.items():
        assert_it_learns(tmp_path, *chosen(**{name: value}))
    assert_it_learns(tmp_path, "--k1", 5, "--k2", 10)
    assert_it_learns(tmp_path, "--k1", 5, "--adaptive-bias", 0.1)
    names = ("activation", "recurrent_init", "optimizer")
    for values in itertools.product(*(choices()[name] for name in names)):
        assert_it_learns(tmp_path, *chosen(**dict(zip(names, values, strict=True))))


WRONG = {
    "large weights": (["--recurrent-init", "normal", "--recurrent-scale", 16], "--recurrent-scale 1."),
    "a large rate": (["--learning-rate", 300], "--learning-rate 0.25."),
    "nothing clipped": (["--activation", "relu", "--max-norm", "None"], "--max-norm 1."),
}


@pytest.mark.parametrize(
    "label", [*list(WRONG)[:1], *(pytest.param(x, marks=pytest.mark.thorough) for x in list(WRONG)[1:])]
)
def test_a_run_that_does_not_learn_is_told_so_and_what_it_should_try_helps(tmp_path, label):
    options, tried = WRONG[label]
    result = command("train", REAL_TEXT, "--run", "run", *LEARNS, *options, cwd=tmp_path)
    assert f"Train anew with {tried}" in result.stderr, result.stderr
    assert_it_learns(tmp_path, *options, *tried.rstrip(".").split())


def test_what_is_wrong_with_a_run():
    """Nothing yet, it explodes, it is worse than guessing, it has learned the text by heart."""

    def told(bits=2.0, norm=1.0, held_out=3.0, step=300, **settings):
        records = [{"step": step, "bits": bits, "grad_norm": norm}, {"step": step, "validation_bits": held_out}]
        return advice.what_is_wrong(config.TrainConfig(**settings), records, 64)

    assert told() is None and told(bits=9.0, step=25) is None
    assert told(bits=13.0, step=25).startswith("the loss is 13.00 bits")
    assert told(norm=2e6, max_norm=None) == (
        "the gradient explodes: its norm is 2e+06 before clipping. Train anew with --max-norm 1."
    )
    assert told(bits=6.1) == (
        "the loss is 6.10 bits, above the 6.00 of uniform guessing. Train anew with --learning-rate 0.025."
    )
    assert told(bits=6.1, max_norm=1e-20).endswith("Train anew with --max-norm 1.")
    assert told(bits=6.1, max_value=1e-10).endswith("Train anew with --max-value None.")
    assert told(bits=5.5, held_out=6.5, momentum=0.9999) == (
        "the held-out text costs 6.50 bits, above the 6.00 of guessing. Train anew with --momentum 0.9."
    )
    assert "costs 7.00 bits" in told(held_out=7.0) and "learns it by heart" in told(held_out=7.0)
