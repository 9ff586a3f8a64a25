"""Audio in messages: counted in seconds, as far as its size tells."""

from __future__ import annotations

import base64
import struct

import msgspec
import pytest

from extproc.inspection.parts import UNKNOWN_AUDIO_SECONDS, Tally
from extproc.inspection.request import RequestError


def wav(seconds: float, *, rate: int = 16_000, channels: int = 1, bits: int = 16, claimed: int | None = None) -> bytes:
    per_second = rate * channels * bits // 8
    data = bytes(int(per_second * seconds))
    form = struct.pack("<HHIIHH", 1, channels, rate, claimed or per_second, channels * bits // 8, bits)
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data


def seconds_of(part: dict[str, object]) -> float:
    tally = Tally()
    tally.add_content(msgspec.Raw(msgspec.json.encode([part])), "messages[0].content")
    return tally.audio_seconds


def recording(data: bytes, kind: str = "wav") -> dict[str, object]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


@pytest.mark.parametrize("data", [wav(2.0), wav(2.0, rate=44_100, channels=2), wav(2.0, bits=8)])
def test_plain_sound_lasts_as_long_as_its_rate_and_size_say(data: bytes) -> None:
    assert seconds_of(recording(data)) == pytest.approx(2.0, rel=0.01)


def test_what_a_header_claims_beyond_that_does_not_make_it_shorter() -> None:
    assert seconds_of(recording(wav(2.0, claimed=2**31))) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("data", [b"ID3" + bytes(8000), wav(0.25, rate=100), wav(1.0)[:40], bytes(8003)])
def test_compressed_and_unreadable_sound_counts_as_compressed_as_speech_gets(data: bytes) -> None:
    assert seconds_of(recording(data, "mp3")) == pytest.approx(len(data) / 4000, abs=0.01)


@pytest.mark.parametrize("data", ["", "!!!", "UklGR", "\u00e9" * 60])
def test_data_that_is_no_base64_counts_by_its_size(data: str) -> None:
    assert seconds_of({"type": "input_audio", "input_audio": {"data": data}}) <= 0.05


@pytest.mark.parametrize("part", [{"type": "audio_url", "audio_url": {"url": "https://x"}}, {"type": "input_audio"}])
def test_audio_of_unknown_size_has_a_fixed_length(part: dict[str, object]) -> None:
    assert seconds_of(part) == UNKNOWN_AUDIO_SECONDS


def test_audio_of_another_type_is_refused() -> None:
    with pytest.raises(RequestError) as raised:
        seconds_of({"type": "input_audio", "input_audio": {"data": 7}})

    assert raised.value.param == "messages[0].content[0].input_audio.data"
