import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import headgate.policy
from headgate.pb import ratelimit_pb2 as pb
from headgate.policy.load import load_policy
from headgate.transport import RpcError, StatusCode
from ratelimit.charges import Charge, Charging, Tally
from ratelimit.config import load_configuration
from ratelimit.current import CurrentConfiguration
from ratelimit.limits import Code
from ratelimit.matching import Configuration
from ratelimit.memory import MemoryStore
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats

POLICY = load_policy(Path(headgate.policy.__file__).with_name("default.yaml").read_bytes(), "default.yaml")
FILE = b"""
domain: d
descriptors:
  - {key: k, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: free, rate_limit: {unlimited: true}}
"""
Pairs = Sequence[tuple[str, str]]


@dataclass
class Bench:
    """A service over the default policy and one file, at a moment of the test's choosing."""

    now: float = 1_000_000.0
    recorded: list[tuple[str, str, Code]] = field(default_factory=list)
    current: CurrentConfiguration = field(
        default_factory=lambda: CurrentConfiguration(POLICY, load_configuration([("a.yaml", FILE)]))
    )

    def __post_init__(self) -> None:
        self.stats = Stats(record=lambda *event: self.recorded.append(event))
        store = MemoryStore(lambda: self.now)
        self.service = RateLimitService(configuration=self.current, store=store, stats=self.stats)

    async def ask(self, domain: str, *descriptors: tuple[Pairs, int | None]) -> pb.RateLimitResponse:
        answer = await self.service.should_rate_limit(message(domain, *descriptors))
        return pb.RateLimitResponse.FromString(answer)

    async def charge(self, tenant: str, tokens: int, protocol: str = "openai") -> pb.RateLimitResponse:
        """What Envoy asks about one request of a client."""
        return await self.ask(
            "headgate",
            ([("tenant", tenant), ("limit", "requests")], None),
            ([("tenant", tenant), ("limit", "tokens")], tokens),
            ([("protocol", protocol)], None),
        )


def message(domain: str, *descriptors: tuple[Pairs, int | None]) -> bytes:
    request = pb.RateLimitRequest(domain=domain)
    for pairs, hits in descriptors:
        descriptor = request.descriptors.add()
        for key, value in pairs:
            descriptor.entries.add(key=key, value=value)
        if hits is not None:
            descriptor.hits_addend.value = hits
    return request.SerializeToString()


def remaining(answer: pb.RateLimitResponse) -> list[int]:
    return [status.limit_remaining for status in answer.statuses]


