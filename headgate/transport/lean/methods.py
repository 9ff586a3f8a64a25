"""Services as conversations by path: what a connection looks calls up in."""

from __future__ import annotations

from collections.abc import Iterable

from headgate.transport import Call, Conversation, FunctionHandler, OpenConversation, RpcError, Service, StatusCode
from headgate.transport.lean.coroutines import open_stream, open_unary


def methods_of(services: Iterable[Service]) -> dict[str, OpenConversation]:
    """Every method of every service, by path."""
    methods: dict[str, OpenConversation] = {}
    for service in services:
        of_service: dict[str, OpenConversation] = dict(service.conversations)
        of_service |= {name: open_function(handler) for name, handler in service.functions.items()}
        of_service |= {name: open_unary(handler) for name, handler in service.unary.items()}
        of_service |= {name: open_stream(handler) for name, handler in service.streams.items()}
        methods |= {f"/{service.name}/{name}": opener for name, opener in of_service.items()}
    return methods


def open_function(handler: FunctionHandler) -> OpenConversation:
    """A function as a conversation."""

    def open_conversation(call: Call) -> Conversation:
        return _FunctionCall(handler, call)

    return open_conversation


class _FunctionCall:
    """Answers the one message when the peer has said that there is no other."""

    __slots__ = ("_call", "_handler", "_message")

    def __init__(self, handler: FunctionHandler, call: Call) -> None:
        self._handler = handler
        self._call = call
        self._message: bytes | None = None

    def receive(self, message: bytes) -> None:
        if self._message is not None:
            raise RpcError(StatusCode.INTERNAL, "more than one message to a method that takes one")
        self._message = message

    def ended(self) -> None:
        call = self._call
        if not call.is_open:
            return
        if self._message is None:
            raise RpcError(StatusCode.INTERNAL, "no message to a method that takes one")
        call.send(self._handler(self._message))
        call.finish()
