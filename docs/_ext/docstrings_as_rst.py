"""Docstrings as reStructuredText, and their types in a form that is easy to read.

Our docstrings have the sections of Google's style. Their text is plain, with three habits: code is in single backticks,
mathematics is an indented block, and the fields of a tuple are a list of names with aligned descriptions.
"""

import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optax

import rnn_jax

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NAMESPACES = [name for name in rnn_jax.__all__ if inspect.ismodule(getattr(rnn_jax, name))]

CODE = re.compile(r"`([^`]+)`")
SECTION = re.compile(r"(Args|Attributes|Returns|Raises):$")
FIELD = re.compile(r"(`[^`]+`(?:, `[^`]+`)*) +(\S.*)")
PAGE = re.compile(r"docs/([\w-]+)\.md")
ALIGNED = re.compile(r"`[^`]+`(?:, `[^`]+`)* {2,}\S")
ALIASES = {name: getattr(rnn_jax.typing, name) for name in ("States", "Result", "Loss")}
ALIASES |= {name: getattr(optax, name) for name in ("OptState", "Schedule")}
NUMBER = typing.get_args(rnn_jax.typing.Number)
PROTOCOLS = (rnn_jax.typing.Cell, rnn_jax.typing.Method, rnn_jax.typing.GradFn)
OPENING, CLOSING = " \n([{\"'-/", " \n)]}\"'-/:.,;!?"


def public_names(module: str) -> list[str]:
    """The public names of `rnn_jax` or one of its namespaces, without the namespaces themselves."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None) or dir(loaded)
    return sorted(name for name in names if name[0] != "_" and not inspect.ismodule(getattr(loaded, name)))


@functools.cache
def targets() -> dict[str, str]:
    """The full name of each public name, as our docstrings may write it: `Plan`, `analysis.anatomy`, and in full."""
    found = {}
    for module in (*(f"rnn_jax.{name}" for name in NAMESPACES), "rnn_jax"):
        for name in public_names(module):
            full = f"{module}.{name}"
            found |= {full: full, full.removeprefix("rnn_jax."): full, name: full}
    return found


def to_rst(lines: list[str], links: Mapping[str, str]) -> list[str]:
    """A docstring as reStructuredText with Google's sections; names in `links` become links to what they map to."""
    rst: list[str] = []
    in_section = False
    for paragraph in re.split(r"\n(?:\s*\n)+", "\n".join(lines).strip("\n")):
        rows = paragraph.split("\n")
        in_section = bool(SECTION.match(rows[0])) or (in_section and rows[0].startswith(" "))
        if rows[0].lstrip().startswith(">>>"):
            rst += rows
        elif not in_section and all(row.startswith("    ") for row in rows):
            rst += ["::", "", *rows]
        elif any(map(ALIGNED.match, rows)):
            rst += _fields(rows, links)
        else:
            rst += _inline(paragraph, links).split("\n")
        rst.append("")
    return rst


def _fields(rows: list[str], links: Mapping[str, str]) -> list[str]:
    """A definition list from lines like "`name`   description", where a description may have several lines."""
    items: list[tuple[str, list[str]]] = []
    for row in rows:
        match = FIELD.match(row)
        if match:
            items.append((match[1], [match[2]]))
        else:
            items[-1][1].append(row.strip())
    rst = []
    for names, words in items:
        rst += [CODE.sub(r"``\1``", names), *(f"    {row}" for row in _inline("\n".join(words), links).split("\n"))]
    return rst


def _inline(text: str, links: Mapping[str, str]) -> str:
    """Code in backticks as literals or links; the characters between that reStructuredText would read are escaped."""
    parts, end = [], 0
    for match in CODE.finditer(text):
        parts.append(_escaped(text[end : match.start()]))
        words = " ".join(match[1].split())
        page = PAGE.fullmatch(words)
        code = f":py:obj:`{words} <{links[words]}>`" if words in links else f"``{words}``"
        code = f":doc:`/{page[1]}`" if page else code
        before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
        parts.append(("" if before in OPENING else "\\ ") + code + ("" if after in CLOSING else "\\ "))
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", re.sub(r"([\\*|])", r"\\\1", text))


def readable(annotation: Any) -> str:
    """A type in few words: `Float["time *batch in"]` for `jaxtyping.Float[jax.Array, "time *batch in"]`."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, list):
        return f"[{', '.join(map(readable, annotation))}]"
    if hasattr(annotation, "dim_str"):  # of jaxtyping
        array, axes = readable(annotation.array_type), annotation.dim_str.strip()
        inner = ([array] if array != "Array" else []) + ([f'"{axes}"'] if axes else [])
        return annotation.dtype.__name__ + (f"[{', '.join(inner)}]" if inner else "")
    for name, alias in ALIASES.items():
        if annotation == alias:
            return name
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if set(NUMBER) <= set(arguments):
            arguments = ("Number", *(one for one in arguments if one not in NUMBER))
        return " | ".join(dict.fromkeys(map(readable, arguments)))
    name = getattr(origin or annotation, "__name__", str(annotation)).rpartition(".")[2]
    return f"{name}[{', '.join(map(readable, arguments))}]" if arguments else name


class _Words:
    """Text that a signature shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def readable_signature(signature: inspect.Signature) -> tuple[str, str | None]:
    """The arguments and the result of a function, with readable types. A function or a class as default is its name."""
    parameters = []
    for p in signature.parameters.values():
        if p.annotation is not p.empty:
            p = p.replace(annotation=_Words(readable(p.annotation)))
        if p.default is not p.empty and hasattr(p.default, "__name__"):
            p = p.replace(default=_Words(p.default.__name__.replace("<lambda>", "...")))
        if p.name != "self":
            parameters.append(p)
    result = signature.return_annotation
    shown = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(shown), None if result is inspect.Signature.empty else readable(result)


def is_of_interest(member: Any) -> bool:
    """Whether a member of a class is shown: methods and properties of its own, but not those of a protocol."""
    fn = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    owner, _, name = getattr(fn, "__qualname__", "").rpartition(".")
    return bool(
        inspect.isfunction(fn)
        and fn.__doc__
        and (name == "__call__" or not name.startswith("_"))
        and all(owner == protocol.__name__ or not hasattr(protocol, name) for protocol in PROTOCOLS)
    )


def setup(app: "Sphinx") -> dict[str, Any]:
    """Connect to autodoc, before napoleon."""

    def docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        begin = ["..", ""] if what == "property" else []  # otherwise napoleon takes words before a colon for a type
        lines[:] = begin + to_rst(lines, targets())

    def signature(app: Any, what: str, name: str, obj: Any, options: Any, arguments: str | None, result: Any) -> Any:
        if arguments is None:
            return None
        if getattr(obj, "_is_protocol", False):  # it is not called
            return "", None
        arguments, result = readable_signature(inspect.signature(obj))
        return arguments, None if what == "class" else result

    def skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
        return skip or not is_of_interest(obj)

    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
