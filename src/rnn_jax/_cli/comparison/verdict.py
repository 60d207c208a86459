"""The results of `rnn-jax compare` in words, and what makes a comparison unfair."""

import math
from collections.abc import Sequence

from .runs import Trained, groups
from .tables import baselines, in_bits, leader, settings_of

SAME = 1e-9  # a larger relative difference between the n-gram models of two runs is not rounding
OTHER_PARTS = (
    "these runs read the held-out text in different numbers of parts, because --streams or --window differ. Each part "
    "starts from a zero state, so small differences in bits may come from that."
)


def verdict(runs: Sequence[Trained]) -> list[str]:
    """Which run of each text is best and by how much, the n-gram models, the groups of seeds."""
    said = []
    for text in dict.fromkeys(run.text for run in runs):
        same = [run for run in runs if run.text == text]
        validated = [run for run in same if run.validations]
        if validated:
            said.append(_best(validated, len({run.text for run in runs}) > 1))
            models = ", ".join(f"{name} {bits:.3f}" for name, bits in baselines(validated[0]).items())
            said.append(f"n-gram models of its text: {models} bits per {validated[0].unit}.")
    return [*said, *_seeds(runs)]


def _best(runs: Sequence[Trained], several: bool) -> str:
    first, *others = runs
    assert first.best is not None
    of = f" of {first.title!r}" if several else ""
    words = f"Best{of}: {first.name!r}, {_bits(first)} at step {first.best.step:,}"
    if not others:
        return f"{words}."
    less = others[0].bits - first.bits
    return f"{words}, {in_bits(less)} less than {others[0].name!r}." if less else f"{words}, as {others[0].name!r}."


def _bits(run: Trained) -> str:
    """The best bits of a run; of bytes, per character of the held-out text too."""
    ratio = run.facts.get("bytes_per_character")
    per_character = f" ({in_bits(ratio * run.bits)} per character)" if ratio else ""
    return f"{in_bits(run.bits)} bits per {run.unit}{per_character}"


def _seeds(runs: Sequence[Trained]) -> list[str]:
    """Mean and range of the runs that differ only in the seed, and whether the best two settings can be told apart."""
    found = [group for group in groups(runs) if group.bits]
    said = [
        f"{len(group.bits)} seeds of {settings_of(group, runs)}: {in_bits(group.mean)} bits on average, from "
        f"{in_bits(min(group.bits))} to {in_bits(max(group.bits))}."
        for group in found
        if len(group.bits) > 1
    ]
    if len(found) > 1 and len({run.text for run in runs}) == 1:
        first, second = found[:2]
        less = in_bits(second.mean - first.mean)
        if len(first.bits) == len(second.bits) == 1:
            said.append("The best two settings have one seed each: another seed may change their order.")
        elif min(second.bits) <= max(first.bits):
            words = "but their ranges overlap: these seeds do not tell them apart."
            said.append(f"The best two settings differ by {less} bits on average, {words}")
        else:
            said.append(f"The best two settings differ by {less} bits on average, and their ranges do not overlap.")
    return said


def cautions(runs: Sequence[Trained]) -> list[str]:
    """What a reader must know before comparing these runs, and runs that are not what they should be."""
    said = []
    if len({run.text for run in runs}) > 1:
        apart = {
            "texts": {run.facts["text_sha256"] for run in runs},
            "held-out texts": {run.facts.get("validation_sha256") for run in runs},
            "units (characters and bytes)": {run.unit for run in runs},
        }
        different = " and ".join(name for name, values in apart.items() if len(values) > 1)
        own = "text" if different == "texts" else "of these groups"
        said.append(
            f"these runs have different {different}, so their bits cannot be compared: each {own} has its own best run."
        )
    if any(_reads_other_symbols(run, leader(run, runs)) for run in runs):
        said.append(OTHER_PARTS)
    if len({_machine(run) for run in runs}) > 1:
        said.append("these runs were not all trained on the same machine, so their seconds also compare the machines.")
    for run in runs:
        done = f"has done {run.step:,} of {run.settings['steps']:,} steps"
        if not run.validations:
            said.append(f"{run.name!r} has no validation yet: it {done}.")
            continue
        if run.validations[-1].bits > math.log2(len(run.facts["symbols"])):
            uniform = math.log2(len(run.facts["symbols"]))
            said.append(
                f"{run.name!r} ended at {in_bits(run.validations[-1].bits)} bits, above the {uniform:.3f} of uniform "
                "guessing: it has diverged, or memorised its text."
            )
        if run.step < run.settings["steps"]:
            said.append(f"{run.name!r} {done}: it is still training, was stopped, by --patience too, or failed.")
    for group in groups(runs):
        for first, again in group.repeated:
            said.append(
                f"{first.name!r} and {again.name!r} have the same settings and the same seed, so they count as one "
                "seed."
            )
    return said


def _reads_other_symbols(run: Trained, first: Trained) -> bool:
    """Whether its n-gram models, which predict the symbols that validation predicts, have other bits."""
    ours, theirs = run.facts["baselines"], first.facts["baselines"]
    return any(not math.isclose(bits, theirs[name], rel_tol=SAME) for name, bits in ours.items())


def _machine(run: Trained) -> tuple[object, ...]:
    found = run.facts.get("machine", {})
    return tuple(found.get(name) for name in ("device", "cpu", "cores"))
