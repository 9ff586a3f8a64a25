"""The peer's SETTINGS (RFC 9113, 6.5): checked, and carried out on what goes out."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.transport.lean.frames import (
    DEFAULT_FRAME_BYTES,
    LARGEST_FRAME_BYTES,
    MAX_WINDOW_BYTES,
    SETTING,
    ConnectionFault,
    ErrorCode,
    Setting,
)
from headgate.transport.lean.outbox import Outbox
from headgate.transport.lean.stream import Stream


def apply_settings(payload: bytes, outbox: Outbox, streams: Mapping[int, Stream]) -> None:
    """Take over every setting in its order; those we have no use for are ignored.

    Raises:
        ConnectionFault: one has a value it cannot have.
    """
    if len(payload) % SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "settings of a wrong size")
    for name, value in SETTING.iter_unpack(payload):
        match name:
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "push can be on or off")
            case Setting.MAX_FRAME_SIZE:
                _set_frame_size(value, outbox)
            case Setting.INITIAL_WINDOW_SIZE:
                _set_window(value, outbox, streams)
            case _:
                pass


def _set_frame_size(size_bytes: int, outbox: Outbox) -> None:
    if not DEFAULT_FRAME_BYTES <= size_bytes <= LARGEST_FRAME_BYTES:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame size that cannot be")
    outbox.max_frame_bytes = size_bytes


def _set_window(size_bytes: int, outbox: Outbox, streams: Mapping[int, Stream]) -> None:
    """Every open stream's window moves with the initial one, below zero too (RFC 9113, 6.9.2)."""
    if size_bytes > MAX_WINDOW_BYTES:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window that is too large")
    change = size_bytes - outbox.initial_window
    outbox.initial_window = size_bytes
    for stream in streams.values():
        if stream.send_window + change > MAX_WINDOW_BYTES:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflows")
        stream.send_window += change
