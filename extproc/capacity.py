"""`capacity: auto`: how many requests each cluster runs at once, learnt from the requests that have finished.

Knows no clock and no metrics; a queue that the model servers themselves report goes before any inference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from extproc.adaptive_limit import AdaptiveLimit
from extproc.first_token import FirstTokenModel
from extproc.server_load import ServerLoad
from headgate.policy.model import Cluster, Policy
from headgate.record import RequestRecord

START_PER_ENDPOINT = 16
_UPSTREAM_ANSWERED = "via_upstream"
_OVERLOADED = (429, 503)
_SHORTEST_FIRST_TOKEN = 0.5
"""Of a token's time. Nothing computes a first token faster: such a first byte was the headers."""
_WHOLE_ANSWER = 0.9
_FEW_TOKENS = 4
_QUEUED_SHARE = 0.1
_BLIND_AFTER = 50
_UNHEARD_AFTER = 2000
_NEWEST_WEIGHT = 0.05
_BLIND_BELOW = 0.1


@dataclass(slots=True)
class _Tracked:
    """One cluster: its limit, what is normal for it, and how much of what it reports can be used."""

    limit: AdaptiveLimit
    endpoints: int
    model: FirstTokenModel = field(default_factory=FirstTokenModel)
    asked: int = 0
    seen: int = 0
    usable: float = 1.0

    @property
    def is_blind(self) -> bool:
        if not self.seen:
            # No access log service tells this process what becomes of its requests.
            return self.asked >= _UNHEARD_AFTER
        return self.seen >= _BLIND_AFTER and self.usable < _BLIND_BELOW


class CapacityTracker:
    """The limits of all clusters whose capacity is `auto`, learnt from this sidecar's requests and for these.

    Others that share a cluster learn theirs, and each may run as many as it has learnt beside what the others run: so
    all feel the same congestion, and all give way. Were the sum held against what one of them believes, whoever
    believes in less would run nothing, learn nothing and wait for ever.

    Args:
        policy: yields the one in force.
        elsewhere: how many requests other sidecars run on a cluster.
    """

    def __init__(self, policy: Callable[[], Policy], elsewhere: Callable[[str], int] = lambda _cluster: 0) -> None:
        self._policy = policy
        self._elsewhere = elsewhere
        self._tracked: dict[str, _Tracked] = {}

    def limit(self, cluster: str) -> int | None:
        """How many requests an `auto` cluster runs at once, as far as is known.

        None (no limit) for one the policy does not call so, and while nothing tells: neither the cluster's answers nor,
        where the access log goes elsewhere, any record of them.
        """
        known = self._policy().clusters.get(cluster)
        if known is None or not known.capacity.auto:
            return None
        tracked = self._track(known)
        tracked.asked += 1
        return None if tracked.is_blind else tracked.limit.limit + self._elsewhere(cluster)

    def request_limit(self, cluster: Cluster) -> int | None:
        """How many requests a cluster runs at once: by its own policy, or as learnt."""
        return self.limit(cluster.name) if cluster.capacity.auto else cluster.capacity.requests

    def learn(
        self,
        record: RequestRecord,
        in_flight: int,
        load: ServerLoad | None,
        now: float,
        *,
        ended_at: float | None = None,
    ) -> bool:
        """Take one finished request into account. Whether the cluster's limit has changed.

        Args:
            in_flight: requests on its cluster now.
            load: what its servers say of themselves; None when they say nothing, or not lately.
            now: seconds, monotonic.
            ended_at: when the request ended, by the same clock; None for now.
        """
        known = self._policy().clusters.get(record.cluster)
        if known is None or not known.capacity.auto or record.verdict in ("", "REJECT"):
            return False
        tracked = self._track(known)
        before = tracked.limit.limit
        delay = _delay(record, tracked, load, now)
        tracked.seen += 1
        tracked.usable += _NEWEST_WEIGHT * ((delay is not None) - tracked.usable)
        if delay is None or math.isnan(delay):
            return False
        began_at = (now if ended_at is None else ended_at) - record.duration_seconds + record.queue_wait_seconds
        own_in_flight = in_flight - self._elsewhere(known.name)
        raised_by = tracked.limit.observe(delay, began_at, own_in_flight, now)
        if raised_by > 1.0:
            tracked.model.raise_by(raised_by)
        return tracked.limit.limit != before

    def _track(self, cluster: Cluster) -> _Tracked:
        tracked, endpoints = self._tracked.get(cluster.name), _endpoints(cluster)
        if tracked is None:
            limit = AdaptiveLimit(START_PER_ENDPOINT * endpoints)
            tracked = self._tracked[cluster.name] = _Tracked(limit, endpoints)
        elif tracked.endpoints != endpoints:
            tracked.limit.scale(endpoints / tracked.endpoints)
            tracked.endpoints = endpoints
        return tracked


def _endpoints(cluster: Cluster) -> int:
    return max(len(frontend.endpoints) for frontend in cluster.frontends.values())


def _delay(record: RequestRecord, tracked: _Tracked, load: ServerLoad | None, now: float) -> float | None:
    """How many times longer than without congestion; None when it cannot be told, NaN when it cannot be told yet."""
    if record.status in _OVERLOADED:
        # An endpoint that is gone is no congestion: what is sent to the others tells.
        return math.inf if record.details == _UPSTREAM_ANSWERED else math.nan
    if load is not None and load.queue_depth > _QUEUED_SHARE * tracked.limit.limit:
        return math.inf
    seconds = _first_token_seconds(record)
    if seconds is None:
        return None if load is None else 1.0
    prompt_tokens = record.estimated_prompt_tokens if record.prompt_tokens is None else record.prompt_tokens
    computed_tokens = prompt_tokens - (record.cached_tokens or 0)
    tracked.model.learn(computed_tokens, seconds, now)
    expected_seconds = tracked.model.expected_seconds(computed_tokens)
    return seconds / expected_seconds if expected_seconds else math.nan


def _first_token_seconds(record: RequestRecord) -> float | None:
    """From being sent to the cluster to the first token; None where the first byte was not that."""
    if record.status != 200 or record.first_byte_seconds is None:
        return None
    seconds = record.first_byte_seconds - record.queue_wait_seconds
    rest_seconds = record.duration_seconds - record.first_byte_seconds
    if seconds <= 0.0:
        return None
    if record.output_tokens is None or record.output_tokens <= _FEW_TOKENS:
        # Nothing to compare with; answers that come in one piece are about as long as each other.
        return seconds
    if rest_seconds < (1.0 - _WHOLE_ANSWER) * (seconds + rest_seconds):
        return None
    per_token_seconds = rest_seconds / (record.output_tokens - 1)
    return seconds if seconds >= _SHORTEST_FIRST_TOKEN * per_token_seconds else None
