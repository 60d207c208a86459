"""Characters or bytes as tokens, and a validation file: what is read, counted, scored and said."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import BRIEF, REAL_TEXT, command, everything, losses, metrics, train

import rnn_jax
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.truncation import train_command
from rnn_jax.data import _held_out, _ngrams, _pieces, _token_cache, _validation, decode, encode, make_streams
from rnn_jax.data._corpus import corpus_of_text, read_corpus, with_validation
from rnn_jax.data._vocab import BYTES, as_text, bytes_per_character, spelled

MIXED = "Grüße,\r\nΈνα 人人 𝄞🎉 \u07ff\u0800\uffff\U00010000\U0010ffff ende\n"  # characters of one to four bytes
PLAIN = MIXED.replace("\r\n", "\n")
UNITS = ("character", "byte")
GERMAN = "".join(
    f"Über {number} Brücken müßt ihr gehn, {'schöne' * (number % 3)} Grüße 🎉 und {number**2} Äpfel.\n"
    for number in range(200)
)
OTHERS = "Über 40 Brücken: ñandú, naïve 𝄞, schöne Grüße aus Łódź!\n" * 12  # with characters that GERMAN lacks


@pytest.fixture
def texts(tmp_path):
    """A folder with a text and a validation file."""
    (tmp_path / "text.txt").write_text(GERMAN)
    (tmp_path / "others.txt").write_text(OTHERS)
    return tmp_path


def settings_of(run):
    return json.loads((run / "settings.json").read_text())


def known_of(text, of):
    """The characters of a text that another text has, and how many others there are."""
    return "".join(char for char in text if char in of), sum(char not in of for char in text)


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_tokens_of_a_text_are_its_bytes(text):
    corpus = corpus_of_text(text or "a", vocab="byte")
    assert bytes(corpus.tokens) == (text or "a").encode() and corpus.tokens.dtype == np.uint8
    assert corpus.symbols == BYTES and corpus.text == (text or "a")
    assert bytes(encode(BYTES, spelled("byte", text)).astype(np.uint8)) == text.encode()
    assert as_text("byte", spelled("byte", text)) == text == as_text("character", spelled("character", text))


@hypothesis.given(st.binary())
def test_any_bytes_can_be_printed(data):
    """A sample may end within a character; what is no UTF-8 becomes U+FFFD, as Python does it."""
    tokens = np.frombuffer(data, np.uint8).astype(np.int32)
    assert as_text("byte", decode(BYTES, tokens)) == data.decode(errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 2**20])
@pytest.mark.parametrize("unit", UNITS)
def test_pieces_of_any_size_make_the_same_tokens(unit, size, cache, tmp_path, monkeypatch):
    """Characters of several bytes lie across the borders of the pieces."""
    for module in (_pieces, _token_cache, _validation):
        monkeypatch.setattr(module, "PIECE", size)
    (tmp_path / "text.txt").write_bytes(MIXED.encode())
    (tmp_path / "others.txt").write_bytes(OTHERS.encode())
    large = read_corpus((str(tmp_path / "text.txt"),), vocab=unit)
    small = corpus_of_text(PLAIN, vocab=unit)
    np.testing.assert_array_equal(large.tokens, small.tokens)
    assert large.text == PLAIN and large.symbols == small.symbols and large.left_out["carriage_returns"] == 1
    assert large.sha256 == small.sha256 == hashlib.sha256(PLAIN.encode()).hexdigest()  # in both units
    found = with_validation(large, (), str(tmp_path / "others.txt")).validation
    known, num_unknown = known_of(OTHERS, PLAIN) if unit == "character" else (OTHERS, 0)
    assert (found.num_unknown, found.num_known) == (num_unknown, len(spelled(unit, OTHERS)) - num_unknown)
    expected = encode(large.symbols, spelled(unit, known))
    for most in (0, 1, 2, 3, 50, len(expected), len(expected) + 1):
        np.testing.assert_array_equal(found.first(most), expected[:most])


def test_bytes_and_characters_are_kept_apart(cache, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(MIXED.encode())
    first = {unit: read_corpus((str(tmp_path / "text.txt"),), vocab=unit) for unit in UNITS}
    assert len([*cache.iterdir()]) == 2
    monkeypatch.setattr(_token_cache, "scan", None)
    for unit, corpus in first.items():
        again = read_corpus((str(tmp_path / "text.txt"),), vocab=unit)
        np.testing.assert_array_equal(again.tokens, corpus.tokens)
        assert again._replace(tokens=None) == corpus._replace(tokens=None) and again.vocab == unit


@pytest.mark.parametrize("unit", UNITS)
def test_all_of_the_text_is_learned_and_the_file_is_held_out(unit, texts):
    corpus = with_validation(read_corpus((str(texts / "text.txt"),), vocab=unit), (), str(texts / "others.txt"))
    data = _held_out.prepare(corpus, 4, 20)
    assert as_text(unit, decode(data.symbols, data.train.astype(int))) == GERMAN
    known = known_of(OTHERS, GERMAN)[0] if unit == "character" else OTHERS
    np.testing.assert_array_equal(data.rest, encode(data.symbols, spelled(unit, known)))
    np.testing.assert_array_equal(data.held_out, make_streams(data.rest.astype(int), 4))
    held_out, streams = _held_out.held_out_of_run(corpus, 8, 2)
    np.testing.assert_array_equal(held_out, data.rest)
    np.testing.assert_array_equal(streams, make_streams(data.rest.astype(int), 2)[:9])


def test_of_a_long_validation_file_the_start_is_read(texts, monkeypatch):
    monkeypatch.setattr(_held_out, "MOST_READ", 100)
    corpus = with_validation(read_corpus((str(texts / "text.txt"),)), (), str(texts / "others.txt"))
    known, num_unknown = known_of(OTHERS, GERMAN)
    assert as_text("character", decode(corpus.symbols, _held_out.prepare(corpus, 4, 20).rest)) == known[:100]
    assert corpus.validation.num_unknown == num_unknown > 0  # of the whole file


def test_n_grams_are_counted_in_the_text_and_scored_on_the_file(texts):
    """The unigram model by plain counting, as close as its mixture is fitted; on the text it has other bits."""
    corpus = with_validation(read_corpus((str(texts / "text.txt"),)), (), str(texts / "others.txt"))
    data = _held_out.prepare(corpus, 1, 20)
    bits = _ngrams.ngram_bits(data.train, data.rest, len(data.symbols), _held_out.predicted_positions(data))
    counts, scored = Counter(GERMAN), known_of(OTHERS, GERMAN)[0][1:]

    def of_mixture(share):
        return -np.mean([np.log2(share / len(counts) + (1 - share) * counts[char] / len(GERMAN)) for char in scored])

    shares = np.linspace(0, 1, 2001)
    held_back, before = GERMAN[-(len(GERMAN) // 20) :], Counter(GERMAN[: -(len(GERMAN) // 20)])
    likely = [
        sum(np.log2(share / len(counts) + (1 - share) * before[char] / before.total()) for char in held_back)
        for share in shares[1:]
    ]
    assert bits["unigram"] == pytest.approx(of_mixture(shares[1:][np.argmax(likely)]), abs=0.01)
    own = _held_out.prepare(corpus._replace(validation=None), 1, 20)
    others = _ngrams.ngram_bits(own.train, own.rest, len(own.symbols), _held_out.predicted_positions(own))
    assert all(abs(bits[name] - others[name]) > 0.1 for name in bits)


def test_how_many_bytes_a_character_has():
    tokens = np.frombuffer(GERMAN.encode(), np.uint8).astype(np.int32)
    assert bytes_per_character(tokens) == len(GERMAN.encode()) / len(GERMAN) > 1
    assert bytes_per_character(np.array([0xBC])) == 1


def score(run, text):
    """Bits per symbol of a text that a network reads in four streams, by `apply` and NumPy."""
    streams = make_streams(encode(run.symbols, text), 4)
    logits, _ = rnn_jax.apply(run.params, rnn_jax.zero_state(run.params, 4), jnp.asarray(streams[:-1]))
    logs = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
    return -np.mean(np.take_along_axis(logs, streams[1:, :, None], axis=-1)) / np.log(2)


@pytest.mark.parametrize("unit", UNITS)
def test_a_run_with_a_validation_file(unit, texts, undrawn):
    """Its score is that of the known characters; what is unknown is counted; it can be resumed to the bit."""
    options = ("text.txt", "--validation", "others.txt", "--vocab", unit, *BRIEF)
    out = train(texts, *options, "--run", "whole", "--steps", 50)
    train(texts, *options, "--run", "run", "--steps", 25)
    train(texts, "--resume", "run", "--steps", 50)
    assert losses(texts / "whole") == losses(texts / "run")
    assert metrics(texts / "run")[-1]["validation_bits"] == metrics(texts / "whole")[-1]["validation_bits"]
    facts = settings_of(texts / "run")
    known, num_unknown = known_of(OTHERS, GERMAN)
    num, known, num_unknown = (
        (len(OTHERS), known, num_unknown) if unit == "character" else (len(OTHERS.encode()), OTHERS, 0)
    )
    assert (facts["validation_length"], facts["validation_unknown"]) == (num, num_unknown)
    assert facts["validation_sha256"] == hashlib.sha256(OTHERS.encode()).hexdigest()
    assert facts["settings"]["validation"] == str(texts / "others.txt") and facts["validation_text"] == "others.txt"
    assert facts[f"num_{unit}s"] == len(spelled(unit, GERMAN))
    run = rnn_jax.saving.read_run(texts / "run")
    assert run.settings["vocab"] == unit
    last = metrics(texts / "run")[-1]["validation_bits"]
    assert last == pytest.approx(score(run, spelled(unit, known)), rel=1e-5)
    assert f"\ntext      text.txt: {len(spelled(unit, GERMAN)):,} {unit}s, {len(run.symbols)} symbols\n" in f"\n{out}"
    assert f"\nheld out  others.txt: {num:,} {unit}s\n" in out
    said = f"\nunknown   {num_unknown:,} of these {num:,} characters, {num_unknown / num:.2%}, do not occur in the text"
    assert (said in out) == (unit == "character") and ("unknown" in out) == (unit == "character")
    for name, more in (("truncation", ("--ks", 1, "--window", 8, "--streams", 2)), ("anatomy", ("--window", 20))):
        said = command(name, "run", *more, cwd=texts)
        assert said.returncode == 0 and f"of {texts / 'others.txt'}\n" in said.stdout, said.stdout + said.stderr


def test_a_run_on_bytes(texts, undrawn):
    """It knows every prompt; all that is said is in bytes, and in characters where that is said."""
    out = train(texts, "text.txt", "--vocab", "byte", "--run", "run", "--steps", 50, *BRIEF)
    facts, run = settings_of(texts / "run"), rnn_jax.saving.read_run(texts / "run")
    length, num_held_out = len(GERMAN.encode()), int(len(GERMAN.encode()) / 20)
    assert facts["symbols"] == BYTES == run.symbols and facts["num_bytes"] == length and "num_characters" not in facts
    assert f"text      text.txt: {length:,} bytes, 256 symbols, the end held out\n" in out
    tail = GERMAN.encode()[-num_held_out:]
    streams = make_streams(np.frombuffer(tail, np.uint8).astype(int), 4)
    ratio = streams.size / np.sum((streams < 0x80) | (streams >= 0xC0))
    assert facts["bytes_per_character"] == ratio > 1
    last = metrics(texts / "run")[-1]["validation_bits"]
    assert last == pytest.approx(score(run, tail.decode("latin-1")), rel=1e-5)
    assert "bits per byte on the held-out text after 50 of 50 steps\n" in out
    assert f"that is {last * ratio:.3f} bits per character: the held-out text has {ratio:.3f} bytes per ch" in out
    assert "bits per character on" not in out and "characters," not in out

    prompt = "Ü🎉 人\u0000"
    said = command("sample", "run", "--prompt", prompt, "--length", 40, "--temperature", 0, cwd=texts)
    tokens = jnp.asarray(np.frombuffer(prompt.encode(), np.uint8).astype(np.int32))
    written, _ = rnn_jax.generate(jax.random.key(0), run.params, tokens, 40, draw=rnn_jax.greedy)
    expected = prompt + bytes(np.asarray(written, np.uint8)).decode(errors="replace")
    assert said.returncode == 0 and said.stdout == expected + "\n", said.stderr
    said = command("sample", "run", "--prompt", "\udcff", cwd=texts)
    assert said.returncode == 2 and "--prompt must be Unicode text, got '\\udcff'." in said.stderr

    assert command("export", "run", "--to", "net.stablehlo", cwd=texts).returncode == 0
    with zipfile.ZipFile(texts / "net.stablehlo") as file:
        about = json.loads(file.read("about.json"))
        sequence = jax.export.deserialize(bytearray(file.read("sequence")))
    assert about["symbols"] == BYTES and about["tokens"] == "one for each byte of a text in UTF-8: its value"
    logits, _ = sequence.call(tokens[:, None], rnn_jax.zero_state(run.params, 1))
    assert int(jnp.argmax(logits[-1, 0])) == int(written[0])

    train(texts, "text.txt", "--run", "characters", "--steps", 25, *BRIEF)
    said = command("compare", "run", "characters", cwd=texts)
    best = min(record["validation_bits"] for record in metrics(texts / "run") if "validation_bits" in record)
    assert f"'run', {best:.3f} bits per byte ({best * ratio:.3f} per character) at step" in said.stdout
    assert "'characters', " in said.stdout and " bits per character at step 25.\n" in said.stdout
    assert said.stdout.count("Best of 'text.txt'") == 2 and "symbols/s" in said.stdout
    assert "different units (characters and bytes), so their bits cannot be compared: each of these" in said.stderr


def test_a_run_of_before_goes_on_with_characters(texts, undrawn):
    """Its settings have neither a vocabulary nor a validation file."""
    train(texts, "text.txt", "--run", "run", "--steps", 25, *BRIEF)
    stored = settings_of(texts / "run")
    del stored["settings"]["vocab"], stored["settings"]["validation"]
    (texts / "run" / "settings.json").write_text(json.dumps(stored))
    train(texts, "--resume", "run", "--steps", 26)
    assert settings_of(texts / "run")["settings"]["vocab"] == "character"


def test_the_validation_file_must_stay_as_it_was(texts, undrawn):
    """It is looked for where it was; a file that has moved is named by --validation, and train remembers its place."""
    train(texts, "text.txt", "--validation", "others.txt", "--run", "run", "--steps", 1, *BRIEF)
    reads = {
        "train": (("--resume", "run"), ("--steps", 2)),
        "truncation": (("run",), ("--ks", 1, "--window", 8, "--streams", 2)),
        "anatomy": (("run",), ("--window", 20)),
    }
    others, moved = texts / "others.txt", texts / "moved.txt"
    (texts / "another.txt").write_text(OTHERS + "more")
    others.write_text(OTHERS + "more")
    for name, (run, options) in reads.items():
        said = command(name, *run, *options, cwd=texts)
        assert said.returncode == 2 and said.stderr == (
            f"rnn-jax: 'run' needs the validation file that it began with, but {others} has changed. If the validation "
            "file of 'run' has moved, name it by --validation.\n"
        )
    others.unlink()
    moved.write_text(OTHERS)
    for name, (run, options) in reads.items():
        before = everything(texts)
        said = command(name, *run, *options, cwd=texts)
        assert said.returncode == 2 and f"--validation must name readable text, but file '{others}' is" in said.stderr
        assert "If the validation file of 'run' has moved, name it by --validation.\n" in said.stderr
        said = command(name, *run, *options, "--validation", "another.txt", cwd=texts)
        assert said.returncode == 2 and said.stderr == (
            "rnn-jax: 'run' needs the validation file that it began with, but another.txt is another text.\n"
        )
        assert everything(texts) == before
    for name in ("truncation", "train"):
        run, options = reads[name]
        said = command(name, *run, *options, "--validation", "moved.txt", cwd=texts)
        assert said.returncode == 0, said.stderr
    stored = settings_of(texts / "run")
    assert stored["settings"]["validation"] == str(moved) and stored["validation_text"] == "moved.txt"
    train(texts, "--resume", "run", "--steps", 3)


def test_the_command_that_trains_again_names_the_file():
    """Quoted for a shell; what is left at its default is not there."""
    config = TrainConfig(files=("a.txt",), vocab="byte", validation="my file.txt")
    assert (
        train_command(config, k1=5, k2=10)
        == "rnn-jax train a.txt --vocab byte --validation 'my file.txt' --k1 5 --k2 10"
    )


READ = """
import resource, sys
import numpy as np
from rnn_jax.data._corpus import read_corpus, with_validation
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
most = 2**10 * used + 2**25
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
corpus = with_validation(read_corpus((sys.argv[1],)), (sys.argv[1],), sys.argv[2])
found = corpus.validation
print(len(found.tokens), found.num_unknown, len(found.first(10**6)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")
def test_memory_does_not_grow_with_the_validation_file(tmp_path):
    """A file of 72 MiB is read by a process that may take 32 MiB more than it has at its start; then from the cache."""
    with open(tmp_path / "others.txt", "w") as file:
        for _ in range(72):
            file.write("the quick brown fäx\n" * (2**20 // 21) + "~" * (2**20 % 21))
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-c", READ, str(REAL_TEXT), str(tmp_path / "others.txt")]
    text = REAL_TEXT.read_text()
    lines, rest = 72 * (2**20 // 21), 72 * (2**20 % 21)
    num_unknown = lines * sum(char not in text for char in "the quick brown fäx\n") + rest * ("~" not in text)
    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout == f"{20 * lines + rest} {num_unknown} 1000000\n", done.stderr
        assert len([*(tmp_path / "cache" / "rnn_jax" / "tokens").iterdir()]) == 1
