"""Envoy's RateLimitService: bytes in, verdict out, over the counters and the configuration in force.

Decides nothing itself: `limiter` plans and judges, `windows` counts, `refusal` words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headgate.transport import RpcError, Service, StatusCode
from ratelimit import wire
from ratelimit.limiter import Plan, fault, judge, plan
from ratelimit.limits import Code, RateLimitRequest, Verdict
from ratelimit.matching import Configuration
from ratelimit.refusal import Refusal, refusal
from ratelimit.tenants import TENANT_DOMAIN
from ratelimit.windows import FixedWindows

SERVICE_NAME = "envoy.service.ratelimit.v3.RateLimitService"

Record = Callable[[str, str, Code, int], None]
"""Called once per limited descriptor with domain, metric key, code and hits. Whoever counts caps the labels."""

_log = logging.getLogger(__name__)


class RateLimitService:
    """Answers ShouldRateLimit over gRPC and, as the reference does, over HTTP JSON.

    Args:
        configuration: returns what is in force now; None until the first load has worked.
        clock: returns unix seconds.
    """

    def __init__(
        self,
        *,
        configuration: Callable[[], Configuration | None],
        clock: Callable[[], float],
        record: Record,
        windows: FixedWindows | None = None,
    ) -> None:
        self._configuration = configuration
        self._clock = clock
        self._record = record
        self._windows = FixedWindows() if windows is None else windows

    @property
    def service(self) -> Service:
        """What a gRPC server serves."""
        return Service(name=SERVICE_NAME, unary={"ShouldRateLimit": self.should_rate_limit})

    def health(self) -> bool:
        """Whether requests can be answered: the body of /healthcheck and the gRPC health status."""
        return self._configuration() is not None

    async def should_rate_limit(self, message: bytes) -> bytes:
        """Answer one RateLimitRequest.

        Raises:
            RpcError: INVALID_ARGUMENT for a request that means nothing, UNAVAILABLE without a configuration.
        """
        try:
            return wire.encode_response(*self._answer(wire.decode_request(message)))
        except RpcError:
            raise
        except Exception:  # noqa: BLE001  (the outermost frame: a bug answers INTERNAL, the service goes on)
            _log.exception("ShouldRateLimit failed")
            raise RpcError(StatusCode.INTERNAL, "internal error") from None

    async def json_request(self, body: bytes) -> tuple[int, bytes]:
        """Answer one RateLimitRequest in JSON: the HTTP status (200, 400, 429 or 500) and the response body."""
        try:
            verdict, refused = self._answer(wire.decode_json_request(body))
            status = 429 if verdict.code is Code.OVER_LIMIT else 200
            return status, wire.encode_json_response(verdict, refused)
        except RpcError:
            return 400, b"Bad Request\n"
        except Exception:  # noqa: BLE001  (the outermost frame: a bug answers INTERNAL, the service goes on)
            _log.exception("/json failed")
            return 500, b"Internal Server Error\n"

    def _answer(self, request: RateLimitRequest) -> tuple[Verdict, Refusal | None]:
        problem = fault(request)
        if problem is not None:
            raise RpcError(StatusCode.INVALID_ARGUMENT, problem)
        configuration = self._configuration()
        if configuration is None:
            raise RpcError(StatusCode.UNAVAILABLE, "no rate limit configuration loaded")
        planned = plan(request, configuration)
        tallies = self._windows.charge(planned.charges(), self._clock(), all_or_nothing=planned.all_or_nothing)
        verdict = judge(planned, tallies)
        self._count(request.domain, planned, verdict)
        return verdict, refusal(request, verdict) if request.domain == TENANT_DOMAIN else None

    def _count(self, domain: str, planned: Plan, verdict: Verdict) -> None:
        for item, status in zip(planned.items, verdict.statuses, strict=True):
            if item.match is not None:
                self._record(domain, item.match.metric_key, status.code, item.hits)
