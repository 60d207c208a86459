"""`rnn-jax gradcheck`: compare every gradient method with every witness, over a grid of options."""

from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

from .. import GRADIENTS, check_gradients, make_grad_fn
from .._reporting.console import say
from .._reporting.errors import InputError
from ..typing import GradFn
from ..verify import WITNESSES, Case, Report, make_problem
from ..verify._grid import OPTIONS, covering, with_other_cells
from .settings.commands import GradcheckConfig

DIFFERENCES = "differences"
COLUMNS = (DIFFERENCES, *WITNESSES)
MAIN = OPTIONS | {"num_layers": [1, 2], "batch": [(3,)], "time": [7, 1], "last": ["all", "one"]}


def cases(grid: str) -> list[Case]:
    """Cases with every pair (small) or triple (full) of options; of gated cells, with each option or every pair."""
    options, together = (OPTIONS, 3) if grid == "full" else (MAIN, 2)
    return covering(options, together) + covering(with_other_cells(options), together - 1)


def gradcheck(config: GradcheckConfig) -> int:
    """Print the table of methods and witnesses, and the failed checks; returns the exit status."""
    for method in config.methods:
        if method not in GRADIENTS:
            raise InputError(f"--methods must be among {', '.join(GRADIENTS)}, got {method!r}.")
    methods = config.methods or tuple(GRADIENTS)
    grid = cases(config.grid)
    errors: dict[tuple[str, str], list[float]] = {(m, w): [] for m in methods for w in COLUMNS}
    tolerances: dict[str, float] = {}
    wrong: list[tuple[str, str, Case, Report]] = []
    with tqdm(total=len(grid) * len(methods), unit="check", disable=None) as bar:
        for case in grid:
            for method, witness, report in reports(methods, case, config.seed):
                errors[method, witness] += [leaf.error for leaf in report.leaves]
                tolerances[witness] = report.tolerance
                wrong += [] if report.passed else [(method, witness, case, report)]
                bar.update(witness == DIFFERENCES or not GRADIENTS[method].exact)
    say(f"Worst relative errors in float64, {len(grid)} problems:\n\n{matrix(methods, errors, wrong)}\n")
    for method, witness, case, report in wrong[:3]:
        options = ", ".join(f"{name}={value!r}" for name, value in case._asdict().items())
        say(f"{method} compared with {witness}, with {options}:\n{report}\n")
    if config.picture is not None:
        from . import plots

        plots.gradient_errors(config.picture, {k: v for k, v in errors.items() if v}, tolerances)
        say(f"picture: {config.picture}")
    if wrong:
        say(f"{len(wrong)} checks failed" + (", the first three are above." if len(wrong) > 3 else "."))
        return 1
    say("Every gradient is right.")
    return 0


def reports(methods: tuple[str, ...], case: Case, seed: int) -> Iterator[tuple[str, str, Report]]:
    """The report of each method compared with each witness that applies to this problem."""
    with jax.enable_x64(True):
        params, batch, h_0 = make_problem(case, seed)
        problem = params, batch._replace(key=jax.random.key(seed)), h_0
    speaking = {
        name: _answering_once(witness.make(case.loss, case.reduction))
        for name, witness in WITNESSES.items()
        if witness.applies(problem[0])
    }
    for method in methods:
        example = GRADIENTS[method].example
        grad_fn = jax.jit(make_grad_fn(example, loss=case.loss, reduction=case.reduction))
        if not GRADIENTS[method].exact:
            reference = jax.jit(make_grad_fn(example.reference, loss=case.loss, reduction=case.reduction))
            yield method, "autodiff", check_gradients(grad_fn, *problem, witness=reference)
            continue
        yield method, DIFFERENCES, check_gradients(grad_fn, *problem, seed=seed)
        for name, witness in speaking.items():
            yield method, name, check_gradients(grad_fn, *problem, witness=witness)


def _answering_once(witness: GradFn) -> GradFn:
    """`witness`, computed once for each shape of the problem: all methods are compared with the same result."""
    said: dict[Any, Any] = {}

    def remembered(params: Any, batch: Any, h_0: Any) -> Any:
        shape = batch.inputs.shape
        if shape not in said:
            said[shape] = witness(params, batch, h_0)
        return said[shape]

    return remembered


def matrix(methods: tuple[str, ...], errors: dict[tuple[str, str], list[float]], wrong: list[Any]) -> str:
    """A row for each method, a column for each witness; each entry is the worst error, or how often it was wrong."""
    failed = [(method, witness) for method, witness, *_ in wrong]

    def cell(method: str, witness: str) -> str:
        found = errors[method, witness]
        if not found:
            return "-"
        times = failed.count((method, witness))
        return f"WRONG in {times}" if times else f"{max(found):.1e}"

    width = max(len(method) for method in methods)
    lines = [f"{'':{width}}  " + "".join(f"{name:>14}" for name in COLUMNS)]
    lines += [f"{m:{width}}  " + "".join(f"{cell(m, w):>14}" for w in COLUMNS) for m in methods]
    return "\n".join(lines)
