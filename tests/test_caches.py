"""The caches of the command: where they are, and that they stay small."""

import os
import subprocess
import sys

import jax
import pytest
from commands import ENVIRONMENT, REAL_TEXT, SMALL, jax_configured

from rnn_jax._cli import jax_settings
from rnn_jax._reporting.caches import cache_folder, remove_old


def test_where_caches_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("compiled") == tmp_path / ".cache" / "rnn_jax" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # the standard says: ignore it
    assert cache_folder("compiled") == tmp_path / ".cache" / "rnn_jax" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache_folder("compiled") == tmp_path / "other" / "rnn_jax" / "compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(OSError, match="there is no home folder"):
        cache_folder("compiled")


@pytest.mark.parametrize(
    "limits, left", [((2, 99), "45"), ((9, 25), "45"), ((1, 99), "5"), ((0, 0), ""), ((9, 99), "12345")]
)
def test_old_files_are_removed(tmp_path, limits, left):
    for age in range(1, 6):
        (tmp_path / str(age)).write_bytes(10 * b"x")
        os.utime(tmp_path / str(age), (age, age))
    remove_old(tmp_path, most_files=limits[0], most_bytes=limits[1])
    assert "".join(sorted(path.name for path in tmp_path.iterdir())) == left


def test_the_file_in_use_stays(tmp_path):
    for age in range(1, 4):
        (tmp_path / str(age)).write_bytes(10 * b"x")
        os.utime(tmp_path / str(age), (age, age))
    remove_old(tmp_path, most_files=2, most_bytes=99, but=tmp_path / "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


def test_compiled_programs_are_kept_for_the_next_start(tmp_path):
    counting = """
import sys, jax.monitoring
from rnn_jax._cli.main import main
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
status = main(sys.argv[1:])
print("found", seen.count("/jax/compilation_cache/cache_hits"))
sys.exit(status)
"""
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "caches")}

    def trained(name):
        words = [sys.executable, "-c", counting, "train", str(REAL_TEXT), "--run", name, "--steps", "5", *SMALL]
        result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0 and not result.stderr.startswith("rnn-jax"), result.stderr
        found = int(result.stdout.rsplit("found ", 1)[1])
        return found, (tmp_path / name / "metrics.jsonl").read_text().split('"seconds"')[0]

    found, first = trained("first")
    assert found == 0
    programs = sorted((tmp_path / "caches" / "rnn_jax" / "compiled").iterdir())
    assert any(path.name.startswith("jit_dispatch") for path in programs)
    found, second = trained("second")
    assert found >= len(programs) > 0 and second == first


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with jax_configured({"jax_compilation_cache_dir": None}), jax_settings.jax_settings():
        assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_folder_that_the_environment_names_stays(tmp_path):
    with jax_configured({"jax_compilation_cache_dir": str(tmp_path)}), jax_settings.jax_settings():
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
