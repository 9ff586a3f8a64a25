"""What a cluster's servers say of themselves, as last heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """A cluster's load by its servers' own account, this long ago.

    Attributes:
        saturation: 0.0 idle .. 1.0 full.
        queue_depth: requests waiting inside the servers.
        is_unavailable: all of them were asked lately, and none takes requests: each says so, or nobody is there.
    """

    saturation: float
    queue_depth: int
    age_seconds: float
    is_unavailable: bool = False


ServerLoads = Callable[[str], ServerLoad | None]
"""Cluster -> its load; None when nobody knows, or not lately: then nothing waits for news."""
