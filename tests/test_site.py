"""The documentation site: every page and public name is in it, and how docstrings and links are turned into pages.

The site itself is built by `.ci/run`, with warnings as errors and the tutorials executed.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from docstrings_as_rst import NAMESPACES, is_of_interest, public_names, readable, readable_signature, targets, to_rst
from jaxtyping import Array, Bool, Float, Int, Key
from repository_files import address, included, on_site, source_of, with_links_on_site

import rnn_jax

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
MODULES = ["rnn_jax", *(f"rnn_jax.{name}" for name in NAMESPACES)]


def pages_of_the_site():
    return sorted(
        page.relative_to(DOCS).with_suffix("").as_posix()
        for suffix in ("md", "rst")
        for page in DOCS.rglob(f"*.{suffix}")
        if page.relative_to(DOCS).parts[0] not in ("_ext", "_static")
    )


def test_every_page_is_in_the_contents_once():
    """The order a newcomer can follow: `docs/index.md`, and for the reference its own index."""
    listed = []
    for text in re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.S):
        listed += re.findall(r"^(?!:)(?:.*<)?([\w/-]+)>?$", text, re.M)
    (tree,) = re.findall(r"\.\. toctree::\n   :hidden:\n\n(.*?)\n\n", (REFERENCE / "index.rst").read_text(), re.S)
    listed += [f"reference/{line.strip()}" for line in tree.split("\n")]
    assert sorted(["index", *listed]) == pages_of_the_site()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_no_line_of_a_page_is_read_as_a_comment(page):
    """MyST leaves out lines that begin with a percent sign, and takes some others for marks of its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert not re.findall(r"^(?:%.*|\+\+\+.*|\([\w-]+\)=)$", text, re.M)


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name_once(module):
    """With the directive that fits what the name is."""
    page = REFERENCE / f"{module.removeprefix('rnn_jax.')}.rst"
    found = re.findall(r"^\.\. ([\w:]+):: (rnn_jax(?:\.\w+)*)\.(\w+)$", page.read_text(encoding="utf-8"), re.M)
    assert {where for _, where, _ in found} == {module}
    elsewhere = set(rnn_jax.__all__) if module != "rnn_jax" else set()  # `check_gradients` is on top, and in `verify`
    assert sorted(name for *_, name in found) == sorted(set(public_names(module)) - elsewhere)
    for directive, _, name in found:
        obj = getattr(__import__(module, fromlist=[name]), name)
        kind = "autoclass" if inspect.isclass(obj) else "autofunction" if inspect.isfunction(obj) else None
        assert directive == kind or (kind is None and directive in ("py:data", "py:type")), name


def test_a_name_that_is_missing_in_the_reference_is_noticed(monkeypatch):
    monkeypatch.setattr(rnn_jax.tasks, "new_task", len, raising=False)
    monkeypatch.setattr(rnn_jax.tasks, "__all__", [*rnn_jax.tasks.__all__, "new_task"])
    with pytest.raises(AssertionError, match="new_task"):
        test_the_reference_has_every_public_name_once("rnn_jax.tasks")


LINKS = {"plan": "rnn_jax.plan", "unroll": "rnn_jax.unroll"}
DOCSTRING = """Compute `h_t` of *all* steps, with |w| and d_ of ±`max_norm`; see `unroll`.

    h_t = φ(a_t)      `not code`

`first`   one (*batch, hid), with a text
          of two lines.
`second`, `third` `unroll` of them.

Args:
    x: features (*batch, in),
        or tokens.

Returns:
    `(y, h)`: the outputs, see `docs/cells.md`.

>>> 1 * 1
1"""


