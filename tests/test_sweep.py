"""`rnn-jax sweep`: what is kept, failures, and the numbers of the table."""

import json
import os
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import scipy.stats
from commands import REAL_TEXT, Terminal, command, everything, metrics
from pages import Page
from sweeps import TINY, grid, in_this_process, rows_of, same_numbers, sweep
from tqdm import tqdm

from rnn_jax._cli.sweep import results, running
from rnn_jax._cli.training import loop
from rnn_jax._reporting.lock import LOCK, locked

GRID = ["--over", "learning-rate=0.1,0.5", "--over", "hidden-size=4,6"]


FOLDERS = [
    f"hidden-size={size},learning-rate={rate}/seed-{seed}" for size in (4, 6) for rate in (0.1, 0.5) for seed in (0, 1)
]


@pytest.fixture
def begun():
    with in_this_process() as words:
        yield words


@pytest.fixture(scope="module")
def swept(made_once):
    """Two sizes, two rates and two seeds of 20 steps: the parent of the folder, and what was printed."""

    def make(cwd):
        with in_this_process():
            (cwd / "printed.txt").write_text(sweep(cwd, *GRID, *BRIEF).stdout)

    cwd = made_once("swept", make)
    return cwd, (cwd / "printed.txt").read_text()


BRIEF = ["--seeds", 2, "--steps", 20, "--run", "s", *TINY, REAL_TEXT]


@pytest.fixture
def copied(swept, tmp_path):
    """A folder with a copy of the sweep."""
    shutil.copytree(swept[0] / "s", tmp_path / "s")
    return tmp_path


def bits_of(run):
    """The validations of a run, by numpy, from its metrics."""
    return np.array([record["validation_bits"] for record in metrics(run) if "validation_bits" in record])


def table_of(out):
    """The rows of the table, by column; two spaces or more are between columns."""
    (block,) = [block for block in out.split("\n\n") if "best bits" in block]
    header, *rows = ([word.strip() for word in line.split("  ") if word.strip()] for line in block.splitlines())
    return [dict(zip(["", *header], row, strict=True)) for row in rows]


def test_the_table_has_the_means_and_intervals_of_the_metrics(swept):
    cwd, printed = swept
    assert printed.startswith("4 combinations, 2 seeds, 8 runs\n")
    bits = {}
    for name in FOLDERS:
        bits.setdefault(name.split("/")[0], []).append(bits_of(cwd / "s" / name))
    ordered = sorted(bits, key=lambda name: np.mean([one.min() for one in bits[name]]))
    rows = table_of(printed)
    assert [row["setting"] for row in rows] == [
        name.replace("hidden-size=", "hidden size ").replace(",learning-rate=", ", learning rate ") for name in ordered
    ]
    first = np.array([one.min() for one in bits[ordered[0]]])
    for row, name in zip(rows, ordered, strict=True):
        best, last = np.array([(one.min(), one[-1]) for one in bits[name]]).T
        check_interval(row["best bits [95 %]"], best)
        check_interval(row["last bits [95 %]"], last)
        if name != ordered[0]:
            check_interval(row["more than the best [95 %]"], best - first)
        assert (row["seeds"], row["failed"]) == ("2", "-")
        seconds = [metrics(cwd / "s" / name / f"seed-{seed}")[-1]["seconds"] for seed in (0, 1)]
        assert float(row["seconds"]) == pytest.approx(np.mean(seconds), abs=0.06)
        hidden, symbols = (
            int(name[12]),
            len(json.loads((cwd / "s" / name / "seed-0/settings.json").read_text())["symbols"]),
        )
        assert row["parameters"] == f"{hidden * (symbols + hidden + 1) + (hidden + 1) * symbols:,}"


def check_interval(words, values):
    """`mean [low, high]` is Student's interval, by scipy, to the digits that are printed."""
    found = [float(number) for number in re.findall(r"-?\d[\d.e-]*", words)]
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose(found, [values.mean(), low, high], rtol=1e-3)


