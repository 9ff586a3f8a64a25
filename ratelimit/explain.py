"""Why a descriptor is limited as it is: which configuration line each entry reached, by which rule, and what counts.

Pure but for the question to the store, which takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ratelimit.charges import Charging, Store, Tally
from ratelimit.limiter import Plan, plan
from ratelimit.limits import Algorithm, Descriptor, Entry, Json, Limit, RateLimitRequest
from ratelimit.matching import Configuration, Domain, Match, Step


def parse_descriptor(text: str) -> tuple[Entry, ...]:
    """Entries written `key=value,key=value`; a comma or backslash in a value is written with a backslash before it."""
    entries: list[Entry] = []
    for part in _split(text):
        key, _, value = part.partition("=")
        entries.append(Entry(key, value))
    return tuple(entries)


async def explain(
    configuration: Configuration, store: Store, domain: str, entries: tuple[Entry, ...]
) -> dict[str, Json]:
    """What a request with this one descriptor would meet now.

    Raises:
        StoreUnavailable: the store gave no answer.
    """
    known = configuration.domains.get(domain)
    asked: dict[str, Json] = {"domain": domain, "descriptor": [f"{entry.key}={entry.value}" for entry in entries]}
    if known is None:
        return asked | {"result": "no limit: the domain is not configured", "steps": []}
    request = RateLimitRequest(domain=domain, descriptors=(Descriptor(entries=entries, hits_addend=0),))
    planned = plan(request, configuration)
    match = planned.items[0].match
    tallies = await _look(planned, store)
    steps = known.trace(entries)
    return asked | {
        "steps": [_step(step) for step in steps],
        "result": _result(steps, match),
        **_limit(known, match, tallies),
    }


async def _look(planned: Plan, store: Store) -> tuple[Tally, ...]:
    charges = [replace(charge, hits=0) for charge in planned.charges()]
    return await store.charge(charges, Charging.EACH) if charges else ()


def _result(steps: list[Step], match: Match | None) -> str:
    if match is not None:
        return f"limited by {steps[-1].origin}" if not match.limit.unlimited else f"unlimited by {steps[-1].origin}"
    last = steps[-1] if steps else None
    if last is None:
        return "no limit: the descriptor has no entries"
    if not last.configured:
        return f"no limit: nothing is configured for {last.entry.key}={last.entry.value} here"
    return f"no limit: {last.origin} has no rate_limit"


def _step(step: Step) -> Json:
    return {
        "entry": f"{step.entry.key}={step.entry.value}",
        "rule": step.how,
        "configured": step.configured,
        "line": str(step.origin),
        "has_limit": step.has_limit,
    }


def _limit(domain: Domain, match: Match | None, tallies: Iterable[Tally]) -> dict[str, Json]:
    if match is None:
        return {}
    about: dict[str, Json] = {
        "limit": describe(match.limit),
        "counter_key": match.counter_key,
        "metric_key": match.metric_key,
        "all_or_nothing": domain.all_or_nothing,
    }
    for tally in tallies:
        about |= {
            "count": tally.count,
            "remaining": max(0, match.limit.capacity - tally.count),
            "reset_seconds": tally.reset_seconds,
        }
    return about


def describe(limit: Limit) -> dict[str, Json]:
    """A limit in words of the configuration file."""
    if limit.unlimited:
        return {"unlimited": True}
    words: dict[str, Json] = {"algorithm": limit.algorithm}
    if limit.algorithm is Algorithm.CONCURRENCY:
        words |= {"max_in_flight": limit.requests_per_unit, "lease_seconds": limit.lease_seconds}
    else:
        words |= {"requests_per_unit": limit.requests_per_unit, "window_seconds": limit.window_seconds}
    replaces: list[Json] = []
    replaces += sorted(limit.replaces)
    optional: dict[str, Json] = {
        "name": limit.name,
        "burst": limit.burst,
        "shadow_mode": limit.shadow_mode,
        "quota_mode": limit.quota_mode,
        "replaces": replaces,
        "on_store_failure": limit.on_store_failure,
    }
    words |= {key: value for key, value in optional.items() if value}
    return words


def _split(text: str) -> list[str]:
    parts, escaped = [""], False
    for character in text:
        if escaped or character not in ",\\":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    return [part for part in parts if part]
