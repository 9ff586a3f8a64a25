"""How big a text is: prompt tokens from its bytes, without a tokenizer.

Every byte has a price by what it is: letters and white space a token per 4.5 bytes, capitals 0.6, digits, punctuation
and all beyond ASCII two thirds, the letters that random text has and words lack a whole one. So base64, hashes and
minified JSON count as finely as tokenizers split them, also in the midst of prose. Against cl100k and o200k the
estimate is never more than 1.5 times too low for prose, code, JSON, base64, digits, CJK and emoji; single letters one
by one come to 1.6, and no text to more than 4.5. It errs upwards elsewhere, most for runs of spaces.
"""

from __future__ import annotations

import string

_WORD_BYTES = 4.5
_CAPITAL, _SYMBOL, _BEYOND_ASCII, _RARE = 1, 2, 3, 4
_CAPITAL_TOKENS, _SYMBOL_TOKENS, _RARE_TOKENS = 0.6, 2 / 3, 1.0


def _kinds() -> bytes:
    """The kind of every byte; control characters are as rare as it gets."""
    kinds = bytearray([_RARE]) * 128 + bytearray([_BEYOND_ASCII]) * 128
    for characters, kind in (
        (string.ascii_lowercase + " \t\n\r", 0),
        (string.ascii_uppercase, _CAPITAL),
        (string.digits + string.punctuation, _SYMBOL),
        ("jqxzkv", _RARE),
    ):
        for character in characters.encode():
            kinds[character] = kind
    return bytes(kinds)


_KINDS = _kinds()


def estimate_tokens(text: str) -> int:
    """Estimated tokens of a text; linear in its size, 0 only for the empty text."""
    kinds = text.encode("utf-8", "surrogatepass").translate(_KINDS)
    if not kinds:
        return 0
    capitals, rare = kinds.count(_CAPITAL), kinds.count(_RARE)
    symbols = kinds.count(_SYMBOL) + kinds.count(_BEYOND_ASCII)
    words = len(kinds) - capitals - rare - symbols
    return int(words / _WORD_BYTES + capitals * _CAPITAL_TOKENS + symbols * _SYMBOL_TOKENS + rare * _RARE_TOKENS) + 1
