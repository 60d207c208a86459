"""What a person can mend."""


class InputError(Exception):
    """Bad input, in one sentence with the name, what was expected and what came. The command exits 2."""


class TrainingFailed(Exception):
    """Training cannot go on; what was saved is kept. The command exits 1."""


class OutputFailed(Exception):
    """What was to be said could not be written. The command exits 1."""
