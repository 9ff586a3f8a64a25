"""Patterns with `*` in the order of a configuration file, found without trying them one by one.

Patterns are filed under their literal start and end, so a search costs one lookup per distinct pair of *lengths*
of start and end, not one test per pattern. Knows nothing of descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

Target = TypeVar("Target")


class _Pattern(NamedTuple, Generic[Target]):
    order: int
    middle: tuple[str, ...]
    target: Target

    def holds(self, text: str, start: int, end: int) -> bool:
        """Whether the literals between the outermost stars stand in `text[start:end]` in their order."""
        for literal in self.middle:
            found = text.find(literal, start, end)
            if found < 0:
                return False
            start = found + len(literal)
        return True


class WildcardIndex(Generic[Target]):
    """The wildcard patterns of one level; every `*` stands for zero or more characters."""

    def __init__(self, patterns: Iterable[tuple[str, Target]]) -> None:
        """Take (pattern, target) pairs; each pattern holds at least one `*`."""
        self._by_lengths: dict[tuple[int, int], dict[tuple[str, str], list[_Pattern[Target]]]] = {}
        for order, (pattern, target) in enumerate(patterns):
            start, *middle, end = pattern.split("*")
            filed = self._by_lengths.setdefault((len(start), len(end)), {})
            literals = tuple(literal for literal in middle if literal)
            filed.setdefault((start, end), []).append(_Pattern(order, literals, target))

    def first(self, text: str) -> Target | None:
        """The target of the first pattern, in file order, that the whole text matches."""
        best: _Pattern[Target] | None = None
        for (start, end), filed in self._by_lengths.items():
            stop = len(text) - end
            if start > stop:
                continue
            for pattern in filed.get((text[:start], text[stop:]), ()):
                if best is not None and best.order < pattern.order:
                    break
                if pattern.holds(text, start, stop):
                    best = pattern
                    break
        return best.target if best is not None else None