def test_docstrings_as_rst():
    assert "\n".join(to_rst(DOCSTRING.split("\n"), LINKS)).rstrip() == (
        "Compute ``h_t`` of \\*all\\* steps, with \\|w\\| and d\\_ of ±\\ ``max_norm``; see "
        ":py:obj:`unroll <rnn_jax.unroll>`.\n"
        "\n::\n\n    h_t = φ(a_t)      `not code`\n\n"
        "``first``\n    one (\\*batch, hid), with a text\n    of two lines.\n"
        "``second``, ``third``\n    :py:obj:`unroll <rnn_jax.unroll>` of them.\n\n"
        "Args:\n    x: features (\\*batch, in),\n        or tokens.\n\n"
        "Returns:\n    ``(y, h)``: the outputs, see :doc:`/cells`.\n\n"
        ">>> 1 * 1\n1"
    )


def documented():
    """Every public function and class, and the members of classes that the reference shows."""
    for module in MODULES:
        for name in public_names(module):
            obj = getattr(__import__(module, fromlist=[name]), name)
            if inspect.isclass(obj) or inspect.isfunction(obj):
                yield f"{module}.{name}", obj
            if inspect.isclass(obj):
                yield from ((f"{module}.{name}.{m}", each) for m, each in vars(obj).items() if is_of_interest(each))


def test_no_docstring_keeps_a_single_backtick_and_every_code_span_arrives():
    links = targets()
    count = 0
    for name, obj in documented():
        text = inspect.getdoc(obj)
        rst = "\n".join(to_rst(text.split("\n"), links))
        literal = re.findall(r"^::\n\n((?:    .*\n)+)", rst, re.M)
        prose = re.sub(r"^>>> .*?(?=\n\n|\Z)", "", rst, flags=re.M | re.S)
        for block in literal:
            prose = prose.replace(block, "")
        assert not re.search(r"(?<![`:])`(?!`)[^`]*`(?!`)", re.sub(r":py:obj:`[^`]*`|``[^`]+``", "", prose)), name
        count += len(re.findall(r"``[^`]+``|:py:obj:`[^`]+`", prose))
    assert count > 1000


def test_types_are_readable():
    assert readable(Float[Array, "time *batch in"] | Int[Array, "time *batch"] | None) == (
        'Float["time *batch in"] | Int["time *batch"] | None'
    )
    assert readable(Int[np.ndarray, " time"]) == 'Int[ndarray, "time"]' and readable(Key[Array, ""]) == "Key"
    assert readable(dict[str, tuple[Bool[Array, " x"], ...]]) == 'dict[str, tuple[Bool["x"], ...]]'
    assert readable(Callable[[jax.Array, Any], int]) == "Callable[[Array, Any], int]"
    assert readable(rnn_jax.typing.Number | None) == "Number | None" and readable(rnn_jax.typing.States) == "States"
    arguments, result = readable_signature(inspect.signature(rnn_jax.readout))
    assert arguments == '(params: ReadoutParams, hs: Float["*steps hid"])' and result == 'Float["*steps out"]'


def test_types_of_all_public_names_are_readable():
    """No module path, no address of an object, and Sphinx can parse them: as Python."""
    for name, obj in documented():
        if not isinstance(obj, property):
            arguments, result = readable_signature(inspect.signature(getattr(obj, "__func__", obj)))
            compile(f"def f{arguments} -> {result or 'None'}: ...", name, "exec")
            assert "jaxtyping" not in arguments and "jax.Array" not in arguments and " at 0x" not in arguments, name


def test_members_that_the_reference_shows():
    assert is_of_interest(rnn_jax.verify.Report.failing) and is_of_interest(vars(rnn_jax.typing.Cell)["forward"])
    assert not is_of_interest(rnn_jax.GRUParams.forward) and not is_of_interest(rnn_jax.Blocked.gradient)
    assert not is_of_interest(rnn_jax.Params.cells) and not is_of_interest(rnn_jax.Params._replace)
    assert is_of_interest(rnn_jax.CellParams.replace)


