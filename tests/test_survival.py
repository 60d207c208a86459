"""What a run survives: kills, a full disk, a clock that jumps; which checkpoints stay."""

import contextlib
import itertools
import random
import resource
import shutil
import signal
import subprocess
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import COMMAND, ENVIRONMENT, REAL_TEXT, SMALL, command, losses, metrics, process, train

import rnn_jax
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training import board, checkpoint, loop, outputs
from rnn_jax._cli.training import train as train_module

LONG = ["--run", "run", *SMALL[:-4], "--eval-every", "500", "--schedule", "constant"]
STEPS_OF_A_KILL = 500
WHOLE = resource.RLIM_INFINITY


def small_state():
    """The state of a training before its first step."""
    params = rnn_jax.init_params(jax.random.key(0), input_size=9, hidden_size=5, output_size=9)
    trainer = rnn_jax.make_trainer(rnn_jax.make_grad_fn("bptt", loss="cross_entropy"), optax.sgd(0.1), carry=True)
    return trainer.init(params, rnn_jax.zero_state(params, 2))


@pytest.fixture
def validated(monkeypatch):
    """`validated(numbers)`: what the validations of a run return, one after the other."""

    def plant(numbers):
        rest = iter(numbers)
        monkeypatch.setattr(loop, "make_validate", lambda *_: lambda params: next(rest))

    return plant


def test_the_best_checkpoint_stays(validated, undrawn, tmp_path):
    validated([3.0, 2.0, 2.5, 2.6, 2.7])
    out = train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 125, *SMALL, "--keep", 1)
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"50", "125"}
    assert "the best validation, 2.000, was at step 50: add --best" in out
    for name, more in (("best", ["--best"]), ("last", [])):
        assert command("export", "run", "--to", f"{name}.npz", *more, cwd=tmp_path).returncode == 0
    best, last = (rnn_jax.saving.load_params(tmp_path / f"{name}.npz") for name in ("best", "last"))
    assert not np.array_equal(best.readout.w_hy, last.readout.w_hy)
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "125")
    chex.assert_trees_all_equal(rnn_jax.saving.read_run(tmp_path / "run").params, best)
    sampled = [command("sample", "run", *more, cwd=tmp_path).stdout for more in ([], ["--best"])]
    assert sampled[0] == sampled[1]


def test_patience(validated, undrawn, tmp_path):
    """It stops after so many validations that are no better, and a resumed run stops at the same step."""
    numbers = [3.0, 2.0, 2.5, 2.0, 1.0]
    validated(numbers)
    options = ["--steps", 125, *SMALL, "--patience", 2]
    out = train(tmp_path, REAL_TEXT, "--run", "run", *options)
    assert "after 100 of 125 steps" in out and max(losses(tmp_path / "run")) == 100
    validated([1.5])
    assert "after 125 of 125 steps" in train(tmp_path, "--resume", "run")


def test_a_clock_that_jumps_while_a_checkpoint_is_written(monkeypatch, tmp_path):
    now = itertools.count(2 * 10**9, 3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    with checkpoint.checkpoints(tmp_path, 2, []) as manager:
        checkpoint.save(manager, 0, small_state())
    assert checkpoint.saved_steps(tmp_path) == [0]


def test_a_checkpoint_when_the_last_is_old(monkeypatch, undrawn, tmp_path):
    """By a clock that does not jump: `time.time` goes on by two days after the first call, and nothing changes."""
    append, now, jumped = outputs.append_metrics, time.time, []
    monkeypatch.setattr(outputs, "append_metrics", lambda *args: jumped.append(append(*args)))
    monkeypatch.setattr(time, "time", lambda: now() + 2 * 24 * 3600 * bool(jumped))
    options = ["--steps", 120, *SMALL[:-4], "--eval-every", 100, "--keep", 9]
    train(tmp_path, REAL_TEXT, "--run", "run", *options)
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"100", "120"}
    monkeypatch.setattr(loop, "MINUTE", 1e-6)  # seconds
    train(tmp_path, REAL_TEXT, "--run", "often", *options)
    assert {path.name for path in (tmp_path / "often" / "checkpoint").iterdir()} == {"50", "100", "120"}
    assert losses(tmp_path / "often") == losses(tmp_path / "run")


