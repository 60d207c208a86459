"""`rnn-jax train` and the commands that read a run, called in this process; test_processes.py has the others."""

import json
import shlex

import jax
import numpy as np
import pytest
from commands import BRIEF, REAL_TEXT, SMALL, blank, command, jax_configured, losses, metrics, process, train, unchecked

import rnn_jax
from rnn_jax._cli import run_folder
from rnn_jax._cli.jax_settings import jax_settings
from rnn_jax._cli.trained import sample
from rnn_jax._cli.training import outputs

pytestmark = pytest.mark.usefixtures("undrawn")
TRUNCATED = ["--k1", 5, "--k2", 10]


@pytest.fixture(scope="module")
def brief(made_once):
    """The losses of 50 steps, with which the runs below are compared; they differ in one option at most."""
    made = made_once("brief", lambda cwd: train(cwd, REAL_TEXT, "--run", "run", "--steps", 50, *BRIEF))
    return losses(made / "run")


@pytest.fixture(scope="module")
def truncated(made_once):
    """The folder of a run whose gradients reach back 10 steps, and what it printed."""

    def make(cwd):
        out = train(cwd, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF, *TRUNCATED)
        (cwd / "printed.txt").write_text(out)

    cwd = made_once("truncated", make)
    return cwd, (cwd / "printed.txt").read_text()


