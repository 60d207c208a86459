"""Is this gradient right, and if not, where is it wrong?

`_check`                                     `check_gradients`
`_subject`, `_differences`                   what is checked; its slopes by differences
`_compared`, `_next_to`                      gradient and slopes compared, at the place and near it
`_findings`, `_report`                       what is wrong, in words; the outcome
`_clock`, `_steps`                           a clock built into the problem; the wrong time steps that it reveals
`_problems`, `_grid`                         small problems; the grid of their options
`_witnesses`, `_numpy_witnesses`, `_numpy_cells`   gradients derived in other ways; the cells in NumPy
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
