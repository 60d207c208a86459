"""Networks in files: save and load parameters, and read what a run of `rnn-jax train` has saved."""

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from ._reporting.errors import InputError
from ._require import require_float64
from ._saving.parameters import load_params, save_params
from ._training import TrainState
from ._types import Params

__all__ = ["Run", "load_params", "read_run", "save_params"]


class Run(NamedTuple):
    """A run of `rnn-jax train`, as `read_run` returns it.

    `params`     the parameters of the last checkpoint.
    `symbols`    the symbols of its text, sorted. The position of a symbol is its token, see `rnn_jax.data.encode`. If
                 `settings["vocab"]` is "byte", they are the characters U+0000 to U+00FF, which stand for the bytes of
                 a text in UTF-8: encode `text.encode().decode("latin-1")`.
    `settings`   the options of the run by name, like `hidden_size`, including defaults.
    `state`      the state of the trainer; `state.num_steps` is the number of steps that were trained.
    `facts`      what else the run has saved: the name and the SHA-256 of its text, baselines, versions.
    """

    params: Params
    symbols: str
    settings: dict[str, Any]
    state: TrainState
    facts: dict[str, Any]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read what `rnn-jax train` saved in a folder: parameters, symbols, settings and the state of the training.

    Nothing in the folder is changed, so you can read a run while it trains. If the newest checkpoint is damaged, the
    one before it is read, and a `UserWarning` says so. This needs the extra `app`.

        run = rnn_jax.saving.read_run("runs/char-1")
        prompt = jnp.asarray(rnn_jax.data.encode(run.symbols, "def "))
        outputs, _ = rnn_jax.generate(key, run.params, prompt, 200, draw=rnn_jax.categorical(0.8))
        print(rnn_jax.data.decode(run.symbols, outputs))

    Args:
        folder: the folder of the run, which the command was given as `--run`.

    Returns:
        The run, as of its newest undamaged checkpoint.

    Raises:
        FileNotFoundError: if there is no run in the folder.
        ValueError: if its settings cannot be read, if no checkpoint is undamaged, or if it was trained with
            `--dtype float64` and `jax_enable_x64` is off.
        ModuleNotFoundError: if the extra `app` is not installed.
    """
    try:
        from ._cli.run_folder import SETTINGS, read_settings
        from ._cli.settings.file import of_the_run
        from ._cli.trained.sample import last_state
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("tyro", "orbax"):
            raise
        told = f"`read_run` needs {error.name}: pip install 'rnn-jax-bptt[app]'."
        raise ModuleNotFoundError(told, name=error.name) from error
    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        told = f"`folder` must be a folder left by `rnn-jax train`, but {str(folder)!r} has no {SETTINGS}."
        raise FileNotFoundError(told)
    try:
        config, facts = read_settings(folder)
        if config.dtype == "float64":
            require_float64(f"{str(folder)!r} holds float64")
        restored = last_state(folder, config, facts["symbols"])
    except InputError as error:
        raise ValueError(str(error).replace("RUN must", "`folder` must", 1)) from error
    for step, reason in restored.damaged.items():
        used = f"Step {restored.step} was read, the newest undamaged one."
        warnings.warn(f"step {step} of {str(folder)!r} {reason}. {used}", stacklevel=2)
    settings = of_the_run(config)
    return Run(restored.state.params, facts.pop("symbols"), settings, restored.state, facts)
