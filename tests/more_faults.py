"""Plausible faults outside of the backward pass: plans, devices, dropout, anatomy, experiments, the command.

Each is found in two ways: a claim fails for the package with the fault, and so does a test of the suite, `killed_by`.
"""

import contextlib
import functools
import importlib
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from by_numpy import by_numpy
from faults import FLAGGED_STACK, Fault, Found, beside, leaf_name
from plant import Change
from problems import innermost_loops

import rnn_jax
from rnn_jax import Plan
from rnn_jax.verify import Case

DEVICES = Case(batch=(4,), weights=True, time=4)


def claim(name: str, holds: Callable[[ModuleType], Any]) -> Callable[[ModuleType], Found]:
    """The fault is found if `holds(package)` is false, or is a list of what is wrong."""

    def find(package: ModuleType) -> Found:
        said = holds(package)
        wrong = said if isinstance(said, list) else [] if said else [name]
        return Found(wrong, name if wrong else "")

    return find


def _module(package: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{package.__name__}.{name}")


# What is claimed


def steps_again(package):
    """The steps that a plan recomputes, counted in the program itself."""

    def counted(last, *plan):
        problem, plan = package.verify.make_problem(package.verify.Case(time=13, last=last)), package.Plan(*plan)
        program = jax.make_jaxpr(package.make_grad_fn(package.Blocked(plan=plan), loss="cross_entropy"))(*problem).jaxpr
        steps = sum(runs for _, runs in innermost_loops(program))
        return package.plan_cost(problem, plan).recomputed_steps == steps - 2 * 13

    return counted("all", 1, (4, 2)) and counted("some", 2, (3,), 9)


def states_kept(package):
    """The bytes of a plan's states are what XLA allots, within the tenth that `plan_cost` promises."""
    problem = package.verify.make_problem(
        package.verify.Case(time=30_000, batch=(), inputs="tokens"), dtype=jnp.float32
    )
    problem = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), problem)
    plan = package.Plan(50, (500,), 25_000)
    grad_fn = package.make_grad_fn(package.Blocked(plan=plan), loss="cross_entropy")
    states = 4 * 4 * (25_000 + 10)
    allotted = jax.jit(grad_fn).lower(*problem).compile().memory_analysis().temp_size_in_bytes
    forecast = package.plan_cost(problem, plan).temporary_bytes
    return abs(forecast - allotted) <= 0.1 * allotted and allotted >= states


def within_the_budget(package):
    problem = package.verify.make_problem(package.verify.Case(time=400))
    budget = 20_000
    return package.plan_cost(problem, package.plan_memory(problem, budget)).temporary_bytes <= budget


def devices_are_one(package):
    """Compiled, on two devices: loss and gradients of the whole batch."""
    problem = package.verify.make_problem(package.verify.Case(*DEVICES))
    grad_fn = package.make_grad_fn(package.Sharded(package.BPTT(), jax.devices()[:2]), loss=DEVICES.loss)
    actual, expected = jax.jit(grad_fn)(*problem), _on_one_device()
    pairs = zip(jax.tree.leaves_with_path(actual), expected, strict=True)
    return [leaf_name(path) for (path, x), y in pairs if not np.allclose(x, y, rtol=1e-10, atol=1e-13)]


@functools.cache
def _on_one_device():
    grad_fn = rnn_jax.make_grad_fn("autodiff", loss=DEVICES.loss)
    return jax.tree.leaves(by_numpy(grad_fn)(*rnn_jax.verify.make_problem(DEVICES)))


def devices_draw_apart(package):
    params, batch, h_0 = package.verify.make_problem(package.verify.Case(batch=(1,), time=12))
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x], 1), batch)._replace(key=jax.random.key(0))
    method = package.Sharded(package.Randomised(mean_reach=2.0), jax.devices()[:2])
    grad_fn = jax.jit(package.make_grad_fn(method, loss="cross_entropy"))
    d_xs = grad_fn(params, twice, tuple(jnp.concatenate([h, h]) for h in h_0))[1].inputs
    return bool(np.any(d_xs[:, 0] != d_xs[:, 1]))


