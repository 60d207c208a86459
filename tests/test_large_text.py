"""Texts larger than memory: read in pieces, encoded once into a file and mapped; the tokens are as in memory."""

import codecs
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from commands import BRIEF, REAL_TEXT, SMALL, command, losses, train

from rnn_jax._cli.training import train as training
from rnn_jax._reporting.errors import InputError
from rnn_jax.data import _corpus, _held_out, _ngrams, _pieces, _token_cache, encode, make_streams, symbols_of
from rnn_jax.data._corpus import corpus_of_text, read_corpus

MIXED = "\r\nGrüße\r\n\r\r\n𝄞 Ένα\ufeff\r 人人𝔸\n\r\n\r"
FILES = {
    "utf-8": [("utf-8", MIXED.encode()), ("utf-8", b"\n")],  # a CR and an LF of two files are no CRLF
    "marks": [("utf-8", codecs.BOM_UTF8 + MIXED.encode())] * 2,
    "only a CR": [("utf-8", b"\r"), ("utf-8", b"\r\n")],
    "utf-16 by its mark": [("utf-16", codecs.BOM_UTF16_BE + MIXED.encode("utf-16-be"))] * 2,
    "utf-16 without": [("utf-16", MIXED.encode(f"utf-16-{'le' if sys.byteorder == 'little' else 'be'}"))],
    "two marks": [("utf-16", ("\ufeff" + MIXED).encode("utf-16"))],
    "utf-32": [("utf-32-be", ("\ufeff" + MIXED).encode("utf-32-be"))],
    "gb18030": [("gb18030", MIXED.encode("gb18030"))],
    "utf-7": [("utf-7", MIXED.encode("utf-7"))],
    "punycode": [("punycode", "人人Grüße".encode("punycode"))],
    "cp1252": [("cp1252", "Schöne Grüße – 5 €\r\n".encode("cp1252"))],
    "300 symbols": [("utf-8", "".join(map(chr, range(32, 332))).encode())],
}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(MIXED.encode())
    return str(path)


def is_mapped(tokens):
    while tokens is not None and not isinstance(tokens, np.memmap):
        tokens = tokens.base
    return tokens is not None


def in_one_piece(encoding, data):
    """The text of a file, the marks and the CRLF that are left out: by the codec for whole files."""
    text = data.decode(encoding)
    known = encoding in ("utf-16", "utf-32") and data.startswith((codecs.BOM_UTF16, codecs.BOM_UTF16_BE))
    is_marked, text = known or text.startswith("\ufeff"), text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n"), is_marked, text.count("\r\n")


@pytest.mark.parametrize("is_large", [False, True], ids=["in memory", "mapped"])
@pytest.mark.parametrize("piece", range(1, 8))
@pytest.mark.parametrize("name", FILES)
def test_pieces_of_any_size_make_the_same_tokens(name, piece, is_large, cache, tmp_path, monkeypatch):
    """CRLF, marks and characters of several bytes are cut anywhere."""
    monkeypatch.setattr(_pieces, "PIECE", piece)
    if not is_large:
        monkeypatch.setattr(_corpus, "IN_MEMORY", 2**20)
    paths = []
    for number, (_, data) in enumerate(FILES[name]):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_bytes(data)
    texts, marks, returns = zip(*(in_one_piece(*file) for file in FILES[name]), strict=True)
    text = "".join(texts)
    corpus = read_corpus(tuple(map(str, paths)), FILES[name][0][0])
    assert corpus.symbols == symbols_of(text) and corpus.text == text
    assert corpus.tokens.dtype == (np.uint8 if len(corpus.symbols) <= 256 else np.uint16)
    np.testing.assert_array_equal(corpus.tokens, encode(corpus.symbols, text))
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.left_out == {"byte_order_marks": sum(marks), "carriage_returns": sum(returns)}
    assert is_mapped(corpus.tokens) == is_large


def test_a_text_is_encoded_once(cache, text, monkeypatch):
    """The second time it is not decoded, whatever its name; in another encoding it is another text."""
    first = read_corpus((text,))
    monkeypatch.setattr(_token_cache, "scan", None)
    os.rename(text, text + ".moved")
    second = read_corpus((text + ".moved",))
    np.testing.assert_array_equal(first.tokens, second.tokens)
    assert first._replace(tokens=None, source="") == second._replace(tokens=None, source="")
    assert second.left_out == {"byte_order_marks": 0, "carriage_returns": 4}
    with pytest.raises(TypeError):
        read_corpus((text + ".moved",), "latin-1")


def truncate(data):
    return data[:-1]


