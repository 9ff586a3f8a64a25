"""The messages of the benchmark and the configuration they meet."""

from __future__ import annotations

from headgate.pb import ratelimit_pb2 as pb

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
DESCRIPTORS = 5
LIMIT = 4_000_000_000
"""Per year and value: nothing in a run is refused, so that every answer is the same work."""


def configuration() -> str:
    """One domain with a limit per key."""
    lines = [
        f"  - {{key: key{at}, rate_limit: {{unit: year, requests_per_unit: {LIMIT}}}}}" for at in range(DESCRIPTORS)
    ]
    return "domain: bench\ndescriptors:\n" + "\n".join(lines) + "\n"


def request(descriptors: int, value: str) -> bytes:
    """A RateLimitRequest with this many descriptors."""
    message = pb.RateLimitRequest(domain="bench")
    for at in range(descriptors):
        message.descriptors.add().entries.add(key=f"key{at}", value=value)
    return message.SerializeToString()


def response(descriptors: int) -> pb.RateLimitResponse:
    """What such a request is answered with."""
    message = pb.RateLimitResponse(overall_code=pb.RateLimitResponse.OK)
    for _ in range(descriptors):
        status = message.statuses.add(code=pb.RateLimitResponse.OK, limit_remaining=LIMIT - 1)
        status.current_limit.requests_per_unit = LIMIT
        status.current_limit.unit = pb.RateLimitResponse.RateLimit.YEAR
        status.duration_until_reset.seconds = 12_345_678
    return message
