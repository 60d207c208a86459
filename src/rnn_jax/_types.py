"""The trees every other module passes around, and the one legend of their axes.

    time T  |  *batch: any number of batch axes, none included
    in I, hid H, out O: the features are the last axis
    last: the last steps of a sequence, the ones that are read out

A token is an integer that stands for a one-hot vector which is never built.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ._cells.leaky import LeakyParams
from ._cells.vanilla import CellParams
from ._serialization import make_savable

Step = Float[Array, "*batch in"] | Int[Array, "*batch"]  # features or tokens of one step
Inputs = Float[Array, "time *batch in"] | Int[Array, "time *batch"]
Hidden = Float[Array, "*batch hid"]
Hiddens = Float[Array, "time *batch hid"]
State = Float[Array, "*batch state"]  # h, and after it what else a cell carries
Trajectory = Float[Array, "time *batch state"]
Outputs = Float[Array, "last *batch out"]
Flags = Bool[Array, "time *batch"]
Scalar = Float[Array, ""]
States = tuple[Array, ...]  # one `State` a layer


class ReadoutParams(NamedTuple):
    """Weights of the readout. A gradient is a `ReadoutParams` too."""

    w_hy: Float[Array, "hid out"]
    b_y: Float[Array, " out"]


class Params(NamedTuple):
    """A stack of layers, lowest first, and the readout of the highest. A gradient is a `Params` too."""

    cells: tuple[Any, ...]  # each a `Cell`: `CellParams`, `LeakyParams`
    readout: ReadoutParams


class Drop(NamedTuple):
    """What states are multiplied by where they are read, the same at every step of a sequence: variational dropout.

    One `(*batch, hid)` a layer, each entry 0 or 1 / (1 - rate); None stands for ones. `drop_units` draws them.

    `between`    `h_t` as the layer above reads it, or the readout.
    `recurrent`  `h_{t-1}` as `W_hh` reads it.
    """

    between: States | None = None
    recurrent: States | None = None


class Batch(NamedTuple):
    """One call's data. Only `inputs` and `targets` are required.

    `inputs`   features `(time, *batch, in)` or tokens `(time, *batch)`; time is first: `np.stack(windows, axis=1)`.
    `targets`  classes `(last, *batch)` or vectors `(last, *batch, out)` for the last `last` steps, or for a loss of
               your own any tree of arrays that begin with these axes,
               integers, booleans or floating point numbers of the type of the parameters:
               `last = time` is many-to-many, `last = 1` many-to-one, between them the first steps are burn-in,
               with the gradient through them (stopped: `BurnIn`).
    `weights`  `(last, *batch)`, real: how much each step's loss counts. A target of weight zero is never
               read, it may be anything. Default: the mask on those steps, else one.
    `mask`     `(time, *batch)`: where false the step does not exist. The state passes through unchanged,
               inputs and resets there are never read.
    `reset`    `(time, *batch)`: where true the state is zero before `x_t`, and no gradient crosses.
    `key`      the randomness of this call, for methods that draw.
    `drop`     which units are dropped. Constants: they get no gradient.
    """

    inputs: Inputs
    targets: Any
    weights: Float[Array, "last *batch"] | None = None
    mask: Flags | None = None
    reset: Flags | None = None
    key: Key[Array, ""] | None = None
    drop: Drop | None = None


class Gradients(NamedTuple):
    """Each field has the type of what it is the gradient of; `inputs` is None for tokens."""

    params: Params
    h_0: States
    inputs: Float[Array, "time *batch in"] | None


make_savable((CellParams, LeakyParams), (ReadoutParams, Params, Drop, Batch, Gradients))


@runtime_checkable
class GradFn(Protocol):
    """Loss, last state and gradients at `params`. Pure and stateless."""

    def __call__(self, params: Params, batch: Batch, h_0: States) -> tuple[tuple[Scalar, States], Gradients]:
        """`((loss, h_T), gradients)`; all shapes and dtypes are checked at trace time."""
        ...


Loss = Callable[[Array, Any], tuple[Array, Array]]
"""`(y_t, target_t) -> (value, d_y_t)`: per step and unweighted, over any leading axes."""


class Objective(NamedTuple):
    """`L = scale Σ_t w_t ℓ(y_t, target_t)`, settled for one batch: what a method differentiates."""

    loss: Loss
    scale: Scalar


Result = tuple[tuple[Scalar, States], Gradients]
"""`((loss, h_T), gradients)`."""


@runtime_checkable
class Method(Protocol):
    """A gradient method: a frozen dataclass whose fields are its options. Your own works wherever ours do."""

    def gradient(self, objective: Objective, params: Params, batch: Batch, h_0: States) -> Result:
        """Loss, last states and gradients. `make_grad_fn` checks the arguments and settles the objective before."""
        ...

    @property
    def reference(self) -> "Method":
        """What it is checked against: `Autodiff()`, or what it means by `stop_gradient` if it is not exact."""
        ...


def accumulation_dtype(dtype: Any) -> Any:
    """The type in which long sums over values of `dtype` are made: float32 or better."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
