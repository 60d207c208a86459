"""Decode the bytes of a file, or say which encoding they look like."""

import codecs
import itertools
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator

from .._reporting.errors import InputError
from .._reporting.files import is_unicode
from ._pieces import SAMPLE, Pieces

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
IN_ONE_PIECE = ("idna", "punycode")  # Python's codecs that need the whole text


class WrongEncoding(InputError):
    """The bytes of a file are not in the encoding that was asked for."""

    def __init__(self, wrong: str, advice: str) -> None:
        """Say what is wrong, then what to do; `wrong` alone is for a command that cannot take another encoding."""
        super().__init__(f"{wrong} {advice}")
        self.wrong = wrong


class _Undecodable(Exception):
    """Why bytes cannot be decoded: the words after "has", and whether the last character is cut off."""

    def __init__(self, got: str, cut_off: bool) -> None:
        super().__init__(got)
        self.got, self.cut_off = got, cut_off


def decoded(data: Pieces, encoding: str) -> Iterator[str]:
    """The text of a file, in pieces.

    Args:
        data: the bytes of the file.
        encoding: the name of their encoding, as `codecs.lookup` spells it.

    Yields:
        The pieces of the text. They are text only when all have come without an error.

    Raises:
        WrongEncoding: if `data` is not in `encoding`, or plainly looks like another one.
    """
    must = f"FILE must be {encoding} text, but {data.label}"
    unusual = CONTROLS[:1] if encoding == UTF_8 else CONTROLS
    controls, num_seen, has_half = dict.fromkeys(unusual, 0), 0, False
    try:
        for text in _texts(data, encoding):
            seen = text if encoding == UTF_8 else text[: max(SAMPLE - num_seen, 0)]
            for char in unusual:
                controls[char] += seen.count(char)
            num_seen += len(seen)
            has_half = has_half or encoding != UTF_8 and not is_unicode(text)
            yield text
    except _Undecodable as error:
        raise WrongEncoding(f"{must} has {error.got}.", _advice(data, encoding, error.cut_off)) from error.__cause__
    if 100 * sum(controls.values()) > num_seen:
        most = max(controls, key=controls.__getitem__)
        wrong = f"has {sum(controls.values()):,} control characters, such as {most!r}"
    elif has_half:
        wrong = "has half of a surrogate pair"
    else:
        wrong = _nonsense(data, encoding)
    if wrong:
        raise WrongEncoding(f"{must} {wrong}.", _advice(data, encoding))


def _texts(data: Pieces, encoding: str, errors: str = "strict") -> Iterator[str]:
    """What a codec makes of the bytes, in pieces.

    Raises:
        _Undecodable: at the first byte that it cannot decode.
    """
    num_read, whole = 0, b""
    try:
        if encoding in IN_ONE_PIECE:
            whole = b"".join(data)
            yield whole.decode(encoding, errors)
            return
        decoder = codecs.getincrementaldecoder(_with_order(data, encoding))(errors)
        for piece in data:
            num_read += len(piece)
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):  # not every codec tells the position
            raise _Undecodable(str(error), cut_off=False) from error
        read = whole or error.object  # `object` ends where the last piece ends
        place = max(num_read - len(read), 0) + error.start
        got = f"byte 0x{read[error.start]:02x} at position {place}"
        raise _Undecodable(got, error.reason in CUT_OFF) from error


def _with_order(data: Pieces, encoding: str) -> str:
    """The codec for `encoding` in pieces: without a mark, Python decodes only whole files in the machine's order."""
    if encoding in ("utf-16", "utf-32") and not data.head.startswith(MARKS[encoding]):
        return f"{encoding}-{'le' if sys.byteorder == 'little' else 'be'}"
    return encoding


def _nonsense(data: Pieces, encoding: str) -> str:
    """Why `data`, which can be decoded, is no text in `encoding`; empty if it may be one."""
    if data.head.startswith(MARKS.get(encoding, ())):
        return ""
    if mark := _mark(data):
        return f"begins with the byte order mark of {mark}"
    if encoding not in MARKS:
        return ""
    order = _pairs_with_zero(data)
    if order is not None and not _is_same_text(data, encoding, order):
        return "has the two bytes of each character in the other order"
    return "has the same kind of bytes in even and in odd places" if _places_are_alike(data.head) else ""


