"""The cluster behind admission, in virtual time: the real ledger and queue, the same engines, no sockets.

What a policy makes of a load in a second or two, and the same every time; the sidecar's own cost is not in it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.overload.outcome import Ending, Outcome
from bench.overload.simulated_engine import EngineShape, SimulatedEngine, SimulatedSequence, flush_points
from bench.overload.workload import Arrival
from extproc.admission import max_backlog_seconds
from extproc.lane import Waiter
from extproc.prefill import PrefillBacklog
from extproc.queue import FairQueue, NoPlace
from headgate.policy.model import Cluster, Policy, Rung
from headgate.store import Lease, LeaseRequest, Refused, Scope
from headgate.store.ledger import Ledger


@dataclass(slots=True, eq=False)
class Visit:
    """One request's way through."""

    arrival: Arrival
    request: LeaseRequest
    lease: Lease | None = None
    waiter: Waiter | None = None
    engine: SimulatedEngine | None = None
    sequence: SimulatedSequence | None = None
    waited_seconds: float = 0.0
    reason: str = ""
    refused_at: float | None = None
    progress: list[tuple[float, int]] = field(default_factory=list)


class GatedReplay:
    """One cluster of the policy and its engines, whose number may change while it runs.

    Args:
        request_limit: the cluster's limit at a moment, where it is not the policy's.
        on_end: is told of every request that leaves the cluster: the visit and when.
    """

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        shape: EngineShape,
        replicas: int,
        *,
        request_limit: Callable[[], int | None] | None = None,
        on_end: Callable[[Visit, float], None] | None = None,
    ) -> None:
        self.policy = policy
        self.cluster = cluster
        self.engines = [SimulatedEngine(shape) for _ in range(replicas)]
        self.ledger = Ledger()
        self.queue = FairQueue()
        self.prefill = PrefillBacklog()
        self._is_held_back = False
        self.visits: list[Visit] = []
        self._request_limit = request_limit or (lambda: cluster.capacity.requests)
        self._on_end = on_end
        self._random = random.Random(replicas)
        self._running: dict[SimulatedSequence, Visit] = {}
        self._waiting: dict[int, Visit] = {}
        self._alarms: list[tuple[float, int, Callable[[float], None]]] = []
        self._reserved = {name: tier.reserved for name, tier in policy.tiers.items() if tier.reserved}

    def run(self, arrivals: Sequence[Arrival], seconds: float) -> list[Outcome]:
        """Put the load on; what is open after `seconds` is cut."""
        for arrival in arrivals:
            self.advance(arrival.due_seconds)
            self._arrive(arrival)
        self.advance(seconds)
        return [_outcome(visit) for visit in self.visits]

    def at(self, moment: float, action: Callable[[float], None]) -> None:
        """Do something then."""
        heapq.heappush(self._alarms, (moment, len(self.visits) + len(self._alarms), action))

    def advance(self, now: float) -> None:
        """Everything that happens by now, in its order."""
        while True:
            engine = min(self.engines, key=lambda engine: engine.next_at or math.inf)
            engine_at = engine.next_at or math.inf
            alarm_at = self._alarms[0][0] if self._alarms else math.inf
            if min(engine_at, alarm_at) > now:
                return
            if engine_at <= alarm_at:
                self._iterate(engine, engine_at)
            else:
                moment, _, action = heapq.heappop(self._alarms)
                action(moment)

    def _iterate(self, engine: SimulatedEngine, now: float) -> None:
        for sequence in engine.advance(now):
            visit = self._running[sequence]
            visit.progress.append((now, sequence.produced_tokens))
            if sequence.ended_at is not None:
                self.leave(visit, now)

    def _arrive(self, arrival: Arrival) -> None:
        visit = Visit(arrival, self._question(arrival))
        self.visits.append(visit)
        now = arrival.due_seconds
        self.at(now + arrival.patience_seconds, lambda moment: self._hang_up(visit, moment))
        tier = self.policy.tiers[arrival.tier]
        if self.queue.has_claim(self.cluster.name, tier.priority) or self.prefill.excess_seconds(visit.request, now):
            answer: Lease | Refused = Refused(Scope.CLUSTER, 1.0)
        else:
            answer = self.ledger.acquire(visit.request, now)
        if isinstance(answer, Lease):
            self._start(visit, answer, now)
        elif Rung.QUEUE in tier.on_overload:
            self._join(visit, now)
        else:
            visit.reason, visit.refused_at = answer.scope.value, now

    def _question(self, arrival: Arrival) -> LeaseRequest:
        tier = self.policy.tiers[arrival.tier]
        per_minute = self.cluster.capacity.prompt_tokens_per_minute
        return LeaseRequest(
            tenant=arrival.tenant,
            tier=arrival.tier,
            cluster=self.cluster.name,
            tokens=arrival.prompt_tokens + arrival.max_tokens,
            tenant_limit=tier.tenant_concurrency,
            tier_limit=tier.tier_concurrency,
            cluster_limit=self._request_limit(),
            cluster_token_limit=self.cluster.capacity.tokens,
            reserved=self._reserved,
            prompt_tokens=arrival.prompt_tokens,
            prompt_tokens_per_second=None if per_minute is None else per_minute / 60.0,
            max_backlog_seconds=None if per_minute is None else max_backlog_seconds(self.policy, tier),
        )

    def _join(self, visit: Visit, now: float) -> None:
        tier = self.policy.tiers[visit.arrival.tier]
        assert tier.queue is not None
        place = self.queue.join(
            visit.request, queue=tier.queue, priority=tier.priority, weight=1.0, size_bytes=0, now=now
        )
        if isinstance(place, NoPlace):
            visit.reason, visit.refused_at = place.reason, now
            return
        visit.waiter = place
        self._waiting[place.ticket] = visit
        self.at(now + tier.queue.max_wait_seconds, lambda moment: self._give_up(visit, "queue_timeout", moment))
        self.dispatch(now)

    def _start(self, visit: Visit, lease: Lease, now: float) -> None:
        arrival = visit.arrival
        answer = min(arrival.answer_tokens, arrival.max_tokens)
        self.prefill.sent(lease.request, now)
        visit.lease, visit.waited_seconds = lease, now - arrival.due_seconds
        visit.sequence = SimulatedSequence(
            number=arrival.number,
            prompt_tokens=arrival.prompt_tokens,
            answer_tokens=answer,
            limit_tokens=arrival.max_tokens,
            arrived_at=now,
            flushes=flush_points(answer),
        )
        # Envoy's least-request: the better of two drawn at random.
        visit.engine = min(self._random.choices(self.engines, k=2), key=lambda engine: engine.running + engine.waiting)
        self._running[visit.sequence] = visit
        visit.engine.submit(visit.sequence)

    def dispatch(self, now: float) -> None:
        """Serve who waits while there is room."""
        while (waiter := self.queue.next(self.cluster.name, now)) is not None:
            visit = self._waiting[waiter.ticket]
            if excess_seconds := self.prefill.excess_seconds(waiter.request, now):
                self.queue.hold_back(waiter)
                if not self._is_held_back:
                    self._is_held_back = True
                    self.at(now + excess_seconds, self._on_computed)
                continue
            answer = self.ledger.acquire(self._question(visit.arrival), now)
            if isinstance(answer, Refused):
                self.queue.refused(waiter, answer.scope, now)
                continue
            self.queue.granted(waiter, now)
            del self._waiting[waiter.ticket]
            self._start(visit, answer, now)

    def _on_computed(self, now: float) -> None:
        self._is_held_back = False
        self.queue.reopen(self.cluster.name)
        self.dispatch(now)

    def _give_up(self, visit: Visit, reason: str, now: float) -> None:
        if visit.waiter is not None and self._waiting.pop(visit.waiter.ticket, None) is not None:
            self.queue.leave(visit.waiter, now)
            visit.reason, visit.refused_at = reason, now
            self.dispatch(now)

    def _hang_up(self, visit: Visit, now: float) -> None:
        self._give_up(visit, "", now)
        sequence = visit.sequence
        if sequence is not None and visit.engine is not None and sequence.first_token_at is None:
            visit.engine.abort(sequence, now)
            self.leave(visit, now)

    def leave(self, visit: Visit, now: float) -> None:
        """Its request is over, whatever the reason; leaving twice changes nothing."""
        lease, visit.lease = visit.lease, None
        if lease is None:
            return
        self.ledger.release(lease, now)
        if self._on_end is not None:
            self._on_end(visit, now)
        self.queue.released(lease.request)
        self.dispatch(now)


