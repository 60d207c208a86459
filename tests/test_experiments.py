"""Experiments: every seed trains as it would alone, what was done is kept, and the tables say what happened."""

import csv
import functools
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_numpy import by_numpy
from commands import command, process
from pages import Page
from test_tasks import digest

import rnn_jax
from rnn_jax import experiments
from rnn_jax._reporting.errors import InputError
from rnn_jax.experiments import Experiment, run_experiment
from rnn_jax.experiments import _experiment as experiment_module
from rnn_jax.experiments import _report as report
from rnn_jax.experiments import _tables as tables
from rnn_jax.experiments import _training as training
from rnn_jax.experiments import _trials as cells_module
from rnn_jax.experiments._training import make_program, train
from rnn_jax.experiments._trials import Cell, read_cell, save_cell
from rnn_jax.experiments.catalogue.names import CATALOGUE

TASK, SIZES = rnn_jax.tasks.TASKS["parity"], {"time": 6}


def small(rate=0.1, *, num_steps=6, batch_size=3, **options):
    sizes = experiments.sizes_of(TASK, SIZES, 5)
    settings = {"num_steps": num_steps, "eval_every": 2, "batch_size": batch_size, "num_tested": 4, "float64": True}
    return experiments.on_task(TASK, SIZES, experiments.orthogonal_tanh(sizes), optax.sgd(rate), **settings | options)


of_rate = functools.cache(small)  # one training, one program and one result for each of these numbers


@functools.cache
def program_of(of, seeds):
    with jax.enable_x64(of.float64):
        return make_program(of, list(seeds))


def finished(of, seeds):
    with jax.enable_x64(of.float64):
        chunks = list(train(of, program_of(of, tuple(seeds)), len(seeds)))
    return chunks


def test_a_seed_trains_as_in_a_plain_loop():
    """The keys, the fresh state, the evaluations: beside a loop in Python without any compiled program."""
    of = of_rate(0.1)
    chunks = finished(of, [3])
    init_key, data_key = jax.random.split(jax.random.key(3))
    params = by_numpy(of.init)(init_key)
    state = of.optimizer.init(params)
    grad_fn = rnn_jax.make_grad_fn("autodiff", loss="cross_entropy")

    def moved(params, state, batch):
        _, gradients = grad_fn(params, batch, rnn_jax.zero_state(params, 3))
        updates, state = of.optimizer.update(gradients.params, state, params)
        return optax.apply_updates(params, updates), state

    moved, evaluate, seen = by_numpy(moved), by_numpy(of.evaluate), []
    for step in range(7):
        if step % 2 == 0:
            seen.append(evaluate(params)["loss"])
        batch = of.batch(jax.random.fold_in(data_key, step), jnp.asarray(step))
        params, state = moved(params, state, batch)
    assert [chunk.step for chunk, _ in chunks] == [0, 2, 4, 6]
    np.testing.assert_allclose([chunk.metrics["loss"][0] for chunk, _ in chunks], np.stack(seen), rtol=1e-12)


CROWDS = [(True, [3, 4, 5]), (False, [5, 3])]
MORE = [(False, [3, 4, 5]), (True, [5, 3]), (True, [9, 8, 7, 3]), (False, [9, 8, 7, 3])]


@pytest.mark.parametrize(
    "together, seeds", [*CROWDS, *(pytest.param(*more, marks=pytest.mark.thorough) for more in MORE)]
)
def test_a_seed_does_not_depend_on_the_others(seeds, together, monkeypatch):
    """On two devices, seeds that do not come out even, one after the other and side by side."""
    alone = finished(of_rate(0.1), [3])
    monkeypatch.setattr(training, "SMALL", math.inf if together else 0)
    chunks = finished(small(0.1), seeds)  # a new one: programs are kept by training
    at = seeds.index(3)
    for (mine, _), (theirs, _) in zip(alone, chunks, strict=True):
        for name, values in mine.metrics.items():
            assert theirs.metrics[name].shape == (len(seeds),)
            np.testing.assert_allclose(theirs.metrics[name][at], values[0], rtol=1e-10, err_msg=name)
    losses = chunks[-1][0].metrics["loss"]
    assert len(set(losses.round(8))) == len(seeds)


def test_the_state_is_carried_only_when_asked_for():
    kept, fresh = (finished(of, [3])[-1][0].metrics["loss"][0] for of in (small(keep_state=True), of_rate(0.1)))
    assert kept != fresh


