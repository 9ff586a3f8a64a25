"""Request headers as the decisions read them: lower-case names, one value each."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

DIFFERENT_EVERY_TIME = (
    "content-length",
    "idempotency-key",
    "x-correlation-id",
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-request-id",
    # Traces: W3C, Zipkin, Jaeger, Datadog, AWS, Google Cloud.
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "uber-trace-id",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
)
"""Heads that are the same but for these are alike."""
_MAX_DIGITS = 18
_new = object.__new__


class Headers:
    """Headers by lower-case name; a repeated header reads as its values joined by a comma (RFC 9110, 5.3)."""

    __slots__ = ("_changed", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = list(pairs)
        values = {name.lower(): value for name, value in pairs}
        self._values = values if len(values) == len(pairs) else _joined(pairs)
        self._changed: Mapping[str, str] = {}

    def get(self, name: str) -> str:
        """The value, or "" when the header is absent."""
        value = self._changed.get(name)
        return self._values.get(name, "") if value is None else value

    def but(self, values: Mapping[str, str]) -> Headers:
        """These headers with the values of some that are present changed; what stays the same is shared."""
        headers = _new(Headers)
        headers._values, headers._changed = self._values, values
        return headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter({**self._values, **self._changed}.items())

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def content_length(self) -> int | None:
        """The declared body size in bytes; None when absent or not a number."""
        value = self.get("content-length")
        return _whole_number(value) if len(value) <= _MAX_DIGITS else None


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


@functools.lru_cache(maxsize=4096)
def _whole_number(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() else None
