"""Prompt tokens sent to each cluster and, at the speed the policy says, not computed yet.

A prompt that is being computed delays the first token of all behind it, and no limit on requests or tokens in flight
shows that. Pure: `now` is passed in.
"""

from __future__ import annotations

from headgate.store import LeaseRequest

_NOTHING_SECONDS = 1e-6
"""What rounding leaves over when it is time."""


class PrefillBacklog:
    """The backlogs of all clusters, as far as this sidecar has filled them."""

    def __init__(self) -> None:
        self._clear_at: dict[str, float] = {}

    def excess_seconds(self, request: LeaseRequest, now: float) -> float:
        """How long until the backlog is short enough for one more request like this; 0.0 when it is.

        Whatever its size: were small prompts let past a large one, it would wait for ever.
        """
        if request.cluster is None or request.max_backlog_seconds is None:
            return 0.0
        excess_seconds = self._clear_at.get(request.cluster, now) - now - request.max_backlog_seconds
        return excess_seconds if excess_seconds > _NOTHING_SECONDS else 0.0

    def sent(self, request: LeaseRequest, now: float) -> None:
        """A request goes to its cluster."""
        if request.cluster is None or not request.prompt_tokens_per_second:
            return
        clear_at = max(now, self._clear_at.get(request.cluster, now))
        self._clear_at[request.cluster] = clear_at + request.prompt_tokens / request.prompt_tokens_per_second
