"""Float64, strict promotion and two CPU devices, set before JAX starts; and the fixtures of the whole suite."""

import collections
import fcntl
import gc
import itertools
import json
import os
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path


def _xla_flags(given: str) -> str:
    """Two devices, and a low optimization level, because the programs are short; unless a level is given."""
    flags = [given, "--xla_force_host_platform_device_count=2"]
    if "xla_backend_optimization_level" not in given:
        flags += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
        if version("jaxlib").startswith("0.10."):  # together 0.15 instead of 0.37 s a program; later ones lack the flag
            flags += ["--xla_cpu_use_fusion_emitters=false"]
    return " ".join(flags)


os.environ["XLA_FLAGS"] = _xla_flags(os.environ.get("XLA_FLAGS", ""))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "Agg")
# What is compiled is kept: for the other worker, and for the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

sys.warnoptions.append("error")  # the command lets libraries warn where they are asked to, as by `python -W error`

import jax
import jax.monitoring
import pytest

gc.set_threshold(50_000, 20, 50)  # tracing makes many objects; looking for cycles among them takes a sixth of the time

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


if fault := os.environ.get("RNN_JAX_FAULT"):  # see `test_the_suite_kills_it`
    import plant

    plant.in_the_package_itself(plant.Change(*json.loads(fault)))


@pytest.fixture
def getkey():
    """A function that returns a new key at each call."""
    counter = itertools.count()
    return lambda: jax.random.fold_in(jax.random.key(20), next(counter))


@pytest.fixture
def annotations_unchecked():
    from commands import unchecked

    with unchecked():
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """`made_once(name, make)`: a folder that `make(folder)` filled, once for all workers."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent

    def folder(name, make):
        path = shared / name
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                draft = shared / f"{name}.draft"
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                make(draft)
                draft.rename(path)
        return path

    return folder


@pytest.fixture(scope="session")
def finished(made_once):
    """A run of 60 steps on a real file: the parent of its folder, and what it printed."""
    from commands import REAL_TEXT, SMALL, train

    def make(cwd):
        (cwd / "printed.txt").write_text(train(cwd, REAL_TEXT, "--run", "run", "--steps", 60, *SMALL))

    cwd = made_once("finished", make)
    return cwd, (cwd / "printed.txt").read_text()


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no learning curve at each validation, to save a third of the time; `finished` draws one."""
    from commands import blank

    from rnn_jax._cli.training import outputs

    monkeypatch.setattr(outputs, "learning_curve", blank)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the cache of tokens, empty; every text is large."""
    from rnn_jax.data import _corpus

    monkeypatch.setattr(_corpus, "IN_MEMORY", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rnn_jax" / "tokens"


# Where the time goes: seconds and compiled programs of each test file, at the end of a run with --times

_compiled = collections.Counter()


def _count(event, seconds, **_):
    if event.endswith("backend_compile_duration"):
        _compiled["programs"] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_addoption(parser):
    parser.addoption("--times", action="store_true", help="print the seconds and programs of each test file")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        marked = " -m thorough" if item.get_closest_marker("thorough") else ""
        report.sections.append(("this test alone", f"python3 -m pytest -n 0{marked} {shlex.quote(item.nodeid)}"))
    report.user_properties = [*report.user_properties, ("programs", _compiled.pop("programs", 0))]
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--times"):
        return
    seconds, programs, tests = collections.Counter(), collections.Counter(), collections.Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            file = report.nodeid.partition("::")[0]
            seconds[file] += report.duration
            programs[file] += sum(count for name, count in report.user_properties if name == "programs")
            tests[file] += report.when == "call"
    terminalreporter.section("seconds, tests, compiled programs")
    for file, spent in [*seconds.most_common(), ("all", seconds.total())]:
        total = [c.total() if file == "all" else c[file] for c in (tests, programs)]
        terminalreporter.write_line(f"{spent:8.1f} {total[0]:6} {total[1]:6}  {file}")