def test_links_on_the_site():
    assert on_site("../src/rnn_jax/_nn/loops.py#L44", "docs") == "repository:src/rnn_jax/_nn/loops.py#L44"
    assert on_site("cells.md#in-a-recurrent-policy", "docs") == "/cells.md#in-a-recurrent-policy"
    assert on_site("docs/cells.md", "") == "/cells.md" and on_site("../README.md", "docs") == "/site/readme.md"
    assert on_site("../benchmarks/results/race_speed.png", "docs") == "/../benchmarks/results/race_speed.png"
    assert on_site("https://example.org/a.py#L1", "docs") == "https://example.org/a.py#L1"
    assert on_site("#burn-in", "docs") == "#burn-in"
    with pytest.raises(FileNotFoundError, match="docs/missing.py"):
        on_site("missing.py", "docs")
    text = "[a `b[0]`](../pyproject.toml)\n```python\nx = [y](z)\n```\n![c](learning-curve.png)"
    assert with_links_on_site(text, "docs") == (
        "[a `b[0]`](repository:pyproject.toml)\n```python\nx = [y](z)\n```\n![c](/learning-curve.png)"
    )
    assert address("src/rnn_jax/_nn/loops.py") == "code/src/rnn_jax/_nn/loops.py.html"
    assert address("docs/experiments/clipping.html") == "files/docs/experiments/clipping.html"
    assert address("examples") == "code/examples.html"


def test_pages_that_consist_of_a_file():
    assert included()["README.md"] == "docs/site/readme.md" and len(included()) == 6
    page = with_links_on_site((DOCS / "site" / "readme.md").read_text(encoding="utf-8"), "docs/site")
    assert page.startswith("# rnn_jax\n") and "](/blocked.md)" in page and "](docs/" not in page
    assert "](/../benchmarks/results/race_memory.png)" in page


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_links_to_its_source(module):
    for name in public_names(module):
        obj = getattr(__import__(module, fromlist=[name]), name)
        link = source_of("py", {"module": module, "fullname": name})
        if inspect.isclass(obj) or inspect.isfunction(obj):
            path, line = re.fullmatch(r"repository:(src/rnn_jax/.*\.py)#L(\d+)", link).groups()
            lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1 :]
            assert next(row for row in lines if row[0] != "@").split("(")[0].split()[-1].rstrip(":") == obj.__name__
        else:
            assert link is None


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_says_what_one_learns_shows_it_and_asserts_it(page):
    text = page.read_text(encoding="utf-8")
    number = page.name.partition("-")[0]
    opening, _, rest = text.partition("```{code-cell}")
    assert f"\n# {number}. " in opening and "After this tutorial you can\n\n- " in opening
    cells = re.findall(r"^```\{code-cell\}\n(.*?)^```", text, re.M | re.S)
    assert "plt.subplots" in rest and sum("assert " in cell for cell in cells) >= 3
    for cell in cells:
        compile(cell, page.name, "exec")


def test_the_tutorials_follow_each_other():
    names = [page.name for page in TUTORIALS]
    assert [name.partition("-")[0] for name in names] == list("1234567")
    for page, following in zip(TUTORIALS, names[1:], strict=False):
        assert f"]({following})" in page.read_text(encoding="utf-8")


def rows_of_the_decision_table():
    text = (DOCS / "which-gradient.md").read_text(encoding="utf-8")
    return re.findall(r"^\|.*\|$", text, re.M)[2:]


def test_every_row_of_the_decision_table_has_a_figure_that_its_source_has():
    rows = rows_of_the_decision_table()
    assert len(rows) >= 14
    for row in rows:
        example = row.split(" | ")[-1]
        files = [(DOCS / link).read_text(encoding="utf-8") for link in re.findall(r"\]\(([^)#]+)", example)]
        figures = re.findall(r"\d+\.\d+", example) or re.findall(r"\d+", example)
        assert files and figures, row
        for figure in figures:
            assert any(re.search(rf"(?<![\d.]){figure}(?!\d)", file) for file in files), (figure, row)
