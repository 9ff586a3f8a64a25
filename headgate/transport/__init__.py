"""How Envoy's calls reach a service: a gRPC server reduced to handlers over bytes.

A service is a name and its methods; a handler sees message bytes and a way to answer, nothing of HTTP/2 or grpcio.
Implementations: `headgate.transport.grpcio`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol


class StatusCode(IntEnum):
    """The gRPC status codes used here (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """Raised by a handler to end its call with a gRPC status other than OK."""

    def __init__(self, code: StatusCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code.name}: {message}")


Send = Callable[[bytes], Awaitable[None]]
UnaryHandler = Callable[[bytes], Awaitable[bytes]]
StreamHandler = Callable[[AsyncIterator[bytes], Send], Awaitable[None]]
"""Reads messages until the peer half-closes, answers through `Send`.

Returning ends the stream with status OK. The peer's cancellation arrives as the end of the messages or as
`asyncio.CancelledError`, either at any time: release what is held in `finally`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One gRPC service: its full name and its methods by bare name."""

    name: str
    unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)


class Server(Protocol):
    """A gRPC server on one address (`host:port`, port 0 for any free one, or `unix:/path`)."""

    async def start(self) -> str:
        """Listen; return the address actually bound."""

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new calls, give open ones this long to end by themselves, then close."""
