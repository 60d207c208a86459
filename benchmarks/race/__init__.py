"""The race: the gradients of this library against autodiff and other libraries. `python benchmarks/race --help`.

`problems`, `contenders`    tables of what is raced, and of who races
`networks`, `libraries`     the contenders: in JAX, ours among them; in other libraries
`worker`, `measure`         the process of a contender; how they take turns
`figures`                   from seconds to medians, ratios, intervals and targets
`report`, `pictures`        the Markdown tables; the plots
`command`                   the command line
"""
