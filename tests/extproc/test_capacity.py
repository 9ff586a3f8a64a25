"""`capacity: auto`: what a finished request tells, and that a simulated cluster's capacity is found and followed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from bench.overload.gated_replay import GatedReplay, Visit
from bench.overload.simulated_engine import EngineShape, SimulatedEngine
from bench.overload.workload import Arrival
from extproc.capacity import START_PER_ENDPOINT, CapacityTracker
from extproc.server_load import ServerLoad
from headgate.policy.model import Capacity, Policy, Queue, Rung
from headgate.record import RequestRecord
from tests import records

AUTO = Capacity(auto=True)
PLENTY = 10_000


def ended(**fields: Any) -> RequestRecord:
    """A streamed answer of 100 tokens at 20 ms each, whose first came after 0.2 s."""
    known = {
        "duration_seconds": 2.2,
        "first_byte_seconds": 0.2,
        "prompt_tokens": 1000,
        "output_tokens": 101,
        "estimated_prompt_tokens": 900,
        "is_stream": False,
        "upstream_sent_seconds": None,
        "last_byte_seconds": None,
    }
    return records.finished(**known | fields)


class Tracked:
    """The tracker of one `auto` cluster, and the requests that end on it."""

    def __init__(self, policy: Policy) -> None:
        self.policies = [policy]
        self.tracker = CapacityTracker(lambda: self.policies[-1])
        self.now = 100.0

    def ends(self, count: int, *, load: ServerLoad | None = None, in_flight: int = PLENTY, **fields: Any) -> int | None:
        """So many of the same; the limit afterwards."""
        for _ in range(count):
            self.now += 0.5
            self.tracker.learn(ended(**fields), in_flight, load, self.now)
        return self.tracker.limit("best")


@pytest.fixture
def tracked(revise: Callable[..., Policy]) -> Tracked:
    return Tracked(revise(clusters={"best": {"capacity": AUTO}}))


def test_it_starts_with_a_guess_by_endpoints(tracked: Tracked) -> None:
    assert tracked.tracker.limit("best") == START_PER_ENDPOINT


def test_only_auto_clusters_of_the_policy_in_force_have_a_limit_of_their_own(tracked: Tracked, policy: Policy) -> None:
    assert tracked.tracker.limit("standard") is None
    assert tracked.tracker.limit("nope") is None
    tracked.policies.append(policy)
    assert tracked.tracker.limit("best") is None
    assert not tracked.tracker.learn(ended(), 1, None, 0.0)


def test_the_limit_grows_while_first_tokens_come_as_they_always_did(tracked: Tracked) -> None:
    assert tracked.ends(40) == 2 * START_PER_ENDPOINT


def test_the_limit_shrinks_when_first_tokens_come_late(tracked: Tracked) -> None:
    before = tracked.ends(40)
    after = tracked.ends(40, first_byte_seconds=2.0, duration_seconds=4.0)

    assert before is not None
    assert after == before // 2


def test_time_in_our_own_queue_is_no_congestion(tracked: Tracked) -> None:
    tracked.ends(40)
    grown = tracked.ends(40, first_byte_seconds=3.2, queue_wait_seconds=3.0, duration_seconds=5.2)

    assert grown == 4 * START_PER_ENDPOINT


def test_a_long_time_in_our_own_queue_makes_no_answer_one_that_came_in_one_piece(tracked: Tracked) -> None:
    tracked.ends(40)
    grown = tracked.ends(100, first_byte_seconds=60.2, queue_wait_seconds=60.0, duration_seconds=62.2)

    assert grown is not None
    assert grown >= 4 * START_PER_ENDPOINT


def test_a_request_heard_of_late_began_when_it_did(tracked: Tracked) -> None:
    """Before the step at whose new limit it would else count: it was sent while fewer ran."""
    while tracked.ends(1) == START_PER_ENDPOINT:
        pass
    step_at = tracked.now

    def tell(ended_after_seconds: float) -> None:
        for _ in range(20):
            tracked.now += 0.5
            tracked.tracker.learn(ended(), PLENTY, None, tracked.now, ended_at=step_at + ended_after_seconds)

    tell(2.0)
    assert tracked.tracker.limit("best") == 2 * START_PER_ENDPOINT
    tell(2.5)
    assert tracked.tracker.limit("best") == 4 * START_PER_ENDPOINT


def test_a_longer_prompt_is_no_congestion(tracked: Tracked) -> None:
    for _ in range(16):
        tracked.ends(1)
        tracked.ends(1, prompt_tokens=8000, first_byte_seconds=1.5, duration_seconds=3.5)
    before = tracked.tracker.limit("best")

    after = tracked.ends(40, prompt_tokens=8000, first_byte_seconds=1.5, duration_seconds=3.5)

    assert before is not None
    assert after is not None
    assert after > before


def test_tokens_that_were_cached_are_not_part_of_the_prompt(tracked: Tracked) -> None:
    tracked.ends(40)
    for _ in range(40):
        tracked.ends(1)
        tracked.ends(1, prompt_tokens=9000, cached_tokens=8000)

    assert (tracked.tracker.limit("best") or 0) > 2 * START_PER_ENDPOINT


@pytest.mark.parametrize(
    "fields",
    [
        {"first_byte_seconds": 0.003},
        {"first_byte_seconds": 2.15},
        {"first_byte_seconds": None},
        {"first_byte_seconds": 0.2, "queue_wait_seconds": 0.2},
    ],
    ids=["only headers came first", "the answer came in one piece", "no answer", "impossible"],
)
def test_a_cluster_whose_answers_do_not_tell_is_not_limited_at_all(tracked: Tracked, fields: dict[str, Any]) -> None:
    assert tracked.ends(49, **fields) == START_PER_ENDPOINT
    assert tracked.ends(10, **fields) is None
    assert tracked.ends(60) == START_PER_ENDPOINT * 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_turns_requests_away_is_congested(tracked: Tracked, status: int) -> None:
    assert tracked.ends(20, status=status) == START_PER_ENDPOINT // 2


@pytest.mark.parametrize(
    "details", ["no_healthy_upstream", "upstream_reset_before_response_started{connection_failure}"]
)
def test_an_endpoint_that_is_gone_is_no_congestion_by_itself(tracked: Tracked, details: str) -> None:
    assert tracked.ends(100, status=503, details=details, first_byte_seconds=0.001) == START_PER_ENDPOINT


def test_requests_that_never_reached_the_cluster_say_nothing(tracked: Tracked) -> None:
    assert tracked.ends(100, verdict="REJECT", status=429) == START_PER_ENDPOINT
    assert tracked.ends(100, verdict="", status=503) == START_PER_ENDPOINT


def queued(requests: int) -> ServerLoad:
    return ServerLoad(saturation=0.0, queue_depth=requests, age_seconds=0.1)


def test_a_queue_the_servers_report_goes_before_any_inference(tracked: Tracked) -> None:
    assert tracked.ends(20, load=queued(0)) == START_PER_ENDPOINT
    assert tracked.ends(20, load=queued(20)) == START_PER_ENDPOINT // 2


def test_where_answers_do_not_tell_the_servers_do(tracked: Tracked) -> None:
    headers_only = {"first_byte_seconds": 0.003}

    assert tracked.ends(45, load=queued(0), **headers_only) == 4 * START_PER_ENDPOINT
    assert (tracked.ends(200, load=queued(50), in_flight=5, **headers_only) or 0) < START_PER_ENDPOINT
    assert tracked.tracker.limit("best") is not None


def test_a_process_that_hears_of_no_finished_request_limits_nothing(tracked: Tracked) -> None:
    limits = [tracked.tracker.limit("best") for _ in range(2000)]

    assert limits[:-1] == [START_PER_ENDPOINT] * 1999
    assert limits[-1] is None
    assert tracked.ends(1) == START_PER_ENDPOINT


def test_a_policy_with_other_endpoints_changes_the_limit_in_proportion(
    tracked: Tracked, revise: Callable[..., Policy], policy: Policy
) -> None:
    assert tracked.ends(40) == 2 * START_PER_ENDPOINT
    known = policy.clusters["best"].frontends
    wider = {key: replace(each, endpoints=(*each.endpoints, "10.0.0.9:8000")) for key, each in known.items()}

    tracked.policies.append(revise(clusters={"best": {"capacity": AUTO, "frontends": wider}}))
    assert tracked.tracker.limit("best") == 4 * START_PER_ENDPOINT
    tracked.policies.append(tracked.policies[0])
    assert tracked.tracker.limit("best") == 2 * START_PER_ENDPOINT


def test_the_one_that_changes_the_limit_says_so(tracked: Tracked) -> None:
    told = []
    for _ in range(60):
        tracked.now += 0.5
        told.append(tracked.tracker.learn(ended(), PLENTY, None, tracked.now))

    assert told.count(True) == 2
    assert tracked.ends(1, first_byte_seconds=2.0) == 4 * START_PER_ENDPOINT
    shrunk = [tracked.tracker.learn(ended(status=503), 5, None, tracked.now + 100.0) for _ in range(40)]
    assert True in shrunk


def test_the_limit_is_this_sidecars_own_beside_what_others_run(revise: Callable[..., Policy]) -> None:
    policy, elsewhere = revise(clusters={"best": {"capacity": AUTO}}), 60
    tracker = CapacityTracker(lambda: policy, lambda _: elsewhere)

    assert tracker.limit("best") == START_PER_ENDPOINT + elsewhere
    elsewhere = 0
    assert tracker.limit("best") == START_PER_ENDPOINT


def test_what_others_run_is_neither_use_of_the_own_limit_nor_in_the_way_of_a_smaller_one(
    revise: Callable[..., Policy],
) -> None:
    policy, now = revise(clusters={"best": {"capacity": AUTO}}), 100.0
    tracker = CapacityTracker(lambda: policy, lambda _: 60)

    def own_limit(own_in_flight: int, **fields: Any) -> int:
        nonlocal now
        for _ in range(40):
            now += 0.5
            tracker.learn(ended(**fields), 60 + own_in_flight, None, now)
        return (tracker.limit("best") or 0) - 60

    assert own_limit(2) == START_PER_ENDPOINT
    assert own_limit(16) > START_PER_ENDPOINT
    cut = own_limit(4, first_byte_seconds=2.0, duration_seconds=4.0)
    assert own_limit(cut) > cut


# against a simulated cluster

TWICE_THE_CAPACITY = 15.0


def arrivals(seconds: float, seed: int, per_second: float = TWICE_THE_CAPACITY) -> list[Arrival]:
    """Prompts of about a thousand tokens and answers of about two hundred, of all sizes."""
    draw, now, made = random.Random(seed), 0.0, []
    while (now := now + draw.expovariate(per_second)) < seconds:
        made.append(
            Arrival(
                number=len(made),
                due_seconds=now,
                tier="premium",
                tenant="acme",
                prompt_tokens=min(8000, round(draw.lognormvariate(6.5, 0.9))),
                answer_tokens=min(1000, 1 + round(draw.lognormvariate(5.2, 0.8))),
                max_tokens=1000,
                patience_seconds=60.0,
            )
        )
    return made


class Plant:
    """Two simulated engines of 48 slots behind a limit that is learnt from them."""

    def __init__(self, policy: Policy, capacity: Capacity = AUTO) -> None:
        limits = Queue(max_wait_seconds=5.0, max_depth=1000)
        tier = replace(policy.tiers["premium"], queue=limits, on_overload=(Rung.QUEUE, Rung.REJECT))
        cluster = replace(policy.clusters["best"], capacity=capacity)
        changed = replace(policy, tiers={**policy.tiers, "premium": tier}, clusters={"best": cluster})
        self.tracker = CapacityTracker(lambda: changed)
        self.limits: list[tuple[float, int]] = []
        self.replay = GatedReplay(
            changed,
            cluster,
            EngineShape(),
            2,
            request_limit=(lambda: self.tracker.limit("best")) if capacity.auto else None,
            on_end=self.on_end,
        )

    def on_end(self, visit: Visit, now: float) -> None:
        sequence = visit.sequence
        assert sequence is not None
        first = sequence.first_token_at
        record = ended(
            duration_seconds=now - visit.arrival.due_seconds,
            first_byte_seconds=None if first is None else first - visit.arrival.due_seconds,
            queue_wait_seconds=visit.waited_seconds,
            prompt_tokens=sequence.prompt_tokens,
            output_tokens=sequence.produced_tokens,
        )
        in_flight = self.replay.ledger.usage("best").requests + 1
        if self.tracker.learn(record, in_flight, None, now):
            self.replay.queue.reopen("best")
        self.limits.append((now, self.tracker.limit("best") or 0))

    def vanish(self, now: float) -> None:
        """One engine is gone, and all that ran on it."""
        engine = self.replay.engines.pop()
        for visit in self.replay.visits:
            if visit.engine is engine and visit.sequence is not None and visit.sequence.ended_at is None:
                engine.abort(visit.sequence, now)
                self.replay.leave(visit, now)

    def come_back(self, now: float) -> None:
        """It is there again, and empty."""
        self.replay.engines.append(SimulatedEngine(EngineShape()))

    def usual(self, start: float, end: float) -> float:
        return median(limit for moment, limit in self.limits if start <= moment < end)

    def tokens(self, start: float, end: float) -> int:
        return sum(
            visit.sequence.produced_tokens
            for visit in self.replay.visits
            if visit.sequence is not None and start <= (visit.sequence.ended_at or 0.0) < end
        )


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_a_cluster_runs_at_once_and_loses_little_on_the_way(policy: Policy, seed: int) -> None:
    plant, told = Plant(policy), Plant(policy, Capacity(requests=96))
    for each in (plant, told):
        each.replay.run(arrivals(300.0, seed), 300.0)

    assert 75 <= plant.usual(120.0, 300.0) <= 125
    assert plant.tokens(120.0, 300.0) >= 0.9 * told.tokens(120.0, 300.0)


@pytest.mark.parametrize("seed", range(3))
def test_it_follows_a_cluster_that_loses_half_its_endpoints_and_gets_them_back(policy: Policy, seed: int) -> None:
    plant = Plant(policy)
    plant.replay.at(200.0, plant.vanish)
    plant.replay.at(450.0, plant.come_back)

    plant.replay.run(arrivals(800.0, seed), 800.0)

    assert 75 <= plant.usual(120.0, 200.0) <= 130
    assert 35 <= plant.usual(280.0, 450.0) <= 65
    assert 70 <= plant.usual(650.0, 800.0) <= 130


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_that_is_not_fully_used_is_never_held_back(policy: Policy, seed: int) -> None:
    plant = Plant(policy)

    plant.replay.run(arrivals(300.0, seed, per_second=0.5 * TWICE_THE_CAPACITY * 0.6), 300.0)

    assert plant.usual(60.0, 300.0) >= 32
    waited = [visit.waited_seconds for visit in plant.replay.visits if visit.arrival.due_seconds > 60.0]
    assert sorted(waited)[len(waited) * 9 // 10] == 0.0
