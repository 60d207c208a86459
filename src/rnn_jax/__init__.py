"""Every gradient of a recurrent network, as pure JAX functions. The surface is listed in `__init__.pyi`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
