"""The examples in README, docs and docstrings run, and their links lead somewhere."""

import contextlib
import doctest
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, as_users_have_it

import rnn_jax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))  # executed when the site is built
PACKAGE = Path(rnn_jax.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(f"rnn_jax.{name}")
    with as_users_have_it():
        assert doctest.testmod(module, verbose=False).failed == 0


def test_the_docstrings_have_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(f"rnn_jax.{name}") for name in MODULES]
    examples = [test for module in modules for test in finder.find(module) if test.examples]
    assert len(examples) >= 10


def blocks(page, language):
    return blocks_of(page.read_text(encoding="utf-8"), language)


def blocks_of(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


MODULES_PAGE = ROOT / "docs" / "modules.md"  # needs other libraries, and has a test of its own below
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page != MODULES_PAGE]
IN_A_PROCESS = {"README.md", "experiments.md"}


def run_in_a_process(code, folder):
    """Run a page in a separate process, as a reader would."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, with JAX's own settings; the experiment on its small grid."""
    code = "\n".join(blocks(page, "python"))
    if page.name in IN_A_PROCESS:
        full = "num_seeds=4)"
        assert (full in code) == (page.name == "experiments.md")
        run_in_a_process(code.replace(full, "num_seeds=2, quick=True)"), tmp_path)
        return
    monkeypatch.chdir(tmp_path)
    with as_users_have_it(), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


LIBRARIES = {
    "equinox": "equinox",
    "flax linen": "flax",
    "flax nnx": "flax",
    "haiku": "haiku",
    "Keras": "keras",
    "linen: `nn.RNN`": "flax",
    "nnx: `nnx.RNN`": "flax",
    "equinox: `lax.scan`": "equinox",
    "haiku: `hk.dynamic_unroll`": "haiku",
    "Keras: `inner_loop`": "keras",
    "With `make_grad_fn`": "flax",
    "Masks, resets, dropout, and the state": "flax",
    "Decay and freeze": "optax",
}


@pytest.mark.parametrize("heading", LIBRARIES)
def test_our_network_in_a_model_of_another_library(heading, monkeypatch):
    """The block under the heading, behind the lines that all share; at most fifteen lines, imports apart.

    Twenty with Keras, which trains by its own `fit` and not by the lines that all share.
    """
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # otherwise Keras imports tensorflow, and its block would be skipped
    pytest.importorskip(LIBRARIES[heading])
    text = MODULES_PAGE.read_text(encoding="utf-8")
    shared, *all_codes = blocks_of(text, "python")
    _, *parts = re.split(r"^##+ (.*)\n", text, flags=re.M)
    (code,) = blocks_of(dict(zip(parts[::2], parts[1::2], strict=True))[heading], "python")
    assert len(all_codes) == len(LIBRARIES)
    lines = [line for line in code.splitlines() if line and not re.match("import |from ", line)]
    assert len(lines) <= (20 if heading == "Keras" else 15)
    with as_users_have_it():
        exec(compile(shared + code, heading, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", ["docs/recipes.md", "docs/tasks.md"])
def test_what_an_example_claims_to_learn_it_learns_from_other_seeds(name, seed):
    """The block whose last line says how well it learned."""
    (code,) = [one for one in blocks(ROOT / name, "python") if "\nassert infos.loss[-1] < 0" in one]
    assert code.count("jax.random.key(0)") == 1 and code.splitlines()[-1].startswith("assert infos.loss[-1] <")
    with as_users_have_it(), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code.replace("jax.random.key(0)", f"jax.random.key({seed})"), name, "exec"), {})


@pytest.mark.thorough
@pytest.mark.parametrize("page", [*WITH_PYTHON, MODULES_PAGE], ids=lambda page: page.name)
def test_python_blocks_run_in_a_fresh_process(page, tmp_path):
    run_in_a_process("\n".join(blocks(page, "python")), tmp_path)


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


def code_links(page):
    """Links like [`code`](../src/rnn_jax/_x.py#L12): the code, the file, the line."""
    pattern = r"\[`([^`]+)`\]\((\.\./[^)#]+)#L(\d+)\)"
    return re.findall(pattern, page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_lines_of_code_lead_to_that_code(page):
    for code, target, number in code_links(page):
        line = (page.parent / target).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        assert code in line, f"{page.name}: {target} line {number} is {line.strip()!r}, not {code!r}"


def test_the_derivation_links_its_equations():
    assert len(code_links(ROOT / "docs" / "bptt.md")) >= 15


def test_the_notebooks_page_names_tests_that_exist():
    text = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) >= 8
    for name in named:
        assert f"def {name}(" in tests, name
