"""Texts in encodings other than UTF-8: they are read, or the message names the encoding."""

import codecs
import json

import pytest
from commands import SMALL, command

from rnn_jax._reporting.errors import InputError
from rnn_jax.data._corpus import read_corpus

TEXT = "Grüße, ça va? Ένα\nzwei\n"


def refusal(folder, data, **options):
    """The message about a file that holds `data`."""
    path = folder / "text"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_corpus((str(path),), **options)
    return str(error.value).replace(str(path), "text")


@pytest.mark.parametrize(
    "encoding, data, marks",
    [
        ("utf-8", TEXT.encode(), 0),
        ("UTF8", b"\xef\xbb\xbf" + TEXT.encode(), 1),
        ("utf-8-sig", b"\xef\xbb\xbf" + TEXT.encode(), 1),
        ("utf-16", TEXT.encode("utf-16"), 1),  # with a mark, which Python's codec leaves out
        ("UTF16", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), 1),
        ("utf-16-le", TEXT.encode("utf-16-le"), 0),
        ("utf-16-be", ("\ufeff" + TEXT).encode("utf-16-be"), 1),
        ("utf-32", TEXT.encode("utf-32"), 1),
        ("utf-16", TEXT.replace("\n", "\r\n").encode("utf-16"), 1),
    ],
)
def test_every_encoding_gives_the_same_text(encoding, data, marks, tmp_path):
    """A byte order mark is left out and counted, whether Python's codec knows it or not."""
    path = tmp_path / "text"
    path.write_bytes(data)
    corpus = read_corpus((str(path),), encoding)
    assert corpus.text == TEXT and corpus.left_out["byte_order_marks"] == marks


@pytest.mark.parametrize(
    "data, looks",
    [
        (TEXT.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-32"),
        ("plain ASCII\n".encode("utf-16-le"), "utf-16-le"),  # which is UTF-8 too, with a zero beside each letter
        ("plain ASCII\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_what_a_file_looks_like_is_said_and_right(data, looks, tmp_path):
    said = refusal(tmp_path, data)
    assert said.startswith("FILE must be utf-8 text, but ")
    assert said.endswith(f" It looks like {looks}: `rnn-jax train` takes --encoding {looks}.")
    assert read_corpus((str(tmp_path / "text"),), looks).text.endswith("\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "koi8-r", "mac-roman"])
def test_which_one_byte_encoding_it_is_cannot_be_told(encoding, tmp_path):
    text = {"cp1251": "Привет", "koi8-r": "Привет"}.get(encoding, "Grüße")
    assert refusal(tmp_path, text.encode(encoding)).endswith(
        " It may be in another encoding: `rnn-jax train` takes --encoding latin-1, cp1252 and others."
    )


def test_what_else_is_no_text(tmp_path):
    said = refusal(tmp_path, bytes([0xFE, 0, 1, 2, 0x81, 0xFF]))
    assert said == "FILE must be utf-8 text, but file 'text' has byte 0xfe at position 0."
    said = refusal(tmp_path, b"\x00\x61\x00", encoding="utf-16-be")
    assert said == "FILE must be utf-16-be text, but file 'text' has byte 0x00 at position 2."
    assert refusal(tmp_path, "Grüße"[:3].encode()[:-1]).endswith(
        "It may be cut off within a character, or in another encoding: "
        "`rnn-jax train` takes --encoding latin-1, cp1252 and others."
    )
    assert refusal(tmp_path, "Привет, мир. ".encode("utf-16-be")).endswith("has 4 bytes 0.")
    assert refusal(tmp_path, ("abc " * 9).encode("utf-32-le")).endswith("has 108 bytes 0.")
    assert refusal(tmp_path, rb"a\ud800", encoding="unicode_escape").endswith("has half of a surrogate pair.")
    said = refusal(tmp_path, b"\xc3\xbc", encoding="ascii")
    assert said.endswith("It looks like utf-8: `rnn-jax train` takes --encoding utf-8.")
    assert read_corpus((str(tmp_path / "text"),)).text == "ü"


def test_a_run_keeps_its_encoding(tmp_path):
    """Resumed and looked at, a run reads its text as it began."""
    (tmp_path / "greek.txt").write_bytes(("Ένα μήλο την ημέρα. " * 200).encode("iso8859-7"))
    train = ("train", "greek.txt", "--encoding", "iso8859-7", "--run", "run", "--steps", 1, *SMALL)
    assert command(*train, cwd=tmp_path).returncode == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["settings"]["encoding"] == "iso8859-7" and "μ" in settings["symbols"]
    assert command("train", "--resume", "run", "--steps", 2, cwd=tmp_path).returncode == 0
    assert command("truncation", "run", "--ks", 1, "--window", 8, "--streams", 2, cwd=tmp_path).returncode == 0
