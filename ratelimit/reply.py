"""What an answer carries besides its codes: the `RateLimit-*` headers and the dynamic metadata of the reference.

Pure; which of the two are wanted is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ratelimit.limiter import Modes, Plan, is_quota
from ratelimit.limits import Code, Descriptor, Json, RateLimitRequest, Status, Verdict

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Body, response headers, and dynamic metadata for Envoy's access log and later filters."""

    body: bytes = b""
    headers: Headers = ()
    metadata: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))


def limit_headers(plan: Plan, verdict: Verdict, modes: Modes, names: tuple[str, str, str]) -> Headers:
    """Limit, remaining and reset of the descriptor with the least room; the last one that refuses wins over it."""
    tightest: Status | None = None
    for item, status in zip(plan.items, verdict.statuses, strict=True):
        if status.limit is None:
            continue
        refuses = status.is_over and not is_quota(item, modes)
        if refuses or tightest is None or status.remaining < tightest.remaining:
            tightest = status
    if tightest is None or tightest.limit is None:
        return ()
    values = (tightest.limit.requests_per_unit, tightest.remaining, tightest.reset_whole_seconds)
    return tuple((name, str(value)) for name, value in zip(names, values, strict=True) if value is not None)


def dynamic_metadata(request: RateLimitRequest, plan: Plan, verdict: Verdict) -> dict[str, Json]:
    """The request as it came, and the metadata of all configured descriptors that passed; the first value counts."""
    descriptors: list[Json] = [_described(descriptor) for descriptor in request.descriptors]
    metadata: dict[str, Json] = {"domain": request.domain, "descriptors": descriptors}
    if request.hits_addend:
        metadata["hitsAddend"] = request.hits_addend
    merged: dict[str, Json] = {}
    for item, status in zip(plan.items, verdict.statuses, strict=True):
        if item.match is not None and item.match.metadata and status.code is Code.OK:
            _merge(merged, item.match.metadata)
    if merged:
        metadata["metadata"] = merged
    return metadata


def _described(descriptor: Descriptor) -> dict[str, Json]:
    entries: list[Json] = [f"{entry.key}={entry.value}" for entry in descriptor.entries]
    described: dict[str, Json] = {"entries": entries}
    if descriptor.limit is not None:
        limit = descriptor.limit
        described["limit"] = f"requests_per_unit:{limit.requests_per_unit} unit:{limit.unit.upper()}"
    if descriptor.hits_addend is not None:
        described["hitsAddend"] = descriptor.hits_addend
    return described


def _merge(into: dict[str, Json], more: Mapping[str, Json]) -> None:
    for key, value in more.items():
        present = into.get(key)
        if key not in into:
            into[key] = dict(value) if isinstance(value, dict) else value
        elif isinstance(present, dict) and isinstance(value, dict):
            into[key] = present = dict(present)
            _merge(present, value)
