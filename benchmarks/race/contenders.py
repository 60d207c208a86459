"""Who races. A row here names the function that builds the contender; it is imported in the contender's own process.

`role` is "ours", "textbook" (every ratio is to it), "autodiff" or "peer"; the rivals are the last two.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .problems import Shape

EVERYTHING = ("forward", "gradient", "step")


class Contender(NamedTuple):
    """`module.make(cell, shape, what)` builds it; it `needs` modules of these names; `cores` > 1 shards the batch.

    `source` is the folder that it imports this library from, if that is not the one of this process.
    """

    about: str
    role: str
    module: str
    make: str
    needs: tuple[str, ...] = ()
    whats: tuple[str, ...] = EVERYTHING
    cores: int = 1
    devices: tuple[str, ...] = ("cpu", "cuda")
    source: str = ""


class Raced(NamedTuple):
    """`call()` does the work once and returns when it is done; `result()` is what is compared with the truth.

    A result is a dict of arrays: `loss`, and for a gradient or a step the `leaves` of the gradient or update.
    """

    call: Callable[[], Any]
    result: Callable[[], dict[str, np.ndarray]]
    compile_s: float | None = None
    temp_bytes: int | None = None


GRADIENTS_ONLY = ("gradient", "step")  # forward is the same as that of the contender it is a variant of
UNTRAINED = ("forward", "gradient")

CONTENDERS = {
    "textbook": Contender("jax.grad of the plain scan, readout inside", "textbook", ".networks", "textbook"),
    "stepwise": Contender("by hand, every product inside the loop", "ours", ".ours", "stepwise"),
    "bptt": Contender("by hand, products after the loop", "ours", ".ours", "bptt"),
    "blocked": Contender("by hand, one block of steps at a time", "ours", ".ours", "blocked"),
    "blocked_2": Contender(
        "blocked, the batch sharded over two CPU devices", "ours", ".ours", "sharded", cores=2, devices=("cpu",)
    ),
    "lean": Contender(
        "blocked, in a quarter of the textbook's temporaries; gated cells recompute their gates",
        "ours",
        ".ours",
        "lean",
        whats=GRADIENTS_ONLY,
    ),
    "checkpointed": Contender("blocked, states recomputed", "ours", ".ours", "checkpointed", whats=GRADIENTS_ONLY),
    "hoisted": Contender("jax.grad, input and readout outside the scan", "autodiff", ".networks", "hoisted"),
    "split": Contender("hoisted, `_split_transpose=True`", "autodiff", ".networks", "split", whats=GRADIENTS_ONLY),
    "unrolled": Contender("hoisted, eight steps per iteration", "autodiff", ".networks", "unrolled"),
    "remat": Contender(
        "hoisted, `jax.checkpoint` around √T steps", "autodiff", ".networks", "remat", whats=GRADIENTS_ONLY
    ),
    "haiku": Contender(
        "hk.VanillaRNN (tanh) or hk.LSTM by hk.dynamic_unroll", "peer", ".libraries", "haiku", ("haiku",)
    ),
    "flax": Contender(
        "nn.RNN of nn.SimpleCell, nn.GRUCell or nn.OptimizedLSTMCell", "peer", ".libraries", "flax", ("flax",)
    ),
    "equinox": Contender(
        "two eqx.nn.Linear, eqx.nn.GRUCell or eqx.nn.LSTMCell under lax.scan",
        "peer",
        ".libraries",
        "equinox",
        ("equinox",),
    ),
    "torch": Contender(
        "torch.nn.RNN, GRU or LSTM, on the best number of threads",
        "peer",
        ".without_jax",
        "torch",
        ("torch",),
        UNTRAINED,
    ),
    "numpy": Contender(
        "by hand in NumPy, products after the loop", "peer", ".without_jax", "numpy", (), UNTRAINED, devices=("cpu",)
    ),
    "keras": Contender(
        "keras.layers.GRU or LSTM, on JAX and compiled with the loss", "peer", ".libraries", "keras", ("keras",)
    ),
}
OWN = "RACE_METHOD"  # a method of your own, `module:expression`, for this process and its workers
if OWN in os.environ:
    CONTENDERS["own"] = Contender(f"the method {os.environ[OWN]}", "ours", ".ours", "own")
BEFORE = "RACE_BEFORE"  # the folder `src` of another checkout of this library
if BEFORE in os.environ:
    source = str(Path(os.environ[BEFORE]).resolve())
    CONTENDERS["before"] = Contender("blocked of another checkout", "ours", ".ours", "before", source=source)
LACKS = {  # of which cell a contender has no equal, and why
    ("haiku", "gru"): "its GRU resets before the product, which is another network",
    ("keras", "vanilla"): "we wrote only its gated cells",
}
HEADLINE = "blocked"
RIVALS = ("autodiff", "peer")
NOT_JAX = ("torch", "numpy")
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


def builder(name: str) -> Callable[[str, Shape, str], Raced]:
    """The function that builds the contender; imports what it needs."""
    row = find(name)
    return getattr(importlib.import_module(row.module, __package__), row.make)


def obstacle(name: str, cell: str, shape: Shape, what: str, device: str) -> str | None:
    """Why the contender has no part in this race, or None."""
    row = CONTENDERS[name]
    missing = [module for module in row.needs if importlib.util.find_spec(module) is None]
    if missing:
        return f"{missing[0]} is not installed (extra `bench`)"
    if (name, cell) in LACKS:
        return LACKS[name, cell]
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
