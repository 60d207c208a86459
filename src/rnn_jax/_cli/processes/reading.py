"""The settings and the text of a run. The first process reads them, and tells the others what they have to read."""

import contextlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._reporting.errors import InputError
from ...data._corpus import Corpus, corpus_of_entry, read_corpus, with_validation
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
    if group.size == 1:
        with reading as read:
            yield read
    elif group.is_first:
        with reading as (config, facts, corpus):
            check_processes(config, group.size)
            told = {"settings": of_the_run(config), "resume": config.resume is not None, "text": _about(corpus)}
            messages.tell("run", json.dumps(told))
            messages.wait_for_all("text")
            yield config, facts, corpus
    else:
        told = json.loads(messages.wait_for("run"))
        files = tuple(told["settings"].pop("files"))
        config = TrainConfig(**told["settings"], files=files, resume=Path() if told["resume"] else None)
        corpus = _corpus(config, told["text"])
        mine = _about(corpus)
        if different := [name for name in ("text", "validation") if mine[name] != told["text"][name]]:
            raise InputError(
                f"all processes must read the same {different[0]}, but on {platform.node()} it is another one than in "
                "the first process: is its folder shared?"
            )
        messages.wait_for_all("text")
        yield config, {}, corpus


def _corpus(config: TrainConfig, told: dict[str, Any]) -> Corpus:
    """The text. If the first process has a large one in a cache that is shared, only what is needed of it is read."""
    try:
        corpus = corpus_of_entry(told["entry"], told["source"], config.vocab)
    except (OSError, ValueError):
        corpus = read_corpus(config.files, config.encoding, config.vocab)
    return with_validation(corpus, config.files, config.validation, config.encoding)


def _about(corpus: Corpus) -> dict[str, Any]:
    """What must be the same in all processes, and where the tokens are."""
    found = {"text": corpus.sha256, "validation": corpus.validation and corpus.validation.sha256}
    return found | {"source": corpus.source, "entry": corpus.entry}