def test_the_verdict_is_that_of_the_paired_test(swept):
    cwd, printed = swept
    rows = table_of(printed)
    first, second = (
        np.array([bits_of(cwd / "s" / name).min() for name in FOLDERS if folder_of(row) in name]) for row in rows[:2]
    )
    chance = scipy.stats.ttest_rel(first, second).pvalue > 0.05
    assert f"Best: {rows[0]['setting']}, " in printed and f"The second, {rows[1]['setting']}, needs " in printed
    assert ("that may be chance" in printed) == chance and ("more than chance" in printed) != chance


def folder_of(row):
    return row["setting"].replace("hidden size ", "hidden-size=").replace(", learning rate ", ",learning-rate=")


def test_the_report_has_pictures_and_tables(swept, tmp_path):
    cwd, printed = swept
    text = (cwd / "s/report.html").read_text()
    page = Page(text)
    assert not page.outside and len(page.images) == 2
    for number, image in enumerate(page.images):
        (tmp_path / f"{number}.png").write_bytes(image)
        pixels = matplotlib.image.imread(tmp_path / f"{number}.png")
        assert pixels.shape[0] > 200 and len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
    row = table_of(printed)[0]
    assert {row["best bits [95 %]"], row["last bits [95 %]"], row["setting"]} <= set(page.cells)
    assert all(words in text for words in ("Best: ", "streams 2, window 8, steps 20, ", "textwrap.py"))
    found = rows_of(cwd / "s/results.csv")
    assert [(row["hidden_size"], row["learning_rate"], row["seed"]) for row in found] == [
        (size, rate, seed) for size in "46" for rate in ("0.1", "0.5") for seed in "01"
    ]
    for row, name in zip(found, FOLDERS, strict=True):
        bits = bits_of(cwd / "s" / name)
        assert float(row["loss"]) == pytest.approx(bits[-1], rel=1e-8)
        assert float(row["lowest_loss"]) == pytest.approx(bits.min(), rel=1e-8)
    assert [row["step"] for row in rows_of(cwd / "s/curves.csv")][:2] == ["10", "20"]


def test_every_cell_is_a_run(copied):
    runs = [f"s/{name}" for name in FOLDERS]
    assert sorted(str(path.relative_to(copied)) for path in copied.glob("s/*/seed-*")) == sorted(runs)
    assert all(one.with_name(f"log-{one.name}.txt").is_file() for one in map(copied.joinpath, runs))
    out = command("compare", *runs, cwd=copied)
    assert out.returncode == 0 and out.stdout.count("2 seeds of ") == 4, out.stderr
    assert command("sample", runs[0], "--best", "--length", 5, cwd=copied).returncode == 0
    assert command("train", "--resume", runs[0], "--steps", 21, cwd=copied).returncode == 0
    result = command("sweep", *GRID, *BRIEF, cwd=copied)
    assert result.returncode == 2 and f"'{runs[0]}' has steps 21, not 20: move it to another place." in result.stderr


def test_a_sweep_on_bytes_with_a_validation_file(tmp_path, begun):
    """All that is said is per byte and, of the best, per character. Files with odd names are found again."""
    folder = tmp_path / "ein Ordner"
    folder.mkdir()
    (folder / "a text.txt").write_text("Schöne Grüße! " * 400)
    (folder / "-übrig,=.txt").write_text("Größere Gänse? " * 90)
    args = ["--over", "leak=0.5,1", "--vocab", "byte", *BRIEF[:4], "--run", "s w é", *TINY, "a text.txt"]
    args += ["--validation=-übrig,=.txt"]
    out = sweep(folder, *args).stdout
    assert "per character, " not in out and out.count(" bits per byte, ") == len(begun) == 4
    runs = {leak: [folder / f"s w é/leak={leak}/seed-{seed}" for seed in (0, 1)] for leak in (0.5, 1.0)}
    mean = min(np.mean([bits_of(run).min() for run in of_leak]) for of_leak in runs.values())
    facts = json.loads((runs[0.5][0] / "settings.json").read_text())
    assert facts["validation_text"] == "-übrig,=.txt" and facts["bytes_per_character"] > 1
    assert f" bits per byte ({mean * facts['bytes_per_character']:.3f} per character) on average over 2 seeds." in out
    text = (folder / "s w é/report.html").read_text()
    assert "lowest bits per byte on the held-out text?" in text and "bits per character" not in text
    assert "a text.txt, validated by -übrig,=.txt" in text
    cut_validation(runs[0.5][0], 20)
    shutil.rmtree(runs[0.5][0] / "checkpoint" / "20")
    again = sweep(folder, *args).stdout
    assert len(begun) == 5 and "--validation=-übrig,=.txt" in begun[-1] and table_of(again)[0]["setting"] in out
    compared = command("compare", *[run.relative_to(folder) for one in runs.values() for run in one], cwd=folder)
    assert compared.returncode == 0 and compared.stdout.count("2 seeds of leak ") == 2, compared.stderr
    (folder / "-übrig,=.txt").write_text("more")
    assert "of the same text and validation file, but 's w é' was made with" in sweep(folder, *args, status=2).stderr
    assert len(begun) == 5


