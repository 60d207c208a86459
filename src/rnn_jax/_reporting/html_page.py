"""An HTML page in one file: pictures, each with a sentence and a table."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from .console import shown

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { margin: 0 } img { max-width: 100%; height: auto } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; font-size: 0.8rem; margin: 0.5rem 0; display: block; overflow-x: auto }
td, th { padding: 0.15rem 0.6rem; text-align: right; white-space: nowrap }
.words th, .words td { text-align: left; white-space: normal; vertical-align: top }
th { border-bottom: 1px solid #999 } summary { cursor: pointer; color: #246 }
.verdict { background: #f3f6fa; border-left: 4px solid #47a; padding: 0.6rem 1rem }
"""


class Section(NamedTuple):
    """A picture, how to read it, and its numbers; without a picture the table is not folded."""

    title: str
    picture: bytes | None
    reading: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


def _words(text: str) -> str:
    """A text that may hold file names, with markup and control characters escaped."""
    return escape(shown(text))


def html_page(title: str, lead: str, verdict: Sequence[str], sections: Sequence[Section], end: str = "") -> str:
    """The page as text. `end` is more HTML, for the end of the page."""
    said = "".join(f"<p>{_words(line)}</p>" for line in verdict)
    said = f'<div class="verdict">{said}</div>' if said else ""
    body = "\n".join(map(_section, sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_words(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{_words(title)}</h1>\n<p>{_words(lead)}</p>\n"
        f"{said}\n{body}\n{end}\n</body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2><p>{escape(section.reading)}</p>"]
    if section.picture is not None:
        image = base64.b64encode(section.picture).decode("ascii")
        alt = escape(section.title)
        parts.append(f'<figure><img alt="{alt}" src="data:image/png;base64,{image}"></figure>')
    if section.rows:
        head = "".join(f"<th>{escape(name)}</th>" for name in section.header)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_number(value))}</td>" for value in row) + "</tr>" for row in section.rows
        )
        table = f"<table><tr>{head}</tr>{rows}</table>"
        folded = f"<details><summary>the numbers</summary>{table}</details>"
        parts.append(table if section.picture is None else folded)
    return f"<section>{''.join(parts)}</section>"


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[int | float, int | float], **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, as `plt.subplots` returns them.

    Without pyplot: that would show each figure in a notebook, and setting another backend would hide the user's own.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def png(figure: Figure) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
