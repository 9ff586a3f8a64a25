"""Services that decide nothing: Envoy's ext_proc and rate limit methods, answered with constants.

The same answers as `bench/peers/grpcgo`, without parsing a message: what is left is the transport.
"""

from __future__ import annotations

from headgate.transport import Call, Conversation, Service

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
RATE_LIMIT = "envoy.service.ratelimit.v3.RateLimitService"
_OK = b"\x08\x01"
# The first byte of a ProcessingRequest is the tag of the part of the exchange it is about; the answer says "go on".
_ANSWERS = {0x12: b"\x0a\x00", 0x22: b"\x1a\x00", 0x3A: b"\x32\x00"}


class NoopConversation:
    """Waves every message through."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def receive(self, message: bytes) -> None:
        """Answer at once."""
        self._call.send(_ANSWERS[message[0]])

    def ended(self) -> None:
        """Nothing is held."""
        self._call.finish()


def open_noop(call: Call) -> Conversation:
    """Open a conversation that decides nothing."""
    return NoopConversation(call)


def should_rate_limit(message: bytes) -> bytes:
    """Never over the limit."""
    del message
    return _OK


def noop_services() -> list[Service]:
    """Both services."""
    return [
        Service(name=EXT_PROC, conversations={"Process": open_noop}),
        Service(name=RATE_LIMIT, functions={"ShouldRateLimit": should_rate_limit}),
    ]