def test_a_text_that_changes_during_a_sweep_ends_it(tmp_path, monkeypatch, begun):
    """Bits of different texts are not ranked together."""
    text, begin = tmp_path / "text.txt", running._process
    text.write_text(REAL_TEXT.read_text())

    def changed(words, file):
        if len(begun) == 2:
            text.write_text(REAL_TEXT.read_text()[::-1])
        return begin(words, file)

    monkeypatch.setattr(running, "_process", changed)
    result = sweep(tmp_path, *GRID, *BRIEF[:-1], "text.txt", status=2)
    assert f"must have its text and validation file, but 's/{FOLDERS[2]}' has others: move it" in result.stderr
    assert len(begun) == 3 and not (tmp_path / "s/report.html").exists()


@pytest.mark.parametrize("differ", [True, False])
def test_runs_that_read_the_held_out_text_in_other_parts(tmp_path, begun, differ):
    over = "streams=2,3" if differ else "leak=0.5,1"
    out = sweep(tmp_path, "--over", over, *BRIEF[:4], "--run", "s", *TINY[2:], REAL_TEXT).stdout
    words = "Caution: these runs read the held-out text in different numbers of parts, because --streams or"
    assert len(begun) == 4 and (words in out) == (words in (tmp_path / "s/report.html").read_text()) == differ


def test_the_same_command_trains_nothing_again(swept, copied, begun):
    result = sweep(copied, *GRID, *BRIEF)
    assert not begun and result.stdout.count("(kept)") == 8
    assert result.stdout.replace(" (kept)", "") == swept[1]
    same_numbers(copied / "s", swept[0] / "s")


def test_a_sweep_grows(copied, begun):
    """More seeds and more values: the new cells are trained, the others stay as they are."""
    before = everything(copied / "s")
    grown = ["--over", "hidden-size=4,6", "--over", "learning-rate=0.5,1,0.1"]
    out = sweep(copied, *grown, "--seeds", 3, *BRIEF[2:]).stdout
    assert len(begun) == 18 - 8 and out.count("(kept)") == 8 and len(table_of(out)) == 6
    after = everything(copied / "s")
    tables = {copied / "s" / name for name in ("results.csv", "curves.csv", "results.json", "report.html")}
    assert all(after[path] == words for path, words in before.items() if path not in tables)
    less = sweep(
        copied, "--over", "learning-rate=0.5", "--over", "hidden-size=6", "--seeds", 1, "--seed", 2, *BRIEF[2:]
    )
    assert len(begun) == 10 and len(table_of(less.stdout)) == 1


OTHER = {
    "steps": ([*GRID, *BRIEF, "--steps", 30], "was made with steps 20, not 30: take a new folder, or leave the option"),
    "momentum": ([*GRID, *BRIEF, "--momentum", 0.5], "was made with momentum 0.9, not 0.5"),
    "over": (
        [*GRID[:2], *BRIEF],
        "must name a sweep over learning-rate, but 's' is one over hidden-size, learning-rate:",
    ),
    "nothing": (BRIEF, "must name a sweep over seeds alone, but 's' is one over hidden-size, learning-rate:"),
    "text": ([*GRID, *BRIEF[:-1], "other.txt"], "must name a sweep of the same text and validation file, but 's' was"),
    "validation": (
        [*GRID, *BRIEF, "--validation", "other.txt"],
        "of the same text and validation file, but 's' was made",
    ),
    "vocab": ([*GRID, *BRIEF, "--vocab", "byte"], "was made with vocab character, not byte: take a new folder"),
}