async def test_the_policys_budgets_are_charged_together() -> None:
    bench = Bench()

    answer = await bench.charge("acme", tokens=1_500)

    assert answer.overall_code == pb.RateLimitResponse.OK
    assert remaining(answer) == [599, 1_998_500, 0]
    assert answer.raw_body == b""
    assert [(header.key, header.value) for header in answer.response_headers_to_add] == [
        ("x-ratelimit-limit-requests", "600"),
        ("x-ratelimit-remaining-requests", "599"),
        ("x-ratelimit-reset-requests", "20s"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-tokens", "1998500"),
        ("x-ratelimit-reset-tokens", "20s"),
    ]


async def test_a_request_over_the_token_budget_is_refused_and_takes_no_request_away() -> None:
    bench = Bench()
    await bench.charge("acme", tokens=1_999_000)

    refused = await bench.charge("acme", tokens=1_001)
    admitted = await bench.charge("acme", tokens=1_000)

    assert refused.overall_code == pb.RateLimitResponse.OVER_LIMIT
    assert json.loads(refused.raw_body)["error"]["type"] == "tokens"
    assert refused.dynamic_metadata["reason"] == "tokens_per_minute"
    assert remaining(admitted) == [598, 0, 0]


async def test_a_burst_is_admitted_up_to_the_request_budget_and_again_in_the_next_minute() -> None:
    bench = Bench()

    codes = [(await bench.charge("public", tokens=1)).overall_code for _ in range(35)]
    bench.now += 20
    afterwards = await bench.charge("public", tokens=1)

    assert codes == [pb.RateLimitResponse.OK] * 30 + [pb.RateLimitResponse.OVER_LIMIT] * 5
    assert afterwards.overall_code == pb.RateLimitResponse.OK


async def test_one_tenants_burst_costs_another_nothing() -> None:
    bench = Bench()
    for _ in range(31):
        await bench.charge("public", tokens=1)

    assert (await bench.charge("acme", tokens=1)).overall_code == pb.RateLimitResponse.OK


@pytest.mark.parametrize(("protocol", "kind"), [("triton", str), ("openai", dict), ("other", dict)])
async def test_a_refusal_is_written_in_the_clients_protocol(protocol: str, kind: type) -> None:
    refused = await Bench().charge("acme", tokens=3_000_000, protocol=protocol)

    assert isinstance(json.loads(refused.raw_body)["error"], kind)


async def test_other_domains_answer_as_the_reference_does_without_a_body() -> None:
    bench = Bench()
    for _ in range(2):
        await bench.ask("d", ([("k", "v")], None))

    refused = await bench.ask("d", ([("k", "v")], None), ([("k", "w")], None))

    assert refused.overall_code == pb.RateLimitResponse.OVER_LIMIT
    assert remaining(refused) == [0, 1]
    assert refused.raw_body == b""
    assert not refused.HasField("dynamic_metadata")


async def test_a_new_policy_holds_from_the_next_request_on_and_counts_go_on() -> None:
    bench = Bench()
    await bench.charge("acme", tokens=1)
    acme = POLICY.tenants["acme"]
    limits = replace(acme.limits, requests_per_minute=1)

    bench.current.adopt_policy(replace(POLICY, tenants={"acme": replace(acme, limits=limits)}))

    assert (await bench.charge("acme", tokens=1)).overall_code == pb.RateLimitResponse.OVER_LIMIT


async def test_every_limited_descriptor_is_recorded_and_no_other() -> None:
    bench = Bench()

    await bench.ask("d", ([("k", "v")], 3), ([("free", "v")], None), ([("none", "v")], None))

    assert bench.recorded == [("d", "d.k", Code.OVER_LIMIT), ("d", "d.free", Code.OK)]


@pytest.mark.parametrize(
    ("request_bytes", "problem"),
    [
        (message("", ([("k", "v")], None)), "rate limit domain must not be empty"),
        (message("d"), "rate limit descriptor list must not be empty"),
        (b"", "rate limit domain must not be empty"),
        (b"\x00\x01", "not a RateLimitRequest"),
    ],
    ids=["no_domain", "no_descriptors", "nothing", "no_message"],
)
async def test_a_request_that_means_nothing_is_an_invalid_argument(request_bytes: bytes, problem: str) -> None:
    with pytest.raises(RpcError) as raised:
        await Bench().service.should_rate_limit(request_bytes)

    assert (raised.value.code, raised.value.message) == (StatusCode.INVALID_ARGUMENT, problem)


async def test_hits_beyond_every_limit_are_refused_like_any_others() -> None:
    answer = await Bench().ask("d", ([("k", "v" * 100_000)], 2**64 - 1))

    assert answer.overall_code == pb.RateLimitResponse.OVER_LIMIT


def service_with(configuration: Configuration | None) -> RateLimitService:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    return RateLimitService(
        configuration=lambda _: configuration, store=MemoryStore(lambda: 0.0), stats=Stats(record=fail)
    )


async def test_without_a_configuration_the_service_is_unavailable() -> None:
    service = service_with(None)

    with pytest.raises(RpcError) as raised:
        await service.should_rate_limit(message("d", ([("k", "v")], None)))

    assert raised.value.code is StatusCode.UNAVAILABLE
    assert raised.value.message == "no rate limit configuration loaded"


async def test_a_bug_ends_one_call_and_not_the_service(caplog: pytest.LogCaptureFixture) -> None:
    service = service_with(load_configuration([("a.yaml", FILE)]))

    with pytest.raises(RpcError) as raised:
        await service.should_rate_limit(message("d", ([("k", "v")], None)))
    status, body = await service.json_request(b'{"domain": "d", "descriptors": [{"entries": [{"key": "k"}]}]}')

    assert raised.value.code is StatusCode.INTERNAL
    assert (status, body) == (500, b"Internal Server Error\n")
    assert [record.message for record in caplog.records] == ["ShouldRateLimit failed", "/json failed"]


async def test_a_store_said_never_to_wait_that_waits_fails_its_call_and_keeps_nobody_waiting() -> None:
    class Waiting(MemoryStore):
        async def charge(self, charges: Sequence[Charge], charging: Charging = Charging.EACH) -> tuple[Tally, ...]:
            await asyncio.sleep(0)
            return await super().charge(charges, charging)

    configuration = load_configuration([("a.yaml", FILE)])
    service = RateLimitService(
        configuration=lambda _: configuration, store=Waiting(lambda: 0.0), store_waits=False, stats=Stats()
    )

    with pytest.raises(RuntimeError):
        service.service().functions["ShouldRateLimit"](message("d", ([("k", "v")], None)))


async def test_json_answers_200_then_429_and_400_for_what_means_nothing() -> None:
    bench = Bench()
    body = b'{"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "v"}], "hitsAddend": "2"}]}'

    status, answer = await bench.service.json_request(body)
    assert (status, json.loads(answer)["statuses"][0]["durationUntilReset"]) == (200, "20s")
    status, answer = await bench.service.json_request(body)
    assert (status, json.loads(answer)["overallCode"]) == (429, "OVER_LIMIT")
    assert await bench.service.json_request(b'{"domain": "d"}') == (400, b"Bad Request\n")
    assert await bench.service.json_request(b"{") == (400, b"Bad Request\n")
