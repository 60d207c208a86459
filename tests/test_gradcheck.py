"""`rnn-jax gradcheck`: every method compared with its reference and every witness, on grids of problems."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from problems import Case, make_problem

import rnn_jax
from rnn_jax import check_gradients
from rnn_jax._cli import gradcheck
from rnn_jax._cli.settings.commands import GradcheckConfig


@dataclasses.dataclass(frozen=True)
class LastStepOnly:
    """The gradient of the last `steps` steps of each sequence, with the state before given."""

    steps: int = 1

    @property
    def reference(self):
        return LastStepByAutodiff()

    def gradient(self, objective, params, batch, h_0):
        time, full = batch.inputs.shape[0], rnn_jax.BPTT().gradient
        (loss, h_T), _ = full(objective, params, batch, h_0)
        _, h_cut = rnn_jax.apply(params, h_0, batch.inputs[: time - self.steps])
        cut = batch._replace(inputs=batch.inputs[time - self.steps :])
        _, d = full(objective, params, cut, h_cut)
        d_inputs = jnp.zeros_like(batch.inputs).at[time - self.steps :].set(d.inputs)
        return (loss, h_T), d._replace(h_0=jax.tree.map(jnp.zeros_like, h_0), inputs=d_inputs)


class LastStepByAutodiff:
    """The definition of `LastStepOnly` by `stop_gradient`."""

    @property
    def reference(self):
        return self

    def gradient(self, objective, params, batch, h_0):
        def loss_fn(params, h_0, inputs):
            time = inputs.shape[0]
            _, h_cut = jax.lax.stop_gradient(rnn_jax.apply(params, h_0, inputs[: time - 1]))
            ys, h_T = rnn_jax.apply(params, h_cut, inputs[time - 1 :])
            values, _ = objective.loss(ys[-1:], batch.targets)
            return objective.scale * jnp.sum(values), h_T

        value = jax.value_and_grad(loss_fn, argnums=(0, 1, 2), has_aux=True)
        (loss, h_T), d = value(params, h_0, batch.inputs)
        return (loss, h_T), rnn_jax.Gradients(*d)


def test_an_inexact_method_is_checked_against_its_reference(monkeypatch):
    named = rnn_jax.GRADIENTS["bptt"]._replace(kind=LastStepOnly, example=LastStepOnly())
    assert not named.exact
    monkeypatch.setitem(rnn_jax.GRADIENTS, "last", named)
    case = Case(last="one")
    found = list(gradcheck.reports(("last",), case, seed=0))
    assert [(name, witness) for name, witness, _ in found] == [("last", "autodiff")]
    assert found[0][2].passed, found[0][2]
    assert not check_gradients(jax.jit(rnn_jax.make_grad_fn("last", loss=case.loss)), *make_problem(case)).passed
    monkeypatch.setitem(rnn_jax.GRADIENTS, "last", named._replace(example=LastStepOnly(2)))
    (_, _, report), *_ = gradcheck.reports(("last",), case, seed=0)
    assert not report.passed
    assert "wrong at t = 6" in " ".join(report.findings), report


class Halved:
    """A gradient that is half of what it should be."""

    reference = rnn_jax.Autodiff()

    def gradient(self, *problem):
        result, gradients = rnn_jax.BPTT().gradient(*problem)
        return result, gradients._replace(params=jax.tree.map(lambda d: d / 2, gradients.params))


def test_the_command_prints_a_matrix_and_says_what_is_wrong(monkeypatch, capsys, tmp_path):
    """In this process, on two problems; the whole command runs in CI."""
    few = [Case(batch=(2,), time=3), Case(activation="relu", inputs="tokens", time=2)]
    monkeypatch.setattr(gradcheck, "cases", lambda grid: few)
    config = GradcheckConfig(methods=("bptt",), picture=tmp_path / "errors.png")
    assert gradcheck.gradcheck(config) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("differences", "complex step", "autodiff", "NumPy loop", "RTRL"))
    figures = next(line for line in printed.splitlines() if line.startswith("bptt")).split()[1:]
    assert len(figures) == 5 and all(0 <= float(figure) < 1e-8 for figure in figures)
    assert (tmp_path / "errors.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    monkeypatch.setitem(rnn_jax.GRADIENTS, "half", rnn_jax.GRADIENTS["bptt"]._replace(example=Halved()))
    assert gradcheck.gradcheck(GradcheckConfig(methods=("half",))) == 1
    printed = capsys.readouterr().out
    assert "WRONG in 2" in printed and "params.cells[0].w_xh is 0.5 times what it should be." in printed
    assert "9 checks failed, the first three are above." in printed


def test_the_grids_cover_what_they_say():
    for grid, options, together, most in (("small", gradcheck.MAIN, 2, 15), ("full", gradcheck.OPTIONS, 3, 60)):
        vanilla = [case for case in gradcheck.cases(grid) if case.cell == "vanilla"]
        others = [case for case in gradcheck.cases(grid) if case.cell != "vanilla"]
        rows = (vanilla, options, together), (others, gradcheck.with_other_cells(options), together - 1)
        for found, its, size in rows:
            assert len(found) <= most
            for names in itertools.combinations(its, size):
                covered = {tuple(getattr(case, name) for name in names) for case in found}
                assert covered == set(itertools.product(*(its[name] for name in names)))
