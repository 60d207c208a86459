"""The race: the gradients of this library against autodiff and other libraries. `python benchmarks/race --help`.

`problems`, `contenders`    tables of what is raced, and of who races
`networks`, `ours`          the contenders in JAX: as people write them; by the methods of this library
`libraries`, `without_jax`  the contenders in other libraries: on JAX; PyTorch, and NumPy by hand
`worker`, `measure`         the process of a contender; how they take turns
`figures`                   from seconds to medians, ratios, intervals and targets
`report`, `pictures`        the Markdown tables; the plots
`command`                   the command line
"""
