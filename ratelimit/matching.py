"""The compiled configuration: which limit a descriptor of a request falls under.

A level is a hash map on the composite key `key_value` (or bare `key`), exactly as in the reference: `a_b` = `c` and
`a` = `b_c` are one descriptor and one counter there and here, so that both can count in one Redis.
Knows no file format, no counter and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from ratelimit.limits import Algorithm, Entry, Json, Limit
from ratelimit.wildcards import WildcardIndex


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something was configured; line 0 when it was not in a file of limits."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredDescriptor:
    """One descriptor of a configuration, with those nested in it.

    Attributes:
        value: "" stands for any value; a `*` in key or value makes it a pattern.
        limit: None leaves requests that end here unlimited.
        share_threshold: all values that match the pattern share one counter.
        detailed_metric: the metric key names every value of the request.
        value_to_metric: the metric key names this level's value.
        metadata: what the answer's dynamic metadata says when this descriptor passed.
    """

    key: str
    value: str = ""
    limit: Limit | None = None
    share_threshold: bool = False
    detailed_metric: bool = False
    value_to_metric: bool = False
    metadata: Mapping[str, Json] | None = None
    origin: Origin = Origin()
    descriptors: tuple[ConfiguredDescriptor, ...] = ()

    @property
    def composite_key(self) -> str:
        """What a request's entry is compared with."""
        return _composite(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Match:
    """A limit and the names it counts under.

    Attributes:
        counter_key: the reference's cache key without prefix and window; of a concurrency limit, without the last
            value, which is the request's id.
        metric: the parts of the reference's stat name, the domain first.
        lease_id: of a concurrency limit: whose lease it is.
    """

    limit: Limit
    counter_key: str
    metric: tuple[str, ...]
    metadata: Mapping[str, Json] | None = None
    lease_id: str = ""

    @property
    def metric_key(self) -> str:
        """The reference's stat name."""
        return ".".join(self.metric)


class How(StrEnum):
    """By which rule an entry found its descriptor."""

    EXACT = "exact value"
    PATTERN = "first pattern in file order"
    ANY_VALUE = "any value"
    NOTHING = "nothing configured here"


@dataclass(frozen=True, slots=True)
class Step:
    """One entry on its way through the configuration."""

    entry: Entry
    how: How
    configured: str = ""
    origin: Origin = Origin()
    has_limit: bool = False


class Domain:
    """One domain's descriptors, compiled; matching costs the same for ten descriptors and for 100,000.

    Args:
        all_or_nothing: a request that one limit refuses is charged to none of its limits.
    """

    def __init__(self, name: str, descriptors: Iterable[ConfiguredDescriptor], *, all_or_nothing: bool = False) -> None:
        self.name = name
        self.all_or_nothing = all_or_nothing
        self.descriptors = tuple(descriptors)
        self._root = _Node(ConfiguredDescriptor(key="", descriptors=self.descriptors), (name,))

    def match(self, entries: Sequence[Entry]) -> Match | None:
        """The limit at the node that the last entry reaches; None when there is no such node or limit.

        Each entry takes the exact value, else the first pattern in file order, else the bare key; there is no way
        back to a less specific one when a later entry finds nothing.
        """
        path: list[_Node] = []
        node = self._root
        for entry in entries:
            below, _ = node.step(entry)
            if below is None:
                return None
            node = below
            path.append(node)
        if node.limit is None:
            return None
        if node.limit.algorithm is not Algorithm.CONCURRENCY:
            counter_key = self._counter_key(entries, path)
            return Match(node.limit, counter_key, self._metric(entries, path), node.metadata)
        *owner, (key, lease_id) = entries
        counter_key = self._counter_key([*owner, Entry(key, "")], path)
        metric = (*self._metric(owner, path[:-1]), key)
        return Match(node.limit, counter_key, metric, node.metadata, lease_id)

    def override(self, entries: Sequence[Entry], limit: Limit) -> Match:
        """The caller's own limit; it shares the counter of a configured limit with the same window."""
        return Match(limit, self._counter_key(entries, ()), self._metric(entries, ()))

    def trace(self, entries: Sequence[Entry]) -> list[Step]:
        """How each entry finds its descriptor, up to the first that finds none."""
        steps: list[Step] = []
        node = self._root
        for entry in entries:
            below, how = node.step(entry)
            if below is None:
                return [*steps, Step(entry, how)]
            node = below
            steps.append(Step(entry, how, node.key, node.origin, node.limit is not None))
        return steps

    def _counter_key(self, entries: Sequence[Entry], path: Sequence[_Node]) -> str:
        if not path or not path[-1].shares:
            return "_".join([self.name, *[f"{key}_{value}" for key, value in entries]])
        texts = [
            node.shared_text(entry) or f"{entry.key}_{entry.value}" for node, entry in zip(path, entries, strict=True)
        ]
        return "_".join([self.name, *texts])

    def _metric(self, entries: Sequence[Entry], path: Sequence[_Node]) -> tuple[str, ...]:
        if path and path[-1].metric is not None:
            return path[-1].metric
        if path and not path[-1].detailed_metric:
            return (self.name, *[node.metric_text(entry) for node, entry in zip(path, entries, strict=True)])
        parts = [self.name]
        for index, entry in enumerate(entries):
            shared = path[index].shared_text(entry) if path else None
            parts.append(shared or _composite(*entry))
        return tuple(parts)


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
        "_patterns",
        "_shows_value",
        "detailed_metric",
        "key",
        "limit",
        "metadata",
        "metric",
        "origin",
        "shares",
    )

    def __init__(self, source: ConfiguredDescriptor, metric: tuple[str, ...] | None, *, shares: bool = False) -> None:
        """Take the metric if no request changes it, and whether a level up to here shares a counter."""
        self.metric = None if source.detailed_metric else metric
        self.shares = shares
        self.limit = source.limit
        self.metadata = source.metadata
        self.origin = source.origin
        self.detailed_metric = source.detailed_metric
        self.key = source.composite_key
        self._is_pattern = "*" in self.key
        self._is_shared = source.share_threshold and self._is_pattern
        self._shows_value = source.value_to_metric
        self._below = {child.composite_key: self._compiled(child, metric) for child in source.descriptors}
        patterns = [(key, node) for key, node in self._below.items() if "*" in key]
        self._patterns = WildcardIndex(patterns) if patterns else None

    def _compiled(self, child: ConfiguredDescriptor, above: tuple[str, ...] | None) -> _Node:
        is_pattern = "*" in child.composite_key
        is_fixed = above is not None and not is_pattern and not child.value_to_metric
        metric = (*above, child.composite_key) if above is not None and is_fixed else None
        return _Node(child, metric, shares=self.shares or (child.share_threshold and is_pattern))

    def step(self, entry: Entry) -> tuple[_Node | None, How]:
        """The descriptor below that an entry leads to, and by which rule."""
        text = f"{entry.key}_{entry.value}"
        node = self._below.get(text)
        if node is not None:
            return node, How.EXACT
        if self._patterns is not None and (node := self._patterns.first(text)) is not None:
            return node, How.PATTERN
        node = self._below.get(entry.key)
        return node, How.NOTHING if node is None else How.ANY_VALUE

    def shared_text(self, entry: Entry) -> str | None:
        """What stands for all values that share this node's counter; None when each value has its own."""
        return self._pattern_text(entry) if self._is_shared else None

    def metric_text(self, entry: Entry) -> str:
        if self._is_shared:
            return self._pattern_text(entry)
        if self._shows_value:
            return _composite(*entry)
        return self._pattern_text(entry) if self._is_pattern else self.key

    def _pattern_text(self, entry: Entry) -> str:
        return f"{entry.key}_{self.key.removeprefix(entry.key + '_')}"


def _composite(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key