def _outcome(visit: Visit) -> Outcome:
    sequence, arrival = visit.sequence, visit.arrival
    return Outcome(
        number=arrival.number,
        tier=arrival.tier,
        tenant=arrival.tenant,
        due_seconds=arrival.due_seconds,
        prompt_tokens=arrival.prompt_tokens,
        ending=_ending(visit),
        status=429 if visit.reason else 200,
        reason=visit.reason,
        first_token_seconds=sequence.first_token_at if sequence is not None else None,
        progress=visit.progress,
        answered_wall_ms=(visit.refused_at - arrival.due_seconds) * 1000 if visit.refused_at is not None else 0.0,
    )


def _ending(visit: Visit) -> Ending:
    if visit.reason:
        return Ending.REFUSED
    if visit.sequence is None:
        return Ending.CUT if visit.refused_at is None else Ending.GAVE_UP
    if visit.sequence.produced_tokens == visit.sequence.answer_tokens:
        return Ending.COMPLETED
    return Ending.CUT if visit.sequence.ended_at is None else Ending.GAVE_UP


def gated_replay(
    arrivals: Sequence[Arrival], policy: Policy, shape: EngineShape, replicas: int, seconds: float
) -> list[Outcome]:
    """What becomes of the load behind the policy, whose one cluster is the first."""
    [cluster, *_] = policy.clusters.values()
    return GatedReplay(policy, cluster, shape, replicas).run(arrivals, seconds)
