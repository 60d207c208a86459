"""Resumed runs: for more steps, with the same text, one process at a time; only a new run replaces a run."""

import json
import os
import shutil

import pytest
from commands import REAL_TEXT, SMALL, command, everything, losses, metrics, train

from rnn_jax._cli import run_folder
from rnn_jax._reporting import lock

pytestmark = pytest.mark.usefixtures("undrawn")


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
        assert "'run' needs the text that it began with, but another.txt is another text." in result.stderr
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


def test_runs_are_numbered_and_their_text_must_not_change(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(REAL_TEXT.read_text())
    for _ in range(2):
        train(tmp_path, "text.txt", "--steps", 1, *SMALL)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"char-1", "char-2"}
    text.write_text(REAL_TEXT.read_text() + "more")
    result = command("train", "--resume", "runs/char-1", "--steps", 4, cwd=tmp_path)
    assert result.returncode == 2
    assert "'runs/char-1' needs the text that it began with, but" in result.stderr and "has changed" in result.stderr


def test_a_replaced_run_comes_back_unless_a_new_one_is_made(finished, tmp_path):
    """--overwrite deletes nothing before the new run has a checkpoint; one that diverges ends before it."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    before = everything(tmp_path)
    options = ["--run", "run", "--overwrite", *SMALL, "--max-norm", "None"]
    result = command("train", REAL_TEXT, *options, "--learning-rate", "1e38", cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "became infinite or NaN: " in result.stderr and "Traceback" not in result.stderr
    assert everything(tmp_path) == before
    train(tmp_path, REAL_TEXT, *options[:-2], "--steps", 1)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["steps"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
