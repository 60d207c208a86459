"""The race: the gradients of this library against autodiff and other libraries. `python benchmarks/race --help`."""
