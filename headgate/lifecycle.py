"""One process from start to its last open call: policy, servers in order, a signal, drain, stop in reverse."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from headgate.admin import admin_application
from headgate.errors import PolicyError, SettingsError
from headgate.health import Health
from headgate.http import HttpServer
from headgate.logs import FIELDS, configure_logs
from headgate.loop_lag import LoopLag
from headgate.metrics import Metrics
from headgate.policy.model import MAX_BODY_BYTES, Policy
from headgate.policy.watch import PolicyFile
from headgate.record import RecordFeed
from headgate.reflection import Reflection
from headgate.settings import Settings, read_settings
from headgate.transport import ConnectionAge, Server, Service
from headgate.transport.event_loop import run
from headgate.transport.grpcio import GrpcioServer
from headgate.transport.lean import LeanServer
from headgate.transport.tls import Tls

EXIT_USAGE = 64
"""The policy or a setting cannot be used (sysexits.h EX_USAGE)."""
EXIT_UNAVAILABLE = 69
"""An address cannot be listened on (sysexits.h EX_UNAVAILABLE)."""
_MESSAGE_MARGIN_BYTES = 256 * 1024
_log = logging.getLogger("headgate")


@dataclass(frozen=True, slots=True)
class Listener:
    """gRPC services on one address.

    Attributes:
        tls: None for what the process's settings say.
        max_age: of a connection; None for no limit.
    """

    name: str
    address: str
    services: Sequence[Service]
    tls: Tls | None = None
    max_age: ConnectionAge | None = None


class Part(Protocol):
    """What runs beside the listeners from start to stop: an HTTP server, a watcher."""

    async def start(self) -> str:
        """Begin; return the address, or whatever it is known by, for the log."""

    async def stop(self) -> None:
        """End."""


class Process:
    """What every Headgate process has: settings, a policy file, metrics, health, finished requests and an admin side.

    Attributes:
        parts: what services have to run beside themselves.

    Raises:
        PolicyError: the policy file is wrong.
        OSError: it cannot be read.
    """

    def __init__(self, settings: Settings, *health_names: str) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.health = Health(*health_names)
        self.records = RecordFeed()
        self.parts: list[Part] = []
        self.metrics_path = "/metrics"
        self.policy = PolicyFile(settings.policy_path)
        self.policy.on_change(self._show_policy)
        self.policy.on_refused(self._show_refused)

    async def run(self, listeners: Sequence[Listener], parts: Sequence[Part], drain: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT; then say so to health checks, call `drain`, and finish what is open.

        Raises:
            OSError: an address cannot be listened on.
            SettingsError: a file of the TLS settings cannot be used.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        lag = LoopLag(self.metrics.loop_lag_seconds.observe)
        lag.start()
        async with AsyncExitStack() as stack:
            stack.callback(lag.stop)
            pages = admin_application(self.metrics, self.health, self.policy.current, metrics_path=self.metrics_path)
            admin = HttpServer(self.settings.admin_address, pages)
            addresses = {"admin": await stack.enter_async_context(_running(admin))}
            for index, part in enumerate([*parts, *self.parts]):
                addresses[f"http{index or ''}"] = await stack.enter_async_context(_running(part))
            for listener in listeners:
                addresses[listener.name] = await stack.enter_async_context(self._serving(listener))
            watching = asyncio.create_task(self.policy.watch(stopping))
            addresses = {name: address for name, address in addresses.items() if address}
            _log.info("serving", extra={FIELDS: addresses | {"policy_version": self.policy.current().version}})
            await stopping.wait()
            self.health.shut_down()
            drain()
            await watching
        _log.info("stopped")

    @asynccontextmanager
    async def _serving(self, listener: Listener) -> AsyncIterator[str]:
        # Envoy sends a whole buffered body in one message, and a reload may allow larger ones.
        max_message_bytes = MAX_BODY_BYTES + _MESSAGE_MARGIN_BYTES
        services = [*listener.services, self.health.service()]
        services += Reflection(services).services()
        kind = LeanServer if self.settings.transport == "lean" else GrpcioServer
        tls = listener.tls or self.settings.tls
        server: Server = kind(
            listener.address, services, max_message_bytes=max_message_bytes, tls=tls, max_age=listener.max_age
        )
        address = await server.start()
        try:
            yield address
        finally:
            await server.drain(self.settings.grace_seconds)

    def _show_policy(self, policy: Policy) -> None:
        self.metrics.set_policy_version(policy.version)
        self.metrics.policy_reload_failed.set(0)

    def _show_refused(self, error: PolicyError) -> None:
        del error
        self.metrics.policy_reload_errors.inc()
        self.metrics.policy_reload_failed.set(1)


@asynccontextmanager
async def _running(part: Part) -> AsyncIterator[str]:
    address = await part.start()
    try:
        yield address
    finally:
        await part.stop()


def run_process(serve: Callable[[Settings], Coroutine[None, None, None]], **flags: str | float | None) -> int:
    """Read the settings and serve; what prevents a start becomes a message and an exit code, never a traceback."""
    try:
        settings = read_settings(flags)
        configure_logs(settings.log_level)
        run(serve(settings))
    except PolicyError as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        count = len(error.problems)
        print(f"the policy cannot be used ({count} problem{'s' if count > 1 else ''}):\n{problems}", file=sys.stderr)
        return EXIT_USAGE
    except SettingsError as error:
        print(f"a setting cannot be used: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        if error.filename is not None:
            print(f"the policy cannot be read: {error.filename}: {error.strerror}", file=sys.stderr)
            return EXIT_USAGE
        print(f"cannot start: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0