def _drawn(package, **rates):
    params = package.init_params(jax.random.key(0), input_size=3, hidden_size=20, output_size=2, num_layers=2)
    steps = jnp.zeros((4, 500), int)
    return package.drop_units(params, package.Batch(steps, steps, key=jax.random.key(0)), **rates)


def dropout_drops_its_share(package):
    units = np.asarray(_drawn(package, recurrent=0.5).drop.recurrent[0])
    return abs(np.mean(units == 0) - 0.5) <= 4 * (0.25 / units.size) ** 0.5


def dropout_draws_apart(package):
    drop = _drawn(package, between=0.5, recurrent=0.5).drop
    masks = [np.asarray(mask) for mask in (*drop.between, *drop.recurrent)]
    return all(np.any(masks[i] != masks[j]) for i in range(4) for j in range(i))


def dropout_uses_a_key_once(package):
    left = _drawn(package, recurrent=0.5).key
    return not np.array_equal(jax.random.key_data(left), jax.random.key_data(jax.random.key(0)))


def saturation_is_counted(package):
    params, batch, h_0 = package.verify.make_problem(package.verify.Case(time=5, activation="relu"))
    layer = by_numpy(package.analysis.anatomy)(params, batch, h_0).layers[0]
    hs = by_numpy(package.unroll)(params.cells[0], h_0[0], batch.inputs)
    return np.allclose(layer.saturated, np.mean(hs <= 0, (1, 2)))


