"""The race of benchmarks/race: the processes of its contenders, its statistics, and the report that is committed."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import pytest
from race import command, contenders, figures, measure, report
from race.problems import Shape

import rnn_jax

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@dataclasses.dataclass(frozen=True)
class Mine:
    """A method with a factor: right for 1.0, refused for 1.01; with 0 its process ends."""

    factor: float
    reference = rnn_jax.Autodiff()

    def gradient(self, objective, params, batch, h_0):
        if not self.factor:
            print("the last words")
            os._exit(3)
        value, d = rnn_jax.BPTT().gradient(objective, params, batch, h_0)
        return value, jax.tree.map(lambda x: self.factor * x, d)


@pytest.mark.parametrize(
    ("factor", "why"),
    [
        (1.0, None),
        (1.01, "is wrong by 1.0e-02 of the truth, above 1e-03: refused"),
        (0.0, "its process ended with 3: the last words"),
    ],
)
def test_a_heat(factor, why, monkeypatch):
    """NumPy and a method of one's own take turns; who is wrong or dies is out, and the others race on."""
    monkeypatch.setenv(contenders.OWN, f"test_race:Mine({factor})")
    own = contenders.Contender("mine", "ours", ".networks", "own")
    monkeypatch.setitem(contenders.CONTENDERS, "own", own)
    heat = measure.Heat("race", Shape(5, 2, 3, 4, 3), "gradient", "cpu", ("own", "numpy"), rounds=2)
    said = []
    rows, missing = measure.run(heat, said.append)
    assert [row["contender"] for row in rows] == (["numpy"] if why else ["own", "numpy"])
    assert all(row["error"] < 1e-5 and len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    if why:
        (entry,) = missing
        assert entry["contender"] == "own" and why in entry["why"] and why in said[0]


def test_a_process_that_does_not_answer_is_ended():
    with measure.pool() as workers:
        workers.append(measure.start("numpy", Shape(1, 1, 1, 1, 1), "gradient", "cpu"))
        assert measure.hear(workers[0])["ready"]
        with pytest.raises(measure.WorkerDied, match="no answer in 0 s"):
            measure.hear(workers[0], limit=0.1)
        assert workers[0].process.exitcode == -9


def test_the_interval_of_a_ratio():
    """Of three rounds a resample has any of them as its median with more than a fortieth: the interval is all three."""
    assert figures.speed([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == (2.0, 1.0, 3.0)
    assert figures.speed([1.0, 10.0, 1.0, 1.0], [2.0, 20.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)  # a slow round is in both
    assert figures.speed([1.0, 2.0], [3.0, 2.0]) == (2.0, 1.0, 3.0)
    seconds = [1.0 + i / 100 for i in range(40)]
    median, low, high = figures.speed([1.0] * 40, seconds)
    assert 1 < low < median < high < 1.39


def test_the_committed_report_is_of_the_committed_figures(tmp_path):
    data = json.loads((RESULTS / "race.json").read_text())
    command.draw(data, tmp_path)
    assert (tmp_path / "race.md").read_text() == (RESULTS / "race.md").read_text(), "python benchmarks/race --redraw"
    pictures = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert set(pictures) == {"race_speed.png", "race_memory.png", "race_roofline.png"}
    assert all(picture[:4] == b"\x89PNG" and len(picture) > 50_000 for picture in pictures.values())


def test_where_a_gpu_overtakes():
    """The best of each device by shape; a contender without a textbook has no ratio."""
    row = {"series": "B", "what": "gradient", "flops": 2e6, "bytes": 1, "compile_s": None, "temp_bytes": None}
    row |= {"calls": 1, "error": 0.0, "role": "ours"}
    seconds = {
        ("cpu", 1): 1.0,
        ("cuda", 1): 2.0,
        ("cpu", 16): 3.0,
        ("cuda", 16): 1.5,
        ("cpu", 256): 9.0,
        ("cuda", 256): 1.0,
    }
    rows = [
        row | {"shape": [10, batch, 2, 2, 2], "device": device, "contender": name, "seconds": [factor * s]}
        for (device, batch), s in seconds.items()
        for name, factor in (("blocked", 1), ("bptt", 1.1))
    ]
    rates = {"kind": "any", "product": [1e9], "copy": [1e9]}
    table = figures.summarise(rows, {"cpu": rates, "cuda": rates})
    assert table["speed"].isna().all() and table["of_floor"].max() == pytest.approx(2e6 / 1e9 / 1.0)
    said = report.crossover(table, {"machines": {"cpu": rates, "cuda": rates}})
    assert said[-1] == "Along B the GPU is ahead from 10x16x2x2x2 on."
    assert [line.split("|")[-2].strip() for line in said[1].splitlines()[2:]] == ["0.50x", "2.00x", "9.00x"]


@pytest.mark.parametrize(
    "words", [["--shapes", "3x4"], ["--contenders", "nobody"], ["--what", "all"], ["--rounds", "0"]]
)
def test_a_name_that_does_not_exist_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.parse(words)
    assert words[1] in capsys.readouterr().err
