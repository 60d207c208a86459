"""The checkpoints of a run: a damaged one is reported and put aside, and undamaged ones are still found."""

import gc
import json
import shutil

import orbax.checkpoint as ocp
import pytest
from commands import BRIEF, REAL_TEXT, command, everything, losses, metrics, train

from rnn_jax._cli.metrics import best_validation
from rnn_jax._cli.training import checkpoint, outputs

pytestmark = pytest.mark.usefixtures("undrawn")


def damage(step, change):
    """Change the largest file of a checkpoint, which holds the arrays."""
    path = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(change(bytearray(path.read_bytes())))


def flipped(data):
    data[len(data) // 2] ^= 1
    return data


def halved(data):
    return data[: len(data) // 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what orbax leaves half read
@pytest.mark.parametrize(
    "change, reason",
    [(flipped, "its arrays do not match their checksum"), (halved, "its arrays cannot be read")],
)
def test_a_damaged_checkpoint_does_not_hide_the_one_before(finished, tmp_path, change, reason):
    """Said, and gone on from what is whole: the same text and the same losses as if the damaged one were not there."""
    for name in ("run", "without"):
        shutil.copytree(finished[0] / "run", tmp_path / name)
    shutil.rmtree(tmp_path / "without" / "checkpoint" / "60")
    damage(tmp_path / "run" / "checkpoint" / "60", change)
    before = everything(tmp_path)
    sampled, expected = (command("sample", name, "--length", 40, cwd=tmp_path) for name in ("run", "without"))
    assert sampled.returncode == 0 and sampled.stdout == expected.stdout and not expected.stderr
    assert f"step 60 of 'run' is damaged: {reason}. Continuing from step 50" in sampled.stderr
    assert everything(tmp_path) == before
    resumed = command("train", "--resume", "run", "--steps", 60, cwd=tmp_path)
    assert resumed.returncode == 0 and f"step 60 of 'run' is damaged: {reason}" in resumed.stderr, resumed.stderr
    assert "from step 50 to 60" in resumed.stdout
    assert losses(tmp_path / "run") == losses(finished[0] / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"50", "60", "60.damaged"}
    assert not command("sample", "run", "--length", 40, cwd=tmp_path).stderr
    gc.collect()  # here, not in the next test


def test_a_step_that_is_a_file_is_damaged(finished, tmp_path):
    """Named like one whose arrays are damaged, and put aside when the run goes on."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint" / "60")
    (tmp_path / "run" / "checkpoint" / "60").write_text("a file")
    told = "step 60 of 'run' is damaged: it is not a folder. Continuing from step 50"
    assert told in command("sample", "run", "--length", 9, cwd=tmp_path).stderr
    resumed = command("train", "--resume", "run", "--steps", 60, cwd=tmp_path)
    assert resumed.returncode == 0 and told in resumed.stderr, resumed.stderr
    assert losses(tmp_path / "run") == losses(finished[0] / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"50", "60", "60.damaged"}


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(finished, tmp_path):
    """Taken for step 20, it would lose the metrics of later ones; for step 200, hide what is saved before that."""
    for step in (20, 200):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(finished[0] / "run", tmp_path / "run")
        newest = tmp_path / "run" / "checkpoint" / "60"
        newest.rename(newest.with_name(str(step)))
        before = (tmp_path / "run" / "metrics.jsonl").read_text()
        result = command("sample", "run", "--length", 3, cwd=tmp_path)
        assert f"step {step} of 'run' is damaged: it holds the state of step 60" in result.stderr or step == 20
        resumed = command("train", "--resume", "run", "--steps", 61, cwd=tmp_path)
        assert resumed.returncode == 0 and "from step 50 to 61" in resumed.stdout
        assert before.splitlines()[0] in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_checkpoint_that_holds_more_than_the_model(finished, tmp_path):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    settings = tmp_path / "run" / "settings.json"
    changed = json.loads(settings.read_text())
    changed["settings"]["momentum"] = 0.0
    settings.write_text(json.dumps(changed))
    result = command("train", "--resume", "run", "--steps", 61, cwd=tmp_path)
    assert result.returncode == 2 and "is not of the model in its settings, which has no `" in result.stderr


def test_names_that_no_step_has(finished, tmp_path):
    """Folders beside the checkpoints whose names could be read as numbers change nothing."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    others = {"070", "٣٣٣", "1٣٣٣", "²", "+80", "8_0"}
    for name in others:
        (tmp_path / "run" / "checkpoint" / name).mkdir()
    assert not command("sample", "run", "--length", 9, cwd=tmp_path).stderr
    resumed = command("train", "--resume", "run", "--steps", 61, cwd=tmp_path)
    assert resumed.returncode == 0 and not resumed.stderr, resumed.stderr
    best = best_validation(metrics(tmp_path / "run"))["step"]  # it stays too, and differs from Python to Python
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == {"60", "61", str(best)} | others


def test_a_checkpoint_without_a_checksum_is_read(tmp_path, monkeypatch):
    """As they were before there was one."""

    def save(manager, step, state):
        manager.save(step, args=ocp.args.StandardSave(checkpoint._named_leaves(state)))

    monkeypatch.setattr(outputs, "save", save)
    train(tmp_path, REAL_TEXT, "--run", "run", "--steps", 25, *BRIEF)
    sampled = command("sample", "run", "--length", 40, cwd=tmp_path)
    assert sampled.returncode == 0 and not sampled.stderr


def test_a_run_that_cannot_go_on_stays_as_it_is(finished, tmp_path):
    """Its settings are written when all is checked: the checkpoint, the steps, the metrics."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    shutil.copy(REAL_TEXT, tmp_path / "moved.txt")
    damage(tmp_path / "run" / "checkpoint" / "60", flipped)
    before = everything(tmp_path)
    result = command("train", "--resume", "run", "moved.txt", "--steps", 70, cwd=tmp_path)
    assert result.returncode == 2, result.stdout
    assert "RUN must hold metrics that can be read, but 'run/metrics.jsonl' cannot be: Is a directory." in result.stderr
    assert everything(tmp_path) == before
