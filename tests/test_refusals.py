"""Bad input to the command: one sentence, status 2, no traceback, and not a file touched."""

import pathlib
import shutil
import typing

import jax
import pytest
from commands import REAL_TEXT, command, everything

from rnn_jax._cli import jax_settings
from rnn_jax._cli.settings import commands, limits
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._reporting import console
from rnn_jax._reporting.errors import InputError
from rnn_jax.data import _corpus as corpus

BAD_ANATOMY = {
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "gain 0": (["--gains", "0"], "--gains must be from 1e-06 to 1e+06, got (0.0,)."),
    "long": (["run", "--window", "100000"], "--window must be at most "),
    "wide": (["run", "--streams", "10000"], "--streams must be at most "),
    "long name": (["x" * 300], "RUN must name a path that can be used, got 'xxx"),
    "long page": (["--page", "x" * 300 + ".html"], "--page must name a path that can be used, got 'xxx"),
    "not its own": (["run", "--leak", "0.5"], "--leak must be left out with RUN: the network is that of the run."),
    "no page": (["--page", "a.pdf"], "--page must be a file that ends in .html"),
    "a folder": (["--page", "folder.html"], "--page must be a file, not a folder, got 'folder.html'."),
    "lags": (["--lags", "0"], "--lags must be from 1 to 1,048,576, got 0."),
}


BAD_TRUNCATION = {
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "k 0": (["run", "--ks", "0"], "--ks must be from 1 to 1,048,576, got (0,)."),
    "long": (["run", "--window", "100000"], "--window must be at most "),
    "all k too large": (
        ["run", "--window", "5", "--streams", "2", "--ks", "9"],
        "--ks must hold a number below --window, which is 5",
    ),
    "long name": (["x" * 300], "RUN must name a path that can be used, got 'xxx"),
    "a folder": (["run", "--picture", "folder.png"], "--picture must be a file, not a folder, got 'folder.png'."),
    "picture": (["run", "--picture", "a.jpg"], "--picture must be a file that ends in .png, got 'a.jpg'."),
}


