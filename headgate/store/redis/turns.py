"""Who of those waiting here is next, as Redis was told: a claim per line, told anew when it changes or gets old."""

from __future__ import annotations

from headgate.store import Line
from headgate.store.redis.call import Question, question


class Turns:
    """The claims of this sidecar. `now` in seconds, monotonic."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self._changed: set[str] = set()
        self._standing: set[str] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether Redis holds a claim of this sidecar."""
        return bool(self._standing)

    @property
    def has_news(self) -> bool:
        """Whether somebody else may be next somewhere."""
        return bool(self._changed)

    def changed(self, cluster: str) -> None:
        """Somebody else may be next at a cluster."""
        if cluster in self._standing:
            self._changed.add(cluster)

    def asked(self, cluster: str) -> None:
        """One who waits for a cluster is asked for."""
        self._changed.add(cluster)

    def refresh(self) -> None:
        """Tell all claims again."""
        if self.line is not None:
            self._changed.update(self.line.clusters(), self._standing)

    def take(self, now: float) -> dict[str, list[Question]]:
        """The claims to be told, by cluster; an empty list takes back the old ones."""
        told: dict[str, list[Question]] = {}
        for cluster in self._changed:
            claims = self._claims(cluster, now)
            if claims or cluster in self._standing:
                told[cluster] = claims
            if claims:
                self._standing.add(cluster)
            else:
                self._standing.discard(cluster)
        self._changed = set()
        return told

    def take_back_all(self) -> dict[str, list[Question]]:
        """Nobody waits here any more."""
        told: dict[str, list[Question]] = {cluster: [] for cluster in self._standing}
        self._standing.clear()
        return told

    def untold(self) -> None:
        """Redis may not have heard what was last told."""
        self._changed.update(self._standing)

    def _claims(self, cluster: str, now: float) -> list[Question]:
        if self.line is None:
            return []
        return [question(claim.request, now, count=claim.waiting) for claim in self.line.claims(cluster)]
