"""The table of settings in the documentation holds every variable of the reference, and says what is true."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headgate.errors import SettingsError
from ratelimit.settings import RatelimitSettings, read_ratelimit_settings

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "ratelimit.md"
REFERENCE = Path(__file__).with_name("reference_variables.txt").read_text().split()
OWN_PREFIX = "HEADGATE_"
# What has to be set besides, for a setting to be read at all.
CONTEXT: Mapping[str, Mapping[str, str]] = {
    "GRPC_SERVER_TLS": {"GRPC_SERVER_USE_TLS": "1", "GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k"},
    "GRPC_CLIENT_TLS": {"GRPC_SERVER_USE_TLS": "1", "GRPC_SERVER_TLS_CERT": "c", "GRPC_SERVER_TLS_KEY": "k"},
    "CONFIG_GRPC_XDS_": {"CONFIG_TYPE": "GRPC_XDS_SOTW"},
    "CONFIG_GRPC_XDS_SERVER_TLS": {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_USE_TLS": "1"},
    "CONFIG_GRPC_XDS_CLIENT_TLS": {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_USE_TLS": "1"},
    "XDS_CLIENT_": {"CONFIG_TYPE": "GRPC_XDS_SOTW"},
    "EXTRA_TAGS": {"USE_STATSD": "1"},
    "STATS": {"USE_STATSD": "1"},
    "DISABLE_STATS": {"USE_STATSD": "1"},
    "TRACING_": {"TRACING_ENABLED": "1"},
    "TRACING_ENABLED": {},
    "RUNTIME_": {"RUNTIME_ROOT": "/r"},
    "REDIS_PERSECOND_": {"REDIS_PERSECOND": "1"},
}
VALUES: Mapping[str, str] = {
    "GRPC_SERVER_USE_TLS": "1",
    "LOG_LEVEL": "debug",
    "LOG_FORMAT": "text",
    "CONFIG_TYPE": "GRPC_XDS_SOTW",
    "CONFIG_GRPC_XDS_NODE_METADATA": "a=b",
    "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "a:b",
    "XDS_CLIENT_BACKOFF_JITTER": "false",
    "STATSD_PROTOCOL": "udp",
    "EXTRA_TAGS": "a:b",
    "PROMETHEUS_ADDR": ":9191",
    "PROMETHEUS_PATH": "/m",
    "RUNTIME_IGNOREDOTFILES": "false",
    "RUNTIME_WATCH_ROOT": "false",
    "BACKEND_TYPE": "redis",
    "REDIS_TYPE": "CLUSTER",
    "REDIS_PERSECOND_TYPE": "CLUSTER",
    "REDIS_URL": "r:1",
    "REDIS_PERSECOND_URL": "r:1",
    "TRACING_EXPORTER_PROTOCOL": "grpc",
    "HEADGATE_RATELIMIT_ON_REDIS_FAILURE": "open",
}


def rows() -> Iterator[tuple[str, str]]:
    """Pairs of a variable and what the table says of it."""
    text = DOCUMENTATION.read_text().partition("\n## Settings\n")[2]
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                yield name, cells[2]


TABLE = list(rows())


def read(name: str, value: str | None) -> RatelimitSettings:
    prefix = max((known for known in CONTEXT if name.startswith(known)), key=len, default=None)
    variables = dict(CONTEXT[prefix]) if prefix is not None else {}
    if value is not None:
        variables[name] = value
    return read_ratelimit_settings(variables)


def candidates(name: str) -> list[str]:
    """Values of which a setting of any type takes at least one."""
    return [VALUES[name]] if name in VALUES else ["7s", "7", "true", "0.25", "x"]


def effects(name: str) -> list[bool]:
    """For each value that can be read, whether it makes a difference."""
    found: list[bool] = []
    for value in candidates(name):
        try:
            found.append(read(name, value) != read(name, None))
        except SettingsError:
            continue  # of another type
    return found


def test_every_variable_of_the_reference_is_in_the_table_once() -> None:
    names = [name for name, _ in TABLE if not name.startswith(OWN_PREFIX)]

    assert sorted(names) == sorted(REFERENCE)


@pytest.mark.parametrize(("name", "status"), TABLE, ids=[name for name, _ in TABLE])
def test_a_setting_does_what_the_table_says(name: str, status: str) -> None:
    match status:
        case "works" | "differs":
            if name == "GRPC_SERVER_USE_TLS":
                with pytest.raises(SettingsError, match="GRPC_SERVER_TLS_CERT"):
                    read(name, "1")
            else:
                assert any(effects(name))
        case "refused":
            with pytest.raises(SettingsError, match=name):
                read(name, "x")
        case "no effect":
            assert effects(name) == [False] * len(candidates(name))
        case _:
            pytest.fail(f"the table says '{status}'")


def test_a_variable_that_is_read_is_in_the_table() -> None:
    code = "".join(path.read_text() for path in sorted(Path("ratelimit").glob("*settings.py")))
    names = set(re.findall(r'"((?:[A-Z]+_)+[A-Z]+)"', code)) - {"GRPC_XDS_SOTW"}
    known = {name for name, _ in TABLE}

    assert names - known == set()
