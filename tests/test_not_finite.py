"""Steps whose loss, gradient or update is not finite: they are skipped, counted and, if too many, diagnosed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import REAL_TEXT, SMALL, command, losses, metrics, train

import rnn_jax
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training import steps
from rnn_jax._cli.training import train as train_module


def trainer_with_bad_windows():
    """A trainer whose gradient is NaN in windows that begin with token 7, and its first state."""
    params = rnn_jax.init_params(jax.random.key(0), input_size=9, hidden_size=5, output_size=9)
    grad_fn = rnn_jax.make_grad_fn("bptt", loss="cross_entropy")

    def planted(params, batch, h_0):
        (loss, h_T), gradients = grad_fn(params, batch, h_0)
        bad = jnp.where(batch.inputs[0, 0] == 7, jnp.nan, 1.0)
        return (loss, h_T), gradients._replace(params=jax.tree.map(lambda d: d * bad, gradients.params))

    trainer = rnn_jax.make_trainer(planted, rnn_jax.clipped_sgd(0.5, momentum=0.9, max_norm=1.0), carry=True)
    return trainer, trainer.init(params, rnn_jax.zero_state(params, 2))


def made_dispatch(trainer):
    return steps.make_dispatch(trainer, steps.make_next_batch(TrainConfig(window=4, streams=2), 100))


def windows_of(number, bad=()):
    windows = np.random.default_rng(0).integers(0, 7, (number, 5, 2)).astype(np.int32)
    windows[list(bad), 0, 0] = 7
    return windows


def test_a_step_that_is_not_finite_changes_no_weight():
    """Weights and momentum stay to the bit, the step is counted, and the next one is made as if nothing had been."""
    trainer, state = trainer_with_bad_windows()
    dispatch = made_dispatch(trainer)
    windows = windows_of(6, bad=[3])
    before, _ = dispatch(jax.tree.map(jnp.copy, state), windows[:3])
    after, infos = dispatch(jax.tree.map(jnp.copy, state), windows[:4])
    chex.assert_trees_all_equal(before._replace(h_0=None, num_steps=None), after._replace(h_0=None, num_steps=None))
    assert int(after.num_steps) == 4 and np.isfinite(np.asarray(after.h_0[0])).all()
    assert np.asarray(steps.is_finite(infos)).tolist() == [True, True, True, False]
    last, infos = dispatch(after, windows[4:])
    assert np.asarray(steps.is_finite(infos)).all() and not np.array_equal(last.params.readout.b_y, 0)


@pytest.mark.parametrize("what", ["loss", "grad_norm", "update_norm"])
def test_each_of_three_must_be_finite(what):
    before, after = (rnn_jax.typing.TrainState(w, w, w, w) for w in (jnp.zeros(2), jnp.ones(2)))
    info = rnn_jax.typing.StepInfo(jnp.ones(()), jnp.ones(()), jnp.ones(()), jnp.zeros((), int))
    chex.assert_trees_all_equal(steps.unless_finite(before, after, info), after)
    kept = steps.unless_finite(before, after, info._replace(**{what: jnp.asarray(jnp.inf)}))
    chex.assert_trees_all_equal(kept, after._replace(params=before.params, opt_state=before.opt_state))


@pytest.mark.parametrize(
    "finite, before, expected",
    [([1, 1], 3, 0), ([0, 0], 3, 5), ([1, 0], 3, 1), ([0, 1], 3, 0), ([1, 0, 0], 0, 2)],
)
def test_skipped_in_a_row(finite, before, expected):
    assert steps.num_skipped_in_a_row(np.array(finite, bool), before) == expected


def test_how_many_steps_one_call_makes():
    """So many that a call takes about half a second on two cores, whatever the size, and no more than fifty."""
    config = TrainConfig()
    assert steps.steps_per_call(config, 115_000) == steps.MOST
    assert steps.steps_per_call(config, 1_150_000) == 5
    assert steps.steps_per_call(config, 10**9) == 1


@pytest.fixture
def planted(monkeypatch):
    """`planted(steps)`: these steps of a run, counted from 1, report an infinite loss."""

    def plant(bad):
        make = train_module.make_character_trainer
        bad = np.asarray(bad, np.int32)

        def broken(*args):
            trainer = make(*args)

            def step(state, batch):
                after, info = trainer.step(state, batch)
                return after, info._replace(loss=jnp.where(jnp.any(bad == state.num_steps + 1), jnp.inf, info.loss))

            return trainer._replace(step=step)

        monkeypatch.setattr(train_module, "make_character_trainer", broken)

    return plant


def test_skipped_steps_are_counted(planted, undrawn, tmp_path):
    planted([10, 30, 31])
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 50, *SMALL)
    assert "3 steps were skipped, because loss, gradient or update was infinite or NaN" in out
    assert [record.get("skipped") for record in metrics(tmp_path / "run") if "bits" in record] == [1, 2]
    assert all(np.isfinite(bits) for bits, _ in losses(tmp_path / "run").values())


def test_too_many_in_a_row_stop_the_run_at_its_last_checkpoint(planted, undrawn, tmp_path):
    planted(list(range(48, 56)))
    result = command("train", REAL_TEXT, "--run", "run", "--steps", 100, *SMALL, "--max-skipped", 8, cwd=tmp_path)
    assert result.returncode == 0, result.stderr  # 3 before step 50, 5 after it: 8 in a row, but then it goes on
    planted(list(range(48, 76)))
    result = command("train", REAL_TEXT, "--run", "no", "--steps", 100, *SMALL, "--max-skipped", 8, cwd=tmp_path)
    assert result.returncode == 1
    assert "28 steps in a row were skipped up to step 75; step 50 is saved in 'no'" in result.stderr
    assert "Step 76, from the last good weights:" in result.stderr and "mean norm of the gradient" in result.stderr
    assert "weights: all finite" in result.stderr and "gradients: all finite" in result.stderr
    assert (tmp_path / "no" / "diagnosis.txt").read_text().strip() in result.stderr
    assert [path.name for path in (tmp_path / "no" / "checkpoint").iterdir() if path.name != "25"] == ["50"]
