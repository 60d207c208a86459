"""The page that `rnn-jax anatomy` writes, parsed and opened in a browser."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import command
from pages import Page

import rnn_jax
from rnn_jax._cli.anatomy.examine import reach
from rnn_jax._cli.anatomy.verdict import truncated
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.truncation import advice, train_command


def test_anatomy_of_a_run(finished, tmp_path):
    """One page, everything in it, of a trained network."""
    cwd, _ = finished
    place = tmp_path / "a page.html"
    options = ["--window", 12, "--streams", 2, "--lags", 10, "--page", place]
    result = command("anatomy", "run", *options, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "with each step back." in result.stdout and "The largest Lyapunov exponent is" in result.stdout
    losses = [float(word[:-1]) for word in result.stdout.split() if word[:-1] and word.endswith("%")]
    assert "Truncated at k2 = 6 steps" in result.stdout and losses == sorted(losses, reverse=True) and losses[-1] > 0
    text = place.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.outside and text.startswith("<!DOCTYPE html>")
    assert len(page.images) == text.count("<section>") == text.count("<details>") == 7
    assert all(image[:8] == b"\x89PNG\r\n\x1a\n" and len(image) > 5000 for image in page.images)
    assert len(page.cells) > 60 and not any("nan" in cell for cell in page.cells)
    exponents = [float(row) for row in page.cells if row.startswith("-0.")]
    assert exponents and command("anatomy", "run", *options, cwd=cwd).stdout == result.stdout
    assert place.read_text(encoding="utf-8") == text  # the same seed, the same page


def measured(errors, steps=200, lag_norms=(1.0, 1.0, 1.0)):
    """A report of `steps` steps with these errors for each (k1, k2)."""
    distance = {pair: rnn_jax.analysis.Distance(error, 1.0) for pair, error in errors.items()}
    rows = [rnn_jax.analysis.TruncationRow(*pair, found, {}, 1.0, None) for pair, found in distance.items()]
    full = rnn_jax.analysis.TruncationRow(steps, steps, rnn_jax.analysis.Distance(0.0, 1.0), {}, 1.0, None)
    return rnn_jax.analysis.TruncationReport(tuple(rows), full, np.array(lag_norms), 0.9, 0.1)


def test_what_is_advised_was_measured():
    """With its k1 and k2; the cheapest that keeps the gradient; none, if none does."""
    report = measured({(22, 22): 0.2, (11, 22): 0.037, (1, 22): 0.01, (25, 50): 0.04})
    assert truncated(report) == (
        "Truncated at k2 = 22 steps, the gradient of these sequences loses 20.0% with k1 = 22, 3.7% with k1 = 11, "
        "1.0% with k1 = 1, 4.0% with k1 = 25 (measured)."
    )
    run = TrainConfig(window=20)
    words = advice(report, run, 10**6)
    assert "k1 = 11, k2 = 22: it loses 3.7% of this gradient" in words
    assert words.endswith("next: rnn-jax train --window 66 --k1 11 --k2 22")
    assert "All of these lose more than 5%" in advice(measured({(22, 22): 0.2, (11, 22): np.nan}), run, 10**6)
    assert "cannot be measured" in truncated(measured({(22, 22): np.nan}))
    assert [reach(exponent, 100) for exponent in (-0.21, -0.01, 0.0, 0.3, -np.inf, np.nan)] == [22, 50, 50, 50, 1, 50]


def test_what_was_not_measured_is_not_advised():
    """A window must hold three reaches; what is dead or out of range has no cheapest truncation."""
    run, errors = TrainConfig(window=20), {(5, 5): 0.2, (22, 22): 0.01}
    for steps in (66, 65):
        words = advice(measured(errors, steps), run, 10**6)
        assert ("next: rnn-jax train --window 66" in words) == (steps == 66)
    assert "To measure what k2 = 22 loses takes at least 66 steps, got 65: give --window 66" in words
    words = advice(measured(errors), run, 2000)
    assert "next:" not in words and "for 32 streams, 2,257 characters; this text has 2,000" in words
    for norms in ([0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1e-9, 0.0]):
        report = measured({(1, 1): 0.0, (2, 2): 0.0}, lag_norms=norms)
        assert advice(report, run, 10**6) == (
            "Nothing is learned through time in this run: no gradient reaches the step before. There is nothing to "
            "advise."
        )
        assert truncated(report) == "Nothing is learned through time in this run: no gradient reaches the step before."
    assert advice(measured({(1, 1): np.nan}), run, 10**6) == (
        "The gradient of this run is not finite: there is nothing to advise."
    )


def test_the_command_that_is_advised_trains_like_the_run_but_for_the_truncation():
    run = TrainConfig(
        files=("/a text.txt", "-"),
        run=Path("run"),
        activation="relu",
        max_norm=None,
        learning_rate=0.1,
        watch=True,
        method="bptt",
        adaptive_bias=0.1,
        k1=3,
    )
    assert train_command(run, window=30, k1=2, k2=4) == (
        "rnn-jax train '/a text.txt' - --activation relu --window 30 --k1 2 --k2 4 --learning-rate 0.1 "
        "--max-norm None --watch < FILE"
    )


def test_anatomy_of_a_random_network_in_a_browser(tmp_path):
    """At gain 0.5 the gradient vanishes, at 1.05 without activation it explodes; a browser shows all pictures."""
    options = ["--hidden-size", 12, "--window", 12, "--streams", 2, "--lags", 5, "--activation", "identity"]
    result = command("anatomy", *options, "--recurrent-init", "orthogonal", "--gains", 0.5, 1.05, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"{np.log(1.05):.4f}" in result.stdout and "gradients grow as fast on the way back" in result.stdout
    text = (tmp_path / "anatomy.html").read_text(encoding="utf-8")
    cells = Page(text).cells
    assert cells[0] == "0.5" and float(cells[4]) == pytest.approx(0.5, abs=1e-3)  # the factor a step back
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or chrome to open the page in")
    shot = tmp_path / "shot.png"
    asked = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    asked += ["--window-size=1000,4600", "--hide-scrollbars", f"--screenshot={shot}", str(tmp_path / "anatomy.html")]
    shown = subprocess.run([browser, *asked], capture_output=True, text=True, timeout=120)
    assert shot.exists(), shown.stderr
    import matplotlib.image

    pixels = matplotlib.image.imread(shot)[..., :3]
    colorful = np.ptp(pixels, axis=2).max(1) > 0.3  # rows of the page with color: in pictures
    runs = np.sum(np.diff(colorful.astype(int)) == 1)
    assert runs >= 5 and colorful.mean() > 0.3