def test_it_ends_when_all_seeds_are_solved():
    """Without a criterion at the last step, as in the plain loop."""
    of = small(num_steps=20, solved=lambda m: m["step"] >= 4)
    ticking = of._replace(
        evaluate=lambda params: {"loss": jnp.ones(()), "step": jnp.where(params.readout.b_y[0] == 0, 0, 4)}
    )
    assert [chunk.step for chunk, _ in finished(ticking, [0, 1])] == [0, 2]


def test_it_ends_when_all_seeds_are_lost_and_says_so():
    of = small(math.inf, num_steps=20)
    chunks = finished(of, [0, 1])
    assert [chunk.step for chunk, _ in chunks] == [0, 2] and not chunks[-1][0].metrics["finite"].any()


def summed(data, params):
    return {"loss": jnp.sum(data)}


def test_the_digest_is_of_every_number():
    digests = {
        name: program_of(of, (0, 1)).digest
        for name, of in {
            "this": of_rate(0.1),
            "rate": of_rate(0.2),
            "batch": small(batch_size=4),
            "grid": small(num_steps=6, eval_every=3),
            "criterion": small(solved=lambda m: m["loss"] < 0.1),
            "data": small()._replace(evaluate=partial(summed, jnp.arange(9.0))),
            "other data": small()._replace(evaluate=partial(summed, jnp.arange(9.0).at[8].set(3.0))),
        }.items()
    }
    assert len(set(digests.values())) == len(digests)
    assert make_program(small(), [0, 1]).digest == digests["this"]


@pytest.mark.parametrize(
    "of, error, message",
    [
        (small(num_steps=7), ValueError, "`num_steps` must be a multiple of `eval_every`, got 7 and 2."),
        (small(num_steps=0), ValueError, "`num_steps` must be at least 1, got 0."),
        (small()._replace(evaluate=lambda params: {"loss": 0.0, "solved": 1.0}), ValueError, r"got \['solved'\]"),
        (small()._replace(evaluate=lambda params: {"accuracy": 1.0}), ValueError, 'must return a dict .* "loss"'),
        (small()._replace(evaluate=lambda params: {"loss": jnp.ones(3)}), ValueError, r"got 'loss' of shape \(3,\)"),
    ],
)
def test_a_training_that_does_not_fit_together(of, error, message):
    with pytest.raises(error, match=message):
        make_program(of, [0])


# The grid, kept and gone on with


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def settings(quick):
    return [{"rate": rate, "name": "a"} for rate in ((0.1,) if quick else (0.1, 0.2))]


MINE = Experiment("mine", "Does it learn?", settings, lambda setting: of_rate(float(setting["rate"])), num_seeds=2)
train_one, results = experiment_module._train_one, {}


@pytest.fixture
def trained(monkeypatch):
    """The settings that were trained, and not read. What was trained before comes from memory."""
    seen = []

    def remembered(setting, training, program, seeds, show):
        seen.append(setting["rate"])
        key = setting["rate"], training.num_steps, len(seeds)
        if key not in results:
            results[key] = train_one(setting, training, program, seeds, show)
        return results[key]._replace(setting=setting)

    monkeypatch.setattr(experiment_module, "_train_one", remembered)
    monkeypatch.setattr(experiment_module, "make_program", lambda of, seeds: program_of(of, tuple(seeds)))
    return seen


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.setting, a.seeds) == (b.setting, b.seeds)
        np.testing.assert_array_equal(a.steps, b.steps)
        for name in a.curves:
            np.testing.assert_array_equal(a.curves[name], b.curves[name])


def test_what_is_done_is_kept(tmp_path, trained):
    first = run_experiment(MINE, tmp_path / "out")
    assert trained == [0.1, 0.2]
    same(run_experiment(MINE, tmp_path / "out"), first)
    assert trained == [0.1, 0.2]
    files = sorted((tmp_path / "out" / "cells").iterdir())
    files[0].write_text(files[0].read_text()[:200])  # cut short by a crash
    results.clear()  # trained again, not remembered
    same(run_experiment(MINE, tmp_path / "out"), first)
    assert len(trained) == 3
    run_experiment(MINE, tmp_path / "out", num_seeds=1, quick=True)
    assert trained[3:] == [0.1]  # other seeds
    changed = MINE._replace(
        make=lambda setting: of_rate(float(setting["rate"]), num_steps=8 if setting["rate"] == 0.2 else 6)
    )
    run_experiment(changed, tmp_path / "out")
    assert trained[4:] == [0.2]


