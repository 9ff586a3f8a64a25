"""Configuration files of envoyproxy/ratelimit -> `Configuration`, with every problem of every file.

Accepts and refuses what the reference does, in its words; files are taken in the order of their names.
Reads bytes it is given; opens and watches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from headgate.errors import PolicyError, Problem
from ratelimit.document import Value, read_document
from ratelimit.extensions import Extensions, read_all_or_nothing, read_extensions
from ratelimit.limits import Algorithm, Json, Limit, Unit, unit_of
from ratelimit.matching import Configuration, ConfiguredDescriptor, Domain, Origin
from ratelimit.tenants import TENANT_DOMAIN

_Level = dict[str, ConfiguredDescriptor]

_UNITS: dict[str, Unit] = {unit.value: unit for unit in Unit}


def load_configuration(files: Iterable[tuple[str, bytes]], *, merge_domains: bool = False) -> Configuration:
    """Read all files as one configuration.

    Args:
        files: pairs of file name and contents.
        merge_domains: several files may add to the same domain; they may not define the same descriptor.

    Raises:
        PolicyError: with every problem found; none of the files is used then.
    """
    problems: list[Problem] = []
    domains: dict[str, _Level] = {}
    all_or_nothing: set[str] = set()
    for file, text in sorted(files):
        root = read_document(text, file, problems)
        if root is not None:
            name = _read_domain(root, domains, merge_domains=merge_domains)
            if read_all_or_nothing(root.field("headgate")):
                all_or_nothing.add(name)
    if problems:
        raise PolicyError(problems)
    compiled = {
        name: Domain(name, level.values(), all_or_nothing=name in all_or_nothing) for name, level in domains.items()
    }
    return Configuration(MappingProxyType(compiled))


def _read_domain(root: Value, domains: dict[str, _Level], *, merge_domains: bool) -> str:
    root.expect_map("config.YamlRoot")
    field = root.field("domain")
    name = field.text()
    if not name:
        field.report("config file cannot have empty domain")
    elif name == TENANT_DOMAIN:
        field.report(f"domain '{TENANT_DOMAIN}' is made from the policy's tenants")
    elif name in domains and not merge_domains:
        field.report(f"duplicate domain '{name}' in config file")
    _read_level(root, name, domains.setdefault(name, {}))
    return name


def _read_level(parent: Value, path: str, level: _Level) -> None:
    """Add the descriptors under `parent` to `level`; `path` is the composite path to it, for error texts."""
    for value in parent.field("descriptors").elements("[]config.YamlDescriptor"):
        _read_descriptor(value, path, level)


def _read_descriptor(value: Value, path: str, level: _Level) -> None:
    key, text = value.field("key").text(), value.field("value").text()
    composite = f"{key}_{text}" if text else key
    path = f"{path}.{composite}"
    if not key:
        value.report("descriptor has empty key")
    elif composite in level:
        value.report(f"duplicate descriptor composite key '{path}'")
    limit = _read_limit(value)
    share_threshold = value.field("share_threshold").flag()
    if share_threshold and "*" not in composite:
        value.report(
            f"share_threshold can only be used with wildcard values (containing '*'), but found key '{composite}'"
        )
    below: _Level = {}
    _read_level(value, path, below)
    level[composite] = ConfiguredDescriptor(
        key=key,
        value=text,
        limit=limit,
        share_threshold=share_threshold,
        detailed_metric=value.field("detailed_metric").flag(),
        value_to_metric=value.field("value_to_metric").flag(),
        metadata=_read_metadata(value.field("metadata")),
        origin=Origin(value.file, value.line),
        descriptors=tuple(below.values()),
    )


def _read_metadata(value: Value) -> dict[str, Json] | None:
    value.expect_map("map[string]interface {}")
    metadata = value.json()
    return metadata if isinstance(metadata, dict) else None


def _read_limit(descriptor: Value) -> Limit | None:
    shadow_mode, quota_mode = descriptor.field("shadow_mode").flag(), descriptor.field("quota_mode").flag()
    value, extensions = descriptor.field("rate_limit"), read_extensions(descriptor.field("headgate"))
    if extensions.algorithm is Algorithm.CONCURRENCY:
        if not value.is_null:
            value.report("max_in_flight and rate_limit exclude each other; use two descriptors")
        return Limit(shadow_mode=shadow_mode, quota_mode=quota_mode, **extensions.of_concurrency())
    if value.is_null:
        extensions.report_unused()
        return None
    value.expect_map("config.YamlRateLimit")
    unlimited, name = value.field("unlimited").flag(), value.field("name").text()
    unit, multiplier = _read_window(value.field("unit"), extensions, unlimited=unlimited)
    requests_per_unit = value.field("requests_per_unit").count()
    extensions.check(requests_per_unit, unlimited=unlimited)
    return Limit(
        requests_per_unit=requests_per_unit,
        unit=unit,
        unit_multiplier=multiplier,
        unlimited=unlimited,
        name=name,
        replaces=_read_replaces(value.field("replaces"), name),
        shadow_mode=shadow_mode,
        quota_mode=quota_mode,
        **extensions.of_window(),
    )


def _read_window(value: Value, extensions: Extensions, *, unlimited: bool) -> tuple[Unit, int]:
    text = value.text()
    unit = _UNITS.get(text.lower())
    if extensions.window_seconds:
        if not value.is_null:
            value.report("unit and headgate.window exclude each other")
        return unit_of(extensions.window_seconds)
    if unlimited and unit is not None:
        value.report("should not specify rate limit unit when unlimited")
    elif not unlimited and unit is None:
        value.report(f"invalid rate limit unit '{text}'")
    return unit or Unit.SECOND, 1


def _read_replaces(value: Value, own_name: str) -> frozenset[str]:
    names = []
    for entry in value.elements("[]config.yamlReplaces"):
        name = entry.field("name").text()
        if not name:
            entry.report("should not have an empty replaces entry")
        elif name == own_name:
            entry.report("replaces should not contain name of same descriptor")
        names.append(name)
    return frozenset(names)
