"""Every planted fault is found, with the leaves and the words in `faults.json`. Without a fault, nothing is found.

`python tests/test_faults.py` writes that file again; read it before you commit it. To run one fault, and see what
is found: `python3 -m pytest tests/test_faults.py -n 0 -s -k "bias gradient twice"`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import BACKWARD, BLOCKED, CELLS, DROPPED, TRUNCATED, planted
from more_faults import MORE
from plant import Change, DoesNotApply, plant

import rnn_jax

RECORD = Path(__file__).with_name("faults.json")
FAULTS = {fault.name: fault for fault in (*BACKWARD, *DROPPED, *BLOCKED, *TRUNCATED, *CELLS, *MORE)}


def recorded():
    return json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    fault = FAULTS[name]
    found = fault.find(planted(fault))
    print(f"\n{name}: {found.finding}\n    {', '.join(found.leaves)}")
    assert found.leaves, f"nothing notices the fault {name!r}: {fault.change}"
    assert found._asdict() == recorded()[name]


def test_the_record_is_of_these_faults():
    assert list(recorded()) == list(FAULTS)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("fault", [*list(FAULTS.values())[: -len(MORE) : 7], *MORE], ids=lambda fault: fault.name)
def test_nothing_is_found_where_nothing_is_planted(fault):
    if fault.change is not None:
        assert fault.find(rnn_jax) == ([], "")


@pytest.mark.thorough
@pytest.mark.parametrize("fault", MORE, ids=lambda fault: fault.name)
def test_the_suite_kills_it(fault):
    """With the fault in the package itself, the test that should notice fails."""
    result = run_alone(fault.killed_by, {"RNN_JAX_FAULT": json.dumps(fault.change)})
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout + result.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("test", sorted({fault.killed_by for fault in MORE}))
def test_what_kills_passes_without_a_fault(test):
    result = run_alone(test, {})
    assert result.returncode == 0, result.stdout + result.stderr


def run_alone(test, environment):
    """A test of the suite in a process of its own."""
    words = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
    words.append(str(Path(__file__).parent / test))
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(
    "change, message",
    [
        (Change("_nn.loops", "deltas.body", "d_h_read + d_h_gone", "0"), "`d_h_read + d_h_gone` must stand once in"),
        (Change("_nn.loops", "deltas", "d_s_t", "0"), "`d_s_t` must stand once in `deltas` of `_nn.loops`, got [2-9]"),
        (Change("_nn.loops", "gone", "mask", "reset"), "There must be one function `gone` of `_nn.loops`, got 0"),
        (Change("_gone", "", "mask", "reset"), "There must be a module `_gone`"),
        (
            Change(
                "_nn.loops",
                "deltas.body",
                "dropped(deltas_t.of_u @ w_hh_t, layer.recurrent)",
                "(dropped(deltas_t.of_u @ w_hh_t, layer.recurrent))",
            ),
            "must be another than",
        ),
        (Change("_losses", "squared_error", "error = y_t - target_t; 3", "0"), "must stand once in"),
    ],
)
def test_a_fault_that_no_longer_applies_says_so(change, message):
    with pytest.raises(DoesNotApply, match=message.replace("+", "[+]")):
        plant(change)


def test_two_changes_in_one_module():
    twice = Change("_losses", "squared_error", "2 * error", "4 * error")
    package = plant(twice, Change("_losses", "squared_error", "error * error", "error"))
    y = rnn_jax.verify.make_problem(rnn_jax.verify.Case(loss="squared_error"))[1].targets
    value, d_y = package.squared_error(y, 0.0 * y)
    assert (d_y == 4 * y).all() and abs(value - y.sum(-1)).max() < 1e-12


def test_the_package_itself_stays_as_it_is():
    package = plant(Change("_losses", "squared_error", "2 * error", "error"))
    assert package is not rnn_jax and package.Batch is not rnn_jax.Batch
    y, target = rnn_jax.verify.make_problem(rnn_jax.verify.Case(loss="squared_error"))[1].targets, 0.0
    halves = [p.squared_error(y, target * y)[1] for p in (package, rnn_jax)]
    assert (2 * halves[0] == halves[1]).all() and halves[0].any()


def record():
    """Write what is found of every fault."""
    import conftest  # noqa: F401  (float64, two devices)
    from commands import unchecked

    with unchecked():
        found = {name: fault.find(planted(fault))._asdict() for name, fault in FAULTS.items()}
    RECORD.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(found)} faults; not found: {[name for name, f in found.items() if not f['leaves']]}")


if __name__ == "__main__":
    record()
