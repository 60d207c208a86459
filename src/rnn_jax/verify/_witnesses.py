"""The witnesses that a gradient method is set beside, each a `GradFn` derived on its own way."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from .._cells.vanilla import CellParams
from .._gradients.methods import make_grad_fn
from .._types import GradFn, Params
from . import _numpy_witnesses as numpy_witnesses


class Witness(NamedTuple):
    """`make(loss, reduction) -> GradFn` for one of `LOSSES` by name, and for which networks it can speak."""

    make: Callable[[str, str], GradFn]
    applies: Callable[[Params], bool]


def _any(params: Params) -> bool:
    return True


def _plain(params: Params) -> bool:
    return all(isinstance(cell, CellParams) for cell in params.cells)


def _analytic(params: Params) -> bool:
    return _plain(params) and all(cell.activation in ("tanh", "identity") for cell in params.cells)


WITNESSES: dict[str, Witness] = {
    "complex step": Witness(numpy_witnesses.complex_step, _analytic),
    "autodiff": Witness(
        lambda loss, reduction: jax.jit(make_grad_fn("autodiff", loss=loss, reduction=reduction)), _any
    ),
    "NumPy loop": Witness(numpy_witnesses.loop, _plain),
    "RTRL": Witness(numpy_witnesses.rtrl, _plain),
}
"""Those that know the result by themselves; central differences, in `check_gradients`, are of the method's own loss."""
