"""The service behind each real gRPC server, asked by a real gRPC client."""

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from headgate.pb import ratelimit_pb2 as pb
from headgate.transport import Server
from ratelimit.config import load_configuration
from ratelimit.memory import MemoryStore
from ratelimit.service import RateLimitService
from ratelimit.stats import Stats

FILE = b"""
domain: d
descriptors:
  - {key: k, rate_limit: {unit: minute, requests_per_unit: 2}}
"""
Call = grpc.aio.UnaryUnaryMultiCallable


@pytest.fixture(params=[True, False], ids=["store waits", "store never waits"])
async def should_rate_limit(request: pytest.FixtureRequest, new_server: Callable[..., Server]) -> AsyncIterator[Call]:
    configuration = load_configuration([("a.yaml", FILE)])
    service = RateLimitService(
        configuration=lambda _: configuration,
        store=MemoryStore(lambda: 1_000_000.5),
        store_waits=request.param,
        stats=Stats(),
    )
    server = new_server("127.0.0.1:0", [service.service()], max_message_bytes=1 << 20)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
    await server.drain(1)


def message(domain: str = "d", hits: int = 0) -> bytes:
    entry = pb.RateLimitDescriptor.Entry(key="k", value="v")
    return pb.RateLimitRequest(
        domain=domain, descriptors=[pb.RateLimitDescriptor(entries=[entry])], hits_addend=hits
    ).SerializeToString()


async def test_the_third_request_of_two_allowed_is_over_the_limit(should_rate_limit: Call) -> None:
    answers = [pb.RateLimitResponse.FromString(await should_rate_limit(message())) for _ in range(3)]

    assert [answer.overall_code for answer in answers] == [
        pb.RateLimitResponse.OK,
        pb.RateLimitResponse.OK,
        pb.RateLimitResponse.OVER_LIMIT,
    ]
    assert [status.limit_remaining for answer in answers for status in answer.statuses] == [1, 0, 0]
    assert answers[2].statuses[0].duration_until_reset.seconds == 20


@pytest.mark.parametrize(
    ("request_bytes", "details"),
    [(message(domain=""), "rate limit domain must not be empty"), (b"\xff\xff", "not a RateLimitRequest")],
    ids=["no_domain", "no_message"],
)
async def test_a_request_that_means_nothing_is_answered_and_the_next_one_served(
    should_rate_limit: Call, request_bytes: bytes, details: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await should_rate_limit(request_bytes)

    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, details)
    answer = pb.RateLimitResponse.FromString(await should_rate_limit(message()))
    assert answer.overall_code == pb.RateLimitResponse.OK
