"""Every golden vector of the reference, over the wire, on both stores.

The vectors lie beside the repository and are none of its files; without them this fails. Where Headgate answers
differently on purpose, `vector_differences.yaml` says so and why.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import redis.asyncio
import yaml
from google.protobuf import json_format

from headgate.errors import PolicyError
from headgate.pb import ratelimit_pb2 as pb
from headgate.transport import Server
from ratelimit.assembly import answering, cached, redis_store
from ratelimit.charges import Charge, Charging, Store, Tally
from ratelimit.config import load_configuration
from ratelimit.listing import listing
from ratelimit.memory import MemoryStore
from ratelimit.service import RateLimitService
from ratelimit.settings import RatelimitSettings, read_ratelimit_settings
from ratelimit.stats import Stats

VECTORS = Path(__file__).parents[3] / "shared" / "conformance" / "ratelimit" / "vectors.json"
DIFFERENCES = Path(__file__).with_name("vector_differences.yaml")
YAML_LIBRARY = "error loading config file: "
SETTINGS = {
    "shadow_mode": "SHADOW_MODE",
    "quota_mode": "QUOTA_MODE",
    "headers": "LIMIT_RESPONSE_HEADERS_ENABLED",
    "dynamic_metadata": "RESPONSE_DYNAMIC_METADATA",
    "local_cache_size": "LOCAL_CACHE_SIZE_IN_BYTES",
    "stop_increment_when_overlimit": "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
    "cache_key_prefix": "CACHE_KEY_PREFIX",
}
Json = dict[str, Any]


def scenarios() -> list[Any]:
    # Read while collecting: a missing file ends the whole run with an error, never with a skip.
    return [pytest.param(scenario, id=scenario["name"]) for scenario in json.loads(VECTORS.read_text())["scenarios"]]


@dataclass
class Differences:
    """The chosen differences of one scenario on one store, each to be met."""

    answers: dict[int, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, backend: str) -> "Differences":
        found = cls()
        for difference in yaml.safe_load(DIFFERENCES.read_text()):
            assert difference["reason"]
            if difference["scenario"] == name and backend in difference["stores"]:
                found.answers |= difference.get("answers", {})
                found.counters |= difference.get("counters", {})
        return found


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Switched:
    """Redis, or an address where nobody listens: the vectors' `redis_down`."""

    up: Store
    down: Store
    clock: Clock
    is_down: bool = False

    async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
        return await (self.down if self.is_down else self.up).charge(charges, charging)

    async def close(self) -> None:
        await self.up.close()
        await self.down.close()


@dataclass
class Running:
    """Our server with one scenario's files and settings, and a client."""

    ask: grpc.aio.UnaryUnaryMultiCallable
    clock: Clock
    stats: Stats
    switch: Switched | None

    async def step(self, step: Json) -> Json:
        self.clock.now = step["t"]
        if self.switch is not None:
            self.switch.is_down = step["redis_down"]
        try:
            answer = await self.ask(request(step["request"]))
        except grpc.aio.AioRpcError as error:
            return {"error": error.details()}
        return readable(pb.RateLimitResponse.FromString(answer))


def settings_of(scenario: Json, port: int) -> RatelimitSettings:
    variables = {SETTINGS[name]: str(value) for name, value in scenario["settings"].items()}
    return read_ratelimit_settings(
        variables
        # Windows pass by the scenario's clock; Redis must not forget them by its own.
        | {"EXPIRATION_JITTER_MAX_SECONDS": "1000000000", "REDIS_URL": f"127.0.0.1:{port}"}
        # The machine under test is shared: a reply that is late must not look like no reply.
        | {"HEADGATE_RATELIMIT_REDIS_DEADLINE": "10s"}
    )


def files_of(scenario: Json) -> list[tuple[str, bytes]]:
    return [(file["name"], file["yaml"].encode()) for file in scenario["files"]]


def request(step: Json) -> bytes:
    message = pb.RateLimitRequest(domain=step["domain"], hits_addend=step["hits_addend"])
    for asked in step["descriptors"]:
        descriptor = message.descriptors.add()
        for key, value in asked["entries"]:
            descriptor.entries.add(key=key, value=value)
        if "hits_addend" in asked:
            descriptor.hits_addend.value = asked["hits_addend"]
        if "limit" in asked:
            descriptor.limit.requests_per_unit = asked["limit"]["requests_per_unit"]
            descriptor.limit.unit = asked["limit"]["unit"]
    return message.SerializeToString()


def readable(message: pb.RateLimitResponse) -> Json:
    """An answer in the words of the vectors."""
    answer: Json = {
        "overall_code": pb.RateLimitResponse.Code.Name(message.overall_code),
        "statuses": [readable_status(status) for status in message.statuses],
    }
    if message.response_headers_to_add:
        answer["response_headers_to_add"] = [[header.key, header.value] for header in message.response_headers_to_add]
    if message.HasField("dynamic_metadata"):
        answer["dynamic_metadata"] = json_format.MessageToDict(message.dynamic_metadata)
    assert not message.raw_body
    return answer