def test_a_signal_during_the_last_validation(monkeypatch, undrawn, tmp_path):
    """It comes too late to stop anything, and the last step is saved."""
    received = []
    monkeypatch.setattr(train_module, "signals", lambda: contextlib.nullcontext(received))
    monkeypatch.setattr(loop, "make_validate", lambda *_: lambda params: received.append(signal.SIGTERM) or 2.0)
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *SMALL, status=143)
    assert [path.name for path in (tmp_path / "run" / "checkpoint").iterdir()] == ["25"]


@pytest.mark.parametrize("step", [25, 50])
def test_a_kill_after_sigterm_has_saved_before_the_validation(monkeypatch, undrawn, tmp_path, step):
    """The resumed run makes the validation first, also if that is all that is left of the run."""
    options, received = ["--steps", 50, *SMALL], []
    train(tmp_path, REAL_TEXT, "--run", "whole", *options)
    append, make_validate = outputs.append_metrics, loop.make_validate

    def append_and_signal(folder, record):
        append(folder, record)
        received.extend([signal.SIGTERM] * (record["step"] == step))

    def killed(*args):
        validate = make_validate(*args)

        def until(params):
            if received:
                raise KeyboardInterrupt
            return validate(params)

        return until

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "signals", lambda: contextlib.nullcontext(received))
        patch.setattr(outputs, "append_metrics", append_and_signal)
        patch.setattr(loop, "make_validate", killed)
        train(tmp_path, REAL_TEXT, "--run", "run", *options, status=130)
    assert checkpoint.saved_steps(tmp_path / "run")[0] == step == metrics(tmp_path / "run")[-1]["step"]
    assert "validation_bits" not in metrics(tmp_path / "run")[-1]
    result = command("train", "--resume", "run", "--steps", step - 1, cwd=tmp_path)
    assert result.returncode == 2 and f"--steps must be above the {step} that 'run' has done" in result.stderr
    assert f"from step {step} to 50" in train(tmp_path, "--resume", "run")
    ours, theirs = (
        [{name: number for name, number in record.items() if name != "seconds"} for record in metrics(tmp_path / name)]
        for name in ("run", "whole")
    )
    assert ours == theirs
    result = command("train", "--resume", "run", cwd=tmp_path)
    assert result.returncode == 2 and "--steps must be above the 50 that 'run' has done, got 50" in result.stderr


def test_patience_after_a_kill_before_the_validation(validated, undrawn, tmp_path):
    """The validation that is made first may be the last, and no step is made."""
    validated([3.0, 4.0, 5.0])
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 125, *SMALL, "--patience", 2)
    path = tmp_path / "run" / "metrics.jsonl"
    before = path.read_text().splitlines(keepends=True)
    path.write_text("".join(before[:-1]))
    validated([5.0])
    assert "after 75 of 125 steps" in train(tmp_path, "--resume", "run")
    assert len(metrics(tmp_path / "run")) == len(before)


def test_warm_up(tmp_path):
    """The rate rises linearly from 0 over the warm-up, then falls along its schedule to the end."""
    from rnn_jax._cli.training.model import make_optimizer

    config = TrainConfig(steps=30, warmup=10, learning_rate=2.0, schedule="linear", momentum=0.0, max_norm=None)
    optimizer = make_optimizer(config)
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(30):
        update, state = optimizer.update(jnp.ones(()), state)
        rates.append(-float(update))
    np.testing.assert_allclose(rates, [*(0.2 * np.arange(10)), *(2.0 - 0.1 * np.arange(20))], rtol=1e-6, atol=1e-7)