def lags_of_a_rotation(package):
    """For a rotation that shrinks by 0.9, `‖∂L_i/∂h_{i-lag}‖ = 0.9^lag ‖∂L_i/∂h_i‖`."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    params, batch, h_0 = package.verify.make_problem(
        package.verify.Case(activation="identity", loss="squared_error", batch=())
    )
    cell = params.cells[0]
    cell = package.CellParams(cell.w_xh, jnp.asarray(0.9 * rotation), cell.b_h, "identity")
    found = by_numpy(functools.partial(package.analysis.anatomy, loss="squared_error", lags=5))(
        params._replace(cells=(cell,)), batch, h_0
    )
    local, grid = found.layers[0].local_norms, found.lag_norms[0]
    return all(np.isclose(grid[lag, i], 0.9**lag * local[i]) for i in range(7) for lag in range(min(5, i + 1) + 1))


def decay_has_its_error(package):
    norms = np.exp(-0.3 * np.arange(12) + 0.2 * np.random.default_rng(0).standard_normal(12))
    lag = np.arange(1, 12)
    (slope, _), covariance = np.polyfit(lag, np.log(norms[1:]), 1, cov=True)
    _, error = by_numpy(_module(package, "analysis._anatomy").decay_rate)(norms)
    return np.isclose(error, np.exp(slope) * covariance[0, 0] ** 0.5)


def parts_add_up(package):
    found = by_numpy(package.analysis.anatomy)(*package.verify.make_problem(package.verify.Case()))
    layer, whole = found.layers[0], found.gradients.params.cells[0]
    sums = {name: np.sum(getattr(layer.part_norms, name) * getattr(layer.part_cosines, name)) for name in LEAVES}
    return [name for name in LEAVES if not np.isclose(sums[name], np.linalg.norm(getattr(whole, name)))]


LEAVES = ("w_xh", "w_hh", "b_h")


def cut_is_truncated(package):
    problem = package.verify.make_problem(package.verify.Case(time=5))
    cut = by_numpy(functools.partial(package.analysis.anatomy, k1=2, k2=3))(*problem).cut.params
    windows = by_numpy(package.make_grad_fn(package.Truncated(k1=2, k2=3), loss="cross_entropy"))(*problem)[1].params
    pairs = zip(jax.tree.leaves_with_path(cut), jax.tree.leaves(windows), strict=True)
    return [leaf_name(path).lstrip(".") for (path, x), y in pairs if not np.allclose(x, y, 1e-10, 1e-13)]


def _trial(package, losses, solved):
    trials = _module(package, "experiments._trials")
    losses, solved = np.asarray(losses, float), np.asarray(solved, float)
    curves = {"loss": losses, "solved": solved, "finite": np.isfinite(losses).astype(float)}
    steps = np.arange(len(losses)) * 10
    return trials, trials.Trial({"k": 1}, list(range(losses.shape[1])), 1.0, steps, curves, 8.0, 1.0, {}, {})


def shares_are_wilson(package):
    return (
        _module(package, "experiments._statistics").share(np.array([True] * 8 + [False] * 2)) == "8 of 10 [0.49, 0.94]"
    )


def effects_are_pooled(package):
    one, other = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    found = _module(package, "experiments._differences").of_means(one, other)
    return abs(found.effect + 1 / math.sqrt(4 / 3)) < 1e-9


def solved_at_the_first(package):
    _, trial = _trial(package, [[1.0], [0.1], [0.2]], [[0], [1], [0]])
    return list(trial.solved_at) == [10]


def diverged_is_worse_than_chance(package):
    _, trial = _trial(package, [[1.0, 1.0], [1.9, 2.1]], [[0, 0], [0, 0]])
    return list(trial.diverged) == [False, True]


def cells_are_json(package):
    trials, trial = _trial(package, [[1.0], [math.inf]], [[0], [0]])
    with tempfile.TemporaryDirectory() as folder:
        trials.save_trial(Path(folder) / "trial.json", trial)
        text = (Path(folder) / "trial.json").read_text(encoding="utf-8")
    return "Infinity" not in text and json.loads(text)["curves"]["loss"] == [[1.0], [None]]


def momentum_of_one_is_refused(package):
    try:
        _module(package, "_cli.settings.limits").check_train_config(
            _module(package, "_cli.settings.training").TrainConfig(momentum=1.0)
        )
    except _module(package, "_reporting.errors").InputError:
        return True
    return False


def metrics_end_at_the_checkpoint(package):
    metrics = _module(package, "_cli.metrics")
    with tempfile.TemporaryDirectory() as folder:
        records = [{"step": step, "characters": step, "seconds": 0.0} for step in (10, 20, 30)]
        metrics.write_metrics(Path(folder), records)
        return [record["step"] for record in metrics.read_metrics(Path(folder), 20)] == [10, 20]


def nothing_held_out_is_learned(package):
    text = "abc" * 400 + "z" * 60
    corpus = _module(package, "data._corpus").corpus_of_text(text)
    data = _module(package, "data._held_out").prepare(corpus, 4, 10)
    return package.data.encode(data.symbols, "z")[0] not in np.asarray(data.streams)


def _read_in_bytes(package, *reads):
    """The texts of files with these bytes, read byte by byte and kept in a cache, which `damage` changes afterwards."""
    corpus_module, pieces, caches = (
        _module(package, name) for name in ("data._corpus", "data._pieces", "_reporting.caches")
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(corpus_module, "IN_MEMORY", 0))
        patches.enter_context(mock.patch.object(pieces, "PIECE", 1))
        patches.enter_context(mock.patch.dict("os.environ", {"XDG_CACHE_HOME": folder}))
        for data, damage in reads:
            (Path(folder) / "text").write_bytes(data)
            corpus = corpus_module.read_corpus((str(Path(folder) / "text"),))
            yield corpus.text
            for entry in caches.cache_folder("tokens").iterdir():
                entry.write_bytes(damage(entry.read_bytes()))


def crlf_is_cut_between_pieces(package):
    return [*_read_in_bytes(package, (b"a\r\nb\r", bytes))] == ["a\nb\r"]


def damaged_tokens_are_noticed(package):
    data = b"some text"
    return [*_read_in_bytes(package, (data, lambda entry: b"\0" + entry[1:]), (data, bytes))] == 2 * [data.decode()]


def validation_reads_the_held_out_text(package):
    corpus = _module(package, "data._corpus").corpus_of_text("abc" * 400 + "z" * 63)
    held_out = _module(package, "data._held_out")
    with mock.patch.object(held_out, "MOST_READ", 100):
        return set(held_out.prepare(corpus, 4, 10).held_out.ravel().tolist()) == {3}


def windows_begin_again_in_time(package):
    """20 symbols hold one window of 10 with its targets."""
    steps = _module(package, "_cli.training.steps")
    streams = np.arange(40).reshape(20, 2)
    return np.array_equal(steps.windows_at(streams, 1, 1, 10)[0], streams[:11])


def _fault(name, module, function, old, new, holds, killed_by):
    return Fault(name, Change(module, function, old, new), claim(holds.__name__.replace("_", " "), holds), killed_by)


MORE = [
    _fault("steps of inner segments not counted", "_gradients.budget", "_recomputed", "size + _recomputed(inner, size, 0)", "size", steps_again, "test_blocked.py::test_one_product_a_step_and_as_many_steps_again_as_forecast"),
    _fault("states at the end not counted", "_gradients.budget", "_runs", "length - count * size", "0", states_kept, "test_blocked.py::test_the_forecast_of_bytes_is_what_xla_allots"),
    _fault("a plan twice the budget", "_gradients.budget", "plan_memory", "cost.temporary_bytes <= budget_bytes", "cost.temporary_bytes <= 2 * budget_bytes", within_the_budget, "test_blocked.py::test_plan_memory_stays_within_its_budget_and_spends_it"),
    Fault("what is left begins where the segments do", Change("_gradients.stretches", "split", "split(inner, start + count * size, length - count * size, keep, read=read)", "split(inner, start, length - count * size, keep, read=read)"), beside("blocked", FLAGGED_STACK, plan=Plan(2, (5,))), "test_blocked.py::test_equal_to_autodiff_under_every_plan"),
    _fault("what is kept at the end also kept before it", "_gradients.stretches", "stretches_of", "max(plan.keep - last, 0)", "plan.keep", steps_again, "test_blocked.py::test_one_product_a_step_and_as_many_steps_again_as_forecast"),
    _fault("each device by its own mean", "_gradients.over_devices", "Sharded.gradient.on_each", "vary(scale, AXIS)", "1 / batch.weights.sum()", devices_are_one, "test_blocked.py::test_devices_share_a_batch"),
    _fault("devices averaged, not summed", "_gradients.over_devices", "Sharded.gradient.on_each", "lax.psum((loss, gradients.params), AXIS)", "lax.pmean((loss, gradients.params), AXIS)", devices_are_one, "test_blocked.py::test_devices_share_a_batch"),
    _fault("the mean taken twice", "_gradients.over_devices", "Sharded.gradient.on_each", "vary(scale, AXIS)", "vary(scale * scale, AXIS)", devices_are_one, "test_blocked.py::test_devices_share_a_batch"),
    _fault("devices that draw the same", "_gradients.over_devices", "Sharded.gradient.on_each", "jax.random.fold_in(key, lax.axis_index(AXIS))", "jax.random.fold_in(key, 0)", devices_draw_apart, "test_dropout.py::test_devices_draw_each_their_own"),
    _fault("fewer units dropped than asked for", "_nn.dropout", "drop_units.draw", "jnp.asarray(1 / (1 - rate), cell.w_hh.dtype)", "jnp.asarray(1 / (1 - rate) ** 0.5, cell.w_hh.dtype)", dropout_drops_its_share, "test_dropout.py::test_rates_and_what_is_kept"),
    _fault("the same units between and in the recurrence", "_nn.dropout", "drop_units", "draw(keys[1], recurrent)", "draw(keys[0], recurrent)", dropout_draws_apart, "test_dropout.py::test_rates_and_what_is_kept"),
    _fault("the same units in every layer", "_nn.dropout", "drop_units.draw", "jax.random.split(key, len(params.cells))", "[key] * len(params.cells)", dropout_draws_apart, "test_dropout.py::test_rates_and_what_is_kept"),
    _fault("a key used twice", "_nn.dropout", "drop_units", "key=key", "key=batch.key", dropout_uses_a_key_once, "test_dropout.py::test_a_key_is_used_once"),
    _fault("what is not saturated counted", "analysis._anatomy", "of_gate", "d_phi < SATURATED", "d_phi >= SATURATED", saturation_is_counted, "test_anatomy.py::test_saturation"),
    _fault("lags at the step, not at its loss", "analysis._lag_grid", "lag_grid.of_losses.moved", "jnp.roll(norms(d_h), q, 0)", "norms(d_h)", lags_of_a_rotation, "test_anatomy.py::test_every_part_beside_autodiff"),
    _fault("one degree of freedom too many", "analysis._lag_grid", "decay_rate", "jnp.maximum(num - 2, 1)", "jnp.maximum(num - 1, 1)", decay_has_its_error, "test_anatomy.py::test_the_fitted_rate_and_its_error"),
    _fault("cosine of a part with itself", "analysis._anatomy", "norm_and_cosine", "unit_and_norm(p)[0] * unit_and_norm(w)[0]", "unit_and_norm(p)[0] ** 2", parts_add_up, "test_anatomy.py::test_the_steps_add_up"),
    _fault("the cut of all losses, not of the windows'", "analysis._cut", "cut_by_windows", "pad_steps(passed.layers[-1].local, 0, after)", "pad_steps(passed.layers[-1].d_hs, 0, after)", cut_is_truncated, "test_anatomy.py::test_what_truncation_cuts"),
    _fault("another interval than Wilson's", "experiments._statistics", "share_interval", 'method="wilson"', 'method="exact"', shares_are_wilson, "test_experiment_statistics.py::test_statistics"),
    _fault("deviations pooled over all seeds", "experiments._differences", "of_means", "a.num + b.num - 2", "a.num + b.num", effects_are_pooled, "test_experiment_differences.py::test_means_differ_as_scipy_says"),
    _fault("solved at the last time, not the first", "experiments._trials", "Trial.solved_at", "np.argmax(solved, 0)", "len(solved) - 1 - np.argmax(solved[::-1], 0) + 1", solved_at_the_first, "test_experiment_statistics.py::test_solved_and_diverged"),
    _fault("slow taken for diverged", "experiments._trials", "Trial.diverged", "2 * self.chance", "self.chance", diverged_is_worse_than_chance, "test_experiment_statistics.py::test_solved_and_diverged"),
    _fault("infinity written into JSON", "experiments._trials", "_plain", "math.isfinite(value)", "value == value", cells_are_json, "test_experiment_statistics.py::test_a_trial_comes_back_from_its_file"),
    _fault("momentum of one let through", "_cli.settings.limits", "_check_ranges", "low <= one <= high", "low <= one", momentum_of_one_is_refused, "test_refusals.py::test_bad_input"),
    _fault("metrics after the checkpoint kept", "_cli.metrics", "read_metrics", 'record is not None and record["step"] <= up_to', "record is not None", metrics_end_at_the_checkpoint, "test_streams.py::test_metrics_end_where_a_run_goes_on"),
    _fault("what is held out is learned", "data._held_out", "parts_of", "corpus.tokens[:num_train]", "corpus.tokens", nothing_held_out_is_learned, "test_streams.py::test_nothing_held_out_is_learned"),
    _fault("a window past the end of the streams", "_cli.training.steps", "num_windows", "int(streams.shape[0] - 1) // window", "int(streams.shape[0]) // window", windows_begin_again_in_time, "test_streams.py::test_the_windows_of_a_stream"),
    _fault("a CRLF cut between pieces stays", "data._tokens", "Plain._of_one", """'\\r' if text.endswith('\\r') else ''""", "''", crlf_is_cut_between_pieces, "test_large_text.py::test_pieces_of_any_size_make_the_same_tokens"),
    _fault("damaged tokens are trained on", "data._token_cache", "read_entry", "_checksum(file, size - END.size) != checksum", "False", damaged_tokens_are_noticed, "test_large_text.py::test_a_damaged_entry_is_written_again"),
    _fault("what was learned is validated too", "data._held_out", "prepare", "rest[:MOST_READ]", "train[-MOST_READ:]", validation_reads_the_held_out_text, "test_large_text.py::test_of_a_long_text_validation_and_baselines_read_a_part"),
]  # fmt: skip
