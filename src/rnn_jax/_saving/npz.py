"""An .npz file of NumPy, read without pickle: each array under its name, and the structure as an array of text.

An .npz has no bfloat16: such an array is stored as its bits, in uint16.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from .._reporting.files import replacing
from .structure import Refusal, Structure, dtypes, parsed, refusal, require_names, text_of

STRUCTURE = "structure"  # the name of the JSON text
STORED_AS = {"float16": "float16", "bfloat16": "uint16", "float32": "float32", "float64": "float64"}


def write(path: Path, structure: Structure, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole file or, if that fails, none. `arrays` must be those that `dtypes(structure)` names."""
    text = np.array(text_of(structure))
    held = {name: array.view(STORED_AS[array.dtype.name]) for name, array in arrays.items()}
    with replacing(path) as file:
        np.savez(file, **{STRUCTURE: text}, **held)  # type: ignore[arg-type]


def read(path: Path) -> tuple[Structure, dict[str, np.ndarray]]:
    """The structure and the arrays of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `save_params` did not write it, or it is damaged or of a newer format.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise refusal(path, "is no .npz file")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as found:
                names = set(found.files)
                text = str(found[STRUCTURE]) if STRUCTURE in names else None
                if text is None:
                    raise refusal(path, f"is another .npz file: it has no `{STRUCTURE}`")
                structure = parsed(path, text, STRUCTURE)
                require_names(path, structure, names - {STRUCTURE}, STRUCTURE)  # before what may be huge is read
                held = {name: found[name] for name in dtypes(structure)}
        except Refusal:
            raise
        except Exception as error:  # zipfile and NumPy raise many kinds of errors for damaged files
            raise refusal(path, "is damaged: it cannot be read") from error
    return structure, {name: _as_saved(path, name, dtype, held) for name, dtype in dtypes(structure).items()}


def _as_saved(path: Path, name: str, dtype: str, held: dict[str, np.ndarray]) -> np.ndarray:
    came = getattr(held[name], "dtype", "no array")
    if came != np.dtype(STORED_AS[dtype]):
        raise refusal(path, f"has `{name}` as {came}, where {STORED_AS[dtype]} is expected")
    return held[name].view(jnp.dtype(dtype))
