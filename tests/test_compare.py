"""`rnn-jax compare`: the tables and the page of several runs. Most runs here are copies of one with other figures."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import jax
import matplotlib.image
import numpy as np
import pytest
from commands import Terminal, command, everything, metrics
from pages import Page

from rnn_jax._cli.comparison import page as comparison_page
from rnn_jax._cli.comparison import runs as comparison_runs
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training.model import initial_params

BASELINES = {"unigram": 4.5, "bigram": 3.5, "trigram": 3.0}
PER_STEP = 80  # characters


@pytest.fixture
def place(finished, tmp_path):
    """`place.run(name, bits, ...)` makes a run with these validations; `place.compare(*args)` compares runs."""
    stored = json.loads((finished[0] / "run" / "settings.json").read_text())

    def run(name, bits, *, every=10, speed=1000.0, facts=(), **settings):
        """A validation at each `every` steps, at `speed` characters per second."""
        (tmp_path / name).mkdir(parents=True)
        changed = stored | {"baselines": BASELINES} | dict(facts)
        changed["settings"] = stored["settings"] | {"steps": every * len(bits), "seed": 0} | settings
        (tmp_path / name / "settings.json").write_text(json.dumps(changed))
        lines = []
        for step in range(every, every * len(bits) + 1, every):
            characters = step * PER_STEP
            seconds = characters / speed
            lines.append({"step": step, "characters": characters, "bits": 9.0, "grad_norm": 1.0, "seconds": seconds})
            validated = {"validation_bits": bits[step // every - 1]}
            lines.append({"step": step, "characters": characters, **validated, "seconds": seconds})
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def compare(*args, status=0, **options):
        result = command("compare", *args, cwd=tmp_path, **options)
        assert result.returncode == status, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    return SimpleNamespace(run=run, compare=compare, folder=tmp_path)


def tables(out):
    """The tables of the output: a list of lists of rows, by column; two spaces or more are between columns."""
    found = []
    for block in out.split("\n\n")[:-1]:
        lines = [line for line in block.splitlines() if not line.startswith("characters read")]
        header, *rows = ([word.strip() for word in line.split("  ") if word.strip()] for line in lines)
        found.append([dict(zip(["", *header], row, strict=True)) for row in rows])
    return found


def test_real_runs(finished, tmp_path, place):
    """What is said of a run of `rnn-jax train` is what its metrics say; nothing in the runs changes."""
    place.run("other", [4.0], hidden_size=8)
    measured = metrics(finished[0] / "run")
    before = everything(finished[0] / "run")
    result = place.compare(finished[0] / "run", "other", "--page", "a page.html")
    assert everything(finished[0] / "run") == before
    outcome, cost, reached = tables(result.stdout)
    best = min(record["validation_bits"] for record in measured if "validation_bits" in record)
    row, last = outcome[1], measured[-1]
    assert row["run"] == str(finished[0] / "run") and row["best bits"] == f"{best:.3f}"
    assert row["last bits"] == f"{last['validation_bits']:.3f}" and row["behind"] == f"{best - 4.0:.3f}"
    assert cost[1]["steps"] == "60" and cost[1]["characters"] == "4,800"
    assert float(cost[1]["seconds"].replace(",", "")) == pytest.approx(last["seconds"], abs=0.5)
    assert float(cost[1]["characters/s"].replace(",", "")) == pytest.approx(4800 / last["seconds"], abs=0.5)
    assert len(reached) == 2 and (tmp_path / "a page.html").exists()


def test_what_differs_and_which_is_best(place):
    """Only the settings that differ are columns; a default that is left out is the same as its value."""
    place.run("a", [4.2, 3.1, 3.3], learning_rate=None, hidden_size=32)
    place.run("b", [4.0, 2.9], learning_rate=0.25, momentum=0.5, speed=500.0)
    place.run("c", [3.9, 3.4, 3.2, 3.15], learning_rate=0.25, momentum=0.0, k2=10)
    place.run("d", [5.0], learning_rate=0.25, k1=10, k2=10)
    result = place.compare("a", "b", "c", "d")
    assert not result.stderr
    outcome, cost, _ = tables(result.stdout)
    measured = ["best bits", "behind", "at step", "last bits"]
    assert list(outcome[0]) == ["", *measured, "hidden size", "k1", "k2", "momentum", "run"]
    assert [[row[name] for name in ("", *measured, "run")] for row in outcome] == [
        ["1", "2.900", "-", "20", "2.900", "b"],
        ["2", "3.100", "0.200", "20", "3.300", "a"],
        ["3", "3.150", "0.250", "40", "3.150", "c"],
        ["4", "5.000", "2.100", "10", "5.000", "d"],
    ]
    assert [(row["hidden size"], row["k1"], row["momentum"]) for row in outcome] == [
        *(("16", "none", "0.5"), ("32", "none", "0.9"), ("16", "10", "0.0"), ("16", "10", "0.9"))
    ]
    assert [(row["steps"], row["characters"], row["seconds"], row["characters/s"]) for row in cost] == [
        *(("20", "1,600", "3.2", "500"), ("30", "2,400", "2.4", "1,000")),
        *(("40", "3,200", "3.2", "1,000"), ("10", "800", "0.8", "1,000")),
    ]
    assert "\nBest: 'b', 2.900 bits per character at step 20, 0.200 less than 'a'.\n" in result.stdout
    assert "unigram 4.500, bigram 3.500, trigram 3.000 bits per character." in result.stdout
    assert "one seed each: another seed may change their order." in result.stdout


def test_when_each_reached_what(place):
    """The first validation at the level or below, also if later ones are above it; no level that none reached."""
    place.run("a", [4.6, 3.5, 3.6, 3.2])
    place.run("b", [4.4, 4.3, 3.45, 4.9], leak=0.5, speed=400.0)
    *_, reached = tables(place.compare("a", "b").stdout)
    assert list(reached[0]) == ["", "as good as unigram", "as good as bigram", "3.450, which all reached"]
    assert list(reached[0].values()) == ["1", "1,600 in 1.6 s", "1,600 in 1.6 s", "3,200 in 3.2 s"]
    assert list(reached[1].values()) == ["2", "800 in 2.0 s", "2,400 in 6.0 s", "2,400 in 6.0 s"]
    place.run("worse", [4.8], leak=0.5, seed=7)
    *_, reached = tables(place.compare("worse", "a").stdout)
    assert list(reached[1].values()) == ["2", "never", "never", "800 in 0.8 s"]


def test_seeds_are_one_group(place):
    """Mean and range; whether the best two settings overlap; a repeated seed counts once."""
    for seed, bits in enumerate((3.0, 3.2, 3.4)):
        place.run(f"slow-{seed}", [bits], seed=seed)
        place.run(f"fast-{seed}", [bits - 0.25], seed=seed, learning_rate=0.5)
    names = [f"{name}-{seed}" for name in ("slow", "fast") for seed in range(3)]
    out = place.compare(*names).stdout
    assert "\n3 seeds of learning rate 0.5: 2.950 bits on average, from 2.750 to 3.150.\n" in out
    assert "\n3 seeds of learning rate 0.25: 3.200 bits on average, from 3.000 to 3.400.\n" in out
    assert "settings differ by 0.250 bits on average, but their ranges overlap: these seeds do not tell them" in out
    assert "one seed each" not in out
    cells = Page((place.folder / "compare.html").read_text()).cells
    at = cells.index("1, 2, 4")
    assert cells[at : at + 6] == ["1, 2, 4", "2.950", "2.750", "3.150", "0, 1, 2", "learning rate 0.5"]
    place.run("fastest-0", [2.0], learning_rate=0.7)
    place.run("again", [2.2], learning_rate=0.7)
    result = place.compare(*names, "fastest-0", "again")
    assert "settings differ by 0.950 bits on average, and their ranges do not overlap." in result.stdout
    assert result.stderr == (
        "rnn-jax: 'fastest-0' and 'again' have the same settings and the same seed, so they count as one seed.\n"
    )
    out = place.compare("slow-0", "slow-1").stdout
    assert "2 seeds of the same settings: 3.100 bits on average, from 3.000 to 3.200." in out


def test_runs_of_different_texts(place):
    """A warning; each text has its own best run, and there are no levels to reach."""
    place.run("a", [3.3])
    place.run(
        "b", [1.2], facts={"text_sha256": 64 * "0", "text": "another.txt", "baselines": dict.fromkeys(BASELINES, 2.0)}
    )
    place.run("c", [3.1], leak=0.5)
    result = place.compare("a", "b", "c")
    assert result.stderr == (
        "rnn-jax: these runs have different texts, so their bits cannot be compared: each text has its own best run.\n"
    )
    outcome, _ = tables(result.stdout)
    assert [(row["run"], row["behind"]) for row in outcome] == [("c", "-"), ("a", "0.200"), ("b", "-")]
    assert outcome[2]["text"] == "another.txt (00000000)"
    assert "Best of 'another.txt': 'b', 1.200 bits per character at step 10." in result.stdout


def test_what_makes_a_comparison_unfair(place):
    """Other parts of the held-out text, other machines, runs that are not finished or have diverged: each is said."""
    place.run("a", [3.3, 3.2])
    place.run("parts", [3.1, 3.0], streams=8, facts={"baselines": BASELINES | {"bigram": 3.51}})
    machine = json.loads((place.folder / "a" / "settings.json").read_text())["machine"]
    for part in ("device", "cpu", "cores"):
        place.run(
            f"machine-{part}",
            [3.1, 3.1],
            leak=0.5,
            facts={"machine": machine | {part: 999 if part == "cores" else "X"}},
        )
    place.run("later", [3.1, 3.1], leak=0.5, facts={"machine": machine | {"date": "2020-02-02", "commit": "abc"}})
    assert not place.compare("a", "later").stderr
    place.run("unfinished", [3.1, 3.1], steps=1000)
    place.run("diverged", [3.4, 60.0], learning_rate=9.0)
    names = ("parts", "machine-device", "machine-cpu", "machine-cores", "unfinished", "diverged")
    warned = {name: place.compare("a", name).stderr for name in names}
    assert all(words.count("\n") == 1 for words in warned.values()), warned
    assert "in different numbers of parts, because --streams or --window differ." in warned["parts"]
    assert all("were not all trained on the same machine" in warned[name] for name in names if "machine" in name)
    assert "'unfinished' has done 20 of 1,000 steps: it is still training" in warned["unfinished"]
    symbols = json.loads((place.folder / "a" / "settings.json").read_text())["symbols"]
    assert f"'diverged' ended at 60.000 bits, above the {math.log2(len(symbols)):.3f} of" in warned["diverged"]
    text = (place.folder / "compare.html").read_text()
    assert "ended at 60.000 bits, above" in text


def test_a_run_without_a_validation(place):
    """It has a row that says so; if no run has one, there is nothing to compare."""
    place.run("a", [3.3])
    place.run("begun", [], steps=50)
    (place.folder / "begun" / "metrics.jsonl").write_text(
        '{"step": 5, "characters": 400, "bits": 5.0, "grad_norm": 1.0, "seconds": 0.5}\nda'
    )
    place.run("new", [], steps=50, leak=0.5)
    result = place.compare("begun", "a", "new")
    outcome, cost, _ = tables(result.stdout)
    assert [(row["run"], row["best bits"]) for row in outcome] == [
        *(("a", "3.300"), ("begun", "none yet")),
        ("new", "none yet"),
    ]
    assert [row["steps"] for row in cost] == ["10", "5 of 50", "0 of 50"] and cost[1]["seconds"] == "0.5"
    assert "1 damaged line is skipped in 'begun/metrics.jsonl'" in result.stderr
    assert "'begun' has no validation yet: it has done 5 of 50 steps." in result.stderr
    (place.folder / "compare.html").unlink()
    result = place.compare("begun", "new", status=2)
    words = "RUN must name at least one run with a validation, but none of the 2 has one yet: train them for longer."
    assert result.stderr.endswith(f"rnn-jax: {words}\n")
    assert not result.stdout and not (place.folder / "compare.html").exists()


def test_the_page(place):
    """One file with a picture, all tables and the settings; names drive nothing and break nothing."""
    strange = "a <b> & $x$ \x1b[31m " + 30 * "long "
    place.run("a", [4.0, 3.3])
    place.run(strange, [4.2, 3.5], leak=0.5, seed=1)
    result = place.compare("a", strange, out=Terminal)
    assert "\x1b" not in result.stdout
    text = (place.folder / "compare.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.outside and "\x1b" not in text and "<b>" not in text
    (image,) = page.images
    (place.folder / "picture.png").write_bytes(image)
    pixels = matplotlib.image.imread(place.folder / "picture.png")
    assert pixels.shape[1] == 11 * 110 and np.ptp(pixels[..., :3], axis=2).max() > 0.3
    assert strange.replace("\x1b", r"\x1b") in page.cells and max(map(len, page.cells)) < 400
    assert page.cells[:5] == ["1", "10", "800", "0.8", "4.000"]  # the numbers of the picture
    assert page.cells[page.cells.index("orthogonal") - 1] == "tanh"  # what is the same in all runs
    again = place.compare("a", strange, out=Terminal)
    assert again == result and (place.folder / "compare.html").read_text(encoding="utf-8") == text


@pytest.fixture
def drawn(place, monkeypatch):
    """`drawn(*names)`: the picture of runs, as a figure."""

    def picture(*names):
        figures = []
        monkeypatch.setattr(comparison_page, "png", lambda figure: figures.append(figure) or b"")
        comparison_page.curves(comparison_runs.read_runs([place.folder / name for name in names]))
        return figures[0]

    return picture


def test_the_picture_shows_everything(place, drawn):
    """Every validation, against characters and seconds, within the axes; what is far above is a triangle."""
    place.run("a", [4.0, 3.0, 2.5], speed=400.0)
    place.run("seed", [4.1, 3.1, 2.6], seed=1)
    place.run("once", [4.2], leak=0.5)
    place.run("diverged", [4.3, 50.0, 1e99], leak=0.25)
    left, right = drawn("a", "seed", "once", "diverged").axes
    for axes, scale in ((left, 1.0), (right, 1 / 1000)):
        curves = [line for line in axes.get_lines() if line.get_label() not in BASELINES and len(line.get_xdata())]
        data = [(list(line.get_xdata()), list(line.get_ydata()), line.get_marker()) for line in curves]
        slow = [800, 1600, 2400] if axes is left else [2.0, 4.0, 6.0]
        assert (slow, [4.0, 3.0, 2.5], "o") in data
        limit = 1.1 * BASELINES["unigram"]
        assert (list(np.array([800, 1600, 2400]) * scale), [4.3, limit, limit], "D") in data
        assert (list(np.array([1600, 2400]) * scale), [limit, limit], "^") in data
        assert ([800 * scale], [4.2], "s") in data
        for line in curves:
            low, high = axes.get_ylim()
            assert (low <= np.array(line.get_ydata())).all() and (np.array(line.get_ydata()) <= high).all()
            assert axes.get_xlim()[0] <= min(line.get_xdata()) and max(line.get_xdata()) <= axes.get_xlim()[1]
        assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "3", "4"]
    colors = {
        str(line.get_ydata()[0]): tuple(line.get_color()) for line in left.get_lines() if len(line.get_xdata()) == 3
    }
    assert colors["4.0"] == colors["4.1"] and colors["4.0"] != colors["4.3"]


def test_the_legend(place, drawn):
    """One entry for all seeds, the end of a long name, no formula; a kind of line for each text."""
    place.run("a$x$", [4.0, 3.0])
    place.run("b", [4.1, 3.1], seed=1)
    place.run("c", [4.1, 3.5], leak=0.5)
    place.run("d", [2.1, 1.5], facts={"text_sha256": 64 * "0"})
    figure = drawn("a$x$", "b", "c", "d")
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries[0].startswith("1, 2: ...") and entries[0].endswith(r"/a\$x\$ and 1 more seed")
    assert [entry.partition(":")[0] for entry in entries[1:]] == ["3", "4"] and max(map(len, entries)) < 75
    lines = [line.get_linestyle() for line in figure.axes[0].get_lines()]
    assert lines == ["-", "-", "-", "--"]  # and none for n-gram models, which differ


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=9).map(sorted))
def test_numbers_at_the_ends_do_not_overlap(heights):
    """Apart, in order, no farther from the curves than they must be."""
    moved = np.array(comparison_page._apart(heights, 0.04))
    assert (np.diff(moved) >= 0.04 - 1e-12).all() and np.mean(moved) == pytest.approx(np.mean(heights))
    far = np.array(heights) + np.arange(len(heights))
    np.testing.assert_allclose(comparison_page._apart(list(far), 0.04), far, atol=1e-12)
    for wide in (moved + 0.01, moved + np.linspace(-0.01, 0.01, len(moved))):  # also apart, and not closer
        assert np.sum((moved - heights) ** 2) <= np.sum((wide - heights) ** 2) + 1e-12


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_parameters_are_counted_without_making_them(cell):
    config = TrainConfig(cell=cell, hidden_size=7, num_layers=3)
    params = jax.eval_shape(lambda: initial_params(config, 11))
    assert comparison_runs.num_parameters(config, 11) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_it_needs_no_jax(place):
    """Not even an installed one: comparing runs is reading files."""
    place.run("a", [4.0])
    place.run("b", [4.1], leak=0.5)
    code = """
import sys
sys.modules["jax"] = sys.modules["jaxlib"] = sys.modules["optax"] = None  # importing them fails
from rnn_jax._cli.main import main
assert main(["compare", "a", "b"]) == 0
assert not sys.modules["jax"]
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=place.folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "Best: 'a'" in result.stdout, result.stdout + result.stderr
    assert (place.folder / "compare.html").stat().st_size > 10_000
