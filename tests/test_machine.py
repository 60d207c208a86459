"""The record of the machine that is stored with every result."""

import json
import shutil
import subprocess

import jax
import pytest

from rnn_jax._reporting import machine


def git(folder, *words):
    who = ["-c", "user.name=Anyone", "-c", "user.email=anyone@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_the_record_has_no_paths_and_goes_into_json(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_a_test")
    record = machine.machine_record(["jax", "no-such-distribution"])
    assert json.loads(json.dumps(record)) == record
    assert record["versions"] == {"jax": jax.__version__} and record["environment"]["XLA_FLAGS"] == "--xla_of_a_test"
    assert record["cores"] >= 1 and record["cpu"] and record["memory_mib"] > 100
    assert str(machine.CHECKOUT) not in json.dumps(record)
    assert record["commit"] == machine.commit(machine.CHECKOUT)
    monkeypatch.setattr(machine, "commit", lambda checkout: f"of {checkout.name}")
    assert machine.machine_record()["commit"] == f"of {machine.CHECKOUT.name}"


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_is_that_of_the_checkout_itself(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "file").write_text("one")
    assert machine.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert machine.commit(tmp_path) is None  # no commit yet
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "One")
    clean = machine.commit(tmp_path)
    assert len(clean) >= 7 and set(clean) <= set("0123456789abcdef")
    assert machine.commit(inside) is None  # of something else that is around an installed package
    (tmp_path / "file").write_text("two")
    assert machine.commit(tmp_path) == f"{clean}-dirty"
