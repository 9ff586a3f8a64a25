"""Where statistics are sent besides Prometheus, in the reference's settings; `statsd` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from headgate.errors import SettingsError
from ratelimit.environment import Environment


class StatsdProtocol(StrEnum):
    """How lines travel."""

    TCP = "tcp"
    UDP = "udp"


class TagStyle(StrEnum):
    """How tags are written: in the name (`name.__key=value`), or after the value as DogStatsD takes them."""

    IN_NAME = "in_name"
    DOG = "dog"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsdSettings:
    """One statsd, or none.

    Attributes:
        flush_seconds: between two reports.
        tags: added to every name.
    """

    host: str = "localhost"
    port: int = 8125
    protocol: StatsdProtocol = StatsdProtocol.TCP
    tag_style: TagStyle = TagStyle.IN_NAME
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    flush_seconds: float = 10.0


def read_statsd_settings(environment: Environment) -> StatsdSettings | None:
    """None unless it is asked for: by USE_STATSD, by USE_DOG_STATSD, or by the name of a host or a port.

    Raises:
        SettingsError: a value cannot be used.
    """
    is_dog = environment.flag("USE_DOG_STATSD")
    is_named = environment.has("STATSD_HOST", "STATSD_PORT")
    is_plain = environment.flag("USE_STATSD", default=is_named and not is_dog)
    if environment.has("USE_DOG_STATSD_MOGRIFIERS"):
        raise SettingsError("USE_DOG_STATSD_MOGRIFIERS: names cannot be rewritten here; leave it out")
    if is_dog and is_plain:
        raise SettingsError("USE_DOG_STATSD: there is one statsd; set USE_STATSD=false")
    if environment.flag("DISABLE_STATS") or not (is_dog or is_plain):
        return None
    flush_seconds = environment.seconds("STATS_FLUSH_INTERVAL", 10.0)
    if not flush_seconds:
        raise SettingsError("STATS_FLUSH_INTERVAL: has to be more than 0")
    return StatsdSettings(
        host=environment.text("STATSD_HOST", "localhost"),
        port=environment.count("STATSD_PORT", 8125),
        protocol=StatsdProtocol.UDP if is_dog else _protocol(environment),
        tag_style=TagStyle.DOG if is_dog else TagStyle.IN_NAME,
        tags=environment.pairs("EXTRA_TAGS"),
        flush_seconds=flush_seconds,
    )


def _protocol(environment: Environment) -> StatsdProtocol:
    name = environment.text("STATSD_PROTOCOL", StatsdProtocol.TCP).lower()
    if name not in tuple(StatsdProtocol):
        raise SettingsError(f"STATSD_PROTOCOL: has to be tcp or udp, not '{name}'")
    return StatsdProtocol(name)
