"""The configuration in force as the reference's `/rlconfig` lists it, one line per limit."""

from __future__ import annotations

from collections.abc import Iterator

from ratelimit.limits import Algorithm, Limit
from ratelimit.matching import Configuration, ConfiguredDescriptor


def listing(configuration: Configuration) -> Iterator[str]:
    """One line for every configured limit, in the order of the files."""
    for domain in configuration.domains.values():
        for descriptor in domain.descriptors:
            yield from _lines(descriptor, domain.name)


def _lines(descriptor: ConfiguredDescriptor, above: str) -> Iterator[str]:
    path = f"{above}.{descriptor.composite_key}"
    if descriptor.limit is not None:
        yield f"{path}: {_shown(descriptor.limit)}"
    for below in descriptor.descriptors:
        yield from _lines(below, path)


def _shown(limit: Limit) -> str:
    has_unit = not limit.unlimited and limit.algorithm is not Algorithm.CONCURRENCY
    unit = limit.unit.upper() if has_unit else "UNKNOWN"
    modes = f"shadow_mode: {str(limit.shadow_mode).lower()}, quota_mode: {str(limit.quota_mode).lower()}"
    line = f"unit={unit} requests_per_unit={limit.requests_per_unit}, {modes}"
    # What the reference does not know comes after what its readers expect.
    if limit.unit_multiplier != 1:
        line += f", unit_multiplier: {limit.unit_multiplier}"
    if limit.algorithm is not Algorithm.FIXED_WINDOW:
        line += f", algorithm: {limit.algorithm}"
    return line
