"""Bad input to the command: one sentence, status 2, no traceback, and not a file touched."""

import shutil

import jax
import pytest
from commands import REAL_TEXT, command, everything

from rnn_jax.app import jax_settings

BAD_ANATOMY = {
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "gain 0": (["--gains", "0"], "--gains must be finite numbers above 0, got (0.0,)."),
    "long": (["run", "--window", "100000"], "--window must be at most "),
    "not its own": (["run", "--leak", "0.5"], "--leak must be left out with RUN, whose network it is."),
    "no page": (["--page", "a.pdf"], "--page must be a file that ends in .html"),
    "a folder": (["--page", "folder.html"], "--page must be a file, not a folder, got 'folder.html'."),
    "lags": (["--lags", "0"], "--lags must be at least 1, got 0."),
}


BAD_TRUNCATION = {
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "k 0": (["run", "--ks", "0"], "--ks must be one or more numbers of at least 1, got (0,)."),
    "long": (["run", "--window", "100000"], "--window must be at most "),
    "all k too large": (["run", "--window", "5", "--streams", "2", "--ks", "9"], "--ks must hold a number below the 5"),
    "picture": (["run", "--picture", "a.jpg"], "--picture must be a file that ends in .png, got 'a.jpg'."),
}


BAD_TRAIN = {
    "missing": (["nowhere.txt"], "FILE must name readable text, but file 'nowhere.txt' is not: No such file"),
    "a folder": (["."], "FILE must name readable text, but file '.' is not: Is a directory."),
    "empty": (["empty.txt"], "FILE must hold text, but file 'empty.txt' is empty."),
    "not utf-8": (["latin.txt"], "FILE must be UTF-8 text, but file 'latin.txt' has byte 0xe4 at position 2."),
    "too short": (["short.txt"], "FILE must hold at least 1,718 characters for --streams 32 of --window 50, got 12:"),
    "size 0": (["--hidden-size", "0"], "--hidden-size must be at least 1, got 0."),
    "window -3": (["--window", "-3"], "--window must be at least 1, got -3."),
    "steps 0": (["--steps", "0"], "--steps must be at least 1, got 0."),
    "rate": (["--learning-rate", "-1"], "--learning-rate must be a finite number above 0, got -1.0."),
    "rate nan": (["--learning-rate", "nan"], "--learning-rate must be a finite number above 0, got nan."),
    "momentum": (["--momentum", "1"], "--momentum must be at least 0 and below 1, got 1.0."),
    "drop": (["--drop-recurrent", "1"], "--drop-recurrent must be at least 0 and below 1, got 1.0."),
    "norm": (["--max-norm", "0"], "--max-norm must be a finite number above 0, got 0.0."),
    "seed": (["--seed", "-1"], "--seed must be from 0 to 4294967295, got -1."),
    "method": (["--method", "bttp"], "bptt"),
    "memory": (["--memory", "lots"], "--memory must be a number of bytes above 0, like 200MB or 64MiB, got 'lots'."),
    "all memory": (
        ["--memory", "1e400"],
        "--memory must be a number of bytes above 0, like 200MB or 64MiB, got '1e400'.",
    ),
    "no memory": (["--memory", "0MB"], "--memory must be a number of bytes above 0, like 200MB or 64MiB, got '0MB'."),
    "little memory": (["real.txt", "--memory", "1kB"], "--memory 1kB is too little: it must be at least "),
    "memory of another": (
        ["--memory", "1MB", "--method", "bptt"],
        "--memory must be left out unless --method is blocked",
    ),
    "k2 alone at first": (["--k1", "3"], "--k2 must be given with --k1, or else --adaptive-bias, got None."),
    "k2 below k1": (["--k1", "9", "--k2", "3"], "--k2 must be at least --k1, which is 9, got 3."),
    "k2 too long": (["--k2", "51"], "--k2 must be from 1 to the 50 of --window, got 51."),
    "bias and k2": (["--k1", "3", "--k2", "3", "--adaptive-bias", "0.1"], "--k2 must be left out with --adaptive-bias"),
    "bias alone": (["--adaptive-bias", "0.1"], "--k1 must be given with --adaptive-bias, got None."),
    "bias 0": (["--k1", "3", "--adaptive-bias", "0"], "--adaptive-bias must be a finite number above 0, got 0.0."),
    "k2 and a method": (["--k2", "3", "--method", "bptt"], "--method must be left out with --k1, --k2"),
    "k2 and memory": (["--k2", "3", "--memory", "1MB"], "--memory must be left out with --k1, --k2"),
    "devices 0": (["--devices", "0"], "--devices must be at least 1, got 0."),
    "devices 3": (["--devices", "3"], "--devices must be a divisor of the 32 streams, got 3."),
    "activation": (["--activation", "gelu"], "relu"),
    "optimizer": (["--optimizer", "lion"], "adam"),
    "option": (["--hidden", "3"], "--hidden"),
    "not a number": (["--hidden-size", "many"], "many"),
    "run exists": (["real.txt", "--run", "run"], "--run must name a new folder, but 'run' holds a run:"),
    "run holds other": (["real.txt", "--run", "other"], "--run must name a new or empty folder, but 'other' holds"),
    "overwrite other": (["real.txt", "--run", "other", "--overwrite"], "--run must name a new or empty folder, but"),
    "run is a file": (["real.txt", "--run", "real.txt"], "--run must name a folder, but 'real.txt' is a file."),
    "resume nothing": (["--resume", "nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no"),
    "resume other": (["--resume", "other"], "RUN must be a folder left by `rnn-jax train`, but 'other' has no"),
    "resume with a default": (
        ["--resume", "run", "--seed", "0"],
        "the other settings come from the run; got --seed too.",
    ),
    "resume with a file": (["--resume", "run", "real.txt"], "the other settings come from the run; got FILE too."),
    "resume typed wrong": (["--resume", "typed"], "'typed/settings.json' does not: hidden_size is '16'"),
    "resume bad choice": (["--resume", "choice"], "'choice/settings.json' does not: activation is 'gelu'"),
    "resume no symbols": (["--resume", "blank"], "'blank/settings.json' does not: no 'symbols'"),
    "run cannot be made": (["real.txt", "--run", "real.txt/run"], "--run must name a folder that can be made, but"),
    "replacement under way": (
        ["real.txt", "--run", "emptied"],
        "--run must name a folder whose replacement is not under",
    ),
    "overwrite a stranger": (
        ["real.txt", "--run", "stranger", "--overwrite"],
        "but 'stranger' holds other things than a run.",
    ),
    "resume with more": (["--resume", "run", "--window", "9"], "--resume must be given alone or with --steps"),
    "resume torn": (["--resume", "torn"], "RUN must hold readable settings, but 'torn/settings.json' does not:"),
}
BAD_SAMPLE = {
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "unknown symbols": (["run", "--prompt", "def ☃é"], "--prompt must hold only symbols that the model saw in training, got 'é', '☃';"),
    "no prompt": (["run", "--prompt", ""], "--prompt must be at least one symbol, got ''."),
    "length 0": (["run", "--length", "0"], "--length must be at least 1, got 0."),
    "temperature": (["run", "--temperature", "-1"], "--temperature must be a finite number of at least 0, got -1.0."),
    "another model": (["mixed"], "RUN must hold a checkpoint that can be read, but in 'mixed' step 60 is not of the model in its settings: `"),
    "torn checkpoint": (["hollow"], "RUN must hold a checkpoint that can be read, but in 'hollow' step 60 is damaged: its"),
    "no checkpoint": (["bare"], "RUN must hold a checkpoint, but 'bare' has none yet"),
}  # fmt: skip


BAD_EXPERIMENT = {
    "no such": (["digit"], "NAME must be an experiment, got 'digit': did you mean 'digits'?"),
    "no seeds": (["digits", "--seeds", "0"], "--seeds must be at least 1, got 0."),
    "a file": (["digits", "--out", "real.txt"], "--out must be a folder, not a file, got 'real.txt'."),
}
BAD_GRADCHECK = {
    "no such method": (
        ["--methods", "bppt"],
        "--methods must be of autodiff, stepwise, bptt, blocked, truncated, adaptive, randomised, last_steps, got 'bppt'.",
    ),
    "no picture": (["--picture", "errors.jpg"], "--picture must be a file that ends in .png, got 'errors.jpg'."),
    "no folder": (
        ["--picture", "nowhere/errors.png"],
        "--picture must be a file in a folder that is there, got 'nowhere/errors.png'.",
    ),
    "seed": (["--seed", "-1"], "--seed must be from 0 to 4294967295, got -1."),
}


BAD = {
    "train": BAD_TRAIN,
    "sample": BAD_SAMPLE,
    "gradcheck": BAD_GRADCHECK,
    "truncation": BAD_TRUNCATION,
    "anatomy": BAD_ANATOMY,
    "experiment": BAD_EXPERIMENT,
}


@pytest.fixture(scope="module")
def bad_place(finished, tmp_path_factory):
    """A folder with all kinds of bad files and runs."""
    cwd = tmp_path_factory.mktemp("bad")
    (cwd / "real.txt").write_text(REAL_TEXT.read_text())
    (cwd / "empty.txt").touch()
    (cwd / "latin.txt").write_bytes("zwä".encode("latin-1"))
    (cwd / "short.txt").write_text("hello world\n")
    (cwd / "other").mkdir()
    (cwd / "folder.html").mkdir()
    (cwd / "other" / "precious.txt").write_text("keep me")
    for name in ("run", "mixed", "bare", "torn", "typed", "choice", "blank", "hollow"):
        shutil.copytree(finished[0] / "run", cwd / name)
    settings = (cwd / "run" / "settings.json").read_text()
    for name, old, new in (
        ("mixed", '"hidden_size": 16', '"hidden_size": 17'),
        ("typed", '"hidden_size": 16', '"hidden_size": "16"'),
        ("choice", '"activation": "tanh"', '"activation": "gelu"'),
        ("blank", '"symbols"', '"no symbols"'),
    ):
        assert old in settings
        (cwd / name / "settings.json").write_text(settings.replace(old, new))
    for part in (cwd / "hollow" / "checkpoint").glob("*/*/**/*"):
        if part.is_file() and part.stat().st_size:
            part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    (cwd / "emptied").mkdir()  # as after a kill at the worst moment
    shutil.copytree(finished[0] / "run", cwd / "emptied.replaced")
    (cwd / "stranger").mkdir()
    (cwd / "stranger" / "settings.json").write_text('{"theme": "dark"}')
    shutil.rmtree(cwd / "bare" / "checkpoint")
    (cwd / "torn" / "settings.json").write_text(settings[:100])
    return cwd


@pytest.mark.parametrize(
    "args",
    [
        ["train", "real.txt"], ["train", "--resume", "run"], ["sample", "run"], ["gradcheck"], ["truncation", "run"],
        ["anatomy"], ["anatomy", "run"], ["experiment", "digits"],
    ],
)  # fmt: skip
def test_every_command_refuses_a_platform_that_is_not_there(bad_place, monkeypatch, args):
    before = everything(bad_place)
    monkeypatch.setattr(jax, "devices", not_there)
    monkeypatch.setattr(jax_settings, "_platforms", lambda: ["cpu"])
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    result = command(*args, cwd=bad_place)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("rnn-jax: JAX_PLATFORMS must name a platform that JAX finds here, got 'cuda'")
    assert everything(bad_place) == before


def not_there():
    raise AssertionError


@pytest.mark.parametrize(
    "args, sentence",
    [
        pytest.param([name, *args], sentence, id=f"{name}: {label}")
        for name, cases in BAD.items()
        for label, (args, sentence) in cases.items()
    ],
)
def test_bad_input(bad_place, args, sentence):
    """One sentence, status 2, no traceback, and not a file touched."""
    before = everything(bad_place)
    result = command(*args, cwd=bad_place)
    assert result.returncode == 2, result.stdout + result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert everything(bad_place) == before
