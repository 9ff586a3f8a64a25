"""The standard gRPC health service (grpc.health.v1), so that Envoy and orchestrators can ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from google.protobuf.message import DecodeError

from headgate.pb import health_pb2 as pb
from headgate.transport import RpcError, Send, Service, StatusCode

_LOOK_SECONDS = 0.5
"""How long a watcher may be behind a service that has become ready, or is no longer."""


class Health:
    """Serving states by service name; "" and `readiness` stand for all of them, `liveness` for the process itself."""

    def __init__(self, *services: str) -> None:
        self._services = {"", "readiness", *services}
        self._is_ready: dict[str, Callable[[], bool]] = {}
        self._is_serving = True
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether new work is welcome."""
        return self._is_serving

    def follow(self, service: str, is_ready: Callable[[], bool]) -> None:
        """From now on a service is serving only while `is_ready()` says so, whenever somebody checks."""
        self._is_ready[service] = is_ready

    def shut_down(self) -> None:
        """From now on nothing but `liveness` is serving."""
        self._is_serving = False
        self._changed.set()

    def service(self) -> Service:
        """What a transport serves."""
        return Service(name="grpc.health.v1.Health", unary={"Check": self._check}, streams={"Watch": self._watch})

    async def _check(self, request: bytes) -> bytes:
        status = self._status(_name(request))
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            raise RpcError(StatusCode.NOT_FOUND, "unknown service")
        return pb.HealthCheckResponse(status=status).SerializeToString()

    async def _watch(self, requests: AsyncIterator[bytes], send: Send) -> None:
        request = await anext(requests, None)
        if request is None:
            return
        name, told = _name(request), None
        while True:
            # Read first: while an answer is sent the process may shut down.
            is_last, status = not self._is_serving, self._status(name)
            if status != told:
                await send(pb.HealthCheckResponse(status=status).SerializeToString())
                told = status
            if is_last:
                return
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass  # what a service follows cannot say when it changes

    def _status(self, name: str) -> pb.HealthCheckResponse.ServingStatus:
        if name == "liveness":
            return pb.HealthCheckResponse.SERVING
        if name not in self._services:
            return pb.HealthCheckResponse.SERVICE_UNKNOWN
        is_ready = self._is_ready.get(name)
        is_serving = self._is_serving and (is_ready is None or is_ready())
        return pb.HealthCheckResponse.SERVING if is_serving else pb.HealthCheckResponse.NOT_SERVING


def _name(request: bytes) -> str:
    try:
        return pb.HealthCheckRequest.FromString(request).service
    except DecodeError:
        raise RpcError(StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest") from None
