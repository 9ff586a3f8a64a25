"""Triton's own gRPC API: whether it and the cluster's models are ready, which models an ensemble runs, their queues."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Collection, Iterator
from typing import Any

from extproc.servers.page import NoReading
from extproc.servers.reading import Reading
from headgate.policy.model import MetricsAddress

_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    # One that comes back is noticed within a second or so; by default gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_MAX_STEPS = 100
"""An ensemble may name another one; no repository is deeper."""


async def load_client() -> Any:
    """The client's module. It takes a while, and numpy's memory, which a sidecar that asks no Triton is spared."""
    return await asyncio.to_thread(importlib.import_module, "tritonclient.grpc.aio")


class TritonServer:
    """One server, asked over one connection; the caller bounds the time."""

    def __init__(self, place: MetricsAddress) -> None:
        self._address = place.address
        self._client: Any = None
        self._errors: type[Exception] = NoReading
        self._connecting = asyncio.Lock()
        self._queued: dict[str, tuple[int, int]] = {}
        self._steps: dict[str, frozenset[str]] = {}

    async def read(self, models: Collection[str]) -> Reading:
        """What it says of these models, all of them when none is named.

        Raises:
            NoReading: it gave no answer.
        """
        await self._connect()
        try:
            return await self._read(models)
        except self._errors as error:
            self._steps.clear()
            raise NoReading(str(error)) from error

    async def inner_models(self, models: Collection[str]) -> frozenset[str]:
        """These models and all that ensembles among them run; asked once for each.

        Raises:
            NoReading: it gave no answer.
        """
        await self._connect()
        try:
            return await self._inner_models(models)
        except self._errors as error:
            raise NoReading(str(error)) from error

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> None:
        async with self._connecting:
            if self._client is None:
                module = await load_client()
                self._errors = module.InferenceServerException
                self._client = module.InferenceServerClient(self._address, channel_args=_CHANNEL)

    async def _read(self, models: Collection[str]) -> Reading:
        inner = await self._inner_models(models)
        ready = await self._ready_models()
        is_ready = await self._client.is_server_ready() and inner <= ready
        if not is_ready:
            # It may come back with other steps.
            self._steps.clear()
        statistics = await self._client.get_inference_statistics()
        return Reading(is_ready=is_ready, queue_seconds=self._mean_queue_seconds(statistics, inner))

    async def _ready_models(self) -> set[str]:
        index = await self._client.get_model_repository_index()
        return {entry.name for entry in index.models if entry.state == "READY"}

    async def _inner_models(self, models: Collection[str]) -> frozenset[str]:
        found: set[str] = set()
        unknown = list(models)
        while unknown and len(found) < _MAX_STEPS:
            name = unknown.pop()
            if name not in found:
                found.add(name)
                unknown += await self._ensemble_steps(name)
        return frozenset(found)

    async def _ensemble_steps(self, model: str) -> frozenset[str]:
        known = self._steps.get(model)
        if known is not None:
            return known
        if model not in await self._ready_models():
            # Only a loaded model has a configuration.
            return frozenset()
        answer = await self._client.get_model_config(model)
        steps = frozenset(step.model_name for step in answer.config.ensemble_scheduling.step)
        self._steps[model] = steps
        return steps

    def _mean_queue_seconds(self, statistics: Any, models: Collection[str]) -> float | None:
        """Over the requests since the last look; each model of an ensemble has a queue of its own, and they add up."""
        means = list(self._queue_means(statistics, models))
        return sum(means) if means else None

    def _queue_means(self, statistics: Any, models: Collection[str]) -> Iterator[float]:
        for model in statistics.model_stats:
            if models and model.name not in models:
                continue
            key = f"{model.name}/{model.version}"
            queue = model.inference_stats.queue
            count, nanoseconds = self._queued.get(key, (queue.count, queue.ns))
            self._queued[key] = (queue.count, queue.ns)
            if queue.count > count:
                yield (queue.ns - nanoseconds) / (queue.count - count) / 1e9
