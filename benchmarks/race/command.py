"""The gradients of this library against autodiff and against other libraries: time, memory, and error beside both.

    python benchmarks/race --smoke                      # seconds: does everything still run?
    python benchmarks/race --quick                      # three shapes, the main contenders
    python benchmarks/race                              # the gradient at nine shapes, all contenders
    python benchmarks/race --shapes 100x32x64x128x64 --contenders textbook blocked torch --what forward step
    python benchmarks/race --full --save                # everything, kept in benchmarks/results/
    python benchmarks/race --cell gru lstm --save       # the gated cells, kept as race-gated.json and race-gated.md
    RACE_METHOD='my_module:Mine(k=2)' python benchmarks/race --contenders textbook blocked own   # a method of yours
    RACE_BEFORE=../before/src python benchmarks/race --contenders textbook blocked before   # another checkout's blocked

A shape is time x batch x in x hid x out. Every contender lives in a process of its own; they take turns in rounds, the
order new each round, every call blocked until ready, one process at work at a time. One that is further than 1e-3 from
the float64 truth is refused and not timed. `pip install -e '.[race]'` brings what the race itself needs, `'.[bench]'`
the other libraries too.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from rnn_jax._reporting.machine import PACKAGES, machine_record

from . import contenders as who
from . import problems
from .figures import REPORTS, only, summarise
from .measure import Absent, Heat, WorkerDied, measure_machine, run
from .report import NO_GPU, markdown, table, targets_table
from .worker import TURN_S

RESULTS = Path(__file__).parents[1] / "results"
PEERS = ("dm-haiku", "flax", "equinox", "torch", "keras")  # distributions that take part


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; a bad name ends the program with 2 and one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="race [options]"
    )
    add = parser.add_argument
    shapes = " ".join(shape.name for shape in problems.SHAPES)
    add("--shapes", nargs="+", metavar="SHAPE", help=f"default: {shapes}")
    add("--contenders", nargs="+", metavar="NAME", help=f"default: all, {' '.join(who.CONTENDERS)}")
    add("--cell", nargs="+", metavar="CELL", help=f"of {' '.join(problems.CELLS)}; default: vanilla")
    add("--what", nargs="+", metavar="WHAT", help=f"of {' '.join(who.EVERYTHING)}; default: gradient")
    add("--rounds", type=int, help="turns of every contender; default: 9")
    add(
        "--device",
        default="all",
        metavar="DEVICE",
        help="cpu, cuda or all (default): the CPU and, where there is one, a GPU",
    )
    add("--quick", action="store_true", help="three shapes, the main contenders, few rounds")
    add("--smoke", action="store_true", help="the smallest shape, no peers but NumPy, two rounds")
    add("--full", action="store_true", help="the gradient at all shapes, forward and step at one, and the sweeps")
    add("--sweeps", action="store_true", help="also along T, B and hid, and up to T = 1,000,000: the pictures")
    add("--only-sweeps", nargs="+", metavar="SWEEP", help=f"nothing but these sweeps, of {' '.join(problems.SWEEPS)}")
    add(
        "--save",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="FOLDER",
        help="keep race.json, race.md and the pictures; of gated cells, race-gated.json and race-gated.md",
    )
    add("--redraw", action="store_true", help="no race: tables and pictures anew from what was saved")
    options = parser.parse_args(arguments)
    try:
        return choose(options)
    except ValueError as e:
        print(e, file=sys.stderr)
        raise SystemExit(2) from None


def choose(options: argparse.Namespace) -> argparse.Namespace:
    """Names turned into what they name, and what was left open filled in.

    Raises:
        ValueError: for a name that does not exist; the message lists those that do.
    """
    few = who.SMOKE if options.smoke else who.QUICK if options.quick else tuple(who.CONTENDERS)
    shapes = problems.SMOKE if options.smoke else problems.QUICK if options.quick else problems.SHAPES
    options.shapes = tuple(map(problems.parse_shape, options.shapes)) if options.shapes else shapes
    options.names = who.require_contenders(options.contenders) if options.contenders else few
    options.rounds = options.rounds if options.rounds is not None else 2 if options.smoke else 7 if options.quick else 9
    options.what = _known(
        "what", options.what or (["gradient", "forward", "step"] if options.full else ["gradient"]), who.EVERYTHING
    )
    options.cells = _known("cell", options.cell or ["vanilla"], tuple(problems.CELLS))
    (device,) = _known("device", [options.device], ("cpu", "cuda", "all"))
    options.devices = ("cpu", "cuda") if device == "all" else (device,)
    options.series = tuple(problems.SWEEPS) if options.sweeps or options.full else ()
    if options.only_sweeps:
        options.series, options.shapes = _known("sweep", options.only_sweeps, tuple(problems.SWEEPS)), ()
    if options.rounds < 1:
        raise ValueError(f"`--rounds` must be at least 1, got {options.rounds}.")
    return options


def _known(kind: str, names: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"No {kind} {name!r}; there are {', '.join(known)}.")
    return tuple(dict.fromkeys(names))


def heats(options: argparse.Namespace, device: str) -> list[Heat]:
    """All races on a device: the shapes, then the points of the sweeps."""
    found, cells = [], options.cells
    for what in options.what:
        aside = options.full and what != "gradient"
        names = tuple(name for name in options.names if not aside or name in who.ASIDE)
        shapes = problems.ASIDE if aside else options.shapes
        found += [Heat("race", cell, shape, what, device, names, options.rounds) for cell in cells for shape in shapes]
    for series in options.series:
        asked = set(options.contenders or who.CONTENDERS)
        names = tuple(name for name in (who.LONG if series == "long" else who.SWEPT) if name in asked)
        for shape in problems.SWEEPS[series]:
            rounds = min(options.rounds, 2 if shape.time > 100_000 else 5)
            found += [Heat(series, cell, shape, "gradient", device, names, rounds) for cell in cells]
    return found


def say(text: str) -> None:
    """To the terminal at once."""
    print(text, flush=True)


def blank(options: argparse.Namespace) -> dict:
    """What goes into `race.json`, nothing measured yet."""
    settings = {"rounds": options.rounds, "turn_ms": TURN_S * 1e3, "looked_for_cuda": "cuda" in options.devices}
    settings |= {"contenders": options.names, "seed": problems.SEED}
    return {
        "machine": machine_record((*PACKAGES, *PEERS)),
        "machines": {},
        "settings": settings,
        "rows": [],
        "missing": [],
    }


def measure(options: argparse.Namespace, data: dict) -> None:
    """Run everything, into `data`; the machine's own rates before and after the races. Saves after every race."""
    for device in options.devices:
        try:
            rates = data["machines"][device] = measure_machine(device)
        except Absent:
            say(f"{NO_GPU}\n")
            continue
        for heat in heats(options, device):
            try:
                rows, missing = run(heat, say)
            except WorkerDied as e:
                say(f"There is no {heat.title}, for the float64 truth failed: {e}.\n")
                continue
            data["rows"] += rows
            data["missing"] += missing
            if rows:
                say(f"\n{table(summarise(rows, data['machines']))}\n")
            if options.save:
                write(data, options.save)
        if not (options.smoke or options.quick):
            again = measure_machine(device)
            rates |= {name: rates[name] + again[name] for name in ("product", "copy")}
    if options.save:
        write(data, options.save)


