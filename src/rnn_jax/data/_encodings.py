"""Decode the bytes of a file, or say which encoding they look like."""

import codecs
import unicodedata
from collections import Counter

from .._reporting.errors import InputError
from .._reporting.files import is_unicode

UTF_8 = "utf-8"
MARKS = {  # byte order marks; UTF-32 comes first, because its mark begins with that of UTF-16
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32-le": (codecs.BOM_UTF32_LE,),
    "utf-32-be": (codecs.BOM_UTF32_BE,),
    "utf-16-le": (codecs.BOM_UTF16_LE,),
    "utf-16-be": (codecs.BOM_UTF16_BE,),
}
WESTERN = {"latin-1": "Western European", "cp1252": "Windows, Western European"}
CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\b\t\n\v\f\r\x1b"]  # those that texts do not have
ASCII_LETTERS = bytes([*range(65, 91), *range(97, 123)])
ASCII = bytes([*b"\t\n\r", *range(32, 127)])  # printed
NOT_ASCII = bytes(range(128, 256))
CUT_OFF = ("unexpected end of data", "truncated data", "incomplete multibyte sequence")  # Python's reasons
SAMPLE = 2**20  # the bytes at the start of a file that guesses look at


class WrongEncoding(InputError):
    """The bytes of a file are not in the encoding that was asked for."""

    def __init__(self, wrong: str, advice: str) -> None:
        """Say what is wrong, then what to do; `wrong` alone is for a command that cannot take another encoding."""
        super().__init__(f"{wrong} {advice}")
        self.wrong = wrong


def text_of(data: bytes, encoding: str, label: str) -> str:
    """The text in a file.

    Args:
        data: the contents of the file.
        encoding: the name of its encoding, as `codecs.lookup` spells it.
        label: what messages call the file.

    Returns:
        The text.

    Raises:
        WrongEncoding: if `data` is not in `encoding`, or plainly looks like another one.
    """
    must = f"FILE must be {encoding} text, but {label}"
    try:
        text = data.decode(encoding)
    except UnicodeError as error:  # not every codec tells the position
        got = f"byte 0x{data[error.start]:02x} at position {error.start}" if hasattr(error, "start") else str(error)
        cut_off = getattr(error, "reason", "") in CUT_OFF
        raise WrongEncoding(f"{must} has {got}.", _advice(data, encoding, cut_off)) from error
    if wrong := _nonsense(data, text, encoding):
        raise WrongEncoding(f"{must} {wrong}.", _advice(data, encoding))
    return text


def _nonsense(data: bytes, text: str, encoding: str) -> str:
    """Why `text`, decoded from `data` without an error, is no text; empty if it may be one."""
    seen, unusual = (text, CONTROLS[:1]) if encoding == UTF_8 else (text[:SAMPLE], CONTROLS)
    controls = {char: seen.count(char) for char in unusual}
    if 100 * sum(controls.values()) > len(seen):
        return f"has {sum(controls.values()):,} control characters, such as {max(controls, key=controls.__getitem__)!r}"
    if encoding != UTF_8 and not is_unicode(text):
        return "has half of a surrogate pair"
    if data.startswith(MARKS.get(encoding, ())):
        return ""
    if mark := _mark(data):
        return f"begins with the byte order mark of {mark}"
    if encoding not in MARKS:
        return ""
    order = _pairs_with_zero(data)
    if order is not None and data.decode(order, "replace") != text:
        return "has the two bytes of each character in the other order"
    return "has the same kind of bytes in even and in odd places" if _places_are_alike(data) else ""


