"""The settings and the text of a run. The first process reads them, and tells the others what they have to read."""

import contextlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._reporting.errors import InputError
from ...data._corpus import Corpus, read_corpus
from ..settings.file import of_the_run
from ..settings.limits import check_processes
from ..settings.training import TrainConfig
from . import messages
from .group import Group

Read = tuple[TrainConfig, dict[str, Any], Corpus]


@contextlib.contextmanager
def read_together(group: Group, reading: contextlib.AbstractContextManager[Read]) -> Iterator[Read]:
    """What `reading` finds in the first process; the others get its settings, and read the same text.

    Raises:
        InputError: if a process cannot read this text, or they cannot share the streams.
    """
    if group.is_first:
        with reading as (config, facts, corpus):
            check_processes(config, group.size)
            told = {"settings": of_the_run(config), "resume": config.resume is not None, "sha256": corpus.sha256}
            messages.tell("run", json.dumps(told))
            messages.wait_for_all("text")
            yield config, facts, corpus
    else:
        told = json.loads(messages.wait_for("run"))
        files = tuple(told["settings"].pop("files"))
        config = TrainConfig(**told["settings"], files=files, resume=Path() if told["resume"] else None)
        corpus = read_corpus(config.files, config.encoding)
        if corpus.sha256 != told["sha256"]:
            raise InputError(
                f"All processes must read the same text, but on {platform.node()} {corpus.source} is another one than "
                "in the first process: is the folder shared?"
            )
        messages.wait_for_all("text")
        yield config, {}, corpus
