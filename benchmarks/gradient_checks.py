"""Which planted faults do gradient checks notice? `jax.test_util.check_grads` beside `check_gradients`.

    python benchmarks/gradient_checks.py          # prints the table of docs/gradient-checks.md
    python benchmarks/gradient_checks.py --save   # and keeps it in benchmarks/results/gradient_checks.json

The faults are those of tests/faults.py. `check_grads` runs with its defaults, first order, reverse mode: in float32 as
most people run it, on a network of 64 units (25 steps of 8 sequences) and on the tiny problems of the tests (4 units,
7 steps of 3); in float64; and in float64 from a state of zeros. The first row has no fault: there "yes" is a false
alarm.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from faults import BACKWARD, FLAGGED, Checked, Fault, planted  # noqa: E402

from rnn_jax._reporting.machine import machine_record  # noqa: E402

NO_FAULT = Fault("none", None, Checked(FLAGGED))
RESULTS = ROOT / "benchmarks" / "results" / "gradient_checks.json"


def as_function(grad_fn, batch):
    """The loss, with `grad_fn` for its derivative rule."""

    @jax.custom_vjp
    def loss(params, h_0, inputs):
        return grad_fn(params, batch if inputs is None else batch._replace(inputs=inputs), h_0)[0][0]

    def forward(params, h_0, inputs):
        (value, _), d = grad_fn(params, batch if inputs is None else batch._replace(inputs=inputs), h_0)
        return value, d

    loss.defvjp(forward, lambda d, g: jax.tree.map(lambda leaf: g * leaf, tuple(d)))
    return jax.jit(loss)


def notices(grad_fn, problem):
    """Whether `check_grads` with its defaults raises."""
    params, batch, h_0 = problem
    inputs = None if jnp.issubdtype(batch.inputs.dtype, jnp.integer) else batch.inputs
    try:
        check_grads(as_function(grad_fn, batch), (params, h_0, inputs), order=1, modes=("rev",))
    except AssertionError:
        return True
    return False


def single(tree):
    """The same in 32 bits."""
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, narrow.get(x.dtype))), tree)


def main():
    """Every fault under every check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the table in {RESULTS.name}")
    save = parser.parse_args().save
    rows = {}
    for fault in (NO_FAULT, *BACKWARD):
        package, case, found = planted(fault), fault.find.case, {}
        grad_fn = fault.find.around(package.make_grad_fn("bptt", loss=case.loss))
        problems = importlib.import_module(f"{package.__name__}.verify._problems")
        with jax.enable_x64(True):
            problem = package.verify.make_problem(package.verify.Case(*case))
            with mock.patch.multiple(problems, IN=32, HID=64, OUT=32, GAIN=dict.fromkeys(problems.GAIN, 0.9)):
                usual = package.verify.make_problem(package.verify.Case(*case._replace(time=25, batch=(8,))))
        found["float32, 64 units"] = notices(grad_fn, single(usual))
        found["float32, tiny"] = notices(grad_fn, single(problem))
        with jax.enable_x64(True):
            params, batch, h_0 = problem
            found["float64, tiny"] = notices(grad_fn, problem)
            found["float64, tiny, h_0 = 0"] = notices(grad_fn, (params, batch, jax.tree.map(jnp.zeros_like, h_0)))
        found["check_gradients"] = not package.check_gradients(jax.jit(grad_fn), *problem).passed
        rows[fault.name] = found
        print(
            "| " + " | ".join([fault.name, *("yes" if seen else "**no**" for seen in found.values())]) + " |",
            flush=True,
        )
    columns = list(next(iter(rows.values())))
    print(f"noticed of {len(BACKWARD)}:", {c: sum(rows[fault.name][c] for fault in BACKWARD) for c in columns})
    if save:
        found = {"machine": machine_record(), "noticed": rows}
        RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
