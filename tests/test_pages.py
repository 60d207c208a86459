"""The page that `rnn-jax anatomy` leaves, read and opened in a browser."""

import shutil
import subprocess

import numpy as np
import pytest
from commands import command
from pages import Page

import rnn_jax
from rnn_jax.app.anatomy_page import truncated
from rnn_jax.app.examine import reach
from rnn_jax.app.truncation import advice


def test_anatomy_of_a_run(finished, tmp_path):
    """One page, everything in it, of a trained network."""
    cwd, _ = finished
    place = tmp_path / "a page.html"
    options = ["--window", 12, "--streams", 2, "--lags", 10, "--page", place]
    result = command("anatomy", "run", *options, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "times what it was, each step back." in result.stdout and "The largest Lyapunov exponent is" in result.stdout
    losses = [float(word[:-1]) for word in result.stdout.split() if word[:-1] and word.endswith("%")]
    assert "Truncated k2 = 6 steps back" in result.stdout and losses == sorted(losses, reverse=True) and losses[-1] > 0
    text = place.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.outside and text.startswith("<!DOCTYPE html>")
    assert len(page.images) == text.count("<section>") == text.count("<details>") == 7
    assert all(image[:8] == b"\x89PNG\r\n\x1a\n" and len(image) > 5000 for image in page.images)
    assert len(page.cells) > 60 and not any("nan" in cell for cell in page.cells)
    exponents = [float(row) for row in page.cells if row.startswith("-0.")]
    assert exponents and command("anatomy", "run", *options, cwd=cwd).stdout == result.stdout
    assert place.read_text(encoding="utf-8") == text  # the same seed, the same page


def measured(errors):
    """A report with these errors of (k1, k2)."""
    distance = {pair: rnn_jax.Distance(error, 1.0) for pair, error in errors.items()}
    rows = [rnn_jax.TruncationRow(*pair, found, {}, 1.0, None) for pair, found in distance.items()]
    return rnn_jax.TruncationReport(tuple(rows), rows[-1], np.ones(3), 0.9, 0.1)


def test_what_is_advised_was_measured():
    """With its k1 and k2; the cheapest that keeps the gradient; none, if none does."""
    report = measured({(22, 22): 0.2, (11, 22): 0.037, (1, 22): 0.01, (25, 50): 0.04})
    assert truncated(report) == (
        "Truncated k2 = 22 steps back, the gradient of these sequences loses 20.0% with k1 = 22, 3.7% with k1 = 11, "
        "1.0% with k1 = 1, 4.0% with k1 = 25 (measured)."
    )
    words = advice(report, window=20)
    assert "k1 = 11, k2 = 22: it loses 3.7% of this gradient" in words
    assert words.endswith("next: rnn-jax train --window 22 --k1 11 --k2 22")
    assert "None of these loses at most 5%" in advice(measured({(22, 22): 0.2, (11, 22): np.nan}), window=50)
    assert "cannot be told" in truncated(measured({(22, 22): np.nan}))
    assert [reach(exponent, 100) for exponent in (-0.21, -0.01, 0.0, 0.3, -np.inf, np.nan)] == [22, 50, 50, 50, 1, 50]


def test_anatomy_of_a_random_network_in_a_browser(tmp_path):
    """At gain 0.5 the gradient vanishes, at 1.05 without activation it explodes; a browser shows all pictures."""
    options = ["--hidden-size", 12, "--window", 12, "--streams", 2, "--lags", 5, "--activation", "identity"]
    result = command("anatomy", *options, "--recurrent-init", "orthogonal", "--gains", 0.5, 1.05, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"{np.log(1.05):.4f}" in result.stdout and "gradients grow as fast on their way back" in result.stdout
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
