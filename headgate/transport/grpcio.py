"""The transport on grpcio's asyncio server: the reference implementation."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import grpc
import grpc.aio

from headgate.transport import RpcError, Service, StreamHandler, UnaryHandler

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioServer:
    """Serves any number of services on one address."""

    def __init__(self, address: str, services: Iterable[Service], *, max_message_bytes: int) -> None:
        self._address = address
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
            ]
        )
        self._server.add_generic_rpc_handlers(tuple(_generic_handler(service) for service in services))

    async def start(self) -> str:
        """Listen; return the address actually bound.

        Raises:
            OSError: somebody else listens there, or the address is not of this machine.
        """
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {_reason(self._address)}") from error
        await self._server.start()
        if self._address.startswith("unix:"):
            return self._address
        return f"{self._address.rpartition(':')[0]}:{port}"

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new calls, give open ones this long to end by themselves, then close."""
        await self._server.stop(grace_seconds)


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
    methods = {name: grpc.unary_unary_rpc_method_handler(_unary(handler)) for name, handler in service.unary.items()}
    methods |= {
        name: grpc.stream_stream_rpc_method_handler(_stream(handler)) for name, handler in service.streams.items()
    }
    return grpc.method_handlers_generic_handler(service.name, methods)


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
