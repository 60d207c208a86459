"""The instrument catches every planted fault and names the leaves. `pytest tests/test_mutants.py -s -n 0` shows how."""

from fnmatch import fnmatch

import jax
import pytest
from mutants import MUTANTS, planted

import rnn_jax


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_caught_and_its_leaves_are_named(mutant):
    with planted(mutant) as grad_fn:
        report = rnn_jax.check_gradients(jax.jit(grad_fn), *rnn_jax.make_problem(mutant.case))
    print(f"\n{mutant.name:45} {'MISSED' if report.passed else 'caught'}  {', '.join(report.failing)}")
    print("\n".join(f"    {words}" for words in report.findings))
    expected = [leaf.name for leaf in report.leaves if any(fnmatch(leaf.name, pattern) for pattern in mutant.leaves)]
    assert list(report.failing) == expected
    assert mutant.words in " ".join(report.findings), report.findings
