"""The last decisions: bounded, newest first, and nothing in them that a client should not be able to put there."""

from __future__ import annotations

import itertools
from typing import Any

from extproc.events import Decision, Verdict
from extproc.recent import KEPT, RecentDecisions


def decided(**fields: Any) -> Decision:
    known = {
        "request_id": "r-1",
        "verdict": Verdict.ADMIT,
        "reason": "",
        "status": 200,
        "tenant": "acme",
        "tier": "premium",
    }
    return Decision(**known | fields)


def ticking() -> RecentDecisions:
    ticks = itertools.count(1000)
    return RecentDecisions(lambda: float(next(ticks)))


def test_the_newest_comes_first_with_its_reason() -> None:
    recent = ticking()
    recent.note(decided())
    recent.note(decided(verdict=Verdict.REJECT, reason="queue_full", status=429, tenant="hobby"))

    shown = recent.newest_first()

    assert [(each["at"], each["verdict"], each["reason"]) for each in shown] == [
        (1001.0, "REJECT", "queue_full"),
        (1000.0, "ADMIT", ""),
    ]
    assert recent.tenants() == ["hobby", "acme"]


def test_a_flood_of_refusals_pushes_nothing_else_out() -> None:
    recent = ticking()
    recent.note(decided(verdict=Verdict.DEGRADE, reason="standard_saturated"))
    for _ in range(1000):
        recent.note(decided(verdict=Verdict.REJECT, reason="tenant_concurrency", status=429))

    shown = recent.newest_first()

    assert len(shown) == KEPT + 1
    assert shown[-1]["verdict"] == "DEGRADE"
    assert recent.verdicts("premium") == {"DEGRADE": 1, "REJECT": 1000}
    assert recent.verdicts("batch") == {}


def test_what_a_client_made_up_is_cut_short() -> None:
    recent = ticking()
    recent.note(decided(model="m" * 10_000, request_id="i" * 10_000, verdict=Verdict.REJECT))

    (shown,) = recent.newest_first()

    assert (len(str(shown["model"])), len(str(shown["id"]))) == (80, 80)
