"""Errors that the command prints as one sentence."""


class InputError(Exception):
    """Bad input, in one sentence with the name, what was expected and what came. The command exits 2."""


class TrainingFailed(Exception):
    """Training cannot go on; what was saved is kept. The command exits 1."""


class OutputFailed(Exception):
    """The output could not be written. The command exits 1."""
