"""Who races. A row here names the function that builds the contender; it is imported in the contender's own process.

`role` is "ours", "textbook" (every ratio is to it), "autodiff" or "peer"; the rivals are the last two.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .problems import Shape

EVERYTHING = ("forward", "gradient", "step")


class Contender(NamedTuple):
    """`module.make(shape, what)` builds it; it `needs` modules of these names; `cores` > 1 shards the batch."""

    about: str
    role: str
    module: str
    make: str
    needs: tuple[str, ...] = ()
    whats: tuple[str, ...] = EVERYTHING
    cores: int = 1
    devices: tuple[str, ...] = ("cpu", "cuda")


class Raced(NamedTuple):
    """`call()` does the work once and returns when it is done; `result()` is what is compared with the truth.

    A result is a dict of arrays: `loss`, and for a gradient or a step the five leaves of the gradient or update.
    """

    call: Callable[[], Any]
    result: Callable[[], dict[str, np.ndarray]]
    compile_s: float | None = None
    temp_bytes: int | None = None


GRADIENTS_ONLY = ("gradient", "step")  # forward is the same as that of the contender it is a variant of
UNTRAINED = ("forward", "gradient")

CONTENDERS = {
    "textbook": Contender("jax.grad of the plain scan, readout inside", "textbook", ".networks", "textbook"),
    "stepwise": Contender("by hand, every product inside the loop", "ours", ".networks", "stepwise"),
    "bptt": Contender("by hand, products after the loop", "ours", ".networks", "bptt"),
    "blocked": Contender("by hand, one block of steps at a time", "ours", ".networks", "blocked"),
    "blocked_2": Contender(
        "blocked, the batch sharded over two CPU devices", "ours", ".networks", "sharded", cores=2, devices=("cpu",)
    ),
    "lean": Contender(
        "blocked, in a quarter of the textbook's temporaries",
        "ours",
        ".networks",
        "lean",
        whats=GRADIENTS_ONLY,
    ),
    "checkpointed": Contender("blocked, states recomputed", "ours", ".networks", "checkpointed", whats=GRADIENTS_ONLY),
    "hoisted": Contender("jax.grad, input and readout outside the scan", "autodiff", ".networks", "hoisted"),
    "split": Contender("hoisted, `_split_transpose=True`", "autodiff", ".networks", "split", whats=GRADIENTS_ONLY),
    "unrolled": Contender("hoisted, eight steps per iteration", "autodiff", ".networks", "unrolled"),
    "remat": Contender(
        "hoisted, `jax.checkpoint` around √T steps", "autodiff", ".networks", "remat", whats=GRADIENTS_ONLY
    ),
    "haiku": Contender("hk.VanillaRNN, tanh, by hk.dynamic_unroll", "peer", ".libraries", "haiku", ("haiku",)),
    "flax": Contender("nn.RNN of nn.SimpleCell", "peer", ".libraries", "flax", ("flax",)),
    "equinox": Contender("a cell of eqx.nn.Linear under lax.scan", "peer", ".libraries", "equinox", ("equinox",)),
    "torch": Contender(
        "torch.nn.RNN, on the best number of threads", "peer", ".libraries", "torch", ("torch",), UNTRAINED
    ),
    "numpy": Contender(
        "by hand in NumPy, products after the loop", "peer", ".libraries", "numpy", (), UNTRAINED, devices=("cpu",)
    ),
}
OWN = "RACE_METHOD"  # a method of your own, `module:expression`, for this process and its workers
if OWN in os.environ:
    CONTENDERS["own"] = Contender(f"the method {os.environ[OWN]}", "ours", ".networks", "own")
HEADLINE = "blocked"
RIVALS = ("autodiff", "peer")
QUICK = ("textbook", "bptt", "blocked", "hoisted", "split", "torch")
SMOKE = ("textbook", "bptt", "blocked", "checkpointed", "hoisted", "numpy")
ASIDE = ("textbook", "bptt", "blocked", "hoisted", "torch")  # of forward and step in the full run
SWEPT = ("textbook", "blocked", "checkpointed", "hoisted", "torch")
LONG = ("textbook", "remat", "blocked", "checkpointed")
CHECKPOINTED = ("checkpointed", "remat")  # only these fit at a million steps

UNUSUAL = {  # hidden from the parent's own table: the truth, and the machine's own rates
    "truth": Contender("float64 autodiff, recomputed a block at a time", "truth", ".networks", "truth"),
    "product": Contender("the best of large float32 products", "machine", ".worker", "product"),
    "copy": Contender("copying a large array", "machine", ".worker", "copy"),
}


def find(name: str) -> Contender:
    """The row of a name, the unusual ones included."""
    return (CONTENDERS | UNUSUAL)[name]


def builder(name: str) -> Callable[[Shape], Any]:
    """The function that builds the contender; imports what it needs."""
    row = find(name)
    return getattr(importlib.import_module(row.module, __package__), row.make)


def obstacle(name: str, shape: Shape, what: str, device: str) -> str | None:
    """Why the contender has no part in this race, or None."""
    row = CONTENDERS[name]
    missing = [module for module in row.needs if importlib.util.find_spec(module) is None]
    if missing:
        return f"{missing[0]} is not installed (extra `bench`)"
    if what not in row.whats:
        return f"we wrote no {what} for it"
    if device not in row.devices:
        return f"it does not run on {device}"
    if row.cores > 1 and shape.batch % row.cores:
        return f"a batch of {shape.batch} does not divide by {row.cores}"
    if shape.time > 100_000 and name not in CHECKPOINTED:
        return "its memory grows with T"
    return None


def require_contenders(names: list[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        ValueError: for a name that is not in `CONTENDERS`; the message lists those that are.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"No contender {name!r}; there are {', '.join(CONTENDERS)}.")
    return tuple(dict.fromkeys(names))
