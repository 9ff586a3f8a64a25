"""HTTP/2 frames as bytes: their numbers, their header, and the faults a peer can make (RFC 9113, 4, 6 and 7).

Knows no state: whether a frame is allowed now is for `connection` to say.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
DEFAULT_WINDOW_BYTES: Final = 65_535
MAX_WINDOW_BYTES: Final = 2**31 - 1
DEFAULT_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = 2**24 - 1
MAX_STREAM_ID: Final = 2**31 - 1
PRIORITY_BYTES: Final = 5

# Plain integers: every frame is compared with them.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER: Final = Struct(">IBI")
"""Length and type in one number (`length << 8 | type`), flags, stream."""
UINT32: Final = Struct(">I")
SETTING: Final = Struct(">HI")


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """What one side tells the other about itself (RFC 9113, 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):  # noqa: N818  (RFC 9113 calls it a connection error, and ConnectionError is taken)
    """Raised when the peer broke a rule in a way that ends the connection."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code.name}: {message}")


class StreamFault(Exception):  # noqa: N818  (the counterpart of ConnectionFault)
    """Raised when the peer broke a rule in a way that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode, message: str) -> None:
        self.stream_id = stream_id
        self.code = code
        self.message = message
        super().__init__(f"stream {stream_id}: {code.name}: {message}")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def without_padding(payload: bytes) -> bytes:
    """The content of a frame with the PADDED flag.

    Raises:
        ConnectionFault: there is more padding than frame.
    """
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - padding]


def dependency(payload: bytes) -> int:
    """The stream that the fields of a priority name.

    Raises:
        ConnectionFault: there is no room for them.
    """
    if len(payload) < PRIORITY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a priority of a wrong size")
    return int.from_bytes(payload[:4], "big") & MAX_STREAM_ID
