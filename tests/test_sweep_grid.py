"""The grid of `rnn-jax sweep`, and what is refused."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REAL_TEXT, everything
from sweeps import grid, in_this_process, sweep

from rnn_jax._cli import main
from rnn_jax._cli.settings.commands import SweepConfig
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.sweep import running


@pytest.fixture
def begun():
    with in_this_process() as words:
        yield words


def test_the_cells_of_a_grid():
    """In the order of the options in --help, the last option and the seeds fastest; typed; each in its own folder."""
    cells = grid(
        "--max_norm=1,None", "hidden-size=8, 16", "watch=true,False", "cell=gru,lstm", seeds=2, seed=5, steps=7
    )
    assert len(cells) == 16 * 2 and len({cell.folder for cell in cells}) == 32
    expected = itertools.product((8, 16), ("gru", "lstm"), (1.0, None), (True, False))
    assert [tuple(cell.setting.values()) for cell in cells[::2]] == list(expected)
    assert [cell.config.seed for cell in cells[:4]] == [5, 6, 5, 6]
    one = cells[3]
    assert one.folder == Path("s/hidden-size=8,cell=gru,max-norm=1.0,watch=False/seed-6")
    assert one.config == TrainConfig(
        hidden_size=8, cell="gru", max_norm=1.0, watch=False, steps=7, seed=6, run=one.folder
    )
    assert type(one.config) is TrainConfig and type(one.config.hidden_size) is int
    assert [cell.folder for cell in grid(seeds=2)] == [Path("s/seed-0"), Path("s/seed-1")]


def test_the_words_of_a_run_say_its_settings():
    """What `rnn-jax train` reads in them are the settings of the cell, whatever their values look like."""
    over = ("max-norm=None,1e-07,0.1", "memory=None,64 MiB", "watch=true", "learning-rate=None,0.30000000000000004")
    files = {"files": ("a b.txt", "./-c.txt"), "validation": "-ü 1.txt", "vocab": "byte", "processes": 2}
    for cell in grid(*over, **files, steps=7, seeds=2, dtype="float64"):
        words = running.words_of(cell.config, "new")
        assert main._parsed(words, {"train": TrainConfig, "other": SweepConfig}) == cell.config
        resumed = main._parsed(running.words_of(cell.config, "begun"), {"train": TrainConfig, "other": SweepConfig})
        again = {"files": cell.config.files, "validation": cell.config.validation, "processes": 2}
        assert resumed == TrainConfig(**again, resume=cell.folder)


BAD = {
    "no run": ([], "--run must be given: it names the folder of the sweep, got None."),
    "resume": (["--run", "s", "--resume", "s"], "--resume must be left out, since the same command continues a sweep"),
    "overwrite": (["--run", "s", "--overwrite"], "--overwrite must be left out of a sweep: remove its folder to begin"),
    "standard input": (["-", "--run", "s"], "FILE must be a file, which each run of a sweep can read again, got '-'"),
    "seeds 0": (["--run", "s", "--seeds", "0"], "--seeds must be from 1 to 10,000, got 0."),
    "jobs 0": (["--run", "s", "--jobs", "0"], "--jobs must be from 1 to 1,024, got 0."),
    "last seed": (["--run", "s", "--seed", 2**32 - 2], "--seed must be so low that the last of 3 seeds is a seed, got"),
    "missing": (["nowhere.txt", "--run", "s"], "FILE must name readable text, but file 'nowhere.txt' is not: No such"),
    "no values": (["--over", "steps"], "--over must be like learning-rate=0.1,0.25, got 'steps': give NAME="),
    "name": (["--over", "learning-rat=1"], "got 'learning-rat': did you mean learning-rate?"),
    "strange name": (["--over", "zzz=1"], "got 'zzz': `rnn-jax train --help` lists them."),
    "seed": (["--over", "seed=1,2"], "--over must not name seed: --seeds says how many seeds there are"),
    "the run": (["--over", "run=a,b"], "--over must name an option that runs of one sweep can differ in, got run."),
    "a file": (["--over", "files=a,b"], "--over must name an option that runs of one sweep can differ in, got files."),
    "a validation": (["--over", "validation=a,b"], "name an option that runs of one sweep can differ in, got valid"),
    "vocab": (["--over", "vocab=character,byte"], "--over must not name vocab, since bits per byte and bits per char"),
    "one vocab": (["--over", "vocab=byte"], "cannot be compared: make a sweep for each, with --vocab."),
    "no validation": (
        ["--run", "s", "--validation", "nowhere.txt"],
        "--validation must name readable text, but file 'nowhere.txt' is not: No such file",
    ),
    "the text again": (["--run", "s", "--validation", "real.txt"], "--validation must hold another text than FILE, b"),
    "standard input, validated": (
        ["--run", "s", "--validation", "-", "--over", "leak=0.5,1"],
        "rnn-jax: --validation must be a file, since standard input cannot be read again, got '-'.",
    ),
    "given too": (["--over", "leak=0.5,1", "--leak", "1"], "--over must not name leak when --leak is given too"),
    "given with =": (["--over", "leak=0.5,1", "--leak=1"], "--over must not name leak when --leak is given too"),
    "named twice": (["--over", "leak=1", "--over", "leak=0.5"], "--over must name each option once, got leak twice"),
    "value twice": (["--over", "leak=1,1.0"], "--over must give each value once, got leak=1.0 twice."),
    "no integer": (["--over", "hidden-size=8,1.5"], "--over must give hidden-size an integer, got '1.5'."),
    "no number": (["--over", "leak=1,x"], "--over must give leak a number, got 'x'."),
    "empty": (["--over", "learning-rate="], "--over must give learning-rate a number or None, got ''."),
    "no choice": (["--over", "cell=gru,gro"], '--over must give cell one of "vanilla", "gru", "lstm", got \'gro\'.'),
    "no switch": (["--over", "watch=1"], "--over must give watch true or false, got '1'."),
    "none": (["--over", "leak=None"], "--over must give leak a number, got 'None'."),
    "range": (
        ["--over", "learning-rate=0.1,-1"],
        "--over must give combinations that a run can have, but 'learning-rate=-1.0' is none: --learning-rate must",
    ),
    "nan": (["--over", "learning-rate=nan"], "is none: --learning-rate must be from 1e-30 to 1e+38, got nan."),
    "no combination": (
        ["--over", "cell=vanilla,gru", "--over", "activation=tanh,relu"],
        "but 'cell=gru,activation=relu' is none: --activation must be left out with --cell gru",
    ),
    "the same cell": (
        ["--over", "learning-rate=None,0.25"],
        "but learning-rate=None and learning-rate=0.25 train the same network: leave out one of them.",
    ),
    "long": (
        ["--over", "memory=" + "1" * 300],
        "--over must give combinations whose names have at most 255 bytes, as a folder's, got 'memory=111",
    ),
    "many": (
        ["--over", "steps=" + ",".join(map(str, range(1, 102))), "--seeds", "100"],
        "--over and --seeds must give at most 10,000 runs, got 10,100: sweep over less.",
    ),
    "a run": (["--run", "run"], "--run must name a new folder or that of a sweep, but 'run' holds other files."),
    "is a file": (["--run", "real.txt"], "--run must name a folder, but 'real.txt' is a file."),
    "below a file": (["--run", "real.txt/s"], "--run must name a folder that can be made, but 'real.txt/s' cannot:"),
    "torn": (["--run", "torn"], "--run must hold a sweep that can be read, but 'torn/sweep.json' is none: it must"),
    "strange": (["--run", "strange"], "'strange/sweep.json' is none: it is not a sweep of this version."),
}  # fmt: skip


@pytest.mark.parametrize("label", BAD)
def test_bad_input(tmp_path, label, monkeypatch):
    """One sentence, status 2, not a file touched, and no run begun."""
    monkeypatch.setattr(running, "_process", lambda words, file: pytest.fail(f"a run has begun: {words}"))
    for name, words in (("run", "x"), ("torn", '{"format": 1'), ("strange", "[1]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("other" if name == "run" else "sweep.json")).write_text(words)
    (tmp_path / "real.txt").write_text(REAL_TEXT.read_text())
    before, (args, words) = everything(tmp_path), BAD[label]
    if args[:1] == ["--over"]:
        args = ["real.txt", "--run", "s", *args]
    elif args[:1] == ["--run"]:
        args = ["real.txt", *args]
    result = sweep(tmp_path, *args, status=2)
    assert result.stderr.startswith("rnn-jax: ") and words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout
    assert everything(tmp_path) == before and not (tmp_path / "s").exists()


@pytest.mark.parametrize("option", ["FILE", "--validation"])
def test_a_pipe_is_refused(tmp_path, begun, option):
    """Only the first run could read it."""
    os.mkfifo(tmp_path / "pipe")
    words = ["pipe"] if option == "FILE" else [REAL_TEXT, "--validation", "pipe"]
    err = sweep(tmp_path, *words, "--run", "s", status=2).stderr
    assert err == f"rnn-jax: {option} must be a file, which each run of a sweep can read again, got 'pipe', a pipe.\n"
    assert not begun and [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_bad_grid_is_refused_before_jax_is_imported(tmp_path):
    code = "import sys; from rnn_jax._cli.main import main\nassert main(sys.argv[1:]) == 2 and 'jax' not in sys.modules"
    args = ["sweep", str(REAL_TEXT), "--run", "s", "--over", "leak=2"]
    result = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0 and "'leak=2.0' is none" in result.stderr, result.stderr


def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch):
    for name in ("rnn_jax._cli.sweep.command", "rnn_jax._cli.sweep.results", "rnn_jax.experiments._differences"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "statsmodels.stats.power", None)
    result = sweep(tmp_path, REAL_TEXT, "--run", "s", status=2)
    assert result.stderr.startswith("rnn-jax: needs statsmodels")
    assert result.stderr.endswith(": pip install 'rnn-jax-bptt[experiments]'\n") and not result.stdout
    assert not (tmp_path / "s").exists()
