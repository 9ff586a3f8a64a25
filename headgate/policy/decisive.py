"""What the answer of some conditions depends on: every fact they ask for, no finer than they look at it.

A number that is only compared with constants matters by its place among them: to `prompt_tokens > 8000` a request of
100 tokens and one of 5,000 are the same. Read from the text of the conditions; what that does not show for certain
counts in full.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from operator import methodcaller
from typing import Any

Ask = Callable[[Any], Hashable]
"""Asks `RuleFacts` for one of them."""

_NUMBERS = ("saturation", "queue_depth")
_FUNCTION = re.compile(r"\b(?:saturation|queue_depth|header)\b")
_CALL = re.compile(r"""\b(saturation|queue_depth|header)\s*\(\s*(?:'([^'"\\\n]*)'|"([^'"\\\n]*)")\s*\)""")
_BEFORE = re.compile(r"(?:^|[(?:,]|&&|\|\|)\s*\Z")
_COMPARISON = re.compile(r"\s*(?:[<>]=?|[!=]=)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*(?:\Z|[)?:,]|&&|\|\|)")
_COMMENT = "//"


def decisive_facts(sources: Sequence[str], variables: Iterable[str], numbers: Collection[str]) -> list[Ask] | None:
    """How to ask for all that conditions of the same answers to these give the same answer to.

    Args:
        sources: the conditions.
        variables: those they mention; all of `numbers` are numbers.

    Returns:
        None when a function is asked for a name that the text does not show.
    """
    calls = {(match[1], match[2] or match[3] or "") for source in sources for match in _CALL.finditer(source)}
    if any(len(_FUNCTION.findall(source)) != len(_CALL.findall(source)) for source in sources):
        return None
    asks: list[Ask] = []
    for name in variables:
        ask = methodcaller("variable", name)
        asks.append(_as_fine_as_needed(ask, sources, re.compile(rf"\b{name}\b")) if name in numbers else ask)
    for function, name in sorted(calls):
        ask = methodcaller(function, name.lower() if function == "header" else name)
        call = re.compile(rf"""\b{function}\s*\(\s*(['"]){re.escape(name)}\1\s*\)""")
        asks.append(_as_fine_as_needed(ask, sources, call) if function in _NUMBERS else ask)
    return asks


def _as_fine_as_needed(ask: Ask, sources: Iterable[str], mention: re.Pattern[str]) -> Ask:
    bounds: set[float] = set()
    for source in sources:
        for compared_with in _comparisons(source, mention):
            if compared_with is None:
                return ask
            bounds.add(compared_with)
    ordered = sorted(bounds)

    def place(facts: Any) -> int:
        """Where the number lies: odd on one of the bounds, even between them."""
        value: Any = ask(facts)
        return bisect_left(ordered, value) + bisect_right(ordered, value)

    return place


def _comparisons(source: str, mention: re.Pattern[str]) -> Iterator[float | None]:
    """The constant each mention is compared with; None for one of which more than that matters, or may."""
    for match in mention.finditer(source):
        comparison = _COMPARISON.match(source, match.end())
        if comparison is None or _COMMENT in source or not _BEFORE.search(source[: match.start()]):
            yield None
        else:
            yield float(comparison[1]) if "." in comparison[1] else int(comparison[1])
