"""What the live page is told about clusters, tiers and tenants."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.events import Decision, Verdict
from extproc.live import LiveSections
from extproc.queue import FairQueue
from extproc.recent import RecentDecisions
from extproc.servers.poller import ServerPoller
from extproc.servers.watch import Timing
from extproc.signals import ClusterSignals
from headgate.live.board import LiveBoard
from headgate.live.window import RecentRequests
from headgate.policy.model import Policy, Queue
from headgate.record import RequestRecord
from headgate.store import LeaseRequest
from headgate.store.memory import MemoryStore
from tests import records


class Sidecar:
    """The parts the sections read, and what they then show."""

    def __init__(self, policy: Policy) -> None:
        self.store = MemoryStore(lambda: 0.0)
        self.queue = FairQueue()
        self.servers = ServerPoller(Timing(), lambda: 0.0)
        self.decisions = RecentDecisions(lambda: 1000.0)
        self.requests = RecentRequests(lambda: 0.0, lambda: policy)
        self.board = LiveBoard(lambda: 0.0)
        LiveSections(
            policy=lambda: policy,
            store=self.store,
            queue=self.queue,
            signals=ClusterSignals(lambda: policy, self.store, self.queue),
            servers=self.servers,
            decisions=self.decisions,
            requests=self.requests,
        ).show_on(self.board)

    def row(self, section: str, name: str) -> dict[str, Any]:
        rows: Any = self.board.snapshot()[section]
        return next(row for row in rows if row["name"] == name)


@pytest.fixture
def sidecar(policy: Policy) -> Sidecar:
    return Sidecar(policy)


def finished(tenant: str, tokens: int) -> RequestRecord:
    return records.finished(tenant=tenant, prompt_tokens=0, output_tokens=tokens, first_byte_seconds=0.5)


def test_a_cluster_tells_what_runs_what_waits_and_how_full_it_is(sidecar: Sidecar) -> None:
    request = LeaseRequest(tenant="acme", tier="premium", cluster="best", tokens=1000, cluster_limit=2)
    sidecar.store.acquire(request, lambda answer: None)
    limits = Queue(max_wait_seconds=1.0, max_depth=10)
    sidecar.queue.join(request, queue=limits, priority=0, weight=1.0, size_bytes=1, now=0.0)

    cluster = sidecar.row("clusters", "best")

    assert cluster == {
        "name": "best", "saturation": 0.5, "requests": 1, "max_requests": 2, "tokens": 1000, "max_tokens": 50_000,
        "waiting": 1, "servers": None,
    }  # fmt: skip
    assert sidecar.row("tiers", "premium")["waiting"] == 1
    assert sidecar.row("tiers", "premium")["in_flight"] == 1


def test_silent_servers_are_shown_as_silent(sidecar: Sidecar, policy: Policy) -> None:
    sidecar.servers._by_cluster = {"best": ()}

    assert sidecar.row("clusters", "best")["servers"] == {"is_stale": True, "age_seconds": 0.0}


def test_tiers_come_in_the_order_of_their_priority_and_those_nobody_knows_last(sidecar: Sidecar) -> None:
    sidecar.decisions.note(Decision(request_id="r", verdict=Verdict.REJECT, reason="invalid_credential", status=401))
    sidecar.requests.note(finished("acme", 10))

    rows: Any = sidecar.board.snapshot()["tiers"]

    assert [row["name"] for row in rows] == ["premium", "interactive", "best_effort", ""]
    assert rows[-1]["verdicts"] == {"REJECT": 1}
    assert rows[0]["first_token_p95_seconds"] == 0.5


def test_a_tenant_tells_its_share_and_one_that_only_asks_is_listed_too(sidecar: Sidecar) -> None:
    sidecar.requests.note(finished("acme", 300))
    sidecar.requests.note(finished("globex", 100))
    sidecar.decisions.note(
        Decision(request_id="r", verdict=Verdict.ADMIT, reason="", status=200, tenant="hobby", tier="best_effort")
    )

    rows: Any = sidecar.board.snapshot()["tenants"]

    assert [(row["name"], row["tier"], row["requests"], row["share"]) for row in rows] == [
        ("acme", "premium", 1, 0.75),
        ("globex", "interactive", 1, 0.25),
        ("hobby", "best_effort", 0, 0.0),
    ]
