"""The policy on a faster clock: every duration shorter and every rate higher by the time factor, nothing else changed.

Works on any policy, also on keys this module has never heard of: a duration is whatever is written like one.
"""

from __future__ import annotations

import re

import yaml

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_RATE_SUFFIX = "_per_minute"


def scaled_policy(text: str, time_factor: float) -> str:
    """The policy's text for a clock that runs `time_factor` simulated seconds a second."""
    return yaml.safe_dump(_scaled(yaml.safe_load(text), time_factor), sort_keys=False)


def _scaled(value: object, factor: float) -> object:
    match value:
        case dict():
            return {key: _entry(str(key), item, factor) for key, item in value.items()}
        case list():
            return [_scaled(item, factor) for item in value]
        case str() if found := _DURATION.fullmatch(value):
            seconds = float(found[1]) * _SECONDS[found[2]]
            return f"{seconds / factor * 1000:.3f}ms"
        case _:
            return value


def _entry(key: str, value: object, factor: float) -> object:
    if key.endswith(_RATE_SUFFIX) and isinstance(value, int):
        return round(value * factor)
    return _scaled(value, factor)