def test_killed_before_the_first_checkpoint(finished, undrawn, tmp_path):
    """The run starts again at its first step."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert "from step 0 to 60" in train(tmp_path, "--resume", "run")
    assert losses(tmp_path / "run") == losses(finished[0] / "run")


@contextlib.contextmanager
def no_file_longer_than(size):
    """The system refuses to write past `size` bytes of a file, as a full disk does."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, WHOLE))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (WHOLE, WHOLE))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the threads of orbax
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_at_any_byte(tmp_path):
    """A checkpoint is whole or not there, the one before it stays, and the error is one of the system."""
    state = small_state()
    template = jax.eval_shape(lambda: state)
    with checkpoint.checkpoints(tmp_path, 2, []) as manager:
        checkpoint.save(manager, 0, state)
    whole, largest = 0, max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    refused = 0
    for step, size in enumerate([*range(0, largest, largest // 40), largest + 1], start=1):
        try:
            with no_file_longer_than(size), checkpoint.checkpoints(tmp_path, 2, []) as manager:
                checkpoint.save(manager, step, state._replace(num_steps=np.int32(step)))
            whole = step
        except OSError:  # it may come after the last byte, and the checkpoint later still
            refused += 1
        restored = checkpoint.restore(tmp_path, template)
        assert whole <= restored.step <= step and not restored.damaged
        whole = restored.step
        chex.assert_trees_all_equal(restored.state._replace(num_steps=None), state._replace(num_steps=None))
    assert refused > 20 and whole == step


def test_a_run_whose_disk_is_full(finished, tmp_path):
    """One sentence, and the run goes on where it was once there is room."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    with no_file_longer_than(30_000):
        result = command("train", "--resume", "run", "--steps", 90, cwd=tmp_path)
    assert result.returncode == 1 and "the run in 'run' cannot be written: " in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert "from step 60 to 90" in train(tmp_path, "--resume", "run", "--steps", 90)


def kill_again_and_again(cwd, kills):
    """Kill a run at so many random moments, resuming it each time; returns how many came while it trained."""
    draw, met, path = random.Random(kills), 0, cwd / "run" / "metrics.jsonl"
    environment = ENVIRONMENT | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # killed there, half a program is left
    for _ in range(kills):
        more = (
            ["--resume", "run"]
            if (cwd / "run" / "settings.json").exists()
            else [str(REAL_TEXT), *LONG, "--steps", str(kills * STEPS_OF_A_KILL)]
        )
        before = path.read_bytes() if path.exists() else b""
        running = subprocess.Popen([COMMAND, "train", *more], cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while running.poll() is None and (not path.exists() or path.read_bytes() == before):
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.5))
        met += running.poll() is None
        running.kill()
        running.wait()
    return met


@pytest.mark.parametrize("kills", [20, pytest.param(150, marks=pytest.mark.thorough)])
def test_killed_again_and_again(undrawn, tmp_path, kills):
    """Nothing is torn, and the losses are those of a run that nobody killed, to the bit."""
    met = kill_again_and_again(tmp_path, kills)
    result = process("train", "--resume", "run", cwd=tmp_path)
    assert result.returncode == 0 and "damaged" not in result.stderr, result.stderr
    (tmp_path / "never").mkdir()
    train(tmp_path / "never", REAL_TEXT, *LONG, "--steps", kills * STEPS_OF_A_KILL)
    assert losses(tmp_path / "run") == losses(tmp_path / "never" / "run") and met > kills / 2


def test_tensorboard(finished, undrawn, tmp_path):
    """What metrics.jsonl has, TensorBoard has too; a resumed run goes on in the same folder."""
    from tensorboardX.proto.event_pb2 import Event

    options = ["--steps", 50, *SMALL, "--watch", "--watch-every", 50, "--tensorboard"]
    train(tmp_path, REAL_TEXT, "--run", "run", *options)
    train(tmp_path, "--resume", "run", "--steps", 75)
    found = {}
    for path in sorted((tmp_path / "run" / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
            data = data[16 + size :]
    for record in metrics(tmp_path / "run"):
        for name in record.keys() & {"bits", "grad_norm", "validation_bits"}:
            assert found[record["step"], name] == pytest.approx(record[name], rel=1e-6)
    assert (0, "watch/d_h_quantiles/0/4") in found and (75, "bits") in found
    assert dict(board._numbers("", {"step": 1, "bits": 0.0, "watch": {"growth": [None, 2]}})) == {
        "bits": 0.0,
        "watch/growth/1": 2.0,
    }
