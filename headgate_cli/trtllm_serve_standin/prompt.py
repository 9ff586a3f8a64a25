"""What a request asks of the model, as bytes that can be counted and compared; knows no request format.

The token rule: one token per four bytes of UTF-8, rounded up, at least one. A prompt given as token ids counts one
token for each id. No vocabulary is needed, and a client can predict the count.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt as the engine sees it: four bytes a token."""

    content: bytes

    @classmethod
    def from_text(cls, text: str) -> Prompt:
        """Build a prompt from text."""
        return cls(text.encode())

    @classmethod
    def from_token_ids(cls, token_ids: Sequence[int]) -> Prompt:
        """Build a prompt from token ids, each of which must fit in 32 bits."""
        return cls(array("I", token_ids).tobytes())

    @property
    def tokens(self) -> int:
        """How many tokens the prompt counts for."""
        return max(1, -(-len(self.content) // BYTES_PER_TOKEN))

    @property
    def checksum(self) -> int:
        """A number that depends on nothing but the content, the same in every process."""
        return zlib.crc32(self.content)

    def block_keys(self, tokens_per_block: int) -> list[int]:
        """Return one key per full block; a key stands for that block and all before it.

        The last token is never part of a full block: the engine has to compute at least one.
        """
        size = tokens_per_block * BYTES_PER_TOKEN
        count = (self.tokens - 1) // tokens_per_block
        keys: list[int] = []
        for start in range(0, count * size, size):
            before = keys[-1] if keys else 0
            keys.append(hash((before, self.content[start : start + size])))
        return keys
