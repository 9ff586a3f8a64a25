"""Configuration from a control plane: one stream of the aggregated discovery service, kept open and opened again.

Every answer is the whole configuration; one that is wrong is refused, and what was in force stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from headgate.errors import PolicyError, SettingsError
from headgate.logs import FIELDS
from ratelimit.config import load_configuration
from ratelimit.discovery_wire import METHOD, Question, decode_answer, encode_question
from ratelimit.matching import Configuration
from ratelimit.xds_settings import XdsSettings, XdsTls

_log = logging.getLogger(__name__)


class ControlPlane:
    """A part of the process.

    Args:
        adopt: called with every configuration that comes into force.
        on_load: called with True for an answer that was taken, False for one that is refused.

    Raises:
        SettingsError: a TLS file cannot be read.
    """

    def __init__(
        self,
        settings: XdsSettings,
        adopt: Callable[[Configuration], None],
        on_load: Callable[[bool], None],
        *,
        merge_domains: bool = False,
    ) -> None:
        self._settings = settings
        self._adopt = adopt
        self._on_load = on_load
        self._merge_domains = merge_domains
        self._credentials = None if settings.tls is None else _credentials(settings.tls)
        self._taken = Question(settings.node_id, settings.node_metadata)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Begin to ask; nothing waits for the answer."""
        self._task = asyncio.create_task(self._ask())
        return self._settings.address

    async def stop(self) -> None:
        """Ask no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _ask(self) -> None:
        pause = self._settings.retry_seconds
        while True:
            has_answered = False
            try:
                async with self._channel() as channel:
                    async for has_answered in self._answers(channel):  # noqa: B007  (read below)
                        pass
                _log.warning("the control plane has ended its stream")
            except (grpc.aio.AioRpcError, ValueError) as error:
                text = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                _log.error("the control plane gives no answer", extra={FIELDS: {"error": text}})
            pause = self._settings.retry_seconds if has_answered else pause
            await asyncio.sleep(pause * (1 + random.uniform(-1, 1) * self._settings.jitter))  # noqa: S311  (no secret)
            pause = min(2 * pause, self._settings.longest_retry_seconds)

    async def _answers(self, channel: grpc.aio.Channel) -> Any:
        call = channel.stream_stream(METHOD)(metadata=tuple(self._settings.headers.items()))
        await call.write(encode_question(self._taken))
        while (message := await call.read()) is not grpc.aio.EOF:
            answer = decode_answer(message)
            problem = "a resource is no RateLimitConfig" if answer.files is None else self._load(answer.files)
            self._on_load(not problem)
            if not problem:
                self._taken = replace(self._taken, version=answer.version)
            await call.write(encode_question(replace(self._taken, nonce=answer.nonce, problem=problem)))
            yield True

    def _load(self, files: Sequence[tuple[str, bytes]]) -> str:
        """Why these files cannot be used; empty when they are in force now."""
        try:
            configuration = load_configuration(files, merge_domains=self._merge_domains)
        except PolicyError as error:
            problems = [str(problem) for problem in error.problems]
            _log.error("the control plane's limits are refused", extra={FIELDS: {"problems": problems}})
            return "; ".join(problems)
        _log.info("new rate limits are in force", extra={FIELDS: {"domains": sorted(configuration.domains)}})
        self._adopt(configuration)
        return ""

    def _channel(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [("grpc.keepalive_time_ms", 30_000)]
        if self._settings.max_message_bytes is not None:
            options.append(("grpc.max_receive_message_length", self._settings.max_message_bytes))
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._settings.address, options)
        if self._settings.tls is not None and self._settings.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._settings.tls.server_name))
        return grpc.aio.secure_channel(self._settings.address, self._credentials, options)


def _credentials(tls: XdsTls) -> grpc.ChannelCredentials:
    authority, key, certificate = (_read(path) for path in (tls.authority, tls.key, tls.certificate))
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise SettingsError(f"CONFIG_GRPC_XDS_*_TLS_*: {error}") from error
