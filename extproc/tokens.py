"""How big a text is: prompt tokens from bytes, without a tokenizer.

Words cost a token per 4 bytes (English measures 4.7 with cl100k), punctuation and digits one per 2, everything outside
ASCII one per 1.5; text without spaces (base64, minified JSON, hashes) one per 1.5 throughout, because tokenizers
split it finely. Errs upwards: routing a prompt to a larger cluster than it needs costs less than the reverse.
"""

from __future__ import annotations

import string

_WORD_BYTES = 4.0
_SYMBOL_BYTES = 2.0
_DENSE_BYTES = 1.5
_DENSE_SPACE_SHARE = 1 / 20
_SHORT_BYTES = 32
_WORD_CHARACTERS = (string.ascii_letters + " \n\t").encode()
_BEYOND_ASCII = bytes(range(128, 256))


def estimate_tokens(text: str) -> int:
    """Estimated tokens of a text; linear in its size, 0 only for the empty text."""
    data = text.encode("utf-8", "surrogatepass")
    if not data:
        return 0
    beyond_ascii = len(data) - len(data.translate(None, _BEYOND_ASCII))
    words = len(data) - len(data.translate(None, _WORD_CHARACTERS))
    symbols = len(data) - beyond_ascii - words
    spaces = data.count(b" ") + data.count(b"\n") + data.count(b"\t")
    is_dense = len(data) > _SHORT_BYTES and spaces < len(data) * _DENSE_SPACE_SHARE
    word_bytes, symbol_bytes = (_DENSE_BYTES, _DENSE_BYTES) if is_dense else (_WORD_BYTES, _SYMBOL_BYTES)
    return int(words / word_bytes + symbols / symbol_bytes + beyond_ascii / _DENSE_BYTES) + 1
