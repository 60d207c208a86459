"""`rnn-jax export`: files for other programs."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ENVIRONMENT, command

import rnn_jax

RECIPES = Path(__file__).parents[1] / "docs" / "recipes.md"


def exported(cwd, run, name):
    result = command("export", run, "--to", name, cwd=cwd)
    assert result.returncode == 0 and result.stdout.startswith(f"wrote {name}: "), result.stdout + result.stderr
    return cwd / name


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_the_weights_are_those_of_the_run(finished, tmp_path, name):
    run = rnn_jax.saving.read_run(finished[0] / "run")
    params = rnn_jax.saving.load_params(exported(tmp_path, finished[0] / "run", name))
    assert jax.tree.structure(params) == jax.tree.structure(run.params)
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (params, run.params)), strict=True))


def test_the_recipe_runs_the_program_without_this_package(finished, tmp_path):
    """What it writes is what `sample` writes at temperature 0."""
    exported(tmp_path, finished[0] / "run", "program.stablehlo")
    (script,) = re.findall(r"```py\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.S)
    script = f"import sys\nsys.modules['rnn_jax'] = None\n{script}"
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "JAX_ENABLE_X64"}
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    options = ("--prompt", "import ", "--length", 20, "--temperature", 0)
    assert command("sample", finished[0] / "run", *options, cwd=tmp_path).stdout == f"import {ran.stdout}\n"


def test_both_programs_are_those_of_the_network(finished, tmp_path):
    """Any number of steps and sequences; the step is the sequence of one step."""
    import json
    import zipfile

    run = rnn_jax.saving.read_run(finished[0] / "run")
    with zipfile.ZipFile(exported(tmp_path, finished[0] / "run", "program.stablehlo")) as file:
        about = json.loads(file.read("about.json"))
        step, sequence = (jax.export.deserialize(bytearray(file.read(name))) for name in ("step", "sequence"))
    assert about["symbols"] == run.symbols and about["settings"]["hidden_size"] == run.settings["hidden_size"]
    assert set(step.platforms) == {"cpu", "cuda", "rocm", "tpu"} == set(about["platforms"])
    for time, batch in ((1, 1), (7, 3)):
        tokens = jnp.arange(time * batch, dtype=jnp.int32).reshape(time, batch) % len(run.symbols)
        states = rnn_jax.zero_state(run.params, batch)
        ys, h_T = sequence.call(tokens, states)
        expected, h_expected = rnn_jax.apply(run.params, states, tokens)
        np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(h_T[0], h_expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.call(tokens[0], states)[0], expected[0], rtol=1e-5, atol=1e-6)


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(finished, tmp_path, monkeypatch):
    path = tmp_path / "program.stablehlo"
    path.write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    result = command("export", finished[0] / "run", "--to", "program.stablehlo", cwd=tmp_path)
    assert result.returncode == 2 and "No space left on device" in result.stderr
    assert path.read_text() == "older" and [one.name for one in tmp_path.iterdir()] == ["program.stablehlo"]
