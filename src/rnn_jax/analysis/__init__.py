"""Where a gradient comes from, step by step, and what truncating it costs.

`_anatomy`                               `anatomy`: norms, parts and saturation of every step
`_passed`, `_lag_grid`, `_cut`           the pass that it reads; loss by lag; what windows lose
`_step_gradients`                        the gradient of the weights at each step
`_truncation_cost`                       `truncation_report`: error, time and memory of each reach
`_norm_penalty`                          a penalty on norms that change on the way back, as a gradient function
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
