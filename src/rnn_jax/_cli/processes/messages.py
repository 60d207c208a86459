"""What the processes tell each other: texts under names, by the service of `jax.distributed`.

JAX has no public name for this service, so only this module knows where it is. Libraries such as orbax use it too.
"""

from typing import Any

import jax
from jax._src.distributed import global_state

DAY = 24 * 3600.0  # seconds


def size_and_index() -> tuple[int, int]:
    """How many processes there are, and which of them this is. JAX's own functions would start its devices."""
    return global_state.num_processes, global_state.process_id


def tell(name: str, text: str, *, again: bool = False) -> None:
    """Tell all processes a text.

    Raises:
        Exception: if it was told before, unless `again`, or the service has gone with the first process.
    """
    _service().key_value_set(name, text, allow_overwrite=again)


def heard(name: str) -> str | None:
    """The text that was told, or None.

    Raises:
        Exception: if the service has gone with the first process.
    """
    try:
        text: str = _service().key_value_try_get(name)
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("NOT_FOUND"):
            return None
        raise
    return text


def wait_for(name: str, seconds: float = DAY) -> str:
    """The text, as soon as it is told."""
    text: str = _service().blocking_key_value_get(name, int(seconds * 1000))
    return text


def wait_for_all(name: str) -> None:
    """Wait until all processes wait here."""
    _service().wait_at_barrier(name, int(DAY * 1000))


def _service() -> Any:
    return global_state.client
