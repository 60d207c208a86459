"""`rnn-jax anatomy`: where the gradient of a network comes from and how far it goes, as a page for the browser."""

from pathlib import Path
from typing import Any

from ..._reporting.console import say
from ..._reporting.errors import InputError
from ..._reporting.files import write
from ...data._corpus import Corpus
from ..run_folder import ANATOMY
from ..settings.commands import AnatomyConfig
from ..settings.training import TrainConfig
from .examine import RANDOM_GAINS, RUN_GAINS, examine, random_subject, trained_subject
from .page import page
from .verdict import verdict


def anatomy(config: AnatomyConfig, settings: TrainConfig | None, facts: dict[str, Any], corpus: Corpus | None) -> int:
    """Examine the network, print the main results and write the page; returns the exit status."""
    if settings is None or corpus is None or config.run is None:
        subject = random_subject(config)
    else:
        subject = trained_subject(config, config.run, settings, facts, corpus)
    gains = config.gains or (RANDOM_GAINS if config.run is None else RUN_GAINS)
    found = examine(subject, tuple(sorted(set(gains))), config.lags, config.seed)
    default = Path("anatomy.html") if config.run is None else config.run / ANATOMY
    path = default if config.page is None else config.page
    try:
        write(path, page(found))
    except OSError as error:
        raise InputError(f"--page must name a file that can be written, but {str(path)!r} cannot: {error}.") from error
    for line in (subject.name, *verdict(found)):
        say(line)
    say(f"page: {path}")
    return 0
