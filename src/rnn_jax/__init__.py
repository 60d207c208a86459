"""Gradients of recurrent networks in JAX, as pure functions. `__init__.pyi` lists the public names.

`_cells/`, `_nn/`, `_gradients/`     one step; the loops over time and the whole network; the gradient methods
`_losses`, `_training`, `_ridge`     values and cotangents of each step; one optimizer step; a readout by regression
`initializers`, `typing`             weights of the recurrence; types for annotations
`interop/`                           weights of other libraries
`saving`, `_saving/`                 save and load parameters, read runs of the command
`data/`, `tasks/`, `verify/`, `analysis/`, `dynamics/`, `experiments/`   data and tasks; checks, analyses, experiments
`_cli/`, `_reporting/`               the command; pages, writes and messages that it shares with the experiments
`_types`, `_checks`, `_batches`      the trees and their axes; shapes of arguments; what a batch must be
`_require`, `_results`               checks of one argument, and of what your own functions return
`_numerics`, `_mesh`, `_serialization`   norms; axes of devices; how other libraries save our types
"""

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name, imported when it is first used, or `__version__`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("rnn-jax-bptt")
    return _public(name)
