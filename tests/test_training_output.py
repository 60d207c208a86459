"""The output of `rnn-jax train`: no control characters, hints that can be pasted, counts of what was left out."""

import io
import json
import pathlib
import shlex
import subprocess

import pytest
from commands import BRIEF, REAL_TEXT, SMALL, Terminal, command, train

from rnn_jax._cli import plots
from rnn_jax._cli.training import outputs
from rnn_jax._reporting import console

pytestmark = pytest.mark.usefixtures("undrawn")
DRIVING = "\x1b[31m\x1b]0;title\x07 \x9b\u202eab\r\n\tc" * 60


def test_no_text_and_no_name_drives_the_terminal(tmp_path, monkeypatch):
    """To a terminal control characters are written out; a file has them exactly, and `--raw` sends them."""
    monkeypatch.setattr(outputs, "learning_curve", plots.learning_curve)  # with a title that is no formula
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


def test_the_hints_of_a_short_text_can_be_pasted(tmp_path):
    """So few held-out characters are less than the window that `rnn-jax anatomy` takes by itself."""
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 120)
    out = train(tmp_path, "text.txt", "--run", "run", "--steps", 25, *BRIEF)
    (hint,) = (line for line in out.splitlines() if "rnn-jax anatomy" in line)
    assert hint.endswith("--window 32")
    few = ["--lags", 4, "--gains", 1]
    assert command(*shlex.split(hint)[1:], *few, cwd=tmp_path).returncode == 0
