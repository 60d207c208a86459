"""What one symbol of a text is: a character, or a byte of its UTF-8."""

from typing import Literal

import numpy as np

Vocab = Literal["character", "byte"]  # also what messages call one symbol
BYTES = "".join(map(chr, range(256)))  # the symbols of `byte`: all, so that no text holds another one


def spelled(vocab: str, text: str) -> str:
    """The symbols of a text, one after the other; a byte is the character from U+0000 to U+00FF with its number."""
    return text.encode(errors="surrogatepass").decode("latin-1") if vocab == "byte" else text


def as_text(vocab: str, symbols: str) -> str:
    """The text that is `spelled` so. Bytes that are not UTF-8 become U+FFFD."""
    return symbols.encode("latin-1").decode(errors="replace") if vocab == "byte" else symbols


def bytes_per_character(tokens: np.ndarray) -> float:
    """How many bytes a character has on average in a text of these bytes."""
    num_characters = int(np.count_nonzero((tokens & 0xC0) != 0x80))  # the other bytes of a character are 10xxxxxx
    return tokens.size / max(num_characters, 1)


def how_to_encode(vocab: str) -> str:
    """How a program without this package makes tokens, in words."""
    if vocab == "byte":
        return "one for each byte of a text in UTF-8: its value"
    return "one for each character of a text: its position in symbols"
