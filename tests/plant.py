"""Plant a fault: a private copy of the package in which one expression of one function is another.

The expression is found by its parsed form, so that formatting, comments and the code around it may change. If it
does not occur exactly once, the fault reports this and is never skipped. The copy is a package with a different name,
passed on as a value; the package under test stays unchanged.
"""

import ast
import importlib.abc
import importlib.util
import itertools
import sys
import types
from pathlib import Path
from typing import NamedTuple

import rnn_jax

SOURCE = Path(rnn_jax.__file__).parent
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Change(NamedTuple):
    """Replace `old` by `new` in `function` of `module`.

    `module` is a path like "_losses" or "_nn.loops"; `function` a path like "deltas.body", "" for the whole module.
    `old` and `new` are expressions, statements, or arguments by name like `reverse=True`.
    """

    module: str
    function: str
    old: str
    new: str


class DoesNotApply(Exception):
    """The source has changed, so the fault must be written again or removed."""


def plant(*changes: Change) -> types.ModuleType:
    """A copy of the package with the changes in it."""
    name = f"rnn_jax_planted_{next(_count)}"
    for change in changes:
        _prepare(name, change)
    init = SOURCE / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(SOURCE)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def in_the_package_itself(change: Change) -> None:
    """Make the change in the package under test, before its module is imported: to see which tests notice."""
    if f"{rnn_jax.__name__}.{change.module}" in sys.modules:
        raise DoesNotApply(f"`{change.module}` is imported already.")
    _prepare(rnn_jax.__name__, change)


def _prepare(package: str, change: Change) -> None:
    path, name = SOURCE / f"{change.module.replace('.', '/')}.py", f"{package}.{change.module}"
    if name not in _planted and not path.is_file():
        raise DoesNotApply(f"There must be a module `{change.module}`.")
    tree = _planted[name].tree if name in _planted else ast.parse(path.read_text(encoding="utf-8"))
    _planted[name] = _Planted(path, changed(tree, change))
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def changed(tree: ast.Module, change: Change) -> ast.Module:
    """The parsed source with the change made."""
    where = f"`{change.function or 'anywhere'}` of `{change.module}`"
    scopes = _definitions(tree, change.function.split(".")) if change.function else [tree]
    if len(scopes) != 1:
        raise DoesNotApply(f"There must be one function {where}, got {len(scopes)}.")
    spots = [(node, new) for old, new in _readings(change) for node in ast.walk(scopes[0]) if _same(node, old)]
    if len(spots) != 1:
        raise DoesNotApply(f"`{change.old}` must stand once in {where}, got {len(spots)}.")
    if _same(*spots[0]):
        raise DoesNotApply(f"`{change.new}` must be another than `{change.old}`.")
    return ast.fix_missing_locations(_Replace(*spots[0]).visit(tree))


def _definitions(scope: ast.AST, path: list[str]) -> list[ast.AST]:
    """The functions or classes with that path; its first name may be anywhere in `scope`."""
    here = [node for node in ast.walk(scope) if isinstance(node, DEFINITIONS) and node.name == path[0]]
    return here if len(path) == 1 else [inner for node in here for inner in _definitions(node, path[1:])]


def _readings(change: Change) -> list[tuple[ast.AST, ast.AST]]:
    """`old` and `new` parsed as expressions, as keyword arguments and as statements, where both can be."""

    def expression(text: str) -> ast.AST:
        return ast.parse(text, mode="eval").body

    def argument(text: str) -> ast.AST:
        call = ast.parse(f"f({text})", mode="eval").body
        (only,) = [*call.args, *call.keywords]
        return only

    def statement(text: str) -> ast.AST:
        (only,) = ast.parse(text).body
        return only

    pairs = []
    for read in (expression, argument, statement):
        try:
            pairs.append((read(change.old), read(change.new)))
        except (SyntaxError, ValueError):
            continue
    kinds = {type(old): (old, new) for old, new in pairs if not isinstance(old, ast.Expr)}
    return list(kinds.values())


def _same(node: ast.AST, other: ast.AST) -> bool:
    return type(node) is type(other) and ast.dump(node) == ast.dump(other)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


class _Planted(NamedTuple):
    path: Path
    tree: ast.Module


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the changed modules of the copies; everything else of a copy is imported from the source as usual."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in _planted:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(_planted[fullname].path))

    def exec_module(self, module):
        path, tree = _planted[module.__name__]
        exec(compile(tree, str(path), "exec"), module.__dict__)


_finder = _Finder()
_planted: dict[str, _Planted] = {}
_count = itertools.count(1)
