"""`rnn-jax compare`: several runs next to each other, in the terminal and as a page for the browser."""

from ..._reporting.console import say, warn
from ..._reporting.errors import InputError
from ..._reporting.files import write
from ..settings.commands import CompareConfig
from .page import page
from .runs import read_runs, unit_of
from .tables import cost, lines, outcome, reached
from .verdict import cautions, verdict


def compare(config: CompareConfig) -> int:
    """Print the tables and the results, and write the page; returns the exit status."""
    runs = read_runs(config.runs)
    if not any(run.validations for run in runs):
        raise InputError(
            f"RUN must name at least one run with a validation, but none of the {len(runs)} has one yet: train them "
            "for longer."
        )
    try:
        write(config.page, page(runs))
    except OSError as error:
        name = str(config.page)
        raise InputError(f"--page must name a file that can be written, but {name!r} cannot: {error}.") from error
    for table in (outcome(runs), cost(runs)):
        say("\n".join([*lines(table), ""]))
    if (table := reached(runs)).rows:
        say("\n".join([f"{unit_of(runs)}s read and seconds until the first validation", *lines(table), ""]))
    for line in verdict(runs):
        say(line)
    say(f"page: {config.page}")
    for line in cautions(runs):
        warn(line)
    return 0