@pytest.mark.parametrize("label", OTHER)
def test_other_settings_are_refused(copied, begun, label):
    (copied / "other.txt").write_text(REAL_TEXT.read_text() + "more")
    before, (args, words) = everything(copied), OTHER[label]
    result = sweep(copied, *args, status=2)
    assert words in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not begun and everything(copied) == before


def test_what_changes_no_number_may_change(copied, begun):
    sweep(copied, *GRID, *BRIEF, "--save-minutes", 3, "--jobs", 2, "--keep", 5)
    assert not begun


def test_one_sweep_at_a_time(copied, begun):
    before = everything(copied)
    with locked(copied / "s"):
        result = sweep(copied, *GRID, *BRIEF, status=2)
    assert f"'s' must not be in training already, but process {os.getpid()} on " in result.stderr
    assert not begun and everything(copied) == before


def test_a_cell_in_use_stops_the_sweep_before_it_begins(copied, begun):
    run = copied / "s" / FOLDERS[-1]
    shutil.rmtree(copied / "s" / FOLDERS[0])
    (run / "checkpoint" / "20").rename(run / "checkpoint" / "20.orbax-checkpoint-tmp")
    with locked(run):
        result = sweep(copied, *GRID, *BRIEF, status=2)
    assert f"'s/{FOLDERS[-1]}' must not be in training already" in result.stderr and not begun


KILLED = {  # what a kill leaves behind
    "before the settings": lambda run: [path.unlink() for path in run.iterdir() if path.is_file()],
    "before a checkpoint": lambda run: shutil.rmtree(run / "checkpoint"),
    "before the last checkpoint": lambda run: shutil.rmtree(run / "checkpoint" / "20"),
    "before the last validation": lambda run: cut_validation(run, 20),
    "before an earlier validation": lambda run: (shutil.rmtree(run / "checkpoint" / "20"), cut_validation(run, 10)),
    "with an empty folder": lambda run: (shutil.rmtree(run), run.mkdir(), (run / LOCK).touch()),
}


