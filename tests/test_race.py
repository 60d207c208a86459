"""The race of benchmarks/race: the processes of its contenders, its statistics, and the report that is committed."""

import dataclasses
import importlib
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from by_numpy import by_numpy
from race import command, contenders, figures, measure, report, without_jax
from race.problems import CELLS, GATED, SHAPES, Shape, make_problem

import rnn_jax

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SMALL = Shape(5, 2, 3, 4, 3)
OF_RATES = {"kind": "any", "product": [1e9], "copy": [1e9]}
IN_JAX = [name for name, row in contenders.CONTENDERS.items() if name not in contenders.NOT_JAX and row.cores == 1]


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
    heat = measure.Heat("race", "vanilla", SMALL, "gradient", "cpu", ("own", "numpy"), rounds=2)
    said = []
    rows, missing = measure.run(heat, said.append)
    assert [row["contender"] for row in rows] == (["numpy"] if why else ["own", "numpy"])
    assert all(row["error"] < 1e-5 and len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    if why:
        (entry,) = missing
        assert entry["contender"] == "own" and why in entry["why"] and why in said[0]


@pytest.mark.parametrize("source", ["another", "none"])
def test_a_race_against_another_checkout(source, monkeypatch, tmp_path):
    """`before` imports the library of that folder; if there is none, it does not race."""
    if source == "another":
        (tmp_path / "rnn_jax").mkdir()
        (tmp_path / "rnn_jax" / "__init__.py").write_text("raise NotImplementedError('the other one')")
    monkeypatch.setenv(contenders.BEFORE, str(tmp_path))
    before = contenders.Contender("before", "ours", ".ours", "before", source=str(tmp_path))
    monkeypatch.setitem(contenders.CONTENDERS, "before", before)
    heat = measure.Heat("race", "vanilla", SMALL, "gradient", "cpu", ("before",), rounds=1)
    rows, (entry,) = measure.run(heat, lambda said: None)
    assert not rows
    assert entry["why"] == {"another": "the other one", "none": f"there is no rnn_jax in {tmp_path}"}[source]


@pytest.mark.parametrize("name", IN_JAX)
@pytest.mark.parametrize("cell", CELLS)
def test_every_contender_computes_the_same_network(cell, name, monkeypatch):
    """The loss and gradient of each, traced by JAX and not compiled, compared with those by hand in NumPy."""
    if (name, cell) in contenders.LACKS or contenders.obstacle(name, cell, SMALL, "gradient", "cpu"):
        pytest.skip("it does not race here")
    monkeypatch.setattr(
        importlib.import_module(contenders.find(name).module, "race"), "race", lambda model, what: model
    )
    if name == "lean" and cell == "vanilla":
        monkeypatch.setattr("race.ours.lean_plan", lambda *_: rnn_jax.Plan(2))  # no plan fits at this size
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = contenders.builder(name)(cell, SMALL, "gradient")
        value, gradient = by_numpy(model.value_and_grad or jax.value_and_grad(model.loss))(model.params, *model.data)
        found = {"loss": value} | {name: np.asarray(x) for name, x in model.leaves(gradient).items()}
    expected = without_jax.numpy(cell, SMALL, "gradient").result()
    assert set(found) == set(expected) == {"loss", *CELLS[cell].leaves}
    for leaf, values in expected.items():
        np.testing.assert_allclose(found[leaf], values, rtol=0, atol=1e-5 * np.abs(values).max(), err_msg=leaf)


def test_problems_of_the_vanilla_cell_are_the_ones_of_earlier_races():
    """A figure per array: the numbers of a shape depend only on its seed."""
    weights, xs, targets, (h_0,) = make_problem("vanilla", SMALL)
    earlier = [5.5788, 6.79617, 0.35561, 3.22523, 0.21072, 22.47803, 3.47938]
    sums = [float(np.abs(x).sum()) for x in (*weights.values(), xs, h_0)]
    assert sums == pytest.approx(earlier, rel=1e-5) and targets.sum() == 10


def test_a_process_that_does_not_answer_is_ended():
    with measure.pool() as workers:
        workers.append(measure.start("numpy", "vanilla", Shape(1, 1, 1, 1, 1), "gradient", "cpu"))
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


@pytest.mark.parametrize("name", [name for name in figures.REPORTS if (RESULTS / f"{name}.json").exists()])
def test_the_committed_report_is_of_the_committed_figures(name, tmp_path):
    shutil.copy(RESULTS / f"{name}.json", tmp_path)
    command.draw(name, tmp_path)
    text = (RESULTS / f"{name}.md").read_text()
    assert (tmp_path / f"{name}.md").read_text() == text, "python benchmarks/race --redraw"
    pictures = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    of_vanilla = {"race_speed.png", "race_memory.png", "race_roofline.png"}
    assert set(pictures) == (of_vanilla if name == "race" else set())
    assert all(picture[:4] == b"\x89PNG" and len(picture) > 50_000 for picture in pictures.values())


def test_where_a_gpu_overtakes():
    """The best of each device by shape; a contender without a textbook has no ratio."""
    row = {
        "series": "B",
        "cell": "gru",
        "what": "gradient",
        "flops": 2e6,
        "bytes": 1,
        "compile_s": None,
        "temp_bytes": None,
    }
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
    rates = {"cpu": OF_RATES, "cuda": OF_RATES}
    table = figures.summarise(rows, rates)
    assert table["speed"].isna().all() and table["of_floor"].max() == pytest.approx(2e6 / 1e9 / 1.0)
    said = report.crossover(table, {"machines": rates})
    assert said[-1] == "Along B of gru the GPU is ahead from 10x16x2x2x2 on."
    assert [line.split("|")[-2].strip() for line in said[1].splitlines()[2:]] == ["0.50x", "2.00x", "9.00x"]


def raced(contender, cell, shape, seconds, role=None, **more):
    """A row as a race writes it."""
    role = role or contenders.find(contender).role
    row = {"series": "race", "cell": cell, "shape": list(shape), "what": "gradient", "device": "cpu", "calls": 1}
    seconds = seconds if isinstance(seconds, list) else [seconds]
    row |= {"contender": contender, "role": role, "flops": 1, "bytes": 1, "compile_s": None, "temp_bytes": 8}
    return row | {"error": 1e-7, "seconds": seconds} | more


def test_the_targets_of_gated_cells():
    """Ours takes 1 s; torch and NumPy count among all rivals, not among those on JAX. One race falls short."""
    seconds = {"textbook": 1.7, "hoisted": 1.4, "flax": 1.35, "torch": 0.9, "numpy": 1.2, "blocked": 1.0, "lean": 1.5}
    rows = [raced(name, cell, shape, s) for name, s in seconds.items() for cell in GATED for shape in SHAPES]
    rows += [raced("checkpointed", cell, shape, 1, temp_bytes=0.4) for cell in GATED for shape in SHAPES]
    for row in rows:
        row |= {"temp_bytes": 2.1} if row["contender"] == "lean" and row["shape"][0] == 256 else {}
    judged = {t.wanted: (t.measured, t.met) for t in figures.targets(figures.summarise(rows, {"cpu": OF_RATES}))}
    assert {wanted: found for wanted, found in judged.items() if found[1] is not None} == {
        "gates kept: geometric mean >= 1.6x textbook": ("1.7x", True),
        "gates kept: never below 1.0x textbook": ("1.7x, at gru 10000x4x32x64x32", True),
        "gates kept: geometric mean >= 1.3x the best JAX rival": ("1.35x", True),
        "gates kept: geometric mean >= 1.0x the best rival": ("0.9x", False),
        "gates kept: temporaries no larger than textbook's": ("1x, at gru 10000x4x32x64x32", True),
        "lean >= 4x smaller than textbook, T >= 256": ("1x, at gru 10000x4x32x64x32", False),
        "lean at >= 1.0x the textbook speed on these shapes": ("1.13x, at gru 10000x4x32x64x32", True),
        "checkpointed >= 20x smaller than textbook at T = 1000": ("8x, at gru 1000x16x64x128x64", False),
        "error no worse than textbook's (its error over ours)": ("1x, at gru 10000x4x32x64x32", True),
    }


@pytest.mark.parametrize(("before", "met"), [([0.9, 1.0, 1.1], True), ([0.9, 0.98, 0.99], False)])
def test_slower_than_another_checkout_by_more_than_noise(before, met):
    rows = [raced("blocked", "vanilla", SMALL, [1.0] * 3), raced("textbook", "vanilla", SMALL, 2.0)]
    rows += [raced("hoisted", "vanilla", SMALL, 2.0), raced("before", "vanilla", SMALL, before, role="ours")]
    targets = figures.targets(figures.summarise(rows, {"cpu": OF_RATES}))
    (target,) = [t for t in targets if t.wanted.startswith("no slower than before")]
    assert target.met is met


def test_gated_cells_have_a_report_of_their_own(tmp_path):
    """A race of two cells is kept as two races."""
    rows = [raced("blocked", cell, SMALL, 1.0) for cell in ("vanilla", "gru")]
    missing = [{"cell": "lstm", "contender": "haiku"}]
    assert command.write({"rows": rows, "missing": missing, "seed": 1}, tmp_path) == ["race", "race-gated"]
    read = lambda name: json.loads((tmp_path / name).read_text())  # noqa: E731
    assert read("race.json") == {"rows": rows[:1], "missing": [], "seed": 1}
    assert read("race-gated.json") == {"rows": rows[1:], "missing": missing, "seed": 1}


def test_each_cell_races_at_each_shape():
    options = command.parse(["--cell", "lstm", "gru", "--contenders", "blocked", "--shapes", "1x1x1x1x1", "2x1x1x1x1"])
    raced = [(heat.cell, heat.shape.time) for heat in command.heats(options, "cpu")]
    assert raced == [("lstm", 1), ("lstm", 2), ("gru", 1), ("gru", 2)]
    assert [heat.cell for heat in command.heats(command.parse(["--smoke"]), "cpu")] == ["vanilla"]


@pytest.mark.parametrize(
    "words",
    [["--shapes", "3x4"], ["--contenders", "nobody"], ["--cell", "rnn"], ["--what", "all"], ["--rounds", "0"]],
)
def test_a_name_that_does_not_exist_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.parse(words)
    assert words[1] in capsys.readouterr().err
