"""The transport on grpcio's asyncio server: the reference implementation."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import grpc
import grpc.aio

from headgate.transport import (
    ConnectionAge,
    Conversation,
    FunctionHandler,
    Metadata,
    OpenConversation,
    RpcError,
    Service,
    StatusCode,
    StreamHandler,
    UnaryHandler,
)
from headgate.transport.tls import Tls, server_context

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_MILLISECONDS = 2**31 - 1
_log = logging.getLogger("headgate.transport")


class GrpcioServer:
    """Serves any number of services on one address.

    Args:
        tls: None for plain HTTP/2.
        max_age: of each connection; None for no limit.
    """

    def __init__(
        self,
        address: str,
        services: Iterable[Service],
        *,
        max_message_bytes: int,
        tls: Tls | None = None,
        max_age: ConnectionAge | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        # Envoy opens a stream for every request it holds: nothing here may bound their number.
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),
                # A peer that died without FIN is noticed, and its leases released, within half a minute.
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
                *_age_options(max_age),
            ]
        )
        self._server.add_generic_rpc_handlers(tuple(_generic_handler(service) for service in services))

    async def start(self) -> str:
        """Listen; return the address actually bound.

        Raises:
            OSError: somebody else listens there, or the address is not of this machine.
            SettingsError: a file of the TLS settings cannot be used.
        """
        credentials = _credentials(self._tls) if self._tls is not None else None
        try:
            if credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {_reason(self._address)}") from error
        await self._server.start()
        if self._address.startswith("unix:"):
            return self._address
        return f"{self._address.rpartition(':')[0]}:{port}"

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new calls, give open ones this long to end by themselves, then close."""
        await self._server.stop(grace_seconds)


def _age_options(age: ConnectionAge | None) -> list[tuple[str, int]]:
    if age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", min(int(age.seconds * 1000), _LONGEST_MILLISECONDS)),
        ("grpc.max_connection_age_grace_ms", min(int(age.grace_seconds * 1000), _LONGEST_MILLISECONDS)),
    ]


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    # gRPC tells only its own log what is wrong with a file.
    server_context(tls)
    authority = tls.client_authority.read_bytes() if tls.client_authority is not None else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


def _reason(address: str) -> str:
    """Why an address cannot be listened on: gRPC tells only its own log, a socket of ours tells us."""
    host, _, port = address.rpartition(":")
    is_path, is_v6 = address.startswith("unix:"), host.startswith("[")
    with socket.socket(socket.AF_UNIX if is_path else socket.AF_INET6 if is_v6 else socket.AF_INET) as probe:
        try:
            probe.bind(port if is_path else (host.strip("[]"), int(port)))
        except OSError as error:
            return str(error.strerror)
    return "gRPC cannot use it"


def _generic_handler(service: Service) -> grpc.GenericRpcHandler:
    unary = {name: _unary(handler) for name, handler in service.unary.items()}
    unary |= {name: _unary(_awaitable(handler)) for name, handler in service.functions.items()}
    streams = {name: _stream(handler) for name, handler in service.streams.items()}
    streams |= {name: _conversation(opener) for name, opener in service.conversations.items()}
    methods = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in unary.items()}
    methods |= {name: grpc.stream_stream_rpc_method_handler(call) for name, call in streams.items()}
    return grpc.method_handlers_generic_handler(service.name, methods)


def _awaitable(handler: FunctionHandler) -> UnaryHandler:
    async def call(request: bytes) -> bytes:
        return handler(request)

    return call


def _unary(handler: UnaryHandler) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
    async def call(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await handler(request)
        except RpcError as error:
            await context.abort(_CODES[error.code], error.message)
            raise

    return call


def _stream(
    handler: StreamHandler,
) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], Awaitable[None]]:
    async def call(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        try:
            await handler(messages, context.write)
        except RpcError as error:
            await context.abort(_CODES[error.code], error.message)

    return call


def _conversation(
    opener: OpenConversation,
) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], Awaitable[None]]:
    async def call(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        talk = _GrpcioCall(context)
        reading = asyncio.create_task(talk.read(messages, opener))
        try:
            code, message = await talk.write(context)
        except asyncio.CancelledError:
            talk.cancel()
            raise
        finally:
            reading.cancel()
            talk.end_conversation()
        if code is not StatusCode.OK or message:
            await context.abort(_CODES[code], message)

    return call


class _GrpcioCall:
    """A conversation's side of a grpcio stream: what it sends is queued, and written by the stream's own coroutine."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self.metadata: Metadata = tuple((key, value) for key, value in context.invocation_metadata() or ())
        self.timeout_seconds: float | None = context.time_remaining()
        self.is_open = True
        self._conversation: Conversation | None = None
        self._messages: deque[bytes] = deque()
        self._something_to_do = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._status = (StatusCode.OK, "")
        self._cancelled: Callable[[], object] | None = None
        self._drained: Callable[[], None] | None = None

    @property
    def is_congested(self) -> bool:
        return bool(self._messages)

    def send(self, message: bytes) -> None:
        if self.is_open:
            self._messages.append(message)
            self._something_to_do.set()

    def finish(self, code: StatusCode = StatusCode.OK, message: str = "") -> None:
        if self.is_open:
            self.is_open = False
            self._cancelled = None
            self._status = (code, message)
            self._something_to_do.set()

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def on_cancelled(self, listener: Callable[[], object]) -> None:
        self._cancelled = listener

    def on_drained(self, listener: Callable[[], None]) -> None:
        self._drained = listener

    async def read(self, messages: AsyncIterator[bytes], opener: OpenConversation) -> None:
        """Hand every message to the conversation, then say that there are no more."""
        self._guard(lambda: self._open(opener))
        async for message in messages:
            conversation = self._conversation
            if conversation is None:
                return
            self._guard(lambda taker=conversation, taken=message: taker.receive(taken))  # type: ignore[misc]
            await self._may_read.wait()
        self.end_conversation()

    async def write(self, context: grpc.aio.ServicerContext) -> tuple[StatusCode, str]:
        """Write what the conversation sends until it has finished; returns the status it finished with."""
        while self.is_open or self._messages:
            await self._something_to_do.wait()
            self._something_to_do.clear()
            while self._messages:
                await context.write(self._messages[0])
                self._messages.popleft()
            drained, self._drained = self._drained, None
            if drained is not None:
                drained()
        return self._status

    def cancel(self) -> None:
        """The peer has given up."""
        self.is_open = False
        listener, self._cancelled = self._cancelled, None
        self.end_conversation()
        if listener is not None:
            listener()

    def end_conversation(self) -> None:
        """Say that no message comes any more, once."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._guard(conversation.ended)

    def _open(self, opener: OpenConversation) -> None:
        self._conversation = opener(self)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RpcError as error:
            self.finish(error.code, error.message)
        except Exception:  # noqa: BLE001  (a handler's bug ends its call)
            _log.exception("a handler failed")
            self.finish(StatusCode.UNKNOWN, "the handler failed")
