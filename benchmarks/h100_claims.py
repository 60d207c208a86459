"""What must hold of the facts of `h100.py`; each claim that does not is a sentence."""

from collections.abc import Iterator
from typing import Any

INSIDE = ("textbook", "autodiff", "stepwise")  # weight gradients step by step; of all other methods, after the steps
MOST_LAUNCHES = {  # by cell: a step of the first loop, forward, and of the last, backward
    "vanilla": {
        "bptt": (4, 5),
        "blocked": (4, 5),
        "blocked, checkpointed": (4, 5),
        "bptt, unroll=8": (3.2, 3.3),
        "blocked, unroll=8": (3.2, 3.3),
    },
    "gru": {"blocked": (10, 7)},
    "lstm": {"blocked": (12, 6)},
}
MOST_TEMPORARIES = {  # bytes, at the larger shape
    "vanilla": {"bptt": 60e6, "blocked": 28e6, "blocked, checkpointed": 9e6},
    "gru": {"blocked": 125e6},
    "lstm": {"blocked": 160e6},
}


def broken(facts: dict[str, Any]) -> Iterator[str]:
    """A sentence for each claim that does not hold."""
    for problem, programs in facts["one device"].items():
        cell = problem.split(",")[0]
        yield from _controls(problem, programs["autodiff"])
        for name, program in programs.items():
            where = f"{name} at {problem}"
            if program["tf32_products_at_highest"]:
                yield f"{where} has {program['tf32_products_at_highest']} TF32 products at the highest precision."
            if name not in INSIDE:
                yield from _by_hand(where, program)
                yield from _less_than(where, program, programs["autodiff"])
                yield from _launches(where, program, MOST_LAUNCHES[cell].get(name))
    larger = {problem.split(",")[0]: programs for problem, programs in facts["one device"].items()}
    for cell, programs in larger.items():
        yield from _temporaries(cell, programs)
    for programs in facts["8 devices"].values():
        yield from _collectives(programs)


def _controls(problem: str, autodiff: dict[str, Any]) -> Iterator[str]:
    """What is claimed to be none elsewhere is found where it is."""
    for fact in ("weight_gradients_of_a_step", "tf32_products"):
        if not autodiff[fact]:
            yield f"autodiff at {problem} has no {fact}: where others have none it says nothing."


def _by_hand(where: str, program: dict[str, Any]) -> Iterator[str]:
    if program["weight_gradients_of_a_step"]:
        yield f"{where} has {program['weight_gradients_of_a_step']} weight-gradient products of one step in a loop."
    if atomics := program["atomics"] + program["atomics_at_highest"]:
        yield f"{where} has {atomics} atomic instructions."
    if program["thunks_with_graph_flags"] != ["CommandBuffer"]:
        yield f"{where} is not one CUDA graph under the graph flags but {program['thunks_with_graph_flags']}."


def _less_than(where: str, program: dict[str, Any], autodiff: dict[str, Any]) -> Iterator[str]:
    for which, end in (("first", 0), ("last", -1)):
        ours, theirs = program["launches_per_step"][end], autodiff["launches_per_step"][end]
        if ours >= theirs:
            yield f"{where} launches {ours} a step of its {which} loop, autodiff {theirs}."
    for fact in ("launches", "temp_bytes", "peak_bytes"):
        if program[fact] >= autodiff[fact]:
            yield f"{where} has {program[fact]} {fact}, autodiff {autodiff[fact]}."


def _launches(where: str, program: dict[str, Any], most: tuple[float, float] | None) -> Iterator[str]:
    steps = program["launches_per_step"]
    if most and (steps[0] > most[0] or steps[-1] > most[1]):
        yield f"{where} launches {steps[0]} forward and {steps[-1]} backward a step; {most} is claimed."


def _temporaries(cell: str, programs: dict[str, Any]) -> Iterator[str]:
    for name, most in MOST_TEMPORARIES[cell].items():
        if name in programs and programs[name]["temp_bytes"] > most:
            where = f"{name} of {cell}"
            yield f"{where} reserves {programs[name]['temp_bytes']} bytes at the larger shape; {most:.0f} is claimed."


def _collectives(programs: dict[str, Any]) -> Iterator[str]:
    for name, program in programs.items():
        if name not in INSIDE and program["collectives"] != {"all-reduce": 1, "in a loop": 0}:
            yield f"{name} on 8 devices has the collectives {program['collectives']}; one all-reduce is claimed."
