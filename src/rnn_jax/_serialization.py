"""Register our types with libraries that save trees: `jax.export`, and `flax.serialization` if it is imported.

Other libraries need no registration: orbax, equinox, NumPy by names or leaves, pickle and deepcopy.
"""

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from jax import export


def make_savable(cell_types: Sequence[type], tuples: Sequence[type]) -> None:
    """Register dataclasses of arrays and static fields, and NamedTuples, where that is needed."""
    for cell_type in cell_types:
        make_cell_savable(cell_type)
    for tuple_type in tuples:
        export.register_namedtuple_serialization(tuple_type, serialized_name=_name(tuple_type))


def make_cell_savable(cell_type: type) -> None:
    """Register a dataclass of arrays and static fields.

    `jax.export` writes the static fields into the calling convention of a program. A state dict of flax holds only
    the arrays, as for flax's own dataclasses; when it is restored, the static fields come from the target.
    """
    export.register_pytree_node_serialization(
        cell_type,
        serialized_name=_name(cell_type),
        serialize_auxdata=lambda static: json.dumps(static, default=_as_number).encode(),
        deserialize_auxdata=lambda text: tuple(json.loads(text)),
        from_children=lambda static, arrays: cell_type(*arrays, *static),
    )
    arrays = [field.name for field in fields(cell_type) if not field.metadata.get("static")]

    def register_with_flax(flax: Any) -> None:
        def to_state_dict(cell: Any) -> dict[str, Any]:
            return {name: flax.to_state_dict(getattr(cell, name)) for name in arrays}

        def from_state_dict(cell: Any, state: dict[str, Any]) -> Any:
            if set(state) != set(arrays):
                raise ValueError(f"A {cell_type.__name__} must be saved as {arrays}, got {sorted(state)}.")
            return replace(
                cell, **{name: flax.from_state_dict(getattr(cell, name), state[name], name=name) for name in arrays}
            )

        flax.register_serialization_state(cell_type, to_state_dict, from_state_dict)

    when_imported("flax.serialization", register_with_flax)


def _as_number(static: Any) -> float:
    if callable(static) or isinstance(static, tuple):
        raise TypeError(f"`activation` must be a name to be saved with an exported program, got {static!r}.")
    return float(static)


def _name(of_type: type) -> str:
    """The name of a type in an exported program; for our types without the module, which may be renamed."""
    package, *modules = of_type.__module__.split(".")
    return ".".join([package, *([] if package == __package__ else modules), of_type.__qualname__])


def when_imported(name: str, then: Callable[[ModuleType], None]) -> None:
    """Call `then(module)` once the module `name` has been imported, by any code; at once if it already has been."""
    module = sys.modules.get(name)
    if module is not None:
        then(module)
    else:
        sys.meta_path.insert(0, _Finder(name, then))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and calls `then` once it has run."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]):
        self.name, self.then = name, then

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_tell(module: ModuleType) -> None:
            run(module)
            self.then(module)

        spec.loader.exec_module = run_and_tell  # type: ignore[method-assign]
        return spec