def _is_same_text(data: Pieces, encoding: str, other: str) -> bool:
    """Whether two encodings make the same text of `data`."""
    if _with_order(data, encoding) == other:
        return True
    left = right = ""
    both = itertools.zip_longest(_texts(data, encoding), _texts(data, other, "replace"), fillvalue="")
    for more_left, more_right in both:
        left, right = left + more_left, right + more_right
        common = min(len(left), len(right))
        if left[:common] != right[:common]:
            return False
        left, right = left[common:], right[common:]
    return left == right


def _advice(data: Pieces, encoding: str, cut_off: bool = False) -> str:
    """What a file that is not in `encoding` looks like, and what to do."""
    add = "Add" if encoding == UTF_8 else "Use"
    looks = _looks_plainly_like(data, encoding)
    if looks is not None:
        return f"It looks like {looks}. {add} `--encoding {looks}`."
    is_utf_8 = _is_mostly_utf_8(data.head)
    has_controls = any(char.encode() in piece for piece in data for char in CONTROLS)
    is_wide = encoding in MARKS and has_controls  # what has the zero bytes and others of UTF-16, but is damaged
    if cut_off and (is_utf_8 if encoding == UTF_8 else is_wide or encoding not in MARKS):
        return "It is cut off within its last character. Give the whole file."
    if is_utf_8 and not is_wide:
        return "It looks like utf-8 with damaged characters. Give an undamaged file."
    western = next((one for one in WESTERN if one != encoding and _is_text(data, one)), None)
    if not has_controls and _is_mostly_other_letters(data.head):
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


def _looks_plainly_like(data: Pieces, encoding: str) -> str | None:
    """The encoding, other than `encoding`, that `data` is in: it has its mark, its zero bytes, or is UTF-8."""
    mark = _mark(data)
    if mark is not None and encoding.startswith(mark) and data.head.startswith(MARKS[encoding]):
        return None
    without_mark = next((one for one in ("utf-32-le", "utf-32-be", UTF_8) if _is_text(data, one)), None)
    looks = mark or _pairs_with_zero(data) or without_mark
    return None if looks == encoding else looks


def _mark(data: Pieces) -> str | None:
    """The encoding whose byte order mark `data` begins with."""
    return next((one for one, marks in MARKS.items() if data.head.startswith(marks)), None)


def _pairs_with_zero(data: Pieces) -> str | None:
    """The UTF-16 that `data`, without a mark, looks like: the same byte is 0 in at least half of the pairs."""
    high = low = size = 0
    for piece in data:
        zeros = piece[0::2].count(0), piece[1::2].count(0)
        high, low = high + zeros[size % 2], low + zeros[1 - size % 2]
        size += len(piece)
    if size < 8 or size % 2 or max(high, low) * 4 < size or min(high, low) * 10 > max(high, low):
        return None
    return "utf-16-be" if high > low else "utf-16-le"


def _places_are_alike(head: bytes) -> bool:
    """Whether even and odd places hold the same bytes, as in UTF-8 and in text of one byte per character.

    They share at most a third of their bytes in UTF-16 and UTF-32, even in Chinese, and more than half in the others.
    Zero bytes, which only the former have, do not count. ASCII in both places is alike too: a sentence that is repeated
    may have other letters in even places than in odd ones.
    """
    if len(head) >= 32 and all(8 * len(half.translate(None, ASCII)) < len(half) for half in (head[0::2], head[1::2])):
        return True
    common = Counter(head[0::2]) & Counter(head[1::2])
    common[0] = 0
    return len(head) >= 32 and 4 * common.total() > len(head)


def _is_mostly_utf_8(head: bytes) -> bool:
    """Whether more characters beyond ASCII can be decoded as UTF-8 than not."""
    text = head.decode(UTF_8, "replace")
    beyond = sum(char > "\x7f" for char in text)
    return beyond > 2 * text.count("\ufffd")


def _is_mostly_other_letters(head: bytes) -> bool:
    """Whether more bytes are beyond ASCII than are ASCII letters, as in no Western European language."""
    without, other = len(head.translate(None, ASCII_LETTERS)), len(head.translate(None, NOT_ASCII))
    return len(head) - other > len(head) - without


def _is_text(data: Pieces, encoding: str) -> bool:
    """Whether `data` is text in `encoding` whose only control characters are white space."""
    try:
        for text in _texts(data, encoding):
            if any(unicodedata.category(char) == "Cc" and char not in "\t\n\v\f\r" for char in set(text)):
                return False
    except _Undecodable:
        return False
    return True
