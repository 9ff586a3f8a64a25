"""The ports of the local stack, all on loopback."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Self

from headgate.errors import HeadgateError


class PortTaken(HeadgateError):  # noqa: N818  (says what happened)
    """Raised when another program listens on a port the stack needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port for everything that listens; the defaults are those of the shipped policy and Envoy configuration."""

    envoy: int = 10000
    envoy_admin: int = 9901
    extproc: int = 9002
    ratelimit: int = 8081
    ratelimit_http: int = 8080
    admin: int = 9090
    triton_http: int = 8000
    triton_grpc: int = 8001
    triton_metrics: int = 8002
    trtllm_standard: int = 8010
    trtllm_fast: int = 8011

    @classmethod
    def free(cls) -> Self:
        """Ports nobody listens on now."""
        with ExitStack() as sockets:
            taken = {field.name: _bind(sockets, 0) for field in fields(cls)}
        return cls(**taken)

    def check_free(self) -> None:
        """See that nobody listens on any of them.

        Raises:
            PortTaken: naming every port that is in use.
        """
        in_use: list[str] = []
        with ExitStack() as sockets:
            for field in fields(self):
                port = getattr(self, field.name)
                try:
                    _bind(sockets, port)
                except OSError:
                    in_use.append(f"{port} ({field.name.replace('_', ' ')})")
        if in_use:
            raise PortTaken(f"in use by another program: port {', '.join(in_use)}. Stop it, or pass --free-ports.")

    def in_policy(self, text: str) -> str:
        """The shipped policy with these ports in place of the default ones."""
        default = Ports()
        for name in ("triton_http", "triton_grpc", "triton_metrics", "trtllm_standard", "trtllm_fast"):
            text = text.replace(f"127.0.0.1:{getattr(default, name)}", f"127.0.0.1:\0{getattr(self, name)}")
        return text.replace("\0", "")


def _bind(sockets: ExitStack, port: int) -> int:
    listener = sockets.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return int(listener.getsockname()[1])
