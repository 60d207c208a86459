from ._fixed_points import FixedPoints as FixedPoints
from ._fixed_points import fixed_points as fixed_points
from ._jacobians import log_singular_values as log_singular_values
from ._jacobians import step_jacobians as step_jacobians
from ._lyapunov import LyapunovSpectrum as LyapunovSpectrum
from ._lyapunov import flossing as flossing
from ._lyapunov import kaplan_yorke as kaplan_yorke
from ._lyapunov import lyapunov_exponents as lyapunov_exponents
