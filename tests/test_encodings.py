"""Texts in encodings other than UTF-8: they are read, or the message names the encoding."""

import codecs
import json

import pytest
from commands import SMALL, command

from rnn_jax._reporting.errors import InputError
from rnn_jax.data import _pieces
from rnn_jax.data._corpus import read_corpus


@pytest.fixture(params=[1, 3, 2**20], ids="pieces of {} bytes".format)
def in_pieces(request, monkeypatch):
    """Files are read in pieces of so many bytes: what is said of them is the same."""
    monkeypatch.setattr(_pieces, "PIECE", request.param)


TEXT = "Grüße, ça va? Ένα\nzwei\n"


def refusal(folder, data, **options):
    """The message about a file that holds `data`."""
    path = folder / "text"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_corpus((str(path),), **options)
    return str(error.value).replace(str(path), "text")


@pytest.mark.usefixtures("in_pieces")
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


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    "data, looks",
    [
        (TEXT.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-32"),
        (TEXT.encode("utf-32-be"), "utf-32-be"),
        ("plain ASCII\n".encode("utf-16-le"), "utf-16-le"),  # which is UTF-8 too, with a zero beside each letter
        ("plain ASCII\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_what_a_file_looks_like_is_said_and_right(data, looks, tmp_path):
    said = refusal(tmp_path, data)
    assert said.startswith("FILE must be utf-8 text, but ")
    assert said.endswith(f" It looks like {looks}. Add `--encoding {looks}`.")
    assert read_corpus((str(tmp_path / "text"),), looks).text.endswith("\n")


ONE_BYTE = ", or another encoding of one byte per character. "
LATIN_1 = f"It looks like latin-1 (Western European){ONE_BYTE}"
CP1252 = f"It looks like cp1252 (Windows, Western European){ONE_BYTE}"
OTHER_LETTERS = "It looks like an older encoding of letters that are not Latin. "
UNKNOWN = "It is damaged, not text, or in an encoding that cannot be guessed. Give another file, or "


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    "text, encoding, asked, looks",
    [
        ("Grüße", "latin-1", "utf-8", f"{LATIN_1}Add `--encoding latin-1`."),
        ("Grüße", "latin-1", "ascii", f"{LATIN_1}Use `--encoding latin-1`."),
        ("„Schöne Grüße“", "cp1252", "utf-8", f"{CP1252}Add `--encoding cp1252`."),
        ("Schöne Grüße – 5 €", "cp1252", "ascii", f"{CP1252}Use `--encoding cp1252`."),
        ("Grüße", "cp850", "utf-8", f"{UNKNOWN}add the encoding that it was saved in, like `--encoding cp850`."),
        ("Привет, мир", "cp1251", "utf-8", f"{OTHER_LETTERS}Add the one that it was saved in, like "),
        ("Привет, мир", "koi8-r", "ascii", f"{OTHER_LETTERS}Use the one that it was saved in, like "),
        ("人人生而自由", "gb18030", "utf-8", f"{OTHER_LETTERS}Add the one that it was saved in, like "),
        ("Grüße", "utf-8", "ascii", "It looks like utf-8. Use `--encoding utf-8`."),
    ],
)
def test_the_first_bad_byte_and_what_the_file_most_looks_like(text, encoding, asked, looks, tmp_path):
    data = text.encode(encoding)
    position = next(place for place, byte in enumerate(data) if byte > 127)
    said = refusal(tmp_path, data, encoding=asked)
    found = f"has byte 0x{data[position]:02x} at position {position}. "
    assert said.startswith(f"FILE must be {asked} text, but file 'text' {found}{looks}")


GERMAN = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Das steht in Artikel 1.\n"
RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах.\n"
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"
IDEOGRAPHS = "".join(map(chr, range(0x4E00, 0x9FA5, 7)))  # all rows of them, whose two bytes are most alike
ALIKE, ORDER = (
    "has the same kind of bytes in even and in odd places. ",
    "has the two bytes of each character in the other order. ",
)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, CHINESE, JAPANESE, KOREAN, IDEOGRAPHS])
def test_units_of_two_and_four_bytes_are_read(text, encoding, mark, tmp_path):
    path = tmp_path / "text"
    path.write_bytes((mark + text).encode(encoding))
    assert read_corpus((str(path),), encoding).text == text


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    "data, asked, said",
    [
        ((GERMAN * 2).encode("latin-1"), "utf-16", f"{ALIKE}{LATIN_1}Use `--encoding latin-1`."),
        ((GERMAN + "x").encode("latin-1"), "utf-16-be", f"{ALIKE}{LATIN_1}Use `--encoding latin-1`."),
        ((("Eine lange Strasse" * 9) + "ä.").encode("latin-1"), "utf-16", f"{ALIKE}{LATIN_1}Use `--encoding latin-1`."),
        (b"To be or not to be, ok" * 9, "utf-16", f"{ALIKE}It looks like utf-8. Use `--encoding utf-8`."),
        ((GERMAN + "€").encode("cp1252"), "utf-16-le", f"{ALIKE}{CP1252}Use `--encoding cp1252`."),
        ((RUSSIAN * 2).encode("cp1251"), "utf-16", f"{ALIKE}{OTHER_LETTERS}Use the one that it was saved in, like "),
        ((RUSSIAN * 2).encode(), "utf-16", f"{ALIKE}It looks like utf-8. Use `--encoding utf-8`."),
        (GERMAN.encode("utf-16-be"), "utf-16-le", f"{ORDER}It looks like utf-16-be. Use `--encoding utf-16-be`."),
        (GERMAN.encode("utf-16"), "latin-1", "has 89 control characters, such as '\\x00'. It looks like utf-16. Use "),
        (GERMAN.encode("utf-16-le"), "latin-1", "It looks like utf-16-le. Use `--encoding utf-16-le`."),
        (GERMAN.encode("utf-32"), "utf-16", "It looks like utf-32. Use `--encoding utf-32`."),
        (
            JAPANESE.strip().encode("utf-16-le"),
            "latin-1",
            f"{UNKNOWN}use the encoding that it was saved in, like `--encoding utf",
        ),
        (
            codecs.BOM_UTF16_LE + b"abc" * 9,
            "latin-1",
            "begins with the byte order mark of utf-16. It looks like utf-16",
        ),
        (GERMAN.encode("utf-16"), "utf-16-be", "begins with the byte order mark of utf-16. It looks like utf-16"),
    ],
)
def test_what_can_be_decoded_may_still_be_nonsense(data, asked, said, tmp_path):
    """These bytes have characters in the encoding that was asked for, but plainly are in another one."""
    data.decode(asked)
    assert said in refusal(tmp_path, data, encoding=asked)