def shorten(data):
    return data[: len(data) // 2]


def empty(data):
    return b""


def change_a_token(data):
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("damage", [truncate, shorten, empty, change_a_token])
def test_a_damaged_entry_is_written_again(damage, cache, text, capsys):
    read_corpus((text,))
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(damage(whole))
    assert read_corpus((text,)).text == corpus_of_text(MIXED.replace("\r\n", "\n")).text
    assert entry.read_bytes() == whole and [*cache.iterdir()] == [entry]
    assert not capsys.readouterr().err


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_cache_that_cannot_be_written(cache, text, monkeypatch, capsys):
    """The tokens are in a temporary file instead, or in memory; one warning says so, and nothing half is left."""
    expected = read_corpus((text,)).tokens
    (entry,) = cache.iterdir()
    entry.unlink()
    write = _token_cache._write
    monkeypatch.setattr(_token_cache, "_write", lambda file, *about: (write(file, *about), full()))
    tokens = read_corpus((text,)).tokens
    np.testing.assert_array_equal(tokens, expected)
    said = capsys.readouterr().err
    assert is_mapped(tokens) and [*cache.iterdir()] == []
    assert said.count("\n") == 1 and "[Errno 28] No space left on device" in said
    assert "They are in a temporary file, so the next command encodes the text again." in said
    monkeypatch.setattr(_token_cache, "_write", write)
    monkeypatch.setenv("XDG_CACHE_HOME", text)  # a file: it holds no folder, whoever asks
    monkeypatch.setattr(_token_cache, "tempfile", SimpleNamespace(TemporaryFile=full))
    tokens = read_corpus((text,)).tokens
    np.testing.assert_array_equal(tokens, expected)
    said = capsys.readouterr().err
    assert not is_mapped(tokens) and said.count("\n") == 1
    assert "Not a directory" in said and "They are in memory, so" in said


@pytest.mark.parametrize("limit, stay", [("MOST_FILES", 2), ("MOST_BYTES", None)])
def test_the_cache_is_bounded(limit, stay, cache, tmp_path, monkeypatch):
    """What has not been used for longest is removed; what is in use stays, even if it alone is too large."""

    def read(number):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
        before = set(cache.iterdir()) if cache.exists() else set()
        read_corpus((str(tmp_path / f"{number}.txt"),))
        made = set(cache.iterdir()) - before
        for age, entry in enumerate(sorted(cache.iterdir(), key=lambda entry: -entry.stat().st_mtime_ns)):
            os.utime(entry, (10**9 - age, 10**9 - age))
        return made

    (first,), (second,) = read(1), read(2)
    read(1)
    monkeypatch.setattr(_token_cache, limit, stay or 2 * first.stat().st_size)
    (third,) = read(3)
    assert set(cache.iterdir()) == {first, third} and not second.exists()
    monkeypatch.setattr(_token_cache, limit, 0)
    (fourth,) = read(4)
    assert set(cache.iterdir()) == {fourth}


@pytest.mark.parametrize("change", [b"", b"0", b"0" + MIXED.encode(), MIXED.encode()[:-1], MIXED.encode() + b"0"])
def test_a_file_must_not_change_while_it_is_read(change, cache, text, monkeypatch):
    """Otherwise tokens of one text would be kept under the name of another."""
    for is_large, module in ((False, _corpus), (True, _token_cache)):
        with monkeypatch.context() as patch:
            patch.setattr(_corpus, "IN_MEMORY", 0 if is_large else 2**20)
            scan = module.scan

            def scan_and_change(texts, vocab, scan=scan):
                found = scan(texts, vocab)
                with open(text, "wb") as file:
                    file.write(change)
                return found

            patch.setattr(module, "scan", scan_and_change)
            with pytest.raises(InputError, match="FILE must not change while it is read, but file '.*' has changed"):
                read_corpus((text,))
        assert not cache.exists() or not [*cache.iterdir()]
        with open(text, "wb") as file:
            file.write(MIXED.encode())


def test_what_can_be_read_only_once_is_copied(cache, tmp_path, monkeypatch):
    """A pipe; a longer one than the limit is refused."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)

    def fill():
        with open(pipe, "wb") as file:
            file.write(MIXED.encode())

    writer = threading.Thread(target=fill)
    writer.start()
    assert read_corpus((pipe,)).text == MIXED.replace("\r\n", "\n")
    writer.join()
    monkeypatch.setattr(_corpus, "MOST_BYTES", 10)
    writer = threading.Thread(target=fill)
    writer.start()
    with pytest.raises(InputError, match="at most 10 bytes, but file .* has more. Only a regular file may have more."):
        read_corpus((pipe,))
    writer.join()


def test_a_mapped_run_is_the_same_and_can_be_resumed(cache, tmp_path, monkeypatch):
    """By the numbers of a run whose text is in memory; the other commands read the mapped text too."""
    (tmp_path / "text.txt").write_bytes(REAL_TEXT.read_bytes())
    train(tmp_path, "text.txt", "--run", "mapped", "--steps", 50, *BRIEF)
    assert len([*cache.iterdir()]) == 1
    monkeypatch.setattr(_corpus, "IN_MEMORY", 2**20)
    train(tmp_path, "text.txt", "--run", "run", "--steps", 25, *BRIEF)
    train(tmp_path, "--resume", "run", "--steps", 50)
    assert losses(tmp_path / "mapped") == losses(tmp_path / "run")
    facts = [json.loads((tmp_path / run / "settings.json").read_text()) for run in ("mapped", "run")]
    for name in ("text_sha256", "symbols", "baselines", "num_characters", "left_out"):
        assert facts[0][name] == facts[1][name], name
    monkeypatch.setattr(_corpus, "IN_MEMORY", 0)
    said = command("truncation", "run", "--ks", 1, "--window", 8, "--streams", 2, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    corpus, text = read_corpus((str(REAL_TEXT),)), REAL_TEXT.read_text()
    held_out = encode(symbols_of(text), text)[-int(len(text) / 20) :]
    tokens, streams = _held_out.held_out_of_run(corpus, 8, 2)
    np.testing.assert_array_equal(tokens, held_out)
    np.testing.assert_array_equal(streams, make_streams(held_out, 2)[:9])


def test_of_a_long_text_validation_and_baselines_read_a_part(tmp_path, monkeypatch):
    """The output says so; the numbers are those of the text that is read."""
    (tmp_path / "text.txt").write_bytes(REAL_TEXT.read_bytes())
    (size, corpus) = REAL_TEXT.stat().st_size, read_corpus((str(REAL_TEXT),))
    out = train(tmp_path, "text.txt", "--run", "whole", "--steps", 1, *SMALL)
    assert "validation reads" not in out and "baselines count" not in out
    for module in (_held_out, training):
        monkeypatch.setattr(module, "MOST_READ", 500)
    for module in (_ngrams, training):
        monkeypatch.setattr(module, "MOST_COUNTED", 5000)
    out = train(tmp_path, "text.txt", "--run", "part", "--steps", 1, *SMALL)
    num_held_out = int(size / 20)
    assert f"validation reads the first 500 of the {num_held_out:,} characters of the held-out text\n" in out
    num_train = size - num_held_out
    assert f"the baselines count the last 5,000 of the {num_train:,} characters of the training text\n" in out
    learned, rest = np.split(corpus.tokens[num_train - 5000 : num_train + 500].astype(int), [5000])
    predicted = np.arange(4)[:, None] * 125 + np.arange(1, 125)
    expected = _ngrams.ngram_bits(learned, rest, len(corpus.symbols), predicted.ravel())
    assert json.loads((tmp_path / "part" / "settings.json").read_text())["baselines"] == expected
    data = _held_out.prepare(corpus, 4, 20)
    np.testing.assert_array_equal(data.held_out.T.ravel(), corpus.tokens[num_train:][:500])


@pytest.mark.parametrize("most_bins", [0, 2**24])
def test_counting_in_an_array_and_by_sorting_are_the_same(most_bins, monkeypatch):
    monkeypatch.setattr(_ngrams, "MOST_BINS", most_bins)
    codes, wanted = np.array([3, 1, 3, 7]), np.array([0, 1, 3, 3, 7, 8])
    assert _ngrams._lookup(codes, wanted, 9).tolist() == [0, 1, 2, 2, 1, 0]
    assert _ngrams._lookup(codes[:0], wanted, 9).tolist() == [0] * 6


READ = """
import resource, sys
from rnn_jax.data._corpus import read_corpus
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
most = 2**10 * used + 2**25
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
corpus = read_corpus((sys.argv[1],))
print(len(corpus.tokens), corpus.tokens[-1], len(corpus.symbols))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")
def test_memory_does_not_grow_with_the_text(tmp_path):
    """A text of 72 MiB is read by a process that may take 32 MiB more than it has at its start; then from the cache."""
    with open(tmp_path / "text.txt", "w") as file:
        for number in range(72):
            file.write(f"{number:02} " + "the quick brown fox\n" * (2**20 // 20) + "\n" * 13)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-c", READ, str(tmp_path / "text.txt")]
    for _ in range(2):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout == f"{72 * 2**20} 0 27\n", done.stderr
        assert len([*(tmp_path / "cache" / "rnn_jax" / "tokens").iterdir()]) == 1
