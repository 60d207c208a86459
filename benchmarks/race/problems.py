"""The problems of the race: their shapes, their numbers, and how much work they are. NumPy only.

A layer of tanh, GRU or LSTM units with a readout of every step and the mean softmax cross-entropy over all steps, float
features. Every process makes the same numbers from the same seed, in float32; the truth is computed from those numbers
in float64.
"""

from typing import NamedTuple

import numpy as np

SEED = 0


class Cell(NamedTuple):
    """Blocks of columns in `w_xh`, `w_hh` and `b_h`, parts of a state, and parameters with one value per unit."""

    gates: int
    parts: int
    own: tuple[str, ...] = ()

    @property
    def leaves(self) -> tuple[str, ...]:
        """The names of the weights, the readout's last."""
        return ("w_xh", "w_hh", "b_h", *self.own, "w_hy", "b_y")


CELLS = {  # gates in the order of their columns
    "vanilla": Cell(1, 1),
    "gru": Cell(3, 1, ("b_n",)),  # r, k, n: the reset r after the product, k the part of h that is kept
    "lstm": Cell(4, 2),  # i, f, g, o
}
GATED = ("gru", "lstm")


class Shape(NamedTuple):
    """Time, batch and the three widths. Its name is the five numbers joined by `x`."""

    time: int
    batch: int
    inputs: int
    hidden: int
    outputs: int

    @property
    def name(self) -> str:
        """Like `100x8x64x128x64`."""
        return "x".join(map(str, self))


SHAPES = (
    Shape(25, 1, 65, 100, 65),  # a character at a time, as in min-char-rnn
    Shape(100, 8, 64, 128, 64),
    Shape(100, 32, 64, 128, 64),
    Shape(100, 32, 64, 512, 64),
    Shape(256, 64, 128, 256, 128),
    Shape(1000, 16, 64, 128, 64),
    Shape(35, 20, 200, 200, 10000),  # a language model: the readout is the work
    Shape(64, 64, 64, 1024, 64),
    Shape(10000, 4, 32, 64, 32),
)
QUICK = (SHAPES[0], SHAPES[2], SHAPES[4])
SMOKE = (SHAPES[0],)
ASIDE = (SHAPES[2],)  # of forward and step in the full run

SWEEPS = {
    "T": tuple(Shape(time, 16, 64, 128, 64) for time in (10, 100, 1000)),
    "B": tuple(Shape(100, batch, 64, 128, 64) for batch in (1, 16, 256)),
    "hid": tuple(Shape(100, 32, 64, hidden, 64) for hidden in (32, 256, 1024)),
    "long": tuple(Shape(time, 1, 32, 64, 32) for time in (1_000, 10_000, 100_000, 1_000_000)),
}


class Problem(NamedTuple):
    """Weights by name, features `(T, B, in)`, classes `(T, B)`, and the parts `(B, hid)` of the first state."""

    weights: dict[str, np.ndarray]
    xs: np.ndarray
    targets: np.ndarray
    s_0: tuple[np.ndarray, ...]


def make_problem(cell: str, shape: Shape) -> Problem:
    """The numbers of a shape, float32. The recurrent weights are orthogonal, so that gradients reach the first step."""
    rng = np.random.default_rng((SEED, *shape))
    time, batch, inputs, hidden, outputs = shape
    gates, parts, own = CELLS[cell]
    normal = lambda *size: rng.standard_normal(size, np.float32)  # noqa: E731
    orthogonal = lambda: np.linalg.qr(rng.standard_normal((hidden, hidden)))[0].astype(np.float32)  # noqa: E731
    weights = {
        "w_xh": normal(inputs, gates * hidden) / np.float32(np.sqrt(inputs)),
        "w_hh": np.concatenate([orthogonal() for _ in range(gates)], 1),
        "b_h": normal(gates * hidden) / 10,
        "w_hy": normal(hidden, outputs) / np.float32(np.sqrt(hidden)),
        "b_y": normal(outputs) / 10,
    }
    targets, xs = rng.integers(0, outputs, (time, batch), np.int32), normal(time, batch, inputs)
    s_0 = tuple(normal(batch, hidden) / 2 for _ in range(parts))
    return Problem(weights | {name: normal(hidden) / 10 for name in own}, xs, targets, s_0)


def flops(cell: str, shape: Shape, what: str) -> int:
    """What no method can avoid: the matrix products of the loss, and of its gradient in the weights.

    Forward three products a step; backward two for each of them, except that the gradient in `xs` is not asked for.
    """
    time, batch, inputs, hidden, outputs = shape
    gates = CELLS[cell].gates
    forward = hidden * (gates * (inputs + hidden) + outputs)
    backward = hidden * (gates * (inputs + 2 * hidden) + 2 * outputs)
    return 2 * time * batch * (forward if what == "forward" else forward + backward)


def traffic(cell: str, shape: Shape, what: str) -> int:
    """Bytes that must cross: data once, states out and back once, weights once a pass, gradients once."""
    time, batch, inputs, hidden, outputs = shape
    gates, parts, own = CELLS[cell]
    weights = hidden * (gates * (inputs + hidden + 1) + len(own) + outputs) + outputs
    data = time * batch * (inputs + 1)
    forward = data + weights
    return 4 * (forward if what == "forward" else forward + 2 * time * batch * parts * hidden + 2 * weights)


def parse_shape(text: str) -> Shape:
    """The shape of a name.

    Raises:
        ValueError: unless the name is five whole numbers above zero joined by `x`.
    """
    sizes = text.split("x")
    if len(sizes) != 5 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise ValueError(
            f"No shape {text!r}; there are {', '.join(shape.name for shape in SHAPES)}, "
            "or any other time x batch x in x hid x out."
        )
    return Shape(*map(int, sizes))
