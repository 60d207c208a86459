"""Read a run of the command back into Python."""

import shutil
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from commands import REAL_TEXT, SMALL, as_users_have_it, command, everything, jax_configured, train

import rnn_jax
from rnn_jax import saving
from test_saving_params import assert_same, refuses


def test_a_run_is_read_back(finished):
    """What it has come to, in JAX's types and the caller's settings; no file is changed."""
    before = everything(finished[0])
    run = saving.read_run(str(finished[0] / "run"))
    assert everything(finished[0]) == before
    assert run.params is run.state.params and isinstance(run.state, rnn_jax.typing.TrainState)
    assert int(run.state.num_steps) == 60 and run.state.h_0[0].shape == (4, 16)
    assert run.settings["hidden_size"] == 16 and run.settings["seed"] == 3 and run.settings["method"] == "blocked"
    assert not {"run", "resume", "overwrite"} & run.settings.keys() and run.settings["files"] == (str(REAL_TEXT),)
    assert run.symbols == rnn_jax.data.symbols_of(REAL_TEXT.read_text()) and "symbols" not in run.facts
    assert REAL_TEXT.name in run.facts["text"]
    cell = run.params.cells[0]
    assert (cell.activation, cell.leak, cell.w_hh.dtype) == ("tanh", 1.0, jnp.float32)


def test_what_is_read_writes_as_the_command_does(finished, tmp_path):
    """Greedily, and after another way through a file."""
    run = saving.read_run(finished[0] / "run")
    saving.save_params(tmp_path / "file", run.params)
    prompt = jnp.asarray(rnn_jax.data.encode(run.symbols, "def "))
    sampled = command("sample", "run", "--prompt", "def ", "--length", 40, "--temperature", 0, cwd=finished[0])
    assert sampled.returncode == 0
    for params in (run.params, saving.load_params(tmp_path / "file")):
        outputs, _ = rnn_jax.generate(jax.random.key(0), params, prompt, 40, draw=rnn_jax.greedy)
        assert sampled.stdout == "def " + rnn_jax.data.decode(run.symbols, outputs) + "\n"


def test_a_state_that_is_read_trains_on(finished):
    """It is a state of the trainer of these settings."""
    run = saving.read_run(finished[0] / "run")
    optimizer = rnn_jax.clipped_sgd(
        optax.cosine_decay_schedule(0.1, 60), momentum=run.settings["momentum"], max_norm=1.0
    )
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"), optimizer, carry=True)
    tokens = jnp.zeros((5, 4), jnp.int32)
    with as_users_have_it():
        state, _ = jax.eval_shape(trainer.step, run.state, rnn_jax.Batch(tokens, tokens))
    assert jax.tree.structure(state) == jax.tree.structure(run.state)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_runs_of_other_dtypes(tmp_path, dtype):
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 2, *SMALL, "--dtype", dtype, "--activation", "relu")
    with jax.enable_x64(False):
        if dtype == "float64":
            refuses(
                lambda: saving.read_run(tmp_path / "run"), ValueError, "holds float64, which JAX cannot hold without"
            )
        else:
            assert saving.read_run(tmp_path / "run").params.cells[0].w_hh.dtype == jnp.float32
    with jax.enable_x64(True):
        run = saving.read_run(tmp_path / "run")
        assert run.params.cells[0].w_hh.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
        assert run.params.cells[0].activation == "relu"
    with jax_configured({"jax_enable_x64": False}), jax.enable_x64(True):  # in this thread alone
        assert_same(saving.read_run(tmp_path / "run").params, run.params)


def test_runs_that_cannot_be_read(finished, tmp_path):
    refuses(
        lambda: saving.read_run(tmp_path / "no"), FileNotFoundError, "`folder` must be a folder left by `rnn-jax train`"
    )
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    run = tmp_path / "run"
    shutil.rmtree(run / "checkpoint" / "60")
    (run / "checkpoint" / "60").write_text("a file")
    with pytest.warns(UserWarning, match="is damaged: it is not a folder. Step 50 was read, the newest undamaged one."):
        assert int(saving.read_run(run).state.num_steps) == 50
    shutil.rmtree(run / "checkpoint")
    refuses(lambda: saving.read_run(run), ValueError, f"`folder` must hold a checkpoint, but {str(run)!r} has none yet")
    (run / "settings.json").write_text("nonsense")
    refuses(lambda: saving.read_run(run), ValueError, "`folder` must hold readable settings, but ")


@pytest.mark.parametrize("missing", ["tyro", "orbax.checkpoint"])
def test_a_run_needs_the_extra(missing, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("rnn_jax._cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    refuses(
        lambda: saving.read_run(tmp_path),
        ModuleNotFoundError,
        f"`read_run` needs {missing}: pip install 'rnn-jax-bptt[app]'.",
    )
