"""The trees that all other modules use, and the legend of their axes.

    time T  |  *batch: zero or more batch axes
    in I, hid H, out O: the features are the last axis
    last: the last steps of a sequence, which are read out

A token is an integer. It stands for a one-hot vector, which is never built.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ._cells.kinds import OURS
from ._cells.protocol import Cell
from ._serialization import make_savable

Step = Float[Array, "*batch in"] | Int[Array, "*batch"]  # features or tokens of one step
Inputs = Float[Array, "time *batch in"] | Int[Array, "time *batch"]
Hidden = Float[Array, "*batch hid"]
Hiddens = Float[Array, "time *batch hid"]
State = Float[Array, "*batch state"]  # h, followed by the other parts of the cell's state
Trajectory = Float[Array, "time *batch state"]
Outputs = Float[Array, "last *batch out"]
Flags = Bool[Array, "time *batch"]
Scalar = Float[Array, ""]
States = tuple[Array, ...]  # one `State` per layer; their widths may differ
Trajectories = tuple[Array, ...]  # one `Trajectory` per layer


class ReadoutParams(NamedTuple):
    """Weights of the readout: `w_hy` (hid, out), `b_y` (out,). A gradient is a `ReadoutParams` too."""

    w_hy: Float[Array, "hid out"]
    b_y: Float[Array, " out"]


class Params(NamedTuple):
    """A stack of layers, lowest first, and the readout of the highest layer. A gradient is a `Params` too."""

    cells: tuple[Any, ...]  # each a `Cell`, like `CellParams`
    readout: ReadoutParams


class Drop(NamedTuple):
    """Masks of variational dropout: factors of the states where they are read, the same at every step.

    Each field has one mask `(*batch, hid)` per layer, whose entries are 0 or 1 / (1 - rate). None stands for ones.
    `drop_units` draws them.

    `between`    multiplies `h_t` where the layer above or the readout reads it.
    `recurrent`  multiplies `h_{t-1}` where `W_hh` reads it.
    """

    between: States | None = None
    recurrent: States | None = None


class Batch(NamedTuple):
    """The data of one call. Only `inputs` and `targets` are required.

    `inputs`   features `(time, *batch, in)` or tokens `(time, *batch)`. Time is first: `np.stack(windows, axis=1)`.
    `targets`  classes `(last, *batch)` or vectors `(last, *batch, out)` for the last `last` steps. For a loss of your
               own: any tree of arrays that begin with these axes. They hold integers, booleans, or floating point
               numbers of the dtype of the parameters. `last = time` is many-to-many, `last = 1` many-to-one. With
               `1 < last < time`, the first steps are a burn-in that the gradient goes through; `BurnIn` stops it there.
    `weights`  `(last, *batch)`, real: how much the loss of each step counts. A target of weight zero is never
               read and may be anything. Default: the mask on those steps; without a mask, one.
    `mask`     `(time, *batch)`, boolean: where false the step does not exist. The state passes through unchanged;
               inputs and resets are not read there.
    `reset`    `(time, *batch)`, boolean: where true the state is zero before `x_t`, and no gradient crosses.
    `key`      the randomness of this call, for methods that draw.
    `drop`     dropout masks. They are constants and get no gradient.
    """

    inputs: Inputs
    targets: Any
    weights: Float[Array, "last *batch"] | None = None
    mask: Flags | None = None
    reset: Flags | None = None
    key: Key[Array, ""] | None = None
    drop: Drop | None = None


class Gradients(NamedTuple):
    """Gradients of a loss. Each field has the structure and shapes of the argument; `inputs` is None for tokens."""

    params: Params
    h_0: States
    inputs: Float[Array, "time *batch in"] | None


make_savable(OURS, (ReadoutParams, Params, Drop, Batch, Gradients))


@runtime_checkable
class GradFn(Protocol):
    """Loss, last state and gradients at `params`. Pure and stateless."""

    def __call__(self, params: Params, batch: Batch, h_0: States) -> tuple[tuple[Scalar, States], Gradients]:
        """`((loss, h_T), gradients)`; all shapes and dtypes are checked at trace time."""
        ...


Loss = Callable[[Array, Any], tuple[Array, Array]]
"""`(y_t, target_t) -> (value, d_y_t)`: the loss per step, without weights, over any leading axes."""


class Objective(NamedTuple):
    """What a method differentiates: `L = scale Σ_t w_t ℓ(y_t, target_t)`, with the `scale` of one batch."""

    loss: Loss
    scale: Scalar


Result = tuple[tuple[Scalar, States], Gradients]
"""`((loss, h_T), gradients)`."""


@runtime_checkable
class Method(Protocol):
    """A gradient method: a frozen dataclass whose fields are its options. You may write your own."""

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """Loss, last states and gradients. `make_grad_fn` has checked the arguments and made the objective."""
        ...

    @property
    def reference(self) -> "Method":
        """The method it is checked against: `Autodiff()` if exact, otherwise its definition by `stop_gradient`."""
        ...


def accumulation_dtype(dtype: Any) -> Any:
    """The type in which long sums of values of `dtype` are accumulated: float32 or better."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def state_dtype(cell: Cell) -> Any:
    """The dtype in which a state lasts: that of the weights; at least float32 if `backward` reads more than states.

    Those are the leaky cells and those with gates, in which a part of `s_{t-1}` stays: with fewer bits, what one step
    adds to a long memory is rounded away. An activation without `d_phi` is among them, for which it does no harm.
    """
    return cell.w_hh.dtype if cell.from_states else accumulation_dtype(cell.w_hh.dtype)