def cut_validation(run, step):
    """Cut the metrics before the validation of a step."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if f'"step": {step},' in line and "validation_bits" in line)
    (run / "metrics.jsonl").write_text("".join(lines[:at]))


@pytest.mark.parametrize("when", KILLED)
def test_whatever_a_kill_leaves_the_numbers_are_the_same(swept, copied, begun, when):
    KILLED[when](copied / "s" / FOLDERS[3])
    sweep(copied, *GRID, *BRIEF)
    assert len(begun) == 1
    same_numbers(copied / "s", swept[0] / "s")


def test_a_cell_that_diverges_is_a_result(tmp_path, begun):
    """The others are trained, the table says it, and it is not tried again, since it would end in the same way."""
    diverging = ["--over", "learning-rate=0.5,1e38", "--max-skipped", 3, *BRIEF]
    out = sweep(tmp_path, *diverging).stdout
    assert len(begun) == 4 and out.count(": failed: loss, gradient or update became infinite or NaN: ") == 2
    good, bad = table_of(out)
    assert (good["failed"], bad["failed"]) == ("-", "2") and bad["setting"] == "learning rate 1e+38"
    assert bad["best bits [95 %]"] == bad["last bits [95 %]"] == bad["more than the best [95 %]"] == "-"
    assert "Failed: learning-rate=1e+38, seed 1: loss, gradient" in out and "tries it again" not in out
    assert "The second, learning rate 1e+38, cannot be compared: that needs two or more seeds" in out
    assert [row["lowest_loss"] for row in rows_of(tmp_path / "s/results.csv")][2:] == ["", ""]
    assert "next: rnn-jax sample s/learning-rate=0.5/seed-" in out
    again = sweep(tmp_path, *diverging).stdout
    assert len(begun) == 4 and again.count("failed (kept)") == 2 and table_of(again) == table_of(out)


def test_a_cell_that_fails_for_another_reason_is_tried_again(tmp_path, begun):
    failing = ["--over", "window=8,1000000", *BRIEF[:6], "--streams", 2, REAL_TEXT]
    out = sweep(tmp_path, *failing, status=1).stdout
    assert len(begun) == 4 and out.count("window=1000000, seed 0: failed: FILE must hold at least ") == 1
    assert "The same command tries it again." in out and [row["failed"] for row in table_of(out)] == ["-", "2"]
    sweep(tmp_path, *failing, status=1)
    assert len(begun) == 6


def test_if_every_cell_fails_there_is_no_table(tmp_path, begun):
    result = sweep(tmp_path, "--window", 1000000, "--seeds", 1, "--run", "s", REAL_TEXT, status=1)
    assert "rnn-jax: no run of 's' reached its end: FILE must hold at least" in result.stderr
    assert len(begun) == 1 and not (tmp_path / "s/report.html").exists()


def test_why_a_process_ended(tmp_path):
    log = tmp_path / "log"
    log.write_text("rnn-jax: of an earlier one\nrnn-jax: first\nrnn-jax: a full disk\nmore\n\n")

    def why(status, start=0):
        process = type("Process", (), {"returncode": status})
        return running._why(running._Running(None, process, log, start))

    assert (
        why(1) == "a full disk" and why(-9) == "it was killed by signal 9" and why(143) == "it was stopped by a signal"
    )
    assert why(1, log.read_text().index("more")) == "more" and why(3, len(log.read_text())) == "status 3"


def test_a_run_that_ended_by_patience_keeps_its_last_numbers():
    cells = grid("leak=1", seeds=3, steps=40, eval_every=10, patience=1)

    def of(*bits):
        validations = (results.Validation(10 * i + 10, 0, i + 1.0, one) for i, one in enumerate(bits))
        return results.Result(tuple(validations), 9.0, 7)

    trial = results.trial_of(cells, [of(3.0, 2.0, 2.5), of(4.0, 3.0, 2.0, 1.0), None], 4.5)
    np.testing.assert_array_equal(trial.curves["loss"], np.array([[3, 2, 2.5, 2.5], [4, 3, 2, 1], [np.nan] * 4]).T)
    np.testing.assert_array_equal(trial.final("lowest_loss"), [2, 1, np.nan])
    np.testing.assert_array_equal(trial.final("seconds"), [9, 9, np.nan])
    np.testing.assert_array_equal(trial.diverged, [False, False, True])
    assert trial.seconds == 18 and trial.facts == {"parameters": 7} and trial.chance == 4.5
    failed = trial._replace(setting={"leak": 2.0}, curves=trial.curves | {"lowest_loss": np.full((4, 3), np.nan)})
    better = trial._replace(
        setting={"leak": 0.5}, curves=trial.curves | {"lowest_loss": trial.curves["lowest_loss"] - 1}
    )
    assert results.ranked([failed, trial, better]) == [better, trial, failed]


def test_a_run_that_ended_by_patience_is_finished(tmp_path, begun, monkeypatch):
    numbers = iter([3.0, 4.0, 5.0])
    monkeypatch.setattr(loop, "make_validate", lambda *_: lambda params: next(numbers))
    args = ["--seeds", 1, "--steps", 50, "--patience", 1, "--run", "s", *TINY, REAL_TEXT]
    assert "seed 0: best 3.000, last 4.000 bits per character" in sweep(tmp_path, *args).stdout
    assert "(kept)" in sweep(tmp_path, *args).stdout and len(begun) == 1


def test_a_terminal_shows_how_far_all_cells_are(copied, monkeypatch):
    cells = grid("hidden-size=4,6", "learning-rate=0.1,0.5", seeds=2, steps=20)
    monkeypatch.chdir(copied)
    assert running.steps_done(cells[0].folder) == 20 and running.steps_done(Path("nowhere")) == 0
    with open(cells[1].folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 25, "cha')  # being written
    assert running.steps_done(cells[1].folder) == 20
    screen = Terminal()
    with tqdm(total=160, file=screen, bar_format="{desc} {percentage:3.0f} %", mininterval=0) as bar:
        running._Bar(bar, {cells[2].folder: 20}).show(cells[:2])
    assert "hidden-size=4,learning-rate=0.1, seed 0; hidden-size=4,learning-rate=0.1, seed 1: " in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("38 %")
