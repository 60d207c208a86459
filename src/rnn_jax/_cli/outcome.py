"""What the command says for an error, and the status it ends with."""

from .._reporting.errors import InputError, OutputFailed, TrainingFailed

EXTRA = {  # which extra brings a package
    **dict.fromkeys(("flatbuffers", "matplotlib", "orbax", "safetensors", "tqdm", "tyro"), "app"),
    "tensorboardX": "tensorboard",
    **dict.fromkeys(("pandas", "scipy", "sklearn", "statsmodels"), "experiments"),
}


def outcome(error: BaseException) -> tuple[int, str] | None:
    """The status and the sentence for an error that a person can do something about; None for another one."""
    if isinstance(error, (InputError, TrainingFailed, OutputFailed)):
        return 2 if isinstance(error, InputError) else 1, str(error)
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRA.get((error.name or "").partition(".")[0])
        return None if extra is None else (2, f"needs {error.name}: pip install 'rnn-jax-bptt[{extra}]'")
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return 2, "there is not enough memory for these sizes: lower --hidden-size, --streams, --window or --length."
    if isinstance(error, OSError):  # not handled by a command: a full disk, a file that was removed
        return 1, f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}."
    return (130, "interrupted") if isinstance(error, KeyboardInterrupt) else None
