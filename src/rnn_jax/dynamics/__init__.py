"""The network as a dynamical system.

`_jacobians`      local Jacobians, and the singular values of their products
`_lyapunov`       Lyapunov exponents, their dimension, and flossing
`_fixed_points`   where the state stays as it is, and how it moves away from there
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