def test_a_run(finished):
    cwd, printed = finished
    run = cwd / "run"
    assert {path.name for path in run.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint", "learning-curve.png", "sample.txt", "lock"
    }  # fmt: skip
    assert (run / "learning-curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    settings = json.loads((run / "settings.json").read_text())
    assert settings["settings"]["hidden_size"] == 16 and settings["versions"]["jax"]
    assert settings["symbols"] == rnn_jax.data.symbols_of(REAL_TEXT.read_text())
    difference = float(printed.split("differ by at most ")[1].split()[0])
    assert 0 <= difference < 1e-4
    validations = {r["step"]: r["validation_bits"] for r in metrics(run) if "validation_bits" in r}
    assert list(validations) == [25, 50, 60]
    assert validations[60] < np.log2(len(settings["symbols"]))
    for name, bits in [("this network", validations[60]), *settings["baselines"].items()]:
        assert any(line.split() == [*name.split(), f"{bits:.3f}"] for line in printed.splitlines()), name
    assert "next: rnn-jax sample run" in printed


def test_sample(finished):
    cwd, _ = finished
    args = ("sample", "run", "--prompt", "def ", "--length", 40, "--temperature", 0.9)
    first, again, other = (command(*args, "--seed", seed, cwd=cwd).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert first.startswith("def ") and len(first) == 4 + 40 + 1
    greedy = [command("sample", "run", "--temperature", 0, "--seed", seed, cwd=cwd).stdout for seed in (1, 2)]
    assert greedy[0] == greedy[1] and len(greedy[0]) == 502


def test_the_same_seed_gives_the_same_losses_to_the_last_bit(brief, tmp_path):
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
    assert losses(tmp_path / "run") == {25: brief[25]}
    train(tmp_path, REAL_TEXT, "--run", "run", "--overwrite", "--steps", 25, *BRIEF, "--seed", 4)
    assert losses(tmp_path / "run")[25] != brief[25]


UNUSUAL = {
    "jax_enable_x64": True,
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_check_tracer_leaks": True,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_transfer_guard": "disallow",
}


def test_the_settings_of_jax_in_the_environment_change_no_bit(brief, finished, tmp_path):
    """All at once; the suite itself has 64 bits, strict promotion and two devices. Afterwards they are as they were."""
    args = "sample", finished[0] / "run", "--length", 30
    expected = command(*args, cwd=tmp_path).stdout
    with jax_configured(UNUSUAL):
        train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
        assert command(*args, cwd=tmp_path).stdout == expected
        result = command("anatomy", "run", "--window", 9, "--streams", 2, "--lags", 3, "--gains", 1, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert {name: getattr(jax.config, name) for name in UNUSUAL} == UNUSUAL
    assert losses(tmp_path / "run") == {25: brief[25]}


def test_the_environment_itself(finished, tmp_path):
    """A variable is read when JAX starts, so this is a process."""
    args = "sample", finished[0] / "run", "--length", 30
    result = process(*args, cwd=tmp_path, JAX_ENABLE_X64="1", JAX_DISABLE_JIT="1", JAX_NUM_CPU_DEVICES="3")
    assert result.returncode == 0, result.stderr
    assert result.stdout == command(*args, cwd=tmp_path).stdout
    result = process(*args, cwd=tmp_path, JAX_DEFAULT_DEVICE="gpu")  # which device it is is the command's business
    assert result.returncode == 0, result.stderr
    result = process(*args, cwd=tmp_path, JAX_ENABLE_X64="maybe")
    assert result.returncode == 2 and "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'" in result.stderr
    assert result.stderr.startswith("rnn-jax: JAX must be able to read its settings") and result.stderr.count("\n") == 1


def test_dtypes(brief, tmp_path):
    """A run has its numbers in its settings; of bfloat16 only states and products, so that the weights are float32."""
    for dtype, kept in (("float64", "float64"), ("bfloat16", "float32")):
        out = train(tmp_path, REAL_TEXT, "--run", dtype, "--steps", 25, *BRIEF, "--dtype", dtype)
        difference = float(out.split("differ by at most ")[1].split()[0])
        assert difference < 1e-12 if dtype == "float64" else 1e-4 < difference < 0.1
        assert "MORE THAN ROUNDING" not in out
        train(tmp_path, "--resume", dtype, "--steps", 50)
        settings, facts = run_folder.read_settings(tmp_path / dtype)
        assert settings.dtype == dtype
        with jax_settings(dtype), unchecked():
            params = sample.trained(tmp_path / dtype, settings, facts["symbols"])
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {kept}
        assert command("sample", dtype, "--length", 9, cwd=tmp_path).returncode == 0
    ours = losses(tmp_path / "bfloat16")
    assert ours[25] != brief[25]
    np.testing.assert_allclose([ours[step] for step in (25, 50)], [brief[step] for step in (25, 50)], rtol=0.02)


def test_several_files_standard_input_and_other_settings(tmp_path):
    (tmp_path / "a.txt").write_text("Ein Text mit Umlauten: äöü. " * 20, encoding="utf-8")
    options = ["--steps", 4, *SMALL, "--optimizer", "adam", "--num-layers", 2, "--activation", "relu", "--watch"]
    options += ["--recurrent-init", "identity", "--schedule", "linear", "--max-norm", 0.1, "--method", "stepwise"]
    result = command("train", "a.txt", "-", "--run", "run", *options, cwd=tmp_path, stdin="Noch mehr davon. " * 20)
    assert result.returncode == 0, result.stderr
    assert "900 characters" in result.stdout and "2 layers of 16 relu units" in result.stdout
    look = metrics(tmp_path / "run")[0]["watch"]
    assert look["grad_norm"] > 0.1 and look["clip_ratio"] == pytest.approx(0.1 / look["grad_norm"], rel=1e-4)
    assert look["spectral_radius"] == pytest.approx([1, 1], abs=1e-4)  # drawn the identity
    assert_is_a_look(look, 2)
    assert (tmp_path / "run" / "watch.png").stat().st_size > 10_000


def test_little_memory_and_two_devices(brief, tmp_path):
    """The same losses as with all states kept on one device; a run of two devices is read by one."""
    options = ["--steps", 25, *BRIEF, "--memory", "10kB", "--devices", 2]
    out = train(tmp_path, REAL_TEXT, "--run", "run", *options)
    assert "one state is kept" in out and "recomputed" in out
    np.testing.assert_allclose(losses(tmp_path / "run")[25], brief[25], rtol=1e-4)
    train(tmp_path, "--resume", "run", "--steps", 50)
    np.testing.assert_allclose(losses(tmp_path / "run")[50], brief[50], rtol=1e-4)
    assert command("sample", "run", "--length", 40, cwd=tmp_path).returncode == 0


def test_truncated(brief, truncated, tmp_path):
    """Trained with a gradient that reaches back 10 steps, or as far as it must; and what that would cost."""
    cwd, printed = truncated
    assert "by hand (truncated, k1 = 5, k2 = 10) and its definition" in printed and "MORE THAN ROUNDING" not in printed
    ours = losses(cwd / "run")
    assert list(ours) == [25] and ours[25] != brief[25]
    assert abs(ours[25][0] - brief[25][0]) < 0.5
    options = ["--steps", 25, *BRIEF, "--k1", 4, "--adaptive-bias", 0.1]
    out = train(tmp_path, REAL_TEXT, "--run", "adaptive", *options)
    assert "by hand (adaptive, k1 = 4, bias = 0.1)" in out and "MORE THAN ROUNDING" not in out

    options = ["--ks", 1, 18, "--window", 60, "--streams", 2]
    result = command("truncation", cwd / "run", *options, "--picture", "picture.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    table = [line.split() for line in result.stdout.splitlines() if line[:6].strip().isdigit()]
    errors = {(int(row[0]), int(row[1])): float(row[2]) for row in table}
    assert list(errors) == [(1, 1), (18, 18), (9, 18), (1, 18), (60, 60)]
    assert errors.pop((60, 60)) == 0 < min(errors.values())
    kept = [pair for pair, error in errors.items() if error <= 0.05]
    k1, k2 = min(kept, key=lambda pair: (pair[1] / pair[0], pair[1]))
    assert f"k1 = {k1}, k2 = {k2}: it loses {errors[k1, k2]:.1%} of" in result.stdout
    (hint,) = [line.removeprefix("next:") for line in result.stdout.splitlines() if line.startswith("next:")]
    assert f"--window {max(20, 3 * k2)} --k1 {k1} --k2 {k2}" in hint
    args = shlex.split(hint)
    assert args[:3] == ["rnn-jax", "train", str(REAL_TEXT)]
    out = train(tmp_path, *args[2:])
    again = json.loads((tmp_path / "runs" / "char-1" / "settings.json").read_text())["settings"]
    before = json.loads((cwd / "run" / "settings.json").read_text())["settings"]
    changed = {name for name, value in before.items() if again[name] != value}
    assert changed <= {"run", "window", "k1", "k2"} and f"truncated, k1 = {k1}, k2 = {k2}" in out
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_dropped_truncated_and_resumed(truncated, tmp_path):
    """In two parts the same bits as in one: which units are dropped is a function of the step."""
    options = [*BRIEF, *TRUNCATED, "--drop-between", 0.2, "--drop-recurrent", 0.3]
    train(tmp_path, REAL_TEXT, "--run", "whole", "--steps", 50, *options)
    train(tmp_path, REAL_TEXT, "--run", "parts", "--steps", 25, *options)
    train(tmp_path, "--resume", "parts", "--steps", 50)
    whole, all_units = losses(tmp_path / "whole"), losses(truncated[0] / "run")
    assert losses(tmp_path / "parts") == whole and all_units[25] != whole[25]


def test_watched(tmp_path, monkeypatch):
    """The gradient taken apart now and then, and the training the same; resumed, no look is missing or there twice.

    Of the gradient that is trained with, truncated and clipped.
    """
    monkeypatch.setattr(outputs, "watched", blank)  # the picture is looked at above
    run = tmp_path / "run"
    options = [*BRIEF, *TRUNCATED, "--max-value", 0.01, "--eval-every", 1]
    train(tmp_path, REAL_TEXT, "--run", "plain", "--steps", 3, *options)
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 1, *options, "--watch", "--watch-every", 1)
    train(tmp_path, "--resume", "run", "--steps", 2)
    look = next(r for r in metrics(run) if "watch" in r)
    with open(run / "metrics.jsonl", "a") as file:  # as a run leaves it that is killed after its look
        file.write(json.dumps(look | {"step": 2}) + "\n")
    train(tmp_path, "--resume", "run", "--steps", 3)
    assert losses(run) == losses(tmp_path / "plain")
    assert [r["step"] for r in metrics(run) if "watch" in r] == [0, 1, 2]
    for step in (0, 1):
        (look,) = (r["watch"] for r in metrics(run) if "watch" in r and r["step"] == step)
        grad_norm = losses(run)[step + 1][1]
        assert look["grad_norm"] == pytest.approx(grad_norm, rel=1e-4)
        assert 0.01 < look["clip_ratio"] < min(1, 1 / grad_norm)
        assert_is_a_look(look, 1)
    assert (run / "watch.png").exists()
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 1, *SMALL, "--overwrite")  # a run of ours, to the last file


def assert_is_a_look(look, num_layers):
    assert len(look["d_h_quantiles"]) == len(look["saturated"]) == len(look["spectral_radius"]) == num_layers
    assert all(quantiles == sorted(quantiles) and quantiles[0] > 0 for quantiles in look["d_h_quantiles"])
    assert all(a <= b + 1e-5 for a, b in zip(look["spectral_radius"], look["largest_singular_value"], strict=True))
    assert 0 < look["growth"] < 3
