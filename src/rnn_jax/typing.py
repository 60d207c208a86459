"""The types of arguments and results, for annotations.

`Cell`    what your own cell must have.
`Method`  what a gradient method must have.
`GradFn`  what `make_grad_fn` returns.
`Number`  one real number, which may be traced.
"""

from ._cells.activations import Activation as Activation
from ._cells.protocol import Cell as Cell
from ._cells.protocol import Deltas as Deltas
from ._gradients.budget import PlanCost as PlanCost
from ._nn.step import StepResiduals as StepResiduals
from ._require import Number as Number
from ._training import StepInfo as StepInfo
from ._training import Trainer as Trainer
from ._training import TrainState as TrainState
from ._types import Drop as Drop
from ._types import GradFn as GradFn
from ._types import Loss as Loss
from ._types import Method as Method
from ._types import Objective as Objective
from ._types import Result as Result
from ._types import States as States