def readable_status(status: pb.RateLimitResponse.DescriptorStatus) -> Json:
    shown: Json = {
        "code": pb.RateLimitResponse.Code.Name(status.code),
        "limit_remaining": status.limit_remaining,
    }
    if status.HasField("current_limit"):
        limit = status.current_limit
        shown["current_limit"] = {
            "requests_per_unit": limit.requests_per_unit,
            "unit": pb.RateLimitResponse.RateLimit.Unit.Name(limit.unit),
        }
        if limit.name:
            shown["current_limit"]["name"] = limit.name
    if status.HasField("duration_until_reset"):
        shown["duration_until_reset_s"] = status.duration_until_reset.seconds
    return shown


@asynccontextmanager
async def running(scenario: Json, backend: str, port: int, new_server: Callable[..., Server]) -> AsyncIterator[Running]:
    clock, settings = Clock(), settings_of(scenario, port)
    stats = Stats(settings.near_limit_ratio)
    memory = MemoryStore(clock)
    switch = None
    if backend == "redis":
        unused = replace(settings, redis=replace(settings.redis, addresses=(("127.0.0.1", 1),)))
        switch = Switched(redis_store(settings, memory, clock), redis_store(unused, memory, clock), clock)
    configuration = load_configuration(files_of(scenario), merge_domains=scenario["merge_domain_config"])
    stats.service.config_load_success += 1
    service = RateLimitService(
        configuration=lambda _: configuration,
        store=cached(settings, switch or memory, clock),
        store_waits=switch is not None,
        stats=stats,
        answering=answering(settings),
    )
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            yield Running(ask, clock, stats, switch)
    finally:
        await server.drain(1)
        if switch is not None:
            await switch.close()


@pytest.mark.parametrize("scenario", [each for each in scenarios() if each.values[0]["expect_load_error"]])
def test_a_configuration_the_reference_refuses_is_refused_in_its_words(scenario: Json) -> None:
    expected = scenario["expect_load_error"]

    with pytest.raises(PolicyError) as raised:
        load_configuration(files_of(scenario), merge_domains=scenario["merge_domain_config"])

    texts = [f"{problem.file}: {problem.message}" for problem in raised.value.problems]
    file, library, _ = expected.partition(YAML_LIBRARY)
    assert any(text.startswith(file + library) for text in texts) if library else expected in texts


@pytest.mark.parametrize("scenario", [each for each in scenarios() if not each.values[0]["expect_load_error"]])
def test_the_configuration_is_listed_as_the_reference_lists_it(scenario: Json) -> None:
    configuration = load_configuration(files_of(scenario), merge_domains=scenario["merge_domain_config"])

    assert sorted(listing(configuration)) == sorted(filter(None, scenario["expect_rlconfig_lines_unordered"] or []))


def keys_and_counts(steps: Sequence[Json]) -> dict[str, int]:
    """What the reference's commands leave in Redis, were nothing to expire."""
    counts: dict[str, int] = {}
    for step in steps:
        for command in step["expect"].get("redis_commands") or []:
            name, key, *number = command.split(" ") if command.count(" ") < 3 else split_command(command)
            if name == "INCRBY":
                counts[key] = counts.get(key, 0) + int(number[0])
    return {key: count for key, count in counts.items() if count}


def split_command(command: str) -> list[str]:
    name, _, rest = command.partition(" ")
    key, _, number = rest.rpartition(" ")
    return [name, key, number]


def played() -> Iterator[Any]:
    for each in scenarios():
        if each.values[0]["expect_load_error"] is None:
            yield each


@pytest.mark.parametrize("backend", ["memory", "redis"])
@pytest.mark.parametrize("scenario", list(played()))
async def test_requests_are_answered_and_counted_as_the_reference_does(
    scenario: Json, backend: str, redis_port: int, redis_is_empty: None, new_server: Callable[..., Server]
) -> None:
    chosen = Differences.of(scenario["name"], backend)
    async with running(scenario, backend, redis_port, new_server) as service:
        for at, step in enumerate(scenario["steps"]):
            assert await service.step(step) == chosen.answers.get(at, expected_answer(step)), f"step {at}"
        counted = {name: count for name, count in service.stats.named() if count}
    counted.pop("ratelimit_server.ShouldRateLimit.total_requests", None)
    expected = (scenario["expect_nonzero_stats"] or {}) | chosen.counters
    assert counted == {name: count for name, count in expected.items() if count}
    if backend == "redis":
        assert await stored(redis_port) == keys_and_counts(scenario["steps"])


def expected_answer(step: Json) -> Json:
    expected = {key: value for key, value in step["expect"].items() if key != "redis_commands"}
    if "dynamic_metadata" in expected:
        expected["dynamic_metadata"] = json.loads(json.dumps(expected["dynamic_metadata"]), parse_int=float)
    return expected


async def stored(port: int) -> dict[str, int]:
    """All counts in Redis."""
    async with redis.asyncio.Redis(port=port, decode_responses=True) as client:
        keys = [key async for key in client.scan_iter()]
        return {key: int(await client.get(key)) for key in keys}


def test_every_chosen_difference_is_one() -> None:
    steps = {each.values[0]["name"]: each.values[0] for each in scenarios()}
    for difference in yaml.safe_load(DIFFERENCES.read_text()):
        scenario = steps[difference["scenario"]]
        assert difference.get("answers") or difference.get("counters")
        for at, answer in difference.get("answers", {}).items():
            assert answer != expected_answer(scenario["steps"][at])
        for name, count in difference.get("counters", {}).items():
            assert count != scenario["expect_nonzero_stats"].get(name, 0)
