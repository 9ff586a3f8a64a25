"""Envoy's RateLimitService: bytes in, verdict out, over the counters and the configuration in force.

Decides nothing itself: `limiter` plans and judges, a store counts, `reply` and `refusal` word, `stats` keeps tally.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from headgate.errors import StoreUnavailable
from headgate.transport import RpcError, Service, StatusCode
from ratelimit import wire
from ratelimit.budget_headers import budget_headers
from ratelimit.charges import Store
from ratelimit.limiter import NO_MODES, Modes, Plan, fault, judge, plan
from ratelimit.limits import Code, RateLimitRequest, Verdict
from ratelimit.matching import Configuration
from ratelimit.refusal import refusal
from ratelimit.reply import Reply, dynamic_metadata, limit_headers
from ratelimit.settlement import Settlement
from ratelimit.stats import Stats
from ratelimit.tenants import TENANT_DOMAIN

SERVICE_NAME = "envoy.service.ratelimit.v3.RateLimitService"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """How requests are answered.

    Attributes:
        header_names: of the limit, the remainder and the reset; None for no headers.
        dynamic_metadata: whether the answer says what was asked, and the metadata of what passed.
    """

    modes: Modes = NO_MODES
    header_names: tuple[str, str, str] | None = None
    dynamic_metadata: bool = False


class RateLimitService:
    """Answers ShouldRateLimit over gRPC and, as the reference does, over HTTP JSON.

    Args:
        configuration: returns what is in force now for a domain; None until the first load has worked.
        store_waits: whether the store may take its time; one that never does is asked without a task per call.
        settlement: hears of every answer in the tenants' domain; None when nothing is settled.
        observe_seconds: called with the time each gRPC call took.
    """

    def __init__(
        self,
        *,
        configuration: Callable[[str], Configuration | None],
        store: Store,
        store_waits: bool = True,
        stats: Stats,
        answering: Answering = Answering(),
        settlement: Settlement | None = None,
        observe_seconds: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._store_waits = store_waits
        self._stats = stats
        self._answering = answering
        self._settlement = settlement
        self._observe_seconds = observe_seconds

    def service(self) -> Service:
        """What a transport serves."""
        if self._store_waits:
            return Service(name=SERVICE_NAME, unary={"ShouldRateLimit": self.should_rate_limit})
        return Service(name=SERVICE_NAME, functions={"ShouldRateLimit": self._should_rate_limit_now})

    async def should_rate_limit(self, message: bytes) -> bytes:
        """Answer one RateLimitRequest.

        Raises:
            RpcError: INVALID_ARGUMENT for a request that means nothing, UNAVAILABLE without a configuration or
                when the store gave no answer and the limit's policy is to fail.
        """
        started_at = time.perf_counter()
        try:
            return wire.encode_response(*await self._answer(wire.decode_request(message)))
        except RpcError:
            self._stats.service.service_error += 1
            raise
        except StoreUnavailable as error:
            raise RpcError(StatusCode.UNAVAILABLE, str(error)) from error
        except Exception:  # noqa: BLE001  (the outermost frame: a bug answers INTERNAL, the service goes on)
            _log.exception("ShouldRateLimit failed")
            raise RpcError(StatusCode.INTERNAL, "internal error") from None
        finally:
            self._observe_seconds(time.perf_counter() - started_at)

    def _should_rate_limit_now(self, message: bytes) -> bytes:
        """The same in one step of the loop, as nothing on the way waits."""
        try:
            self.should_rate_limit(message).send(None)
        except StopIteration as answered:
            return bytes(answered.value)
        raise RuntimeError("a store that never waits did")

    async def json_request(self, body: bytes) -> tuple[int, bytes]:
        """Answer one RateLimitRequest in JSON: the HTTP status (200, 400, 429 or 500) and the response body."""
        try:
            verdict, reply = await self._answer(wire.decode_json_request(body))
            status = 429 if verdict.code is Code.OVER_LIMIT else 200
            return status, wire.encode_json_response(verdict, reply)
        except RpcError:
            self._stats.service.service_error += 1
            return 400, b"Bad Request\n"
        except StoreUnavailable:
            return 400, b"Bad Request\n"
        except Exception:  # noqa: BLE001  (the outermost frame: a bug answers INTERNAL, the service goes on)
            _log.exception("/json failed")
            return 500, b"Internal Server Error\n"

    async def _answer(self, request: RateLimitRequest) -> tuple[Verdict, Reply]:
        problem = fault(request)
        if problem is not None:
            raise RpcError(StatusCode.INVALID_ARGUMENT, problem)
        configuration = self._configuration(request.domain)
        if configuration is None:
            raise RpcError(StatusCode.UNAVAILABLE, "no rate limit configuration loaded")
        modes = self._answering.modes
        planned = plan(request, configuration, modes)
        self._stats.asked(request.domain, planned)
        charges = planned.charges()
        try:
            tallies = await self._store.charge(charges, planned.charging) if charges else ()
        except StoreUnavailable:
            self._stats.service.redis_error += 1
            raise
        verdict = judge(planned, tallies, modes)
        self._stats.answered(planned, tallies, verdict)
        if self._settlement is not None and request.domain == TENANT_DOMAIN and verdict.code is Code.OK:
            self._settlement.charged(request, planned, charges, tallies)
        return verdict, self._reply(request, planned, verdict)

    def _reply(self, request: RateLimitRequest, planned: Plan, verdict: Verdict) -> Reply:
        names = self._answering.header_names
        headers = limit_headers(planned, verdict, self._answering.modes, names) if names else ()
        if request.domain == TENANT_DOMAIN:
            refused = refusal(request, verdict)
            headers = (*budget_headers(verdict), *headers)
            if refused is not None:
                return replace(refused, headers=(*refused.headers, *headers))
        return Reply(
            headers=headers,
            metadata=dynamic_metadata(request, planned, verdict) if self._answering.dynamic_metadata else {},
        )
