"""How Envoy's calls reach a service: a gRPC server reduced to handlers over bytes.

A service is a name and its methods; a handler sees message bytes and a way to answer, nothing of HTTP/2 or grpcio.
Each kind of method exists twice: as a coroutine, and, for the data path, as plain calls that need no task per stream.
Implementations: `headgate.transport.lean` and, as the reference, `headgate.transport.grpcio`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol


class StatusCode(IntEnum):
    """The gRPC status codes used here (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
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
"""Answers one message. Cancelled when the peer leaves or its deadline passes."""
StreamHandler = Callable[[AsyncIterator[bytes], Send], Coroutine[Any, Any, None]]
"""Reads messages until the peer half-closes, answers through `Send`.

Returning ends the stream with status OK. The peer's cancellation arrives as the end of the messages or as
`asyncio.CancelledError`, either at any time: release what is held in `finally`.
"""

FunctionHandler = Callable[[bytes], bytes]
"""Answers one message at once, on the event loop: it may not block."""
Metadata = tuple[tuple[str, str | bytes], ...]
"""What the peer sent beside its messages, in its order; names in lower case, values of `-bin` names as bytes."""


class Call(Protocol):
    """The transport's side of one stream, given to its conversation. On the event loop only."""

    @property
    def metadata(self) -> Metadata:
        """What the peer sent with the call."""

    @property
    def timeout_seconds(self) -> float | None:
        """The peer's deadline, counted from the call's start; the transport enforces it."""

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for an answer: False once finished, cancelled, too late or disconnected."""

    def send(self, message: bytes) -> None:
        """Answer with a message. Without effect when nobody waits for it any more.

        It never blocks: what the peer does not take is kept, and a call that keeps too much is cut.
        """

    @property
    def is_congested(self) -> bool:
        """Whether the peer is slower than what was sent: wait for `on_drained` before sending much more."""

    def on_drained(self, listener: Callable[[], None]) -> None:
        """Call `listener`, once, when the congestion is over; not when the call is cancelled before."""

    def finish(self, code: StatusCode = StatusCode.OK, message: str = "") -> None:
        """End the stream; what was sent before arrives first. A second time has no effect."""

    def pause(self) -> None:
        """Take no more messages for now; those already on their way (a window full at most) still arrive."""

    def resume(self) -> None:
        """Take messages again."""

    def on_cancelled(self, listener: Callable[[], object]) -> None:
        """Call `listener`, once, if the peer gives up before the stream is finished, even after its half-close."""


class Conversation(Protocol):
    """A handler's side of one stream: plain calls, so that a stream needs no task.

    A method that raises `RpcError` ends the stream with that status; any other exception ends it with UNKNOWN.
    """

    def receive(self, message: bytes) -> None:
        """Take the peer's next message."""

    def ended(self) -> None:
        """No message comes any more. Called exactly once, and last, whatever happens to the stream.

        `Call.is_open` tells a half-close (True: the stream is still to be finished) from the rest.
        """


OpenConversation = Callable[[Call], Conversation]
"""Called once a stream, at its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One gRPC service: its full name and its methods by bare name.

    Attributes:
        unary: one message for one, by a coroutine.
        streams: any number of messages either way, by a coroutine.
        functions: one message for one, answered at once.
        conversations: any number of messages either way, by plain calls.
    """

    name: str
    unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
    functions: Mapping[str, FunctionHandler] = field(default_factory=dict)
    conversations: Mapping[str, OpenConversation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionAge:
    """How long a connection may last, so that clients spread anew over servers that came later.

    Attributes:
        seconds: after this (give or take a tenth) it takes no new calls, and ends with its last one.
        grace_seconds: after this much more it is cut.
    """

    seconds: float
    grace_seconds: float


class Server(Protocol):
    """A gRPC server on one address (`host:port`, port 0 for any free one, or `unix:/path`)."""

    async def start(self) -> str:
        """Listen; return the address actually bound."""

    async def drain(self, grace_seconds: float) -> None:
        """Take no new calls, give open ones this long to end by themselves, then close.

        Calls a peer has sent before it could know are served or refused, as the implementation sees fit.
        """
