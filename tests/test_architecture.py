"""Few frames of ours lie between a call and the reverse scan, and the engine's functions have few parameters."""

import ast
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import rnn_jax
from rnn_jax import Blocked, Plan, Truncated
from rnn_jax._cli import main as cli
from rnn_jax.verify import Case, make_problem
from test_floors import MODULES

HOME = Path(rnn_jax.__file__).parent
ENGINE = [name for name in MODULES if name.startswith(("_cells.", "_nn.", "_gradients.")) and "__init__" not in name]


@pytest.fixture
def paths(monkeypatch):
    """The frames of this package above each reverse scan of the engine, outermost first."""
    found, scan = [], jax.lax.scan

    def traced(*args, reverse=False, **options):
        frame, path = sys._getframe(1), []
        if reverse and frame.f_code.co_name == "deltas":
            while frame:
                file = Path(frame.f_code.co_filename)
                if HOME in file.parents:
                    path.insert(0, f"{file.stem}:{frame.f_code.co_name}")
                frame = frame.f_back
            found.append(path)
        return scan(*args, reverse=reverse, **options)

    monkeypatch.setattr(jax.lax, "scan", traced)
    return found


@pytest.mark.usefixtures("annotations_unchecked")  # their wrappers are frames, too
@pytest.mark.parametrize("method", ["bptt", "blocked", Truncated(k1=4, k2=4)], ids=str)
def test_nine_hops_from_a_gradient_to_its_reverse_scan(method, paths):
    problem = make_problem(Case(time=12), dtype=jnp.float32)
    jax.make_jaxpr(rnn_jax.make_grad_fn(method, loss="cross_entropy"))(*problem)
    assert paths and max(map(len, paths)) <= 9, paths


@pytest.mark.usefixtures("annotations_unchecked")
def test_each_level_of_segments_costs_two_hops(paths):
    problem = make_problem(Case(time=12), dtype=jnp.float32)
    lengths = []
    for plan in (Plan(2), Plan(2, (4,)), Plan(1, (6, 2))):
        paths.clear()
        jax.make_jaxpr(rnn_jax.make_grad_fn(Blocked(plan=plan), loss="cross_entropy"))(*problem)
        lengths.append(max(map(len, paths)))
    assert lengths[0] <= 10 and lengths[2] - lengths[1] <= 3 and lengths[1] - lengths[0] <= 3, lengths


@pytest.mark.usefixtures("annotations_unchecked")
def test_seventeen_hops_from_the_command(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 400, encoding="utf-8")
    sizes = ["--hidden-size", "4", "--streams", "4", "--window", "10", "--steps", "2", "--run", "run"]
    assert cli.main(["train", str(text), *sizes]) == 0
    assert paths and max(map(len, paths)) <= 17, max(paths, key=len)


@pytest.mark.parametrize("module", ENGINE)
def test_functions_of_the_engine_are_narrow(module):
    """At most six parameters, unless they are public, and at most four things taken apart by position."""
    tree = ast.parse((HOME / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name not in rnn_jax.__all__:
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name != "self"]) <= 6, f"{module}.{node.name}: {names}"
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, (ast.For, ast.comprehension)) else targets
        for target in targets:
            assert not isinstance(target, ast.Tuple) or len(target.elts) <= 4, f"{module}: {ast.unparse(target)}"
