"""The witnesses that a gradient method is compared with; each is a `GradFn` derived in its own way."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from .._gradients.methods import make_grad_fn
from .._types import GradFn, Params
from . import _numpy_witnesses as numpy_witnesses
from ._numpy_cells import NUMPY_CELLS, is_analytic


class Witness(NamedTuple):
    """`make(loss, reduction)` returns a `GradFn`; `applies(params)` says for which networks."""

    make: Callable[[str, str], GradFn]
    applies: Callable[[Params], bool]


def _any(params: Params) -> bool:
    return True


def _in_numpy(params: Params) -> bool:
    return all(type(cell) in NUMPY_CELLS for cell in params.cells)


def _analytic(params: Params) -> bool:
    return _in_numpy(params) and all(map(is_analytic, params.cells))


WITNESSES: dict[str, Witness] = {
    "complex step": Witness(numpy_witnesses.complex_step, _analytic),
    "autodiff": Witness(
        lambda loss, reduction: jax.jit(make_grad_fn("autodiff", loss=loss, reduction=reduction)), _any
    ),
    "NumPy loop": Witness(numpy_witnesses.loop, _in_numpy),
    "RTRL": Witness(numpy_witnesses.rtrl, _in_numpy),
}
"""Each computes its own loss and gradient; the central differences of `check_gradients` use the method's own loss."""
