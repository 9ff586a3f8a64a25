"""The last decisions with their reasons, and how many of each verdict every tier got: for people who look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from extproc.events import Decision, Verdict

KEPT = 25
"""Of each verdict: a flood of one pushes none of the others out."""
_SHOWN_CHARACTERS = 80


class RecentDecisions:
    """A ring of decisions for each verdict; noting one is an append and a count. `clock` in seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rings = {verdict: deque[tuple[float, Decision]](maxlen=KEPT) for verdict in Verdict}
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, decision: Decision) -> None:
        """Keep one."""
        self._rings[decision.verdict].append((self._clock(), decision))
        key = (decision.tier, decision.verdict)
        self._counts[key] = self._counts.get(key, 0) + 1

    def verdicts(self, tier: str) -> dict[str, int]:
        """How many of each verdict a tier got since the start; "" is the tier of those nobody knows."""
        return {verdict: count for (name, verdict), count in self._counts.items() if name == tier}

    def tenants(self) -> list[str]:
        """Who they are about, each once."""
        decisions = (decision for _, decision in self._kept())
        return list(dict.fromkeys(decision.tenant for decision in decisions if decision.tenant))

    def newest_first(self) -> list[dict[str, object]]:
        """All that is kept, as the live page shows it."""
        return [_shown(at, decision) for at, decision in self._kept()]

    def _kept(self) -> list[tuple[float, Decision]]:
        kept = [entry for ring in self._rings.values() for entry in reversed(ring)]
        return sorted(kept, key=lambda entry: entry[0], reverse=True)


def _shown(at: float, decision: Decision) -> dict[str, object]:
    return {
        "id": decision.request_id[:_SHOWN_CHARACTERS],
        "at": at,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "status": decision.status,
        "tenant": decision.tenant,
        "tier": decision.tier,
        # A refused request may name anything for a model.
        "model": decision.model[:_SHOWN_CHARACTERS],
        "cluster": decision.cluster,
        "prompt_tokens": decision.prompt_tokens,
        "max_output_tokens": decision.max_output_tokens,
        "queue_wait_seconds": decision.queue_wait_seconds,
    }
