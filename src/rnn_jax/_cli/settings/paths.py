"""How an option reads a path. Imports no jax."""

from pathlib import Path
from typing import Annotated

import tyro

from ..._reporting.errors import InputError


def named(option: str) -> tyro.constructors.PrimitiveConstructorSpec[Path]:
    """How `option` reads its path. It refuses an empty one, which Python takes for the working folder."""

    def path(words: list[str]) -> Path:
        if not words[0]:
            raise InputError(f"{option} must name a path, got ''.")
        return Path(words[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=path,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


RunFolder = Annotated[Path, named("RUN")]
Picture = Annotated[Path, named("--picture")]