def _advice(data: bytes, encoding: str, cut_off: bool = False) -> str:
    """What a file that is not in `encoding` looks like, and what to do."""
    add = "Add" if encoding == UTF_8 else "Use"
    looks = _looks_plainly_like(data, encoding)
    if looks is not None:
        return f"It looks like {looks}. {add} `--encoding {looks}`."
    is_utf_8 = _is_mostly_utf_8(data)
    has_controls = any(char.encode() in data for char in CONTROLS)
    is_wide = encoding in MARKS and has_controls  # what has the zero bytes and others of UTF-16, but is damaged
    if cut_off and (is_utf_8 if encoding == UTF_8 else is_wide or encoding not in MARKS):
        return "It is cut off within its last character. Give the whole file."
    if is_utf_8 and not is_wide:
        return "It looks like utf-8 with damaged characters. Give an undamaged file."
    western = next((one for one in WESTERN if one != encoding and _is_text(data, one)), None)
    if not has_controls and _is_mostly_other_letters(data):
        return (
            f"It looks like an older encoding of letters that are not Latin. {add} the one that it was saved in, "
            "like `--encoding cp1251` for Russian or `--encoding gb18030` for Chinese."
        )
    if western is None:
        example = "utf-16-le" if has_controls and encoding not in MARKS else "cp850"
        return (
            "It is damaged, not text, or in an encoding that cannot be guessed. Give another file, or "
            f"{add.lower()} the encoding that it was saved in, like `--encoding {example}`."
        )
    looks = f"It looks like {western} ({WESTERN[western]}), or another encoding of one byte per character."
    if cut_off and encoding == UTF_8:
        return f"{looks} {add} `--encoding {western}`, or give the whole file if it is cut off."
    return f"{looks} {add} `--encoding {western}`."


def _looks_plainly_like(data: bytes, encoding: str) -> str | None:
    """The encoding, other than `encoding`, that `data` is in: it has its mark, its zero bytes, or is UTF-8."""
    mark = _mark(data)
    if mark is not None and encoding.startswith(mark) and data.startswith(MARKS[encoding]):
        return None
    without_mark = next((one for one in ("utf-32-le", "utf-32-be", UTF_8) if _is_text(data, one)), None)
    looks = mark or _pairs_with_zero(data) or without_mark
    return None if looks == encoding else looks


def _mark(data: bytes) -> str | None:
    """The encoding whose byte order mark `data` begins with."""
    return next((one for one, marks in MARKS.items() if data.startswith(marks)), None)


def _pairs_with_zero(data: bytes) -> str | None:
    """The UTF-16 that `data`, without a mark, looks like: the same byte is 0 in at least half of the pairs."""
    high, low = data[0::2].count(0), data[1::2].count(0)
    if len(data) < 8 or len(data) % 2 or max(high, low) * 4 < len(data) or min(high, low) * 10 > max(high, low):
        return None
    return "utf-16-be" if high > low else "utf-16-le"


def _places_are_alike(data: bytes) -> bool:
    """Whether even and odd places hold the same bytes, as in UTF-8 and in text of one byte per character.

    They share at most a third of their bytes in UTF-16 and UTF-32, even in Chinese, and more than half in the others.
    Zero bytes, which only the former have, do not count. ASCII in both places is alike too: a sentence that is repeated
    may have other letters in even places than in odd ones.
    """
    data = data[:SAMPLE]
    if len(data) >= 32 and all(8 * len(half.translate(None, ASCII)) < len(half) for half in (data[0::2], data[1::2])):
        return True
    common = Counter(data[0::2]) & Counter(data[1::2])
    common[0] = 0
    return len(data) >= 32 and 4 * common.total() > len(data)


def _is_mostly_utf_8(data: bytes) -> bool:
    """Whether more characters beyond ASCII can be decoded as UTF-8 than not."""
    text = data[:SAMPLE].decode(UTF_8, "replace")
    beyond = sum(char > "\x7f" for char in text)
    return beyond > 2 * text.count("\ufffd")


def _is_mostly_other_letters(data: bytes) -> bool:
    """Whether more bytes are beyond ASCII than are ASCII letters, as in no Western European language."""
    data = data[:SAMPLE]
    without, other = len(data.translate(None, ASCII_LETTERS)), len(data.translate(None, NOT_ASCII))
    return len(data) - other > len(data) - without


def _is_text(data: bytes, encoding: str) -> bool:
    """Whether `data` is text in `encoding` whose only control characters are white space."""
    try:
        text = data.decode(encoding)
    except UnicodeError:
        return False
    return not any(unicodedata.category(char) == "Cc" and char not in "\t\n\v\f\r" for char in set(text))