def write(data: dict, folder: Path) -> list[str]:
    """`race.json` and `race-gated.json`, a line a row; the names of those that have rows."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: part for name, cells in REPORTS.items() if (part := only(data, cells))["rows"]}
    for name, part in parts.items():
        text = json.dumps(part, separators=(",", ":")).replace("},{", "},\n{")
        (folder / f"{name}.json").write_text(text + "\n")
    return list(parts)


def draw(name: str, folder: Path) -> None:
    """The report and the pictures of what was written under this name."""
    from .pictures import save_pictures

    data = json.loads((folder / f"{name}.json").read_text())
    (folder / f"{name}.md").write_text(markdown(data))
    say(f"kept: {', '.join([f'{name}.json', f'{name}.md', *(path.name for path in save_pictures(data, folder))])}")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = parse(arguments)
    if options.redraw:
        folder = options.save or RESULTS
        saved = [name for name in REPORTS if (folder / f"{name}.json").exists()]
        if not saved:
            print("There is no race.json to draw: run with `--save` first.", file=sys.stderr)
            return 2
        for name in saved:
            draw(name, folder)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way, no process is left behind
    data = blank(options)
    try:
        measure(options, data)
    except KeyboardInterrupt:
        say("Stopped; `--redraw` draws what was saved." if options.save and data["rows"] else "Stopped.")
        return 130
    except WorkerDied as e:
        print(f"The machine's own rates could not be measured: {e}.", file=sys.stderr)
        return 1
    if not data["rows"]:
        print("Nothing was measured.", file=sys.stderr)
        return 2
    for part in targets_table(summarise(data["rows"], data["machines"])):
        say(f"{part}\n")
    if options.save:
        for name in write(data, options.save):
            draw(name, options.save)
    return 0
