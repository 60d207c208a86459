"""The grid of options over which gradients are checked, by `rnn-jax gradcheck` and by our tests."""

import itertools
import random
from typing import Any

from ._problems import Case

OPTIONS: dict[str, list[Any]] = {
    "activation": ["tanh", "relu", "identity"],
    "num_layers": [1, 2, 3],
    "batch": [(), (3,), (2, 2)],
    "loss": ["cross_entropy", "squared_error"],
    "reduction": ["mean", "sum", "mean_over_steps"],
    "weights": [False, True],
    "mask": [False, True],
    "reset": [False, True],
    "time": [7, 2, 1],
    "last": ["all", "some", "one"],
    "inputs": ["features", "tokens"],
    "leak": [1.0, 0.3],
    "drop": [False, True],
}
"""The options of the vanilla cell."""

OTHER_CELLS: list[Any] = ["gru", "lstm", "leaky"]


def with_other_cells(options: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same options of the other cells, which have no activation and no common leak to choose."""
    return {name: options[name] for name in options if name not in ("activation", "leak")} | {"cell": OTHER_CELLS}


def covering(options: dict[str, list[Any]], together: int, tries: int = 50) -> list[Case]:
    """Cases among which every combination of values of any `together` options occurs; few cases, found greedily."""
    rng = random.Random(0)
    values = list(options.values())
    choices = list(itertools.combinations(range(len(values)), together))
    missing = {(at, combination) for at in choices for combination in itertools.product(*(values[i] for i in at))}
    cases = []

    def covered(row: list[Any]) -> set[Any]:
        return {(at, tuple(row[i] for i in at)) for at in choices} & missing

    while missing:
        at, combination = min(missing, key=repr)  # any, but always the same
        rows = [[rng.choice(known) for known in values] for _ in range(tries)]
        for row in rows:
            for i, value in zip(at, combination, strict=True):
                row[i] = value
        best = max(rows, key=lambda row: len(covered(row)))
        missing -= covered(best)
        cases.append(Case(**dict(zip(options, best, strict=True))))
    return cases