def test_after_an_interruption_it_goes_on(tmp_path, trained, monkeypatch):
    inner = experiment_module._train_one
    calls = []

    def interrupted(setting, *rest):
        calls.append(setting)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inner(setting, *rest)

    monkeypatch.setattr(experiment_module, "_train_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(MINE, tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 1 and not (tmp_path / "results.csv").exists()
    run_experiment(MINE, tmp_path)
    assert trained == [0.1, 0.2]


def test_grids_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`num_seeds` must be at least 1, got 0"):
        run_experiment(MINE, tmp_path, num_seeds=0)
    for bad, message in (
        ([], "must be at least one, all different"),
        ([{"rate": 0.1}, {"rate": 0.1}], "must be at least one, all different"),
        ([{"rate": 0.1}, {"other": 0.1}], "must all have the same names"),
        ([{"rate": np.float64(0.1)}], "must hold str, int, float or bool, got float64 for 'rate'"),
        ([{"rate": 0.1, "steps": 3}], "must have names that no column of the tables has, got steps"),
        ([{"rate": 0.1, "accuracy": 3}], "must have names that no column of the tables has, got accuracy"),
    ):
        with pytest.raises(ValueError, match=message):
            run_experiment(MINE._replace(settings=lambda quick, bad=bad: bad), tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run_experiment(MINE._replace(needs=("no_such_module",)), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out must name a folder that can be written"):
        run_experiment(MINE, tmp_path / "file")


# Tables, statistics, report


def cell_of(losses, solved=None, finite=None, chance=1.0):
    losses = np.asarray(losses, float)
    flags = [np.zeros_like(losses) if x is None else np.asarray(x, float) for x in (solved, finite)]
    finite = np.isfinite(losses).astype(float) if finite is None else flags[1]
    curves = {"loss": losses, "solved": flags[0], "finite": finite}
    steps = np.arange(len(losses)) * 10
    return Cell({"k": 1}, list(range(losses.shape[1])), chance, steps, curves, 8.0, 1.0, {}, {"ms": 2.0})


def test_solved_and_diverged():
    nan = math.nan
    losses = [[1, 1, 1, 1, 5], [0.1, 3, nan, 2.1, 4], [0.2, 1.9, 1, 2.1, 3]]
    cell = cell_of(losses, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(cell.solved_at, [10, nan, nan, nan, nan])
    np.testing.assert_array_equal(cell.solved, [True, False, False, False, False])
    np.testing.assert_array_equal(cell.diverged, [False, False, True, True, False])
    np.testing.assert_allclose(cell.seconds_to_solve(), [0.8, nan, nan, nan, nan])  # 8 s for 5 seeds and 20 steps


def test_statistics():
    assert report.quartiles(np.array([3.0, 1.0, 2.0])) == "2 [1.5, 2.5]"
    assert report.quartiles(np.array([3.0, math.nan, 1.0, math.inf])) == "2 [1.5, 2.5] (2 of 4)"
    assert report.quartiles(np.array([1500.0, 23456.0])) == "12478 [6989, 17967]"
    assert report.quartiles(np.array([math.nan])) == "-"
    assert report.share(np.array([True] * 8 + [False] * 2)) == "8 of 10 [0.49, 0.94]"  # Wilson, by hand: 0.490, 0.943
    cells = [cell_of([[1.0], [value]]) for value in (0.3, 0.2, math.nan)]
    assert report.best(cells, "loss", lowest=True) is cells[1] and report.best(cells, "loss") is cells[0]


def test_a_cell_comes_back_from_its_file(tmp_path):
    cell = cell_of([[1.0, 2.0], [math.nan, 0.25]])._replace(shown={"x": np.array([[1.0, math.nan], [3.0, 4.0]])})
    save_cell(tmp_path / "cell.json", cell)
    text = (tmp_path / "cell.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = read_cell(tmp_path / "cell.json")
    same([back], [cell])
    np.testing.assert_array_equal(back.shown["x"], cell.shown["x"])
    assert read_cell(tmp_path / "none.json") is None
    save_cell(tmp_path / "lost.json", cell_of([[1.0], [math.inf]]))
    text = (tmp_path / "lost.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["curves"]["loss"][1] == [
        None
    ]
    assert np.isnan(read_cell(tmp_path / "lost.json").final("loss")).all()


@pytest.mark.usefixtures("trained")
def test_tables_have_a_row_for_everything(tmp_path):
    cells = run_experiment(MINE, tmp_path)
    rows = rows_of(tmp_path / "results.csv")
    assert [(row["rate"], row["seed"]) for row in rows] == [(r, s) for r in ("0.1", "0.2") for s in "01"]
    assert float(rows[3]["loss"]) == pytest.approx(cells[1].final("loss")[1], rel=1e-6)
    curves = rows_of(tmp_path / "curves.csv")
    assert len(curves) == 2 * 2 * 4 and curves[0]["train_loss"] == "" and curves[1]["train_loss"] != ""
    stored = json.loads((tmp_path / "results.json").read_text())
    assert len(stored["results"]) == 4 and {"command", "versions", "machine", "run time"} <= stored.keys()
    assert tables.results([cell_of([[1.0], [math.inf]])])[0]["loss"] is None


def test_the_report_is_one_whole_file(tmp_path):
    """Trained for it, with nothing from memory."""

    def facts_too(setting):
        return small(float(setting["rate"]))._replace(facts=lambda params: {"units": params.cells[0].w_hh.shape[0]})

    asked = MINE._replace(
        question="Is <b> & all that safe?",
        make=facts_too,
        verdict=lambda cells: [f"{len(cells)} settings"],
        sections=lambda cells: [
            *report.default_sections(cells),
            report.against(cells, "rate", lambda c: c.final("loss"), lines="name", title="A", ylabel="y", reading="r"),
            report.shares(cells, "rate", lambda c: c.diverged, lines="name", title="S", ylabel="y", reading="r"),
        ],
        fixed="five units",
    )
    cells = run_experiment(asked, tmp_path)
    assert cells[0].facts == {"units": 5}
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert len(page.images) == 3 and not page.outside and not page.open and "Is &lt;b&gt; &amp; all that safe?" in text
    for words in ("five units", "2 settings", "jax " + jax.__version__, "seeds", "run time"):
        assert words in text


@pytest.mark.parametrize("highest", [2.0, 1e9])
def test_a_curve_that_is_cut_off_is_said_to_be(highest, monkeypatch):
    def cell(size, losses):
        curves = {"loss": np.array(losses)[:, None]}
        return Cell({"size": size}, [0], 1.0, np.array([0, 10, 20]), curves, 1.0, 0.0, {}, {})

    figures = []
    monkeypatch.setattr(report, "png", lambda figure: figures.append(figure) or b"")
    report.learning_curves([cell(1, [1.0, 0.5, 0.1]), cell(2, [1.0, highest, highest])])
    (figure,) = figures
    inside = figure.axes[0].get_ylim()[1] >= highest
    assert inside != any("losses above 1e+03 are cut off" in text.get_text() for text in figure.texts)


def test_bands_leave_out_what_is_not_there():
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    report._band(axes, np.arange(3), np.array([[1.0, 2.0, 3.0], [1.0, 2.0, math.nan], [1.0, math.inf, math.nan]]))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2.0, 2.0, math.nan])
    (vertices,) = (path.vertices for path in axes.collections[0].get_paths())
    assert vertices[:, 0].max() == 1 and vertices[:, 1].max() == 3  # no band without a median, none to infinity
    some = np.sort(np.random.default_rng(0).normal(size=(5, 4)))
    for q in (0.25, 0.5, 0.75):
        np.testing.assert_allclose(report._quantile(some, q), np.quantile(some, q, axis=-1))
    np.testing.assert_array_equal(report._quantile(np.array([[1.0, 2.0, math.inf, math.inf]]), 0.5), [math.inf])
    plt.close("all")


# The starts, the data


def test_starts():
    key, sizes = jax.random.key(0), {"input_size": 3, "hidden_size": 400, "output_size": 2}
    normal = experiments.normal_tanh(sizes, 1.5)(key).cells[0].w_hh
    assert np.abs(np.linalg.eigvals(normal)).max() == pytest.approx(1.5, rel=0.1)
    cell = experiments.irnn(sizes)(key).cells[0]
    assert cell.activation == "relu" and float(jnp.std(cell.w_xh)) == pytest.approx(0.001, rel=0.1)
    np.testing.assert_array_equal(cell.w_hh, np.eye(400))
    few = sizes | {"hidden_size": 5}
    whole, tenth = (experiments.orthogonal_tanh(few, scale)(key) for scale in (1.0, 0.1))
    np.testing.assert_allclose(tenth.cells[0].w_xh, 0.1 * whole.cells[0].w_xh, rtol=1e-12)


def test_digits():
    from sklearn.datasets import load_digits

    from rnn_jax.experiments._data import digit_parts, digits

    images, classes, parts = digit_parts()
    assert sorted(np.concatenate(parts)) == list(range(1797))
    assert [len(part) for part in parts] == [1078, 359, 360]
    for rows, time in ((True, 8), (False, 64)):
        split = digits(rows)
        for part, indices in zip(split, parts, strict=True):
            whole = part.everything()
            assert whole.inputs.shape == (time, len(indices), 64 // time)
            pixels = np.asarray(whole.inputs).swapaxes(0, 1).reshape(-1, 8, 8)
            np.testing.assert_allclose(16 * pixels, load_digits().images[indices], atol=1e-5)
            np.testing.assert_array_equal(whole.targets[0], load_digits().target[indices])
            assert part.task.chance() == pytest.approx(math.log(10), rel=0.01)
        batch = split.train.task.make(jax.random.key(1), num_sequences=50)
        learned = {row.tobytes() for row in np.asarray(split.train.everything().inputs).swapaxes(0, 1)}
        drawn = [row.tobytes() for row in np.asarray(batch.inputs).swapaxes(0, 1)]
        assert len(set(drawn)) == 50 and set(drawn) <= learned
    with pytest.raises(ValueError, match="must be from 1 to 359, as many as there are, got 360"):
        digits().validation.task.make(jax.random.key(0), num_sequences=360)


def test_sunspots():
    from rnn_jax.experiments import _data as data

    months, numbers = data.sunspots()
    assert (months[0], months[-1], len(numbers), numbers[0]) == ("1749-01", "2008-12", 3120, 58.0)
    assert months == [f"{1749 + i // 12}-{i % 12 + 1:02}" for i in range(3120)]
    split = data.sunspot_split()
    for before, after in (("train", "validation"), ("validation", "test")):
        assert split[before][1] + max(data.HORIZONS) <= split[after][0]
    assert split["test"][1] + max(data.HORIZONS) == len(numbers)
    batch = data.forecasting(40).make(jax.random.key(0), num_sequences=30)
    assert batch.inputs.shape == (40, 30, 1) and batch.targets.shape == (30, 30, 6)
    scaled = data.scale(numbers).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, 40)
    ahead = np.arange(10, 40)[:, None] + np.array(data.HORIZONS)
    for xs, ys in zip(np.asarray(batch.inputs)[..., 0].T, np.asarray(batch.targets).swapaxes(0, 1), strict=True):
        (start,) = np.flatnonzero(np.abs(windows - xs).max(1) < 1e-6)
        assert start + 39 < split["train"][1]
        np.testing.assert_allclose(ys, scaled[start + ahead], atol=1e-6)
    starts = np.arange(split["train"][1] - 40 + 1)
    every = data.scale(numbers)[starts[:, None, None] + ahead]  # (window, step, horizon)
    best = np.sum((every - every.mean(0)) ** 2, -1).mean()  # the loss of the best table over steps
    assert data.forecasting(40).chance() == pytest.approx(best, rel=1e-12)
    assert data.forecasting(split["train"][1]).chance() == pytest.approx(0, abs=1e-12)  # one window: the step tells all


def test_one_sequence_is_no_chance():
    """What is trained on one sequence alone can answer without looking at it."""
    from rnn_jax.experiments.catalogue import notebooks

    chances = [notebooks.make(setting).chance for setting in notebooks.settings(False)]
    assert chances[:3] == [0, 0, 0] and 1.3 < chances[3] <= math.log(4)


def data_tasks():
    from rnn_jax.experiments import _data as data

    return {
        "digits": (data.digits().train.task, {}),
        "digits by rows": (data.digits(True).train.task, {}),
        "sunspots": (data.forecasting(40), {}),
        "text": (rnn_jax.tasks.text_task("the quick brown fox jumps over the lazy dog")[1], {"time": 9}),
    }


GOLDEN = {
    "digits": "063ed3f56f91",
    "digits by rows": "993f970e1abd",
    "sunspots": "9651b0f0b513",
    "text": "7fa6a537d43a",
}  # of JAX 0.10 to 0.12


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_key_is_the_same_batch_of_data(name):
    task, sizes = data_tasks()[name]
    batches = [task.make(jax.random.key(seed), num_sequences=5, **sizes) for seed in (7, 7, 8)]
    assert digest(batches[0]) == digest(batches[1]) != digest(batches[2])
    assert digest(batches[0]) == GOLDEN[name]


def test_forecasts_by_baselines(monkeypatch):
    """The autoregression beside the library's own dynamic forecasts; the others by their definitions."""
    from statsmodels.tsa.ar_model import AutoReg

    from rnn_jax.experiments import _data as data
    from rnn_jax.experiments.catalogue import forecast

    monkeypatch.setattr(forecast, "MOST_LAGS", 24)
    _, numbers = data.sunspots()
    forecast.baselines.cache_clear()
    said = forecast.baselines()
    forecast.baselines.cache_clear()
    last = data.sunspot_split()["train"][1] + 132
    series = data.scale(numbers)
    fits = [AutoReg(series[:last], lags, hold_back=24).fit() for lags in (6, 12, 18, 24)]
    fit = min(fits, key=lambda fit: fit.aic)
    at = 2700
    theirs = fit.apply(series[: at + 1]).forecast(132)
    np.testing.assert_allclose(
        said["autoregression"][at], 300 * np.maximum(theirs[np.array(data.HORIZONS) - 1], 0) ** 2, rtol=1e-6
    )
    assert list(said["persistence"][at]) == [numbers[at]] * 6
    assert list(said["the cycle before"][at]) == [numbers[at + h - 132] for h in data.HORIZONS]


def test_flossing_brings_exponents_to_zero(monkeypatch):
    from rnn_jax.experiments.catalogue import long_memory

    for name, value in {"FLOSS_STEPS": 40, "FLOSS_LENGTH": 20, "FLOSS_NUM": 4}.items():
        monkeypatch.setattr(long_memory, name, value)
    sizes = experiments.sizes_of(rnn_jax.tasks.TASKS["adding"], {"time": 30}, 8)
    plain = experiments.normal_tanh(sizes, 0.5)
    flossed = long_memory.flossed(plain, "adding", {"time": 30})
    xs = rnn_jax.tasks.adding(jax.random.key(5), num_sequences=1, time=60).inputs

    def exponents(params):
        return rnn_jax.dynamics.lyapunov_exponents(
            jax.random.key(1), params, rnn_jax.zero_state(params, 1), xs, num=4
        ).exponents

    with jax.numpy_dtype_promotion("standard"):  # optax adds a counter to a real number
        before, after = exponents(plain(jax.random.key(2))), exponents(jax.jit(flossed)(jax.random.key(2)))
    assert float(jnp.sum(after**2)) < 0.5 * float(jnp.sum(before**2))


# The command


def test_the_list_answers_without_jax(tmp_path):
    result = process("experiment", "list", cwd=tmp_path)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 9
    for name in ("notebooks", "by-hand-vs-autodiff", "temporal-order", "text"):
        assert name in result.stdout


def test_an_experiment_from_the_command_line(tmp_path):
    """Digits by rows: real data, trained, tested beside baselines, reported; the second time it is there."""
    result = command("experiment", "digits", "--quick", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "report: out/digits-quick/report.html" in result.stdout and "Warning" not in result.stderr
    rows = rows_of(tmp_path / "out/digits-quick/results.csv")
    assert len(rows) == 2 and all(float(row["test_accuracy"]) > 0.9 for row in rows)
    assert (tmp_path / "out/digits-quick/report.html").stat().st_size > 20_000
    again = command("experiment", "digits", "--quick", "--out", "out", cwd=tmp_path)
    assert "(kept)" in again.stdout and "(kept)" not in result.stdout


@pytest.mark.parametrize("name", CATALOGUE)
def test_grids_are_made_of_plain_values(name):
    from rnn_jax._cli.experiment import load

    found = load(name)
    assert found.name == name
    for quick in (True, False):
        grid = found.settings(quick)
        assert grid and all(isinstance(value, (str, int, float)) for s in grid for value in s.values())
    assert cells_module.differing(list(grid))
