"""A reversible tokenizer without a vocabulary file: every id spells out the bytes it stands for.

A token is a run of up to five letters with the space before it, a run of spaces, or one other byte. English comes
out near four bytes a token, JSON, digits and base64 below one and a half, which is how real tokenizers behave.
Knows no Triton, so that three processes (before, in and after the engine) agree on ids without sharing state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

END_ID = 256
PAD_ID = 257

_SPACES = 258  # and above it, the number of spaces
_MAX_SPACES = 64
_WORD_FLAG = 1 << 27
_SPACE_FLAG = 1 << 26
_CAPITAL_FLAG = 1 << 25
_LETTER_BITS = 5
_MAX_LETTERS = 5
_PIECE = re.compile(
    rb" ?[A-Za-z][a-z]{0,%d}| {2,%d}(?= [A-Za-z])| {2,%d}|." % (_MAX_LETTERS - 1, _MAX_SPACES, _MAX_SPACES), re.DOTALL
)


def encode(text: bytes) -> list[int]:
    """Cut UTF-8 text into token ids; `decode` gives the same text back."""
    return [_id_of(piece) for piece in _PIECE.findall(text)]


def decode(ids: Iterable[int]) -> str:
    """Spell out token ids. END and PAD are silent; what this tokenizer never makes reads as U+FFFD."""
    return b"".join(_bytes_of(token_id) for token_id in ids).decode(errors="replace")


@lru_cache(maxsize=65536)
def _id_of(piece: bytes) -> int:
    if len(piece) > 1 and piece.isspace():
        return _SPACES + len(piece)
    letters = piece.lstrip(b" ")
    if not letters.isalpha():
        return piece[0]
    packed = _WORD_FLAG
    if letters != piece:
        packed |= _SPACE_FLAG
    if letters[:1].isupper():
        packed |= _CAPITAL_FLAG
    for position, letter in enumerate(letters.lower()):
        packed |= (letter - ord("a") + 1) << (_LETTER_BITS * position)
    return packed


@lru_cache(maxsize=65536)
def _bytes_of(token_id: int) -> bytes:
    if 0 <= token_id < END_ID:
        return bytes([token_id])
    if token_id in (END_ID, PAD_ID):
        return b""
    if 2 <= token_id - _SPACES <= _MAX_SPACES:
        return b" " * (token_id - _SPACES)
    letters = _letters_of(token_id)
    if not token_id & _WORD_FLAG or not letters.isalpha():
        return "\N{REPLACEMENT CHARACTER}".encode()
    word = letters.capitalize() if token_id & _CAPITAL_FLAG else letters
    return b" " + word if token_id & _SPACE_FLAG else word


def _letters_of(token_id: int) -> bytes:
    codes = [(token_id >> (_LETTER_BITS * position)) & 31 for position in range(_MAX_LETTERS)]
    return bytes(code + ord("a") - 1 for code in codes if code)
