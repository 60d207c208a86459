"""`rnn-jax export`."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array, Float, Int

from ... import Params, apply, apply_step, zero_state
from ..._reporting.console import say
from ..._reporting.errors import InputError
from ..._reporting.files import replacing
from ..._saving.parameters import save_params
from ...data._vocab import how_to_encode
from ...typing import States
from ..settings.commands import ExportConfig
from ..settings.file import of_the_run
from ..settings.training import TrainConfig
from .sample import trained

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(config: ExportConfig, settings: TrainConfig, symbols: str) -> int:
    """Write the parameters or the programs of a run; returns the exit status."""
    params = trained(config.run, settings, symbols, best=config.best)
    try:
        if config.to.suffix == ".stablehlo":
            write_programs(config.to, params, settings, symbols)
        else:
            save_params(config.to, params)
    except OSError as error:
        raise InputError(
            f"--to must name a file that can be written, but {str(config.to)!r} cannot: {error}."
        ) from error
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    say(f"wrote {config.to}: {number:,} parameters, {config.to.stat().st_size:,} bytes")
    return 0


def write_programs(path: Path, params: Params, settings: TrainConfig, symbols: str) -> None:
    """A zip file of two programs of `jax.export`, the weights in them, and `about.json`.

    `step`       `(token, states) -> (logits, states)`: tokens (batch,), logits (batch, symbols).
    `sequence`   `(tokens, states) -> (logits, states)`: tokens (time, batch), logits (time, batch, symbols).

    The states are a tuple of one array per layer; `about.json` has their widths, the symbols, the settings, and how
    a text becomes tokens.
    """

    def step(token: Int[Array, " batch"], states: States) -> tuple[Float[Array, "batch symbols"], States]:
        return apply_step(params, states, token)

    def sequence(tokens: Int[Array, "time batch"], states: States) -> tuple[Float[Array, "time batch symbols"], States]:
        return apply(params, states, tokens)

    time, batch = jax_export.symbolic_shape("time, batch")
    zeros = zero_state(params)
    states = tuple(jax.ShapeDtypeStruct((batch, *s.shape), s.dtype) for s in zeros)
    about = {
        "symbols": symbols,
        "tokens": how_to_encode(settings.vocab),
        "states": [{"width": s.shape[0], "dtype": s.dtype.name} for s in zeros],
        "settings": of_the_run(settings),
        "platforms": PLATFORMS,
        "jax": jax.__version__,
    }
    parts = {
        "about.json": json.dumps(about, indent=1, default=str).encode(),
        "step": exported(step, (batch,), states),
        "sequence": exported(sequence, (time, batch), states),
    }
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def exported(fn: Callable[..., Any], steps: tuple[Any, ...], states: tuple[Any, ...]) -> bytes:
    """A program of tokens `steps` and states, for all platforms."""
    tokens = jax.ShapeDtypeStruct(steps, jnp.int32)
    return bytes(jax_export.export(jax.jit(fn), platforms=PLATFORMS)(tokens, states).serialize())
