"""Experiments: grids of settings trained from many seeds, and their reports.

`_trials`, `_training`           one setting, trained from many seeds; training them in one program
`_experiment`                    running a grid, resumed where it stopped
`_tables`, `_pictures`, `_report`  tables; pictures; the page, and all of them on disk
`_parts`                         networks and measures that experiments share
`_statistics`, `_differences`    means and intervals over seeds; how many seeds a difference needs
`_flossing`                      initial weights with Lyapunov exponents near zero
`_data`                          digits and sunspots
`catalogue/`                     the eleven experiments of `rnn-jax experiment`
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
