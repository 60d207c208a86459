from ._check import check_gradients as check_gradients
from ._problems import Case as Case
from ._problems import make_problem as make_problem
from ._report import LeafReport as LeafReport
from ._report import Report as Report
from ._report import StepReport as StepReport
from ._witnesses import WITNESSES as WITNESSES
from ._witnesses import Witness as Witness