@pytest.mark.usefixtures("in_pieces")
def test_odd_texts_in_an_encoding_that_was_asked_for_are_read(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"0\n1\n" * 99)  # even and odd places differ, and it is one byte per character
    assert read_corpus((str(path),), "latin-1").text == "0\n1\n" * 99
    path.write_bytes("Ü\x1b[0m".encode("latin-1") * 9)  # colours of a terminal
    assert read_corpus((str(path),), "latin-1").text == "Ü\x1b[0m" * 9
    path.write_bytes((GERMAN + "\x1f").encode() * 9)
    assert read_corpus((str(path),)).text == (GERMAN + "\x1f") * 9
    path.write_bytes(GERMAN.encode())  # one symbol per byte
    assert "WÃ¼rde" in read_corpus((str(path),), "latin-1").text


CUT_OFF = "It is cut off within its last character. Give the whole file."


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    "data, asked, said",
    [
        ("Grü".encode()[:-1], "utf-8", f"{LATIN_1}Add `--encoding latin-1`, or give the whole file if it is cut off."),
        (GERMAN.encode("latin-1"), "utf-16", f"has byte 0x0a at position 88. {LATIN_1}Use `--encoding latin-1`."),
        (("Grüße an alle, schön. " * 9).encode("latin-1"), "utf-16", f"position 2. {LATIN_1}Use `--encoding latin-1`."),
        (RUSSIAN.encode()[:-3], "utf-8", CUT_OFF),
        (RUSSIAN.encode("utf-16")[:-1], "utf-16", CUT_OFF),
        (b"\x00\x61\x00", "utf-16-be", f"has byte 0x00 at position 2. {CUT_OFF}"),
        ("人人生而自由".encode("gb18030")[:-1], "gb18030", CUT_OFF),
        (RUSSIAN.encode("utf-16")[:-1], "utf-8", "It looks like utf-16. Add `--encoding utf-16`."),
        (f"{RUSSIAN}\udcff{RUSSIAN}".encode(errors="surrogateescape"), "utf-8", "It looks like utf-8 with damaged "),
        (bytes([0xFE, 0, 1, 2, 0x81, 0xFF]), "utf-8", f"has byte 0xfe at position 0. {UNKNOWN}add the encoding that "),
        (
            b"\0\xd8" + RUSSIAN.encode("utf-16-le"),
            "utf-16-le",
            f"{UNKNOWN}use the encoding that it was saved in, like `--encoding cp850`",
        ),
        (rb"a\ud800", "unicode_escape", "has half of a surrogate pair. It looks like utf-8. Use `--encoding utf-8`."),
        (RUSSIAN.encode("utf-16-be"), "utf-8", f"control characters, such as '\\x00'. {UNKNOWN}add the encoding that "),
    ],
)
def test_what_is_cut_off_or_damaged_or_no_text(data, asked, said, tmp_path):
    assert said in refusal(tmp_path, data, encoding=asked)


def test_the_command_refuses_nonsense_in_one_line(tmp_path):
    (tmp_path / "text").write_bytes((GERMAN * 40).encode("latin-1"))
    done = command("train", "text", "--encoding", "utf-16", "--run", "run", "--steps", 1, *SMALL, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"file 'text' {ALIKE}{LATIN_1}Use `--encoding latin-1`.\n")


def test_a_run_keeps_its_encoding(tmp_path):
    """Resumed and looked at, a run reads its text as it began."""
    (tmp_path / "greek.txt").write_bytes(("Ένα μήλο την ημέρα. " * 200).encode("iso8859-7"))
    train = ("train", "greek.txt", "--encoding", "iso8859-7", "--run", "run", "--steps", 1, *SMALL)
    assert command(*train, cwd=tmp_path).returncode == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["settings"]["encoding"] == "iso8859-7" and "μ" in settings["symbols"]
    assert command("train", "--resume", "run", "--steps", 2, cwd=tmp_path).returncode == 0
    assert command("truncation", "run", "--ks", 1, "--window", 8, "--streams", 2, cwd=tmp_path).returncode == 0
    (tmp_path / "greek.txt").write_bytes("Ένα".encode("utf-16"))
    said = command("truncation", "run", cwd=tmp_path)
    assert said.returncode == 2 and "If the text of 'run' has moved" in said.stderr
    assert "byte 0xff at position 0. If" in said.stderr and "--encoding" not in said.stderr  # a run keeps its own
