"""The compiled configuration: which limit a descriptor of a request falls under.

A level is a hash map on the composite key `key_value` (or bare `key`), exactly as in the reference: `a_b` = `c` and
`a` = `b_c` are one descriptor and one counter there and here, so that both can count in one Redis.
Knows no file format, no counter and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ratelimit.limits import Entry, Limit
from ratelimit.wildcards import WildcardIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredDescriptor:
    """One descriptor of a configuration, with those nested in it.

    Attributes:
        value: "" stands for any value; a `*` in key or value makes it a pattern.
        limit: None leaves requests that end here unlimited.
        share_threshold: all values that match the pattern share one counter.
        detailed_metric: the metric key names every value of the request.
        value_to_metric: the metric key names this level's value.
    """

    key: str
    value: str = ""
    limit: Limit | None = None
    share_threshold: bool = False
    detailed_metric: bool = False
    value_to_metric: bool = False
    descriptors: tuple[ConfiguredDescriptor, ...] = ()

    @property
    def composite_key(self) -> str:
        """What a request's entry is compared with."""
        return _composite(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Match:
    """A limit and the names it counts under.

    Attributes:
        counter_key: the reference's cache key without prefix and window.
        metric_key: the reference's stat name.
    """

    limit: Limit
    counter_key: str
    metric_key: str


class Domain:
    """One domain's descriptors, compiled; matching costs the same for ten descriptors and for 100,000.

    Args:
        all_or_nothing: a request that one limit refuses is charged to none of its limits.
    """

    def __init__(self, name: str, descriptors: Iterable[ConfiguredDescriptor], *, all_or_nothing: bool = False) -> None:
        self.name = name
        self.all_or_nothing = all_or_nothing
        self._root = _Node(ConfiguredDescriptor(key="", descriptors=tuple(descriptors)))

    def match(self, entries: Sequence[Entry]) -> Match | None:
        """The limit at the node that the last entry reaches; None when there is no such node or limit.

        Each entry takes the exact value, else the first pattern in file order, else the bare key; there is no way
        back to a less specific one when a later entry finds nothing.
        """
        path: list[_Node] = []
        node = self._root
        for entry in entries:
            below = node.step(entry)
            if below is None:
                return None
            node = below
            path.append(node)
        if node.limit is None:
            return None
        return Match(node.limit, self._counter_key(entries, path), self._metric_key(entries, path))

    def override(self, entries: Sequence[Entry], limit: Limit) -> Match:
        """The caller's own limit; it shares the counter of a configured limit with the same window."""
        return Match(limit, self._counter_key(entries, ()), self._metric_key(entries, ()))

    def _counter_key(self, entries: Sequence[Entry], path: Sequence[_Node]) -> str:
        parts = [self.name]
        for index, entry in enumerate(entries):
            shared = path[index].shared_text(entry) if path else None
            parts.append(shared or f"{entry.key}_{entry.value}")
        return "_".join(parts)

    def _metric_key(self, entries: Sequence[Entry], path: Sequence[_Node]) -> str:
        parts = [self.name]
        if not path or path[-1].detailed_metric:
            for index, entry in enumerate(entries):
                shared = path[index].shared_text(entry) if path else None
                parts.append(shared or _composite(*entry))
        else:
            parts += [node.metric_text(entry) for node, entry in zip(path, entries, strict=True)]
        return ".".join(parts)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All domains in force, by name. A domain that is not here limits nothing."""

    domains: Mapping[str, Domain] = field(default_factory=lambda: MappingProxyType({}))


class _Node:
    """One compiled descriptor and the level below it."""

    __slots__ = (
        "_below",
        "_is_pattern",
        "_is_shared",
        "_key",
        "_patterns",
        "_shows_value",
        "detailed_metric",
        "limit",
    )

    def __init__(self, source: ConfiguredDescriptor) -> None:
        self.limit = source.limit
        self.detailed_metric = source.detailed_metric
        self._key = source.composite_key
        self._is_pattern = "*" in self._key
        self._is_shared = source.share_threshold and self._is_pattern
        self._shows_value = source.value_to_metric
        self._below = {child.composite_key: _Node(child) for child in source.descriptors}
        patterns = [(key, node) for key, node in self._below.items() if "*" in key]
        self._patterns = WildcardIndex(patterns) if patterns else None

    def step(self, entry: Entry) -> _Node | None:
        text = f"{entry.key}_{entry.value}"
        node = self._below.get(text)
        if node is None and self._patterns is not None:
            node = self._patterns.first(text)
        return node if node is not None else self._below.get(entry.key)

    def shared_text(self, entry: Entry) -> str | None:
        """What stands for all values that share this node's counter; None when each value has its own."""
        return self._pattern_text(entry) if self._is_shared else None

    def metric_text(self, entry: Entry) -> str:
        if self._is_shared:
            return self._pattern_text(entry)
        if self._shows_value:
            return _composite(*entry)
        return self._pattern_text(entry) if self._is_pattern else self._key

    def _pattern_text(self, entry: Entry) -> str:
        return f"{entry.key}_{self._key.removeprefix(entry.key + '_')}"


def _composite(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key