BAD_TRAIN = {
    "missing": (["nowhere.txt"], "FILE must name readable text, but file 'nowhere.txt' is not: No such file"),
    "a folder": (["."], "FILE must name readable text, but file '.' is not: Is a directory."),
    "empty": (["empty.txt"], "FILE must hold text, but file 'empty.txt' is empty."),
    "not utf-8": (
        ["latin.txt"],
        "FILE must be utf-8 text, but file 'latin.txt' has byte 0xe4 at position 2. It looks like latin-1 (Western European), or another encoding of one byte per character. Add `--encoding latin-1`, or give the whole file if it is cut off.",
    ),
    "encoding": (
        ["latin.txt", "--encoding", "latin-0"],
        "--encoding must be a text encoding that Python knows, like utf-8, latin-1 or utf-16, got 'latin-0'.",
    ),
    "encoding of nothing": (["--encoding", "latin-1"], "--encoding must be left out without FILE, got 'latin-1'."),
    "encoding of bytes": (["latin.txt", "--encoding", "hex"], "--encoding must be a text encoding that Python knows,"),
    "too short": (["short.txt"], "FILE must hold at least 1,718 characters for --streams 32 of --window 50, got 12:"),
    "validation missing": (
        ["real.txt", "--validation", "nowhere.txt"],
        "--validation must name readable text, but file 'nowhere.txt' is not: No such file",
    ),
    "validation a folder": (
        ["real.txt", "--validation", "other"],
        "--validation must name readable text, but file 'other' is not: Is a directory.",
    ),
    "validation empty": (
        ["real.txt", "--validation", "empty.txt"],
        "--validation must hold text, but file 'empty.txt' is empty.",
    ),
    "validation not utf-8": (
        ["real.txt", "--validation", "latin.txt"],
        "--validation must be utf-8 text, but file 'latin.txt' has byte 0xe4 at position 2. FILE and --validation have one encoding.",
    ),
    "validation from standard input": (
        ["real.txt", "--validation", "-"],
        "--validation must be a file, since standard input cannot be read again, got '-'.",
    ),
    "validation with no name": (
        ["real.txt", "--validation", "\udcff"],
        r"--validation must be a name that a file can have, got '\udcff'.",
    ),
    "validation too short": (
        ["real.txt", "--validation", "short.txt"],
        "--validation must hold at least 51 characters of FILE for --window 50, got 12: give more text, or lower --window.",
    ),
    "validation the same file": (
        ["short.txt", "real.txt", "--validation", "real.txt"],
        "--validation must hold another text than FILE, but 'real.txt' holds a text that is learned: leave it out of FILE,",
    ),
    "validation the same text": (
        ["real.txt", "--validation", "copy.txt"],
        "--validation must hold another text than FILE, but 'copy.txt' holds a text that is learned: leave it out of FILE,",
    ),
    "validation of a run without": (
        ["--resume", "run", "--validation", "short.txt"],
        "--validation must be left out, because 'run' holds out the end of its text.",
    ),
    "too short for all": (
        ["short.txt", "--validation", "real.txt"],
        "FILE must hold at least 1,632 characters for --streams 32 of --window 50, got 12:",
    ),
    "bytes too few": (["short.txt", "--vocab", "byte"], "FILE must hold at least 1,718 bytes for --streams 32 of"),
    "vocab": (["real.txt", "--vocab", "word"], "byte"),
    "size 0": (["--hidden-size", "0"], "--hidden-size must be from 1 to 65,536, got 0."),
    "window -3": (["--window", "-3"], "--window must be from 1 to 1,048,576, got -3."),
    "long name": (["real.txt", "--run", "x" * 300], "--run must name a path that can be used, got 'xxx"),
    "long beside": (["real.txt", "--run", "x" * 250], "--run must name a path that can be used, got 'xxx"),
    "long resume": (["--resume", "x" * 300], "--resume must name a path that can be used, got 'xxx"),
    "file not utf-8": (["\udcff.txt"], r"FILE must have a name in UTF-8, got '\udcff.txt'."),
    "run not utf-8": (
        ["real.txt", "--run", "\udcff"],
        r"--run must name a path that can be used, got '\udcff': it is not",
    ),
    "long file": (["x" * 300], "is not: File name too long."),
    "endless": (["/dev/zero"], "FILE must have at most 1,048,576 bytes, but file '/dev/zero' has more."),
    "steps 0": (["--steps", "0"], "--steps must be from 1 to 2,147,483,647, got 0."),
    "rate": (["--learning-rate", "-1"], "--learning-rate must be from 1e-30 to 1e+38, got -1.0."),
    "rate nan": (["--learning-rate", "nan"], "--learning-rate must be from 1e-30 to 1e+38, got nan."),
    "momentum": (["--momentum", "1"], "--momentum must be from 0 to 0.9999, got 1.0."),
    "drop": (["--drop-recurrent", "1"], "--drop-recurrent must be from 0 to 0.999, got 1.0."),
    "norm": (["--max-norm", "0"], "--max-norm must be from 1e-30 to 1e+38, got 0.0."),
    "seed": (["--seed", "-1"], "--seed must be from 0 to 4,294,967,295, got -1."),
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
    "k2 alone at first": (["--k1", "3"], "--k2 must be given with --k1, unless --adaptive-bias is given, got None."),
    "k2 below k1": (["--k1", "9", "--k2", "3"], "--k2 must be at least --k1, which is 9, got 3."),
    "k2 too long": (["--k2", "51"], "--k2 must be from 1 to the 50 of --window, got 51."),
    "bias and k2": (["--k1", "3", "--k2", "3", "--adaptive-bias", "0.1"], "--k2 must be left out with --adaptive-bias"),
    "bias alone": (["--adaptive-bias", "0.1"], "--k1 must be given with --adaptive-bias, got None."),
    "bias 0": (["--k1", "3", "--adaptive-bias", "0"], "--adaptive-bias must be from 1e-30 to 1e+38, got 0.0."),
    "k2 and a method": (["--k2", "3", "--method", "bptt"], "--method must be left out with --k1, --k2"),
    "k2 and memory": (["--k2", "3", "--memory", "1MB"], "--memory must be left out with --k1, --k2"),
    "devices 0": (["--devices", "0"], "--devices must be from 1 to 1,024, got 0."),
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
        "the other settings come from the run; got --seed too: leave it out.",
    ),
    "resume with another text": (["--resume", "run", "short.txt"], "'run' needs the text that it began with, but"),
    "resume typed wrong": (
        ["--resume", "typed"],
        "'typed/settings.json' does not: hidden_size must be an integer, got \"16\".",
    ),
    "resume bad choice": (
        ["--resume", "choice"],
        '\'choice/settings.json\' does not: activation must be one of "tanh", "relu"',
    ),
    "resume no symbols": (
        ["--resume", "blank"],
        "'blank/settings.json' does not: symbols must be a text, but is missing.",
    ),
    "run cannot be made": (["real.txt", "--run", "real.txt/run"], "--run must name a folder that can be made, but"),
    "replacement under way": (
        ["real.txt", "--run", "emptied"],
        "--run must name a folder that is not being replaced, but",
    ),
    "overwrite a stranger": (
        ["real.txt", "--run", "stranger", "--overwrite"],
        "but 'stranger' holds other files than a run's: take another name.",
    ),
    "resume with more": (
        ["--resume", "run", "--window", "9"],
        "--resume must be given alone or with --steps, --processes, --validation and FILE",
    ),
    "resume torn": (["--resume", "torn"], "RUN must hold readable settings, but 'torn/settings.json' does not:"),
}
DAMAGED = {  # what stands in settings.json, what instead, and what is said of it
    "twice": ('"symbols": "', '"symbols": "zz', "symbols must be sorted and without repeats"),
    "surrogate": ('"symbols": "', '"symbols": "\\ud800', "symbols must be Unicode text, but holds half of a surrogate pair"),
    "deep": ('"symbols": "', '"more": ' + 100_000 * "[" + 100_000 * "]" + ', "symbols": "', "it is nested too deep"),
    "no hash": ('"text_sha256": "', '"text_sha256": "g', 'text_sha256 must be 64 hexadecimal digits, got "g'),
    "no counting": ('"unigram"', '"pentagram"', "baselines must be numbers for bigram, trigram, unigram, got {\"pent"),
    "counting huge": (
        '"unigram": ',
        f'"unigram": {10**400}, "x": ',
        "baselines must be numbers for bigram, trigram, unigram",
    ),
    "files a word": ('"files": [', '"files": "word", "x": [', 'files must be a list in which each item is a text, got "word".'),
    "counting nan": ('"unigram": ', '"unigram": NaN, "x": ', "baselines must be numbers for bigram, trigram, unigram"),
    "name with nul": ('"files": [', '"files": ["a\\u0000b", ', 'files must hold names that a file can have, got "a\\u0000b".'),
    "numbers": ('"hidden_size": 16', '"hidden_size": 1e400', "hidden_size must be an integer, got Infinity."),
    "large": ('"hidden_size": 16', '"hidden_size": 16000000000000', "--hidden-size must be "),
    "dtype": ('"dtype": "float32"', '"dtype": "float16"', 'dtype must be one of "float32", "float64", "bfloat16", got "float16".'),
    "long": ('"symbols": "', '"more": "' + 2**24 * "x" + '", "symbols": "', "it has more than 16,777,216 bytes"),
    "format true": ('"format": 1', '"format": true', "format must be 1, got true."),
    "format 1.0": ('"format": 1', '"format": 1.0', "format must be 1, got 1.0."),
    "no format": ('"format"', '"formal"', "format must be an integer, but is missing."),
    "settings a list": ('"settings": {', '"settings": [], "x": {', "settings must be an object, got []."),
    "no settings": ('"settings": {', '"x": {', "settings must be an object, but is missing."),
    "no files": ('"files": [', '"seed": 3, "x": [', "files must be a list in which each item is a text, but is missing."),
    "files null": ('"files": [', '"files": null, "x": [', "files must be a list in which each item is a text, got null."),
    "files of numbers": ('"files": [', '"files": [3, ', "files must be a list in which each item is a text, got [3, "),
    "files empty": ('"files": [', '"files": ["", ', 'files must hold names that a file can have, got "".'),
    "a setting too many": ('"leak"', '"leek"', 'settings must hold only those of `rnn-jax train`, got "leek".'),
    "a setting of the command": ('"leak": 1.0', '"run": null', "settings must hold only those of `rnn-jax train`"),
    "a word": ('"leak": 1.0', '"leak": "much"', 'leak must be a number, got "much".'),
    "a list": ('"watch": false', '"watch": []', "watch must be true or false, got []."),
    "or null": ('"k1": null', '"k1": {}', "k1 must be an integer or null, got {}."),
    "text a number": ('"text": "', '"text": 5, "x": "', "text must be a text, got 5."),
    "text empty": ('"text": "', '"text": "", "x": "', "text must not be empty."),
    "left out a list": ('"left_out": {', '"left_out": [], "x": {', "left_out must be an object in which each value is an integer, got []."),
    "left out null": ('"carriage_returns": 0', '"carriage_returns": null', "left_out must be an object in which each value is an"),
    "left out negative": ('"carriage_returns": 0', '"carriage_returns": -1', "left_out must be at least 0, got {"),
    "characters a word": ('"num_characters": ', '"num_characters": "many", "x": ', 'num_characters must be an integer, got "many".'),
    "characters true": ('"num_characters": ', '"num_characters": true, "x": ', "num_characters must be an integer, got true."),
    "characters 0": ('"num_characters": ', '"num_characters": 0, "x": ', "num_characters must be at least 1, got 0."),
    "bytes of characters": ('"vocab": "character"', '"vocab": "byte"', "symbols must be those from U+0000 to U+00FF if vocab is byte."),
    "vocab a word": ('"vocab": "character"', '"vocab": "word"', 'vocab must be one of "character", "byte", got "word".'),
    "validation without a hash": ('"validation": null', '"validation": "a.txt"', "validation_sha256 must be a text if there is a validation, but is missing."),
    "validation with nul": ('"validation": null', '"validation": "a\\u0000b"', "--validation must be a name that a file can have, got 'a\\x00b'."),
    "validation hash": ('"num_characters": ', '"validation_sha256": "x", "num_characters": ', 'validation_sha256 must be 64 hexadecimal digits, got "x".'),
    "unknown below 0": ('"num_characters": ', '"validation_unknown": -1, "num_characters": ', "validation_unknown must be at least 0, got -1."),
    "few bytes": ('"num_characters": ', '"bytes_per_character": 0.5, "num_characters": ', "bytes_per_character must be at least 1, got 0.5."),
    "versions null": ('"versions": {', '"versions": null, "x": {', "versions must be an object in which each value is a text, got null."),
    "version a number": ('"versions": {', '"versions": {"cuda": 12, ', "versions must be an object in which each value is a text, got {"),
    "machine a word": ('"machine": {', '"machine": "here", "x": {', "machine must be an object in which each value is a text or an"),
    "command null": ('"command": "', '"command": null, "x": "', "command must be a text, got null."),
    "counting a word": ('"unigram": ', '"unigram": "many", "x": ', "baselines must be an object in which each value is a number, got {"),
    "long number": ('"hidden_size": 16', '"hidden_size": 16' + 5000 * "0", "its integers must have at most 4,000 digits, got one of 5,002."),
    "30 levels": ('"symbols": "', '"more": ' + 30 * "[" + 30 * "]" + ', "symbols": "', "it is nested too deep."),
}  # fmt: skip
WHOLE = {  # what stands in settings.json, and what is said of it
    "empty": (b"", "it must be JSON, but line 1 is not, at column 1."),
    "a list": (b'["format"]', 'it must be an object, got ["format"].'),
    "a word": (b'"format"', 'it must be an object, got "format".'),
    "null": (b"null", "it must be an object, got null."),
    "latin": (b'{"format": "\xe4"}', "it must be UTF-8 text, got byte 0xe4 at 12."),
}
DAMAGED_CHECKPOINT = {
    "one too many": ('"symbols": "', '"symbols": "\\u0001', "of shape (88, 16), expected float32 of shape (89, 16)"),
    "other numbers": ('"dtype": "float32"', '"dtype": "float64"', "is float32 of shape (88, 16), expected float64 of"),
}
BAD_SAMPLE = {
    "not utf-8": (["\udcff"], r"RUN must name a path that can be used, got '\udcff': it is not UTF-8."),
    "no run": (["nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "unknown symbols": (["run", "--prompt", "def ☃é"], "--prompt must hold only symbols that the model saw in training, got 'é', '☃';"),
    "no prompt": (["run", "--prompt", ""], "--prompt must be at least one symbol, got ''."),
    "length 0": (["run", "--length", "0"], "--length must be from 1 to 10,000,000, got 0."),
    "long name": (["x" * 300], "RUN must name a path that can be used, got 'xxx"),
    "cold": (["run", "--temperature", "1e-300"], "--temperature must be 0 or at least 1e-06, got 1e-300."),
    "temperature": (["run", "--temperature", "-1"], "--temperature must be from 0 to 1e+06, got -1.0."),
    "another model": (["mixed"], "RUN must hold a checkpoint that can be read, but in 'mixed' step 60 is not of the model in its settings: `"),
    "torn checkpoint": (["hollow"], "RUN must hold a checkpoint that can be read, but in 'hollow' step 60 is damaged: its"),
    "no checkpoint": (["bare"], "RUN must hold a checkpoint, but 'bare' has none yet"),
    "none was validated": (["bare", "--best"], "RUN must hold a checkpoint that was validated, for --best, but 'bare' has none: leave --best out."),
}  # fmt: skip


BAD_EXPERIMENT = {
    "no such": (["digit"], "NAME must be an experiment, got 'digit': did you mean 'digits'?"),
    "no seeds": (["digits", "--seeds", "0"], "--seeds must be from 1 to 10,000, got 0."),
    "long name": (["digits", "--out", "x" * 300], "--out must name a path that can be used, got 'xxx"),
    "a file": (["digits", "--out", "real.txt"], "--out must be a folder, not a file, got 'real.txt'."),
}
BAD_GRADCHECK = {
    "no such method": (
        ["--methods", "bppt"],
        "--methods must be among autodiff, stepwise, bptt, blocked, truncated, adaptive, randomised, last_steps, got 'bppt'.",
    ),
    "no picture": (["--picture", "errors.jpg"], "--picture must be a file that ends in .png, got 'errors.jpg'."),
    "long name": (["--picture", "x" * 300 + ".png"], "--picture must name a path that can be used, got 'xxx"),
    "no folder": (
        ["--picture", "nowhere/errors.png"],
        "--picture must be a file in a folder that exists, got 'nowhere/errors.png'.",
    ),
    "seed": (["--seed", "-1"], "--seed must be from 0 to 4,294,967,295, got -1."),
}


BAD_COMPARE = {
    "no runs": ([], "RUN must be given two or more times, got 0: name the runs to compare."),
    "one run": (["run"], "RUN must be given two or more times, got 1: name the runs to compare."),
    "twice": (["run", "run"], "RUN must name each run once, but 'run' and 'run' are the same folder."),
    "twice by two names": (["run", "other/../run"], "RUN must name each run once, but 'run' and 'other/../run' are"),
    "no run": (["run", "nowhere"], "RUN must be a folder left by `rnn-jax train`, but 'nowhere' has no settings.json."),
    "other": (["other", "run"], "RUN must be a folder left by `rnn-jax train`, but 'other' has no settings.json."),
    "torn": (["run", "torn"], "RUN must hold readable settings, but 'torn/settings.json' does not:"),
    "long name": (["run", "x" * 300], "RUN must name a path that can be used, got 'xxx"),
    "no page": (["run", "bare", "--page", "a.pdf"], "--page must be a file that ends in .html, got 'a.pdf'."),
    "a folder": (["run", "bare", "--page", "folder.html"], "--page must be a file, not a folder, got 'folder.html'."),
    "nowhere": (
        ["run", "bare", "--page", "no/a.html"],
        "--page must be a file in a folder that exists, got 'no/a.html'.",
    ),
    "long page": (["run", "bare", "--page", "x" * 300 + ".html"], "--page must name a path that can be used, got 'xxx"),
}


BAD_EXPORT = {
    "no file": (["run"], "--to"),
    "ending": (
        ["run", "--to", "net.onnx"],
        "--to must be a file name that ends in .safetensors, .npz, .stablehlo, got 'net.onnx'.",
    ),
    "no folder": (
        ["run", "--to", "nowhere/net.npz"],
        "--to must name a file that can be written, but 'nowhere/net.npz' cannot",
    ),
    "no folder, programs": (
        ["run", "--to", "nowhere/net.stablehlo"],
        "--to must name a file that can be written, but 'nowhere/",
    ),
    "a folder": (["run", "--to", "folder.npz"], "--to must name a file that can be written, but 'folder.npz' cannot"),
    "long name": (["run", "--to", "x" * 300 + ".npz"], "--to must name a path that can be used, got 'xxx"),
    "no run": (["other", "--to", "net.npz"], "RUN must be a folder left by `rnn-jax train`"),
    "torn": (["hollow", "--to", "net.npz"], "RUN must hold a checkpoint that can be read, but in 'hollow'"),
}


BAD = {
    "train": BAD_TRAIN,
    "sample": BAD_SAMPLE,
    "export": BAD_EXPORT,
    "compare": BAD_COMPARE,
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
    (cwd / "copy.txt").write_text(REAL_TEXT.read_text())
    (cwd / "empty.txt").touch()
    (cwd / "latin.txt").write_bytes("zwä".encode("latin-1"))
    (cwd / "short.txt").write_text("hello world\n")
    (cwd / "other").mkdir()
    (cwd / "folder.html").mkdir()
    (cwd / "folder.png").mkdir()
    (cwd / "folder.npz").mkdir()
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


@pytest.mark.parametrize("label", [*DAMAGED, *DAMAGED_CHECKPOINT])
def test_a_run_s_settings_are_input_too(bad_place, tmp_path, label):
    """Each command that reads a run refuses them, and writes nothing."""
    old, new, sentence = (DAMAGED | DAMAGED_CHECKPOINT)[label]
    shutil.copytree(bad_place / "run", tmp_path / "run")
    path = tmp_path / "run" / "settings.json"
    settings = path.read_text()
    assert old in settings
    path.write_text(settings.replace(old, new, 1))
    before = everything(tmp_path)
    for args in (["sample", "run"], ["train", "--resume", "run", "--steps", "90"], ["anatomy", "run"]):
        result = command(*args, cwd=tmp_path)
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stdout + result.stderr
        told = "--resume must find the same symbols" if (label, args[0]) == ("one too many", "train") else sentence
        assert told in result.stderr, result.stderr[-400:]
        assert everything(tmp_path) == before


@pytest.mark.parametrize("label", WHOLE)
def test_settings_that_are_no_settings(bad_place, tmp_path, label):
    """Each command that reads a run refuses them, and none replaces what may be another's."""
    data, sentence = WHOLE[label]
    shutil.copytree(bad_place / "run", tmp_path / "run")
    (tmp_path / "run" / "settings.json").write_bytes(data)
    before = everything(tmp_path)
    for args in (["sample", "run"], ["train", "--resume", "run", "--steps", "90"], ["anatomy", "run"]):
        result = command(*args, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (
            2, f"rnn-jax: RUN must hold readable settings, but 'run/settings.json' does not: {sentence}\n"
        )  # fmt: skip
    result = command("train", REAL_TEXT, "--run", "run", "--overwrite", cwd=tmp_path)
    assert result.returncode == 2 and "but 'run' holds other files than a run's: take another name." in result.stderr, (
        result.stderr
    )
    assert everything(tmp_path) == before


CONFIGS = {
    TrainConfig: (limits.check_train_config, ()),
    commands.SweepConfig: (limits.check_sweep_config, ()),
    commands.SampleConfig: (limits.check_sample_config, ()),
    commands.ExportConfig: (limits.check_export_config, ()),
    commands.CompareConfig: (limits.check_compare_config, ()),
    commands.GradcheckConfig: (limits.check_gradcheck_config, ()),
    commands.TruncationConfig: (limits.check_truncation_config, ()),
    commands.AnatomyConfig: (limits.check_anatomy_config, (set(),)),
    commands.ExperimentConfig: (limits.check_experiment_config, (["digits"],)),
}
NEEDED = {
    "run": pathlib.Path("run"),
    "name": "digits",
    "to": pathlib.Path("net.npz"),
    "runs": (pathlib.Path("run"), pathlib.Path("more")),
}


def numbers_of(kind):
    """The names of the settings that hold one or more numbers, with their types."""
    hints = typing.get_type_hints(kind)
    return {name: {int, float} & set(parts_of(hint)) for name, hint in hints.items() if parts_of(hint) & {int, float}}


def parts_of(hint):
    """The types in an annotation."""
    return {hint} | {part for arg in typing.get_args(hint) for part in parts_of(arg)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_number_has_a_range(annotations_unchecked, kind):
    """A number beyond either end of its range, or that is none, is refused by name."""
    check, more = CONFIGS[kind]
    needed = {
        name: value for name, value in NEEDED.items() if name in typing.get_type_hints(kind) and kind is not TrainConfig
    }
    check(kind(**needed), *more)
    for name, types in numbers_of(kind).items():
        low, high = limits.RANGES[name]
        several = isinstance(getattr(kind(**needed), name), tuple)
        beyond = [low - 1, high + 1 if types == {int} else high * 2]
        beyond += [10**30] if types == {int} else [float("nan"), float("inf"), -float("inf"), 1e300]
        for value in beyond:
            given = needed | {name: (value,) if several else value}
            with pytest.raises(InputError, match=f"--{name.replace('_', '-')} must be from "):
                check(kind(**given), *more)


DIGITS = 5000 * "1"  # Python reads integers of at most 4,300
EMPTY = {  # what takes a path, and the sentence that an empty one gets
    "train --run": ["train", "real.txt", "--run", ""],
    "train --run=": ["train", "real.txt", "--run="],
    "train --validation": ["train", "real.txt", "--validation", ""],
    "truncation --validation": ["truncation", "run", "--validation", ""],
    "anatomy --validation": ["anatomy", "run", "--validation", ""],
    "train --resume": ["train", "--resume", ""],
    "train FILE": ["train", "real.txt", ""],
    "train --resume FILE": ["train", "--resume", "run", "--steps", "99", ""],
    "sweep --run": ["sweep", "real.txt", "--run", ""],
    "sweep FILE": ["sweep", "real.txt", "", "--run", "new"],
    "sample RUN": ["sample", ""],
    "export RUN": ["export", "", "--to", "net.npz"],
    "export --to": ["export", "run", "--to", ""],
    "compare RUN": ["compare", "run", ""],
    "compare --page": ["compare", "run", "bare", "--page", ""],
    "gradcheck --picture": ["gradcheck", "--picture", ""],
    "truncation RUN": ["truncation", ""],
    "truncation FILE": ["truncation", "run", ""],
    "truncation --picture": ["truncation", "run", "--picture", ""],
    "anatomy RUN": ["anatomy", ""],
    "anatomy FILE": ["anatomy", "run", ""],
    "anatomy --page": ["anatomy", "--page", ""],
    "experiment --out": ["experiment", "digits", "--out", ""],
}


@pytest.mark.parametrize("label", EMPTY)
def test_an_empty_name_is_no_path(bad_place, label):
    """Python takes it for the folder you stand in."""
    before, name = everything(bad_place), label.split()[-1].rstrip("=")
    result = command(*EMPTY[label], cwd=bad_place)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr == f"rnn-jax: {name} must name a {'file' if name == 'FILE' else 'path'}, got ''.\n"
    assert everything(bad_place) == before


@pytest.mark.parametrize("kind", CONFIGS)
def test_numbers_of_any_length_have_a_range(bad_place, kind):
    """Not in Python's own words."""
    name = kind.__name__.removesuffix("Config").lower()
    needed = {"sample": ["run"], "truncation": ["run"], "experiment": ["digits"]}.get(name, [])
    for option in (option for option, types in numbers_of(kind).items() if int in types):
        result = command(name, *needed, f"--{option.replace('_', '-')}", DIGITS, cwd=bad_place)
        assert result.returncode == 2, result.stdout + result.stderr
        assert result.stderr.startswith(f"rnn-jax: --{option.replace('_', '-')} must be from "), result.stderr
        assert result.stderr.endswith(", got a number of more than 4,300 digits.\n") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["train", "--st\x1b[31meps", "3"], ["train", "--activation", "\x1b]0;title\x07"], ["\x1b[31m"], ["train", "--\x9b31m"],
        ["train", "--steps", "\u202e3"],
    ],
)  # fmt: skip
def test_wrong_arguments_drive_no_terminal(bad_place, args):
    """The message of a refused argument shows what drives a terminal written out; what is not refused stays as it is."""
    result = command(*args, cwd=bad_place)
    wrong = next(word for word in args if console.shown(word) != word)
    assert result.returncode == 2 and console.shown(wrong) in result.stderr, result.stderr
    assert console.shown(result.stderr) == result.stderr
    result = command("sample", "no\x1bwhere", cwd=bad_place)
    assert result.stderr.startswith(r"rnn-jax: RUN must be a folder left by `rnn-jax train`, but 'no\x1bwhere' has no")


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
def test_bad_input(bad_place, monkeypatch, args, sentence):
    """One sentence, status 2, no traceback, and not a file touched."""
    monkeypatch.setattr(corpus, "MOST_BYTES", 2**20)
    before = everything(bad_place)
    result = command(*args, cwd=bad_place)
    assert result.returncode == 2, result.stdout + result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert everything(bad_place) == before
