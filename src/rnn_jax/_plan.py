"""What a time-blocked gradient keeps, and what it computes again."""

import math
from typing import NamedTuple

from ._checks import steps_shape
from ._types import Batch, Params

ROWS = 1024  # steps times sequences in one weight-gradient product: enough that the product pays


class Plan(NamedTuple):
    """How `"blocked"` goes through time.

    `block`     steps whose readout, loss and weight gradients are computed at once.
    `segments`  lengths in steps, longest first, each within the one before. Of a segment only the state at its start is
                kept; its states are computed again when its turn comes. None: all states are kept.
    `keep`      of the last `keep` steps the states are kept in any case.
    """

    block: int
    segments: tuple[int, ...] = ()
    keep: int = 0


def check_plan(plan: Plan) -> None:
    """Raise unless `plan` is one."""
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan, got {type(plan).__name__}.")


def default_plan(params: Params, batch: Batch) -> Plan:
    """All states kept, in blocks of about `ROWS` rows."""
    num_sequences = math.prod(steps_shape(batch.inputs)[1:])
    return Plan(max(1, ROWS // max(num_sequences, 1)))
