"""Files of the repository on the site.

The pages of `docs/` link to files around them, like `../src/rnn_jax/_nn/loops.py#L44`, so that the links work wherever
the repository is read. On the site,

- a link to a file of code, or to a folder, leads to a page that shows it, under `code/`, with its lines numbered;
- a link to a file that a browser opens, like a report of an experiment, leads to a copy of it, under `files/`;
- a link to a file that a page includes, like `README.md`, leads to that page.
"""

import functools
import html
import inspect
import operator
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rnn_jax

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
SCHEME = "repository:"
SHOWN = {".py": "python", ".pyi": "python", ".md": "markdown", ".toml": "toml", ".cff": "yaml", ".txtpb": "text"}
INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.M)
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


@functools.cache
def included() -> dict[str, str]:
    """The pages that consist of a file outside of `docs/`, by that file: `{"README.md": "docs/site/readme.md"}`."""
    pages = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        place = page.relative_to(ROOT).as_posix()
        for file in INCLUDE.findall(page.read_text(encoding="utf-8")):
            pages[posixpath.normpath(posixpath.join(posixpath.dirname(place), file))] = place
    return pages


def on_site(link: str, folder: str) -> str:
    """A link in a file of `folder`, as MyST understands it in any page: `/recipes.md`, or `repository:src/...#L44`."""
    path, sign, fragment = link.partition("#")
    if not path or re.match(r"\w+:", link):
        return link
    path = posixpath.normpath(posixpath.join(folder, path))
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"A link leads to {path}, which is not in the repository.")
    path = included().get(path, path)
    if path.startswith("docs/") and path.endswith(".md"):
        return f"/{path.removeprefix('docs/')}{sign}{fragment}"
    if path.endswith(".png"):
        return f"/{posixpath.relpath(path, 'docs')}"
    return f"{SCHEME}{path}{sign}{fragment}"


def with_links_on_site(text: str, folder: str) -> str:
    """A Markdown file of `folder`: what it includes is put in, and links outside of code are those of the site."""

    def put_in(match: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(folder, match[1]))
        return with_links_on_site((ROOT / file).read_text(encoding="utf-8"), posixpath.dirname(file))

    lines, in_code = [], False
    for line in text.split("\n"):
        in_code ^= line.startswith("```")
        lines.append(line if in_code else LINK.sub(lambda link: on_site(link[0], folder), line))
    return INCLUDE.sub(put_in, "\n".join(lines))


def address(path: str) -> str:
    """Where the site has a file or folder of the repository."""
    return f"code/{path}.html" if (ROOT / path).is_dir() or Path(path).suffix in SHOWN else f"files/{path}"


def source_of(domain: str, info: dict[str, str]) -> str | None:
    """The link to the code of a public name, for `sphinx.ext.linkcode`."""
    if not info["module"]:  # it was described by hand
        return None
    obj: Any = operator.attrgetter(info["fullname"])(sys.modules[info["module"]])
    obj = inspect.unwrap(obj.fget if isinstance(obj, property) else obj)
    if not (inspect.isclass(obj) or inspect.isroutine(obj)):
        return None
    file = Path(inspect.getsourcefile(obj)).relative_to(Path(rnn_jax.__file__).parent).as_posix()
    return f"{SCHEME}src/rnn_jax/{file}#L{inspect.getsourcelines(obj)[1]}"


def setup(app: "Sphinx") -> dict[str, Any]:
    """Connect to the events of a build."""
    from docutils import nodes
    from sphinx.util.osutil import relative_uri

    linked: set[str] = set()

    def read(app: Any, docname: str, source: list[str]) -> None:
        place = Path(app.env.doc2path(docname)).relative_to(ROOT)
        if place.suffix == ".md":
            source[0] = with_links_on_site(source[0], place.parent.as_posix())

    def resolved(app: Any, doctree: "nodes.document", docname: str) -> None:
        if app.builder.format != "html":
            return
        for node in doctree.findall(nodes.reference):
            if node.get("refuri", "").startswith(SCHEME):
                path, _, fragment = node["refuri"].removeprefix(SCHEME).partition("#")
                linked.add(path)
                place = relative_uri(app.builder.get_target_uri(docname), address(path))
                node["refuri"] = place + (f"#{fragment}" if fragment else "")
                node["internal"] = True

    def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
        waiting = sorted(linked)
        for path in waiting:
            for inner in _contents(path):
                if inner not in waiting:
                    waiting.append(inner)
            if address(path).startswith("code/"):
                yield f"code/{path}", {"title": path, "body": _page(path)}, "page.html"

    def copied(app: Any, error: Exception | None) -> None:
        for path in sorted(linked) if error is None else ():
            if address(path).startswith("files/"):
                place = Path(app.outdir, address(path))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, place)

    app.connect("source-read", read)
    app.connect("doctree-resolved", resolved)
    app.connect("html-collect-pages", pages)
    app.connect("build-finished", copied)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _contents(path: str) -> list[str]:
    """What a page of a folder lists: folders, and files that the site can show. Nothing for a file."""
    if not (ROOT / path).is_dir():
        return []
    inner = [each for each in sorted((ROOT / path).iterdir()) if each.name[0] not in "._"]
    return [each.relative_to(ROOT).as_posix() for each in inner if each.suffix in SHOWN or each.is_dir()]


def _page(path: str) -> str:
    """The HTML that shows a file or a folder. Line 44 of a file has the id L44."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    title = f"<h1>{html.escape(path)}</h1>"
    if (ROOT / path).is_dir():
        here = posixpath.dirname(address(path))
        rows = [f'<li><a href="{posixpath.relpath(address(p), here)}">{Path(p).name}</a></li>' for p in _contents(path)]
        return f"{title}<ul>{''.join(rows)}</ul>"
    lexer, form = get_lexer_by_name(SHOWN[Path(path).suffix]), HtmlFormatter(linespans="L", wrapcode=True)
    text = highlight((ROOT / path).read_text(encoding="utf-8"), lexer, form)
    return title + '<div class="repository-file">' + text.replace('id="L-', 'id="L') + "</div>"
