"""The content of messages: texts to weigh, images and audio to count, in the parts of OpenAI's and Anthropic's APIs."""

from __future__ import annotations

import base64
import binascii

import msgspec

from extproc.inspection.json import decode
from extproc.inspection.request import Prompt
from extproc.tokens import estimate_encoded_tokens

UNKNOWN_AUDIO_SECONDS = 60.0
"""What audio behind a URL is taken to last."""
_COMPRESSED_BYTES_PER_SECOND = 4000.0
"""32 kbit/s, about the least that speech is compressed to: a recording is rather shorter than counted."""
_WAV_HEADER_BYTES = 44

_IMAGES = frozenset({"image", "image_url", "input_image"})
_AUDIOS = frozenset({"input_audio", "audio_url"})


class _Audio(msgspec.Struct):
    data: str = ""


class _Part(msgspec.Struct):
    """One part or block; which of these it has depends on its type."""

    type: str = "text"
    text: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()


_AUDIO = msgspec.json.Decoder(_Audio)
_CONTENT = msgspec.json.Decoder(str | list[_Part] | None)
_PARTS = msgspec.json.Decoder(list[_Part])
_TEXT = msgspec.json.Decoder(str | None)
_QUOTE, _BRACKET = b'"['
_NEARLY_ALL = 0.95
_MAX_DEPTH = 8
"""Blocks within blocks: a tool's result may hold blocks, and nothing known nests deeper than that."""


class Tally(msgspec.Struct, gc=False):
    """What a prompt holds, added up piece by piece; texts are JSON strings, schemas any other JSON the model reads."""

    texts: list[msgspec.Raw] = []
    schemas: list[msgspec.Raw] = []
    images: int = 0
    audio_seconds: float = 0.0

    def prompt(
        self, body: bytes, *, overhead_tokens: int, messages: int, opening: int | None, tools: int = 0
    ) -> Prompt:
        """All of it.

        Args:
            body: what all of it was read from.
            opening: with how many texts the prompt begins (None: all).
        """
        texts = self.texts
        size_bytes = sum(map(len, texts)) - 2 * len(texts) + sum(map(len, self.schemas))
        return Prompt(
            size_bytes=size_bytes,
            tokens=self._tokens(body, size_bytes) + overhead_tokens,
            overhead_tokens=overhead_tokens,
            texts=(*texts, *self.schemas),
            opening=tuple(texts[:opening]),
            messages=messages,
            tools=tools,
            images=self.images,
            audio_seconds=self.audio_seconds,
        )

    def try_text(self, raw: msgspec.Raw) -> bool:
        """Add a JSON string; False, and nothing is added, when it is none."""
        if not raw or memoryview(raw)[0] != _QUOTE:
            return False
        self.texts.append(raw)
        return True

    def add_text(self, raw: msgspec.Raw, at: str) -> None:
        """Add a JSON string, or null.

        Raises:
            RequestError: it is something else.
        """
        if not self.try_text(raw) and raw:
            decode(raw, _TEXT, at)

    def add_json(self, raw: msgspec.Raw) -> None:
        """Add any JSON that the model reads as it is: a tool, its arguments, a schema."""
        if raw:
            self.schemas.append(raw)

    def add_content(self, raw: msgspec.Raw, at: str, depth: int = 0) -> None:
        """Add text, parts, or null.

        Raises:
            RequestError: it is something else.
        """
        if self.try_text(raw) or not raw:
            return
        if memoryview(raw)[0] != _BRACKET:
            decode(raw, _CONTENT, at)
        elif depth < _MAX_DEPTH:
            parts: list[_Part] = decode(raw, _PARTS, at)
            for number, part in enumerate(parts):
                self._add_part(part, f"{at}[{number}]", depth)
        else:
            self.add_json(raw)

    def _tokens(self, body: bytes, size_bytes: int) -> int:
        if size_bytes >= _NEARLY_ALL * len(body):
            # What stands between the texts weighs next to nothing then, and they need not be put together.
            return estimate_encoded_tokens(body, size_bytes)
        return estimate_encoded_tokens(b"".join(self.texts + self.schemas), quotes=2 * len(self.texts))

    def _add_part(self, part: _Part, at: str, depth: int) -> None:
        if part.type in _IMAGES:
            self.images += 1
        elif part.type in _AUDIOS:
            self.audio_seconds += _audio_seconds(part.input_audio, f"{at}.input_audio")
        self.add_text(part.text, f"{at}.text")
        self.add_text(part.thinking, f"{at}.thinking")
        self.add_json(part.input)
        if part.content:
            self.add_content(part.content, f"{at}.content", depth + 1)


def _audio_seconds(raw: msgspec.Raw, at: str) -> float:
    if not raw:
        return UNKNOWN_AUDIO_SECONDS
    data = decode(raw, _AUDIO, at).data
    size = len(data) * 3 // 4
    return size / (_wav_bytes_per_second(data) or _COMPRESSED_BYTES_PER_SECOND)


def _wav_bytes_per_second(data: str) -> float:
    """Of uncompressed sound: rate times channels times width, as a decoder reads them; 0.0 for anything else."""
    try:
        head = base64.b64decode(data[: _WAV_HEADER_BYTES * 4 // 3 + 4 & ~3])
    except (binascii.Error, ValueError):
        return 0.0
    if len(head) < _WAV_HEADER_BYTES or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return 0.0
    channels, rate, bits = (int.from_bytes(head[a:b], "little") for a, b in ((22, 24), (24, 28), (34, 36)))
    is_plausible = 1 <= channels <= 8 and 4000 <= rate <= 192_000 and bits in (8, 16, 24, 32)
    return channels * rate * bits / 8 if is_plausible else 0.0
