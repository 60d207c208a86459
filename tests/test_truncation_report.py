"""The report on truncation: what each pair of windows loses, and how fast the gradient decays."""

import numpy as np
import pytest
from problems import Case, run, thinned
from truncations import decaying

import rnn_jax


@pytest.mark.parametrize("last", thinned([1, 10, 20], 3))
def test_the_decay_is_that_of_the_losses_that_are_read(last):
    params, batch, h_0 = decaying(0.9, 20)
    batch = batch._replace(targets=batch.targets[-last:])
    report = rnn_jax.analysis.truncation_report(params, batch, h_0, [5], lags=10)
    assert report.decay == pytest.approx(0.9, rel=0.02)


def test_the_report():
    problem = decaying(0.5, 40)
    report = rnn_jax.analysis.truncation_report(*problem, [1, 4, 40], lags=20)
    errors = {(row.k1, row.k2): row.whole.error for row in report.rows}
    assert list(errors) == [(1, 1), (4, 4), (2, 4), (1, 4), (40, 40), (20, 40), (1, 40)]
    assert (
        errors[1, 1]
        > errors[4, 4]
        > errors[2, 4]
        > errors[1, 4]
        > 1e-3
        > 1e-12
        > max(errors[k, 40] for k in (40, 20, 1))
    )
    assert report.rows[-1].whole.cosine == pytest.approx(1)
    _, full = run("autodiff", Case(), problem)
    _, windows = run("truncated", Case(), problem, k1=4, k2=4)
    of_w_hh = report.rows[1].leaves["cells.0.w_hh"]
    mine, theirs = windows.params.cells[0].w_hh, full.params.cells[0].w_hh
    assert of_w_hh.error == pytest.approx(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))
    assert report.decay == pytest.approx(0.5, rel=5e-3) and report.decay_error < 5e-3
    np.testing.assert_allclose(report.lag_norms[1:] / report.lag_norms[:-1], 0.5, rtol=0.2)
    assert "0.499 ±" in str(report) and len(str(report).splitlines()) == 3 + 8
