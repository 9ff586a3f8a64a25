"""How long Envoy may wait for what, derived so that no timer fires while Headgate still holds a request in a queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from headgate.policy.model import Policy
from headgate_cli.render.settings import EnvoySettings

DECISION_MARGIN = timedelta(seconds=5)
"""What deciding and answering may take on top of the wait itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The timers that run while a request is held.

    Attributes:
        message: ext_proc's wait for one answer; expiry is a 504.
        stream_idle: silence on a request that is not routed yet. Longer than `message`, whose reply says more.
        request: from the first byte of the request to its end; Envoy keeps it running while ext_proc holds the body.
        routed_idle: silence on a request that is running on a model.
    """

    message: timedelta
    stream_idle: timedelta
    request: timedelta
    routed_idle: timedelta


def derive(policy: Policy, settings: EnvoySettings) -> Timeouts:
    """The timers for the longest queue wait of any tier, which the policy keeps within the hour Envoy accepts."""
    message = longest_wait(policy) + DECISION_MARGIN
    return Timeouts(
        message=message,
        stream_idle=message + DECISION_MARGIN,
        request=message + timedelta(seconds=settings.upload_seconds),
        routed_idle=timedelta(seconds=settings.idle_seconds),
    )


def longest_wait(policy: Policy) -> timedelta:
    """The longest any tier lets a request wait; zero when none has a queue."""
    waits = (tier.queue.max_wait_seconds for tier in policy.tiers.values() if tier.queue)
    return timedelta(seconds=max(waits, default=0.0))
